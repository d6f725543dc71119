/** Verbs of the dashboard: what changed last, what happened when, and how Redis stands. All bounded, nothing scans. */
import { headline } from "../answer.ts";
import type { JobError } from "../faults.ts";
import { isTerminal, type ServiceName, type State } from "../jobs.ts";
import { root } from "../keys.ts";
import { type Connection, script } from "../script.ts";
import { ANSWER_MS } from "./produce.ts";
import { asFault, info, together, within } from "./redis.ts";

const newestScript = script<{ most: "int" }, string[]>("newest", { most: "int" });
const historyScript = script<{ kind: "text"; first: "int"; last: "int" }, (string | string[])[]>("history", {
  kind: "text",
  first: "int",
  last: "int",
});

/** A job as a line of a table; `text` is its error or the beginning of its result. Times in ms since 1970. */
export type JobLine = {
  id: string;
  service: string;
  state: State;
  operation: string;
  created: number;
  started: number | undefined;
  ended: number | undefined;
  attempt: number;
  progress: number | undefined;
  text: string;
};

/** How Redis keeps what it holds. */
export type Persistence = {
  version: string;
  appendOnly: boolean;
  /** the last write of the append-only file, and the last snapshot, went well */
  writesWell: boolean;
  savesWell: boolean;
  /** ms since 1970 of the last snapshot; undefined = none */
  savedAt: number | undefined;
};

export class Viewer {
  constructor(private readonly redis: Connection) {}

  /** Sends in one write what `work` asks for before it first waits. */
  together<T>(work: () => T): T {
    return together(this.redis, work);
  }

  /** The jobs of a service that changed last, at most `most` of each state. */
  async newest(service: ServiceName, most: number): Promise<JobLine[]> {
    const flat = await this.ask(() => newestScript(this.redis, root(service), { most }));
    const number = (text: string | undefined) => (text ? Number(text) : undefined);
    const lines: JobLine[] = [];
    for (let i = 0; i < flat.length; i += 9) {
      const [id, state, operation, created, started, ended, attempt, progress, text] = flat.slice(i, i + 9);
      lines.push({
        id: id as string,
        service,
        state: state as State,
        operation: operation as string,
        created: Number(created),
        started: number(started),
        ended: isTerminal(state as State) ? number(ended) : undefined,
        attempt: Number(attempt),
        progress: number(progress),
        text: state === "failed" || state === "canceled" ? messageOf(text ?? "") : (text ?? ""),
      });
    }
    return lines;
  }

  /** Counters of the slices `first` to `last`, at most 60 of them; only those in which something happened. */
  async history(service: ServiceName, kind: "m" | "h", first: number, last: number): Promise<[number, string[]][]> {
    const flat = await this.ask(() => historyScript(this.redis, root(service), { kind, first, last }));
    const found: [number, string[]][] = [];
    for (let i = 0; i < flat.length; i += 2) found.push([Number(flat[i]), flat[i + 1] as string[]]);
    return found;
  }

  /** @returns undefined where INFO is barred */
  async persistence(): Promise<Persistence | undefined> {
    const [server, kept] = await this.ask(() =>
      Promise.all([info(this.redis, "server"), info(this.redis, "persistence")]),
    );
    if (!kept) return undefined;
    return {
      version: server?.get("valkey_version") ?? server?.get("redis_version") ?? "",
      appendOnly: kept.get("aof_enabled") === "1",
      writesWell: (kept.get("aof_last_write_status") ?? "ok") === "ok",
      savesWell: (kept.get("rdb_last_bgsave_status") ?? "ok") === "ok",
      savedAt: Number(kept.get("rdb_last_save_time")) * 1_000 || undefined,
    };
  }

  private async ask<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await within(ANSWER_MS, work());
    } catch (error) {
      throw asFault(error);
    }
  }
}

function messageOf(text: string): string {
  try {
    return headline((JSON.parse(text) as JobError).message);
  } catch {
    return "";
  }
}

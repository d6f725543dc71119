/** Verbs of those who operate: pause, resume and empty a queue, act on many jobs, order a worker, and what they did. */
import type { JobId, ServiceName } from "../jobs.ts";
import { GLOBAL, keysOf, root } from "../keys.ts";
import { auditLog } from "../log.ts";
import { type Connection, script } from "../script.ts";
import { ANSWER_MS } from "./produce.ts";
import { asFault, within } from "./redis.ts";
import { RedisTime } from "./time.ts";

const pauseScript = script<Record<never, never>, number>("pause", {});
const resumeScript = script<Record<never, never>, number>("resume", {});
const emptyScript = script<{ nonce: "text" }, number>("empty", { nonce: "text" });
const purgeScript = script<{ ttl: "int" }, [looked: number, canceled: number]>("purge", { ttl: "int" });
const bulkStartScript = script<
  {
    bulk: "text";
    action: "text";
    state: "text";
    tag: "text";
    older: "int";
    newer: "int";
    dry: "int";
    most: "int";
    about: "text";
  },
  "ok" | "busy"
>(
  "bulk-start",
  {
    bulk: "text",
    action: "text",
    state: "text",
    tag: "text",
    older: "int",
    newer: "int",
    dry: "int",
    most: "int",
    about: "text",
  },
  ["id"],
);
const bulkStepScript = script<{ ttl: "int"; life: "int" }, [looked: number, more: number]>("bulk-step", {
  ttl: "int",
  life: "int",
});

export const ACTIONS = ["cancel", "requeue", "delete"] as const;
export type Action = (typeof ACTIONS)[number];
/** Actions on many jobs that one service may have in hand. */
export const MOST_BULKS = 100;
/** Ids that one action may name. */
export const MOST_IDS = 10_000;
const BULK_LIFE_MS = 7 * 86_400_000;
const MOST_AUDIT = 1_000;

export type BulkWish = {
  id: string;
  action: Action;
  /** undefined = any, with ids only */
  state?: string | undefined;
  tag?: string | undefined;
  /** ms since the end, or since the submit of a job that has not ended */
  olderMs: number;
  /** likewise, at most; 0 = any */
  newerMs?: number;
  dry: boolean;
  ids: JobId[];
  /** what was asked for, shown to whoever asks how it goes */
  about: Record<string, unknown>;
};

/** One service's share of an action on many jobs. Times in ms since 1970. */
export type BulkPart = {
  about: Record<string, unknown>;
  total: number;
  looked: number;
  matched: number;
  done: number;
  created: number;
  ended: number | undefined;
};

/** An action on many jobs over all its services. */
export type BulkSummary = BulkPart;

/** An audit entry with what its bulk action has come to. */
function numbered(entry: AuditEntry, bulk: BulkSummary | undefined): AuditEntry {
  if (!bulk) return { ...entry, status: "expired" }; // its record is gone, and with it the numbers
  const { matched, done, ended } = bulk;
  const over =
    ended === undefined ? { status: "running" } : { status: "done", ended_at: new Date(ended).toISOString() };
  return { ...entry, jobs: done, matched, ...over };
}

/** What an operator did. `who` is the key's name, else a short hash of it. */
export type AuditEntry = {
  at: string;
  who: string;
  ip: string;
  action: string;
  target: string;
  jobs?: number;
} & Record<string, unknown>;

export type Order = "quiet" | "stop";

export class Operator {
  constructor(
    private readonly redis: Connection,
    private readonly failureTtlMs: number,
    private readonly time = new RedisTime(),
  ) {}

  /** @returns jobs that wait on the shelf now */
  pause(service: ServiceName): Promise<number> {
    return this.ask(() => pauseScript(this.redis, root(service), {}));
  }
  /** @returns jobs that may be taken now */
  resume(service: ServiceName): Promise<number> {
    return this.ask(() => resumeScript(this.redis, root(service), {}));
  }
  /** Takes what waits away; purge cancels it. @param nonce names the wish. @returns jobs that will be canceled */
  empty(service: ServiceName, nonce: string): Promise<number> {
    return this.ask(() => emptyScript(this.redis, root(service), { nonce }));
  }

  /** Writes an action on many jobs down. @returns false when too many are in hand */
  async startBulk(service: ServiceName, wish: BulkWish): Promise<boolean> {
    const { id, action, state, tag, olderMs, newerMs = 0, dry, about, ids } = wish;
    const reply = await this.ask(() =>
      bulkStartScript(
        this.redis,
        root(service),
        {
          bulk: id,
          action,
          state: state ?? "",
          tag: tag ?? "",
          older: olderMs,
          newer: newerMs,
          dry: dry ? 1 : 0,
          most: MOST_BULKS,
          about: JSON.stringify(about),
        },
        ids,
      ),
    );
    return reply === "ok";
  }

  /** How far it is on one service. @returns undefined when the service has no part of it */
  async bulk(service: ServiceName, id: string): Promise<BulkPart | undefined> {
    const f = await this.ask(() => this.redis.hgetall(keysOf(service).bulk(id)));
    if (!f.created) return undefined;
    return {
      about: JSON.parse(f.about ?? "{}"),
      total: Math.max(Number(f.total), Number(f.looked)), // an estimate
      looked: Number(f.looked),
      matched: Number(f.matched),
      done: Number(f.done),
      created: Number(f.created),
      ended: f.ended === undefined ? undefined : Number(f.ended),
    };
  }

  /** The same over several services. @returns undefined when none has a part of it */
  async bulkOver(services: ServiceName[], id: string): Promise<BulkSummary | undefined> {
    const parts = (await Promise.all(services.map((service) => this.bulk(service, id)))).filter(
      (part): part is BulkPart => part !== undefined,
    );
    const [first] = parts;
    if (!first) return undefined;
    const sum = (field: "total" | "looked" | "matched" | "done") => parts.reduce((n, part) => n + part[field], 0);
    const ended = parts.every((part) => part.ended !== undefined)
      ? Math.max(...parts.map((part) => part.ended ?? 0))
      : undefined;
    const { about, created } = first;
    return {
      about,
      created,
      ended,
      total: sum("total"),
      looked: sum("looked"),
      matched: sum("matched"),
      done: sum("done"),
    };
  }

  /** Cancels at most 500 jobs of what empties took. @returns looked at, canceled; 0, 0 when nothing is left */
  purge(service: ServiceName) {
    return this.ask(() => purgeScript(this.redis, root(service), { ttl: this.failureTtlMs }));
  }
  /** Does at most 500 jobs of the oldest bulk action. @returns looked at, and 1 when another step is to be done */
  stepBulk(service: ServiceName) {
    return this.ask(() => bulkStepScript(this.redis, root(service), { ttl: this.failureTtlMs, life: BULK_LIFE_MS }));
  }

  /**
   * Carries out what operators asked for, step by step, until nothing is left or `budgetMs` is over.
   * Any process may, several at once, and one that dies in between leaves nothing half done.
   */
  async carryOut(service: ServiceName, budgetMs: number): Promise<void> {
    const end = performance.now() + budgetMs;
    for (let looked = 1; looked > 0 && performance.now() < end; ) [looked] = await this.purge(service);
    for (let more = 1; more > 0 && performance.now() < end; ) [, more] = await this.stepBulk(service);
  }

  /** Tells a worker what to do: it reads its order with each beat; the message is a hint that saves the wait. */
  async order(worker: string, order: Order): Promise<void> {
    await this.ask(() => this.redis.hset(GLOBAL.orders, worker, order));
    await this.ask(() => this.redis.publish(GLOBAL.ordered, `${worker} ${order}`)).catch(() => {});
  }

  /** Writes down what an operator did: a line in the log, and the newest thousand in Redis. */
  async note(entry: Omit<AuditEntry, "at">): Promise<void> {
    const line = JSON.stringify({ at: new Date(this.time.now()).toISOString(), ...entry });
    auditLog.info("audit", entry);
    // the deed is done: that it could not be kept here must not make it look undone
    await this.ask(() =>
      this.redis
        .multi()
        .lpush(GLOBAL.audit, line)
        .ltrim(GLOBAL.audit, 0, MOST_AUDIT - 1)
        .exec(),
    ).catch(() => {});
    const { id, status } = entry as { id?: string; status?: string };
    if (id && status === "running") await this.ask(() => this.redis.hset(GLOBAL.auditOpen, id, line)).catch(() => {});
  }

  /**
   * Gives the entries of bulk actions that have ended their end and their numbers. Any process may, two at once too: each entry is
   * replaced where it still is as it was.
   */
  async closeAudit(services: ServiceName[]): Promise<void> {
    const open = await this.ask(() => this.redis.hgetall(GLOBAL.auditOpen));
    for (const [id, line] of Object.entries(open)) {
      const entry = numbered(JSON.parse(line) as AuditEntry, await this.bulkOver(services, id));
      if (entry.status === "running") continue;
      const replies = await this.ask(() =>
        this.redis
          .multi()
          .linsert(GLOBAL.audit, "BEFORE", line, JSON.stringify(entry))
          .lrem(GLOBAL.audit, 1, line)
          .exec(),
      );
      await this.ask(() => this.redis.hdel(GLOBAL.auditOpen, id));
      if (Number(replies?.[0]?.[1]) > 0) auditLog.info("audit", entry);
    }
  }

  /** The newest entries; of a bulk action that goes on with its numbers of this moment. */
  async audit(services: ServiceName[], most: number): Promise<AuditEntry[]> {
    await this.closeAudit(services);
    const lines = await this.ask(() => this.redis.lrange(GLOBAL.audit, 0, most - 1));
    return Promise.all(
      lines.map(async (line) => {
        const entry = JSON.parse(line) as AuditEntry;
        return entry.status === "running" ? numbered(entry, await this.bulkOver(services, String(entry.id))) : entry;
      }),
    );
  }

  private async ask<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await within(ANSWER_MS, work());
    } catch (error) {
      throw asFault(error);
    }
  }
}

/** Verbs of those who do the work: take, settle, beat. */
import { Buffer } from "node:buffer";
import { FIELD, type JobId, parseHead, random62, type ServiceName, type WorkerId } from "../jobs.ts";
import { keysOf, root } from "../keys.ts";
import { type Connection, runsOf, type ScriptValue, script, wordsOf } from "../script.ts";
import { BLOCK_MS, together, within } from "./redis.ts";

/** Redeliveries that a run may have (I5). */
export const POISON = 3;

const turnScript = script<
  { worker: "text"; slots: "int"; concurrency: "int"; nonce: "text"; limits: "text"; poison: "int" },
  [odd: (number | string)[], jobs: string[], more: number, started: number]
>("turn", { worker: "text", slots: "int", concurrency: "int", nonce: "text", limits: "text", poison: "int" }, [
  "how",
  "id",
  "note",
  "body",
]);
const beatScript = script<{ worker: "text" }, [now: number, ...cancels: string[]]>("beat", { worker: "text" });

const extendScript = script<{ id: "text"; token: "text"; ms: "int" }, "ok" | "lost" | "gone">("extend", {
  id: "text",
  token: "text",
  ms: "int",
});

const callOnceScript = script<{ id: "text"; token: "text" }, "ok" | "called" | "lost" | "gone">("call-once", {
  id: "text",
  token: "text",
});

/** A job in a worker's hands. Times in ms since 1970. */
export type Taken = {
  id: JobId;
  token: string;
  operation: string;
  attempt: number;
  run: number;
  redeliveries: number;
  started: number;
  deadline: number;
  created: number;
  payload: string;
  options: string;
};

/** How an attempt ended; what each kind does is told in lua/turn.lua. Times in ms. */
export type Settle = {
  id: JobId;
  token: string;
  /** as the job was taken, if it is known: then a common job takes Redis less time to settle */
  started?: number;
  operation?: string;
  kind: "finish" | "fail" | "retry" | "redeliver" | "return";
  ttlMs: number;
  delayMs?: number;
  entry?: string;
  error?: string;
  /** of a `fail`: the bytes of an unreadable 2xx, kept with the job; then `type` is set */
  result?: string | Uint8Array;
  type?: string;
  sizeBytes?: number;
  timing?: string;
};

/** ioredis sends a Buffer as bytes, but a plain Uint8Array as the text "103,108,…". */
const bytesOf = (result: string | Uint8Array = ""): string | Uint8Array =>
  typeof result === "string" ? result : Buffer.from(result.buffer, result.byteOffset, result.byteLength);

/** What settles of one kind and token share, and what each has of its own: see lua/turn.lua. */
function howOf({ token, kind, ttlMs, started = 0, operation = "-", delayMs = 0, sizeBytes, type }: Settle): string {
  const stored = type || sizeBytes !== undefined ? `${sizeBytes ?? ""} ${type ?? ""}` : "";
  const extra = kind === "finish" ? stored : kind === "fail" && stored ? `k${stored}` : Math.round(delayMs);
  return `${token} ${kind} ${ttlMs} ${started} ${operation} ${extra}`;
}
function addSettle(values: ScriptValue[], { id, kind, timing = "", result, entry = "", error = "" }: Settle): void {
  if (kind === "finish") values.push(id, timing, bytesOf(result));
  else if (kind === "fail" && result !== undefined) {
    values.push(id, entry, Buffer.concat([Buffer.from(`${error}\n`), Buffer.from(bytesOf(result) as Uint8Array)]));
  } else values.push(id, entry, error);
}

/** "canceled", "failed": settled, but as that and not as the settle asked. */
export type Verdict = "ok" | "canceled" | "failed" | "lost" | "gone";
export const MORE = { empty: 0, jobs: 1, concurrency: 2, paused: 3 } as const;

/** What a turn did: a verdict a settle, the jobs that it started, whether there are more (MORE). */
export type Turned = { verdicts: Verdict[]; jobs: Taken[]; more: number };

/** What a lane asks for in one turn. `limits`: "op=ms op=ms", the operations that it knows; it is given no other. */
export type Ask = { slots: number; concurrency: number; limits: string };

export class Consumer {
  constructor(
    readonly redis: Connection,
    readonly worker: WorkerId,
  ) {}

  /** Settles and takes in one round trip; may be sent again after a lost reply. */
  async turn(service: ServiceName, settles: Settle[], ask: Ask, nonce = random62(8), redis = this.redis) {
    const [odd, texts, more, started] = await turnScript(
      redis,
      root(service),
      { ...ask, worker: this.worker, nonce, poison: POISON },
      runsOf(settles, howOf, addSettle),
    );
    const verdicts = wordsOf<Verdict>(settles.length, odd);
    const jobs: Taken[] = [];
    let told!: Omit<Taken, "id" | "payload">;
    for (let i = 0; i < texts.length; i += 2) {
      const text = texts[i] as string;
      if (text.startsWith(" ")) {
        const [first = "", options = ""] = text.split("\n", 2);
        const [, created, operation = "", ...rest] = first.split(" ");
        const [attempt = 0, run = 0, redeliveries = 0, deadline = 0] = rest.map(Number);
        const token = `${attempt}.${this.worker}.${nonce}`;
        told = { token, operation, attempt, run, redeliveries, started, deadline, created: Number(created), options };
        i++;
      }
      jobs.push({ ...told, id: texts[i] as JobId, payload: texts[i + 1] as string });
    }
    return { verdicts, jobs, more } satisfies Turned;
  }

  /**
   * Waits until the service has a job and moves it to this worker's wake list; the next turn starts it: the one that
   * was sent right behind it, if `ask` is given, or the lane's.
   * @param blocking  a connection of its own: nothing else may wait behind a blocked command
   * @param nonce     of the tokens that the turn gives
   * @returns what the turn brought; undefined = no turn was sent
   * @see https://redis.io/docs/latest/commands/blmove/ (its timeout is in seconds)
   */
  async block(blocking: Connection, service: ServiceName, ask?: Ask, nonce?: string): Promise<Turned | undefined> {
    const keys = keysOf(service);
    // One connection, so in this order: what BLMOVE moves always lies with a worker that has a lease, or no reaper
    // would ever look for it.
    const sent = together(blocking, () => {
      const leased = beatScript(blocking, root(service), { worker: this.worker });
      const moved = blocking.blmove(keys.ready, keys.wake(this.worker), "RIGHT", "LEFT", String(BLOCK_MS / 1_000));
      return [ask && this.turn(service, [], ask, nonce, blocking), moved, leased] as const;
    });
    const late = (error: unknown) => {
      blocking.disconnect(true); // silent for too long: half open
      throw error;
    };
    // All of them: nothing of ours stays on the connection, and what the turn started counts, whatever became of the rest.
    const [turned, moved, leased] = await within(3 * BLOCK_MS, Promise.allSettled(sent)).catch(late);
    const failed = [turned, moved, leased].find((one) => one.status === "rejected");
    const brought = turned.status === "fulfilled" ? turned.value : undefined;
    if (failed && !brought?.jobs.length) throw failed.reason;
    return brought;
  }

  /** Renews the lease. @returns ids whose cancel was asked for */
  async beat(service: ServiceName): Promise<JobId[]> {
    const [, ...cancels] = await beatScript(this.redis, root(service), { worker: this.worker });
    return cancels as JobId[];
  }

  /** Notes that a job that may be called once is called now. @returns see lua/call-once.lua */
  callOnce(service: ServiceName, id: JobId, token: string) {
    return callOnceScript(this.redis, root(service), { id, token });
  }

  /** Moves a running attempt's deadline to `ms` from now, unless it lies behind that already. @returns see lua/extend.lua */
  extend(service: ServiceName, id: JobId, token: string, ms: number) {
    return extendScript(this.redis, root(service), { id, token, ms });
  }

  /** What Redis says this worker holds: started ids, and how many wait to be started; and the operations that have jobs aside. */
  async holding(service: ServiceName): Promise<{ held: Set<JobId>; waking: number; aside: string[] }> {
    const keys = keysOf(service);
    const [ids, waking, aside] = await Promise.all([
      this.redis.smembers(keys.held(this.worker)),
      this.redis.llen(keys.wake(this.worker)),
      this.redis.smembers(keys.asides),
    ]);
    return { held: new Set(ids as JobId[]), waking, aside };
  }

  /** The token and state that the record has now. */
  async token(service: ServiceName, id: JobId): Promise<{ token: string; state: string }> {
    const head = parseHead(await this.redis.hget(keysOf(service).job(id), FIELD.head));
    return { token: head?.start?.token ?? "", state: head?.state ?? "" };
  }
}

/** Effects of ended jobs for elsewhere: leased, delivered at least once, idempotent at the receiver. */
import { type JobId, type ServiceName, serviceOf } from "../jobs.ts";
import { keysOf, root } from "../keys.ts";
import { type Connection, script } from "../script.ts";

export const leaseScript = script<{ lease: "int"; most: "int" }, (string | number)[]>("outbox-lease", {
  lease: "int",
  most: "int",
});
const settleScript = script<{ entry: "text"; due: "int"; delay: "int" }, "ok" | "lost">("outbox-settle", {
  entry: "text",
  due: "int",
  delay: "int",
});

const triedScript = script<{ id: "text"; due: "int"; delay: "int"; line: "text" }, "ok" | "lost" | "gone">(
  "callback-settle",
  { id: "text", due: "int", delay: "int", line: "text" },
);

/** One try of a callback. Times in ms. */
export type Tried = {
  at: number;
  /** of the end that it tells */
  rev: number;
  /** 1 = the first */
  try: number;
  ok: boolean;
  ms: number;
  status?: number;
  error?: string;
  gaveUp?: boolean;
};

/** `due` is the fence: only who shows it may change the entry. */
export type Effect = { entry: string; due: number };

export class Outbox {
  constructor(private readonly redis: Connection) {}

  /** Takes what is due; nobody else gets it for `leaseMs`. */
  async lease(service: ServiceName, leaseMs: number, most: number): Promise<Effect[]> {
    const flat = await leaseScript(this.redis, root(service), { lease: leaseMs, most });
    const effects: Effect[] = [];
    for (let i = 0; i < flat.length; i += 2) effects.push({ entry: String(flat[i]), due: Number(flat[i + 1]) });
    return effects;
  }

  done(service: ServiceName, { entry, due }: Effect) {
    return settleScript(this.redis, root(service), { entry, due, delay: -1 });
  }

  again(service: ServiceName, { entry, due }: Effect, delayMs: number) {
    return settleScript(this.redis, root(service), { entry, due, delay: Math.round(delayMs) });
  }

  /** Logs a try of a callback. @param delayMs until the next one; -1 = there is none. @returns see lua/callback-settle.lua */
  tried(id: JobId, { due }: Effect, delayMs: number, line: Tried) {
    return triedScript(this.redis, root(serviceOf(id)), {
      id,
      due,
      delay: Math.round(delayMs),
      line: JSON.stringify(line),
    });
  }

  /** The last tries of a job's callbacks, the newest first; at most 20. */
  async deliveries(id: JobId): Promise<Tried[]> {
    const lines = await this.redis.lrange(keysOf(serviceOf(id)).deliveries(id), "0", "-1");
    return lines.map((line) => JSON.parse(line) as Tried);
  }

  /** When a callback of the job is tried next, ms since 1970; undefined = none is waiting. */
  async nextTry(id: JobId): Promise<number | undefined> {
    const due = await this.redis.zscore(keysOf(serviceOf(id)).outbox, `c ${id}`);
    return due === null ? undefined : Number(due);
  }
}

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

/** One try of a callback. Times in ms, by Redis. */
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

/** `due` is the fence: only who shows it may change the entry. `now`: the time by Redis, ms since 1970, from the lease on. */
export type Effect = { entry: string; due: number; now(): number };

/** What the lease script gave: each entry is due again a lease after the moment at which it was taken, which tells what time it was. */
export function leasedOf(flat: (string | number)[], leaseMs: number): Effect[] {
  const heardAt = performance.now();
  return Array.from({ length: flat.length / 2 }, (_, i) => {
    const due = Number(flat[2 * i + 1]);
    return {
      entry: String(flat[2 * i]),
      due,
      now: () => Math.round(due - leaseMs + performance.now() - heardAt),
    };
  });
}

export class Outbox {
  constructor(private readonly redis: Connection) {}

  /** Takes what is due; nobody else gets it for `leaseMs`. */
  async lease(service: ServiceName, leaseMs: number, most: number): Promise<Effect[]> {
    return leasedOf(await leaseScript(this.redis, root(service), { lease: leaseMs, most }), leaseMs);
  }

  done(service: ServiceName, { entry, due }: Pick<Effect, "entry" | "due">) {
    return settleScript(this.redis, root(service), { entry, due, delay: -1 });
  }

  again(service: ServiceName, { entry, due }: Pick<Effect, "entry" | "due">, delayMs: number) {
    return settleScript(this.redis, root(service), { entry, due, delay: Math.round(delayMs) });
  }

  /** Logs a try of a callback. @param delayMs until the next one; -1 = there is none. @returns see lua/callback-settle.lua */
  tried(id: JobId, { due }: Pick<Effect, "due">, delayMs: number, line: Tried) {
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

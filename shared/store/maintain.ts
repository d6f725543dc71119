/** Verbs of the clocks: queue what is due, take back what dead workers hold, sweep what has expired. */
import type { JobId, ServiceName, WorkerId } from "../jobs.ts";
import { GLOBAL, keysOf, root } from "../keys.ts";
import { type Connection, script } from "../script.ts";
import { POISON } from "./consume.ts";
import { announced, isRecent } from "./presence.ts";
import { BLOCK_MS } from "./redis.ts";

/**
 * ms past its deadline before a living worker's job is overruled (rule 7): longer than the worker needs, after its
 * connection broke, to hand back what it never heard of or to settle what it has done.
 */
export const overrunMs = (leaseMs: number) => Math.max(2 * leaseMs, 30_000);

const reapScript = script<
  {
    worker: "text";
    lease: "int";
    block: "int";
    grace: "int";
    poison: "int";
    ttl: "int";
    once: "text";
    seen: "int";
  },
  [back: number, failed: number, left: number, ended: string[]]
>("reap", {
  worker: "text",
  lease: "int",
  block: "int",
  grace: "int",
  poison: "int",
  ttl: "int",
  once: "text",
  seen: "int",
});
const leasesScript = script<Record<never, never>, [now: number, ...workers: string[]]>("leases", {});
const promoteScript = script<Record<never, never>, [promoted: number, nextMs: number]>("promote", {});
const sweepScript = script<
  { state: "text"; offset: "int" },
  [looked: number, jobs: number, gone: string[], entries: string[]]
>("sweep", { state: "text", offset: "int" });
const sweepDropScript = script<{ state: "text" }, [struck: number, went: number]>("sweep-drop", { state: "text" }, [
  "entry",
]);
const sweepGhostsScript = script<{ list: "text"; offset: "int" }, [seen: number, dropped: number]>("sweep-ghosts", {
  list: "text",
  offset: "int",
});

/** Each verb is one bounded step, safe when two processes run it at once. */
export class Maintainer {
  constructor(readonly redis: Connection) {}

  async services(): Promise<ServiceName[]> {
    return (await this.redis.smembers(GLOBAL.services)) as ServiceName[];
  }
  /** Workers that have a lease on the service, alive or not; and the time by Redis. */
  async leased(service: ServiceName): Promise<{ now: number; workers: WorkerId[] }> {
    const [now, ...workers] = await leasesScript(this.redis, root(service), {});
    return { now, workers: workers as WorkerId[] };
  }

  /**
   * One step of the reaper.
   * @param rules  once: operations that may not run twice · seen: when leased() was asked, by Redis
   * @returns see lua/reap.lua
   */
  reap(
    service: ServiceName,
    worker: WorkerId,
    rules: { leaseMs: number; ttlMs: number; once: string[]; seen: number },
  ) {
    return reapScript(this.redis, root(service), {
      worker,
      lease: rules.leaseMs,
      block: BLOCK_MS,
      grace: overrunMs(rules.leaseMs),
      poison: POISON,
      ttl: rules.ttlMs,
      once: ` ${rules.once.join(" ")} `,
      seen: rules.seen,
    });
  }

  /** Queues what is due. @returns how many, and ms until the next one (-1 = none) */
  promote(service: ServiceName) {
    return promoteScript(this.redis, root(service), {});
  }

  /**
   * Expired ids in a slice of an ended index, and the entries that hold them.
   * @param offset  entries before the slice
   * @returns beside them how many entries and jobs it has looked at: 500 jobs or more, if there are so many
   */
  async expired(service: ServiceName, state: string, offset: number) {
    const [looked, jobs, gone, entries] = await sweepScript(this.redis, root(service), { state, offset });
    return { looked, jobs, gone: gone as JobId[], entries };
  }
  /** Which of the ids, whatever they are made of, have a record. */
  async known(service: ServiceName, ids: string[]): Promise<Set<string>> {
    const { job } = keysOf(service);
    const found = await Promise.all(ids.map((id) => this.redis.exists(job(id as JobId))));
    return new Set(ids.filter((_, i) => found[i] === 1));
  }
  /** Strikes what has expired from entries of an ended index. @returns how many jobs, and of how many entries nothing is left */
  async strike(service: ServiceName, state: string, entries: string[]) {
    const [struck, went] = await sweepDropScript(this.redis, root(service), { state }, entries);
    return { struck, went };
  }
  /** Lets go of canceled jobs that are still listed. */
  async sweepGhosts(service: ServiceName, list: "ready" | "shelf", offset: number) {
    const [seen, dropped] = await sweepGhostsScript(this.redis, root(service), { list, offset });
    return { seen, dropped };
  }
  async ghosts(service: ServiceName): Promise<number> {
    return Number((await this.redis.hget(keysOf(service).counts, "ghosts")) ?? 0);
  }

  /** Drops infos of workers that have not beaten for `maxAgeMs`. */
  async forget(maxAgeMs: number): Promise<void> {
    const { now, workers } = await announced(this.redis);
    for (const { id, beatAt } of workers) {
      if (isRecent(beatAt, now, maxAgeMs)) continue;
      await this.redis.hdel(GLOBAL.workers, id);
      await this.redis.hdel(GLOBAL.orders, id);
    }
  }
}

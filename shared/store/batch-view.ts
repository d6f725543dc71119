/** What became of a batch's members. */
import type { BatchId, JobId, ServiceName, State } from "../jobs.ts";
import { batchKey, keysOf, root } from "../keys.ts";
import { type Connection, script } from "../script.ts";
import { byService } from "./batches.ts";
import { ANSWER_MS } from "./produce.ts";
import { asFault, within } from "./redis.ts";

const statesScript = script<Record<never, never>, (string | number)[]>("states", {}, ["id"]);
/** Ids in one states script. */
const SLICE = 500;

/** A batch, read. Times in ms since 1970. */
export type Batch = {
  id: BatchId;
  created: number;
  total: number;
  /** members that have not ended */
  left: number;
  counts: Record<Exclude<State, "deferred">, number> & { deferred: number };
  failed: JobId[];
  ended: number | undefined;
};

export class BatchView {
  constructor(private readonly redis: Connection) {}

  /** Members that have not ended, from the services' counts. @returns undefined when there is no such batch */
  async left(id: BatchId, services: ServiceName[]): Promise<number | undefined> {
    const all = await this.ask(Promise.all(services.map((name) => this.redis.hget(keysOf(name).batch(id), "left"))));
    return all.some((left) => left === null) ? undefined : all.reduce((sum, left) => sum + Number(left), 0);
  }

  /** The services that a batch has members in; they never change. @returns undefined unless it was accepted */
  async services(id: BatchId): Promise<ServiceName[] | undefined> {
    const [state, services] = await this.ask(this.redis.hmget(batchKey(id), "s", "services"));
    return state === "committed" ? ((services as string).split(" ") as ServiceName[]) : undefined;
  }

  /** All members, in the client's order. */
  async ids(id: BatchId): Promise<JobId[]> {
    return JSON.parse((await this.ask(this.redis.hget(batchKey(id), "ids"))) ?? "[]") as JobId[];
  }

  /**
   * What became of the members. Ends are counted by the scripts that end jobs, so they stay true when records expire;
   * the live states of the others are looked up, bounded by the size of a batch.
   * @returns undefined when there is no such batch any more
   */
  async read(id: BatchId, services: ServiceName[]): Promise<Batch | undefined> {
    const created = await this.ask(this.redis.hget(batchKey(id), "c"));
    const open = (await this.left(id, services)) ? byService(await this.ids(id)) : new Map<ServiceName, JobId[]>();
    const parts = await this.ask(
      Promise.all(
        services.map(async (service) => {
          const keys = keysOf(service);
          const [ends, failed] = await Promise.all([
            this.redis.hgetall(keys.batch(id)),
            this.redis.smembers(keys.misses(id)),
          ]);
          const live = Number(ends.left ?? 0) > 0 ? await this.states(service, open.get(service) ?? []) : {};
          return { ends, live, failed: failed as JobId[] };
        }),
      ),
    );
    if (created === null || parts.some(({ ends }) => ends.left === undefined)) return undefined;
    const sum = (read: (part: (typeof parts)[number]) => string | number | undefined) =>
      parts.reduce((total, part) => total + Number(read(part) ?? 0), 0);
    const left = sum((part) => part.ends.left);
    const counts = {
      scheduled: sum((part) => part.live.scheduled),
      deferred: sum((part) => part.live.deferred),
      queued: 0,
      started: sum((part) => part.live.started),
      finished: sum((part) => part.ends.finished),
      failed: sum((part) => part.ends.failed),
      canceled: sum((part) => part.ends.canceled),
    };
    // Jobs move between two looks; the rest is what waits, so that the sum is always that of the members.
    counts.queued = Math.max(0, left - counts.scheduled - counts.deferred - counts.started);
    const ended = left === 0 ? Math.max(...parts.map(({ ends }) => Number(ends.e))) : undefined;
    return {
      id,
      created: Number(created),
      total: sum((part) => part.ends.members),
      left,
      counts,
      failed: parts.flatMap((part) => part.failed),
      ended,
    };
  }

  private async states(service: ServiceName, ids: JobId[]): Promise<Partial<Record<State, number>>> {
    const counts: Partial<Record<State, number>> = {};
    for (let at = 0; at < ids.length; at += SLICE) {
      const flat = await statesScript(this.redis, root(service), {}, ids.slice(at, at + SLICE));
      for (let i = 0; i < flat.length; i += 2) {
        const state = flat[i] as State;
        counts[state] = (counts[state] ?? 0) + Number(flat[i + 1]);
      }
    }
    return counts;
  }

  private async ask<T>(work: Promise<T>): Promise<T> {
    try {
      return await within(ANSWER_MS, work);
    } catch (error) {
      throw asFault(error);
    }
  }
}

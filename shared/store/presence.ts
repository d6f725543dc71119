/** Who is there: workers tell of themselves, services that exist, and which of them cannot be reached. No job depends on it. */
import type { ServiceName, WorkerId } from "../jobs.ts";
import { GLOBAL, keysOf } from "../keys.ts";
import type { Connection } from "../script.ts";
import type { WorkerInfo } from "./inspect.ts";

/** One worker's word of itself, for display, and what operators tell it. */
export class Presence {
  constructor(
    private readonly redis: Connection,
    private readonly worker: WorkerId,
  ) {}

  async announce(info: WorkerInfo): Promise<void> {
    await this.redis.hset(GLOBAL.workers, this.worker, JSON.stringify(info));
  }
  /** What an operator told this worker: "quiet", "stop" or nothing. */
  order(): Promise<string | null> {
    return this.redis.hget(GLOBAL.orders, this.worker);
  }
  async leave(): Promise<void> {
    await this.redis.hdel(GLOBAL.workers, this.worker);
    await this.redis.hdel(GLOBAL.orders, this.worker);
  }
}

/** Tells the clocks of every worker that these services exist. */
export async function register(redis: Connection, services: string[]): Promise<void> {
  if (services.length) await redis.sadd(GLOBAL.services, ...services);
}

/** Notes that the service cannot be reached, once. @returns since when, ms */
export async function notePark(redis: Connection, service: ServiceName): Promise<number> {
  const { counts } = keysOf(service);
  await redis.hsetnx(counts, "parked", Date.now());
  return Number(await redis.hget(counts, "parked"));
}

export async function endPark(redis: Connection, service: ServiceName): Promise<void> {
  await redis.hdel(keysOf(service).counts, "parked");
}

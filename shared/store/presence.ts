/** Who is there: workers tell of themselves, services that exist, and which of them cannot be reached. No job depends on it. */
import type { ServiceName, WorkerId } from "../jobs.ts";
import { GLOBAL, type Key, keysOf, root } from "../keys.ts";
import { type Connection, script } from "../script.ts";
import type { WorkerInfo } from "./inspect.ts";

const announceScript = script<{ worker: "text"; up: "int"; info: "text" }, number>("announce", {
  worker: "text",
  up: "int",
  info: "text",
});
const workersScript = script<Record<never, never>, [now: number, ...infos: string[]]>("workers", {});
const parkScript = script<Record<never, never>, [now: number, since: number]>("park", {});
/** Asked at each use: NAMESPACE is set once the configuration is read. */
const workersKey = () => GLOBAL.workers as unknown as Key<"string">;

/** What a worker says of itself; Redis adds when it said so. */
export type Announced = Omit<WorkerInfo, "beatAt" | "startedAt">;

/** One worker's word of itself, for display, and what operators tell it. */
export class Presence {
  private readonly beganAt = performance.now();

  constructor(
    private readonly redis: Connection,
    private readonly worker: WorkerId,
  ) {}

  /** @returns the time by Redis, ms */
  announce(info: Announced): Promise<number> {
    const up = Math.round(performance.now() - this.beganAt);
    return announceScript(this.redis, workersKey(), { worker: this.worker, up, info: JSON.stringify(info) });
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

/**
 * All workers that ever beat and did not leave, with the time by Redis, ms: their beats are judged by its clock.
 * A text that cannot be read is left out.
 */
export async function announced(redis: Connection): Promise<{ now: number; workers: WorkerInfo[] }> {
  const [now, ...texts] = await workersScript(redis, workersKey(), {});
  const workers = texts.flatMap((text) => {
    try {
      return JSON.parse(text) as WorkerInfo;
    } catch {
      return [];
    }
  });
  return { now, workers };
}

/** Whether a beat is at most `maxAgeMs` old. One far ahead is from before Redis's clock was set back: the living have beaten since. */
export const isRecent = (beatAt: number, now: number, maxAgeMs: number) => Math.abs(now - beatAt) <= maxAgeMs;

/** Tells the clocks of every worker that these services exist. */
export async function register(redis: Connection, services: string[]): Promise<void> {
  if (services.length) await redis.sadd(GLOBAL.services, ...services);
}

/** Notes that the service cannot be reached, once. @returns since when, and the time by Redis, ms */
export async function notePark(redis: Connection, service: ServiceName): Promise<{ now: number; since: number }> {
  const [now, since] = await parkScript(redis, root(service), {});
  return { now, since };
}

export async function endPark(redis: Connection, service: ServiceName): Promise<void> {
  await redis.hdel(keysOf(service).counts, "parked");
}

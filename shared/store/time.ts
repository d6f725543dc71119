/**
 * Redis's clock as this process knows it: what Redis said last, and what has passed since by performance.now().
 * Every time in Redis is by Redis's clock. What a process compares with such a time it asks here, so that a machine
 * whose own clock is off, or is set while it runs, decides nothing. Until Redis first answers, the machine's clock at
 * the start stands in.
 */
import type { Connection } from "../script.ts";

export class RedisTime {
  private saidMs = Date.now();
  private heardAt = performance.now();

  /** @param ms  since 1970: what Redis has just said the time is */
  heard(ms: number): void {
    this.saidMs = ms;
    this.heardAt = performance.now();
  }

  /** ms since 1970 */
  now(): number {
    return Math.round(this.saidMs + performance.now() - this.heardAt);
  }

  /** Asks Redis. What time it is matters less than what it is asked for: a Redis that is away changes nothing. */
  async ask(redis: Connection): Promise<void> {
    const time = await redis.time().catch(() => undefined);
    if (time) this.heard(Number(time[0]) * 1_000 + Math.floor(Number(time[1]) / 1_000));
  }
}

/**
 * The circuit breaker of a lane: a service that refuses connections is left alone, probed with backoff, and taken up
 * again by itself. Jobs wait meanwhile and spend no attempt; what has waited for longer than PARK_LIMIT fails.
 */
import { joinUrl } from "./base-url.ts";
import { backoffMs } from "./call.ts";
import type { ServiceName } from "./jobs.ts";
import type { Connection } from "./script.ts";
import type { Operation } from "./services.ts";
import type { Taken } from "./store/consume.ts";
import { endPark, notePark } from "./store/presence.ts";

/** since: ms since 1970, by Redis */
export type Parked = { since: number; reason: string; probes: number };

export class Parking {
  /** undefined = the service is in use */
  parked: Parked | undefined;
  /** the service has answered since the lane began, or was last parked */
  private proven = false;
  private stopped = false;

  /** @param resume  called when jobs may be taken again */
  constructor(
    private readonly service: ServiceName,
    private readonly redis: Connection,
    private readonly limitMs: number,
    private readonly log: (line: string) => void,
    private readonly resume: () => void,
  ) {}

  /** The service refuses connections: take nothing, probe with backoff. @param now  by Redis */
  park(reason: string, op: Operation, now: number): void {
    if (this.parked || this.stopped) return;
    this.parked = { since: now, reason, probes: 0 };
    this.proven = false;
    this.log(`${this.service}: parked, ${reason}`);
    void notePark(this.redis, this.service).catch(() => {});
    void this.probe(op);
  }

  /** The service answered. The first time it also ends what a worker noted that died while it was parked. */
  reached(): void {
    if (this.parked) this.unpark(true);
    else if (!this.proven) void endPark(this.redis, this.service).catch(() => {});
    this.proven = true;
  }

  /** Whether a refused job has been refused for PARK_LIMIT. @param now  by Redis, as the job's times are */
  async givenUp(job: Taken, now: number): Promise<boolean> {
    if (now - job.created <= this.limitMs) return false;
    return this.limitPassed().catch(() => false);
  }

  /** Probes no more. */
  stop(): void {
    this.stopped = true;
  }

  private async probe(op: Operation): Promise<void> {
    while (this.parked && !this.stopped) {
      await new Promise((done) => setTimeout(done, backoffMs(++this.parked!.probes, 1_000, 30_000) + 250));
      if (!this.parked || this.stopped) return;
      try {
        const response = await fetch(joinUrl(op.url as string, "/health"), {
          signal: AbortSignal.timeout(5_000),
          redirect: "manual",
        });
        await response.body?.cancel();
        this.unpark(true); // any answer at all: it listens again
      } catch {
        // Jobs that have waited for longer than PARK_LIMIT are taken to be failed: one probing job at a time.
        if (await this.limitPassed().catch(() => false)) this.unpark(false);
      }
    }
  }

  /** @param reachable  false when only jobs that are due to fail are to be taken */
  private unpark(reachable: boolean): void {
    if (!this.parked) return;
    if (reachable) {
      this.log(`${this.service}: resumes`);
      void endPark(this.redis, this.service).catch(() => {});
    }
    this.parked = undefined;
    this.resume();
  }

  private async limitPassed(): Promise<boolean> {
    const { now, since } = await notePark(this.redis, this.service);
    return now - since > this.limitMs;
  }
}

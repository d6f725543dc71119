/**
 * The circuit breaker of a lane: a service that refuses connections is left alone, probed with backoff, and taken up
 * again by itself. Jobs wait meanwhile and spend no attempt; what has waited for longer than PARK_LIMIT fails.
 *
 * A proxy before the service takes connections though the service is away, and answers 502 or 503: the lane parks when it hears nothing else
 * from several jobs. The one that tries spends an attempt as ever, so that a job which breaks the service itself ends.
 *
 *   in use ──refused──▶ parked, probing ──it connects──▶ parked, one job tries ──it got through──▶ in use
 *                          ▲      └─PARK_LIMIT─▶ jobs that are due to fail ─┐          │
 *                          └──────────────────────refused──────────────────┴──────────┘
 *
 * Only a call ends it, since only a call shows that calls get through. The time away counts from the first refusal until then.
 */
import { headline, short } from "./answer.ts";
import { backoffMs, type Outcome } from "./call.ts";
import type { JobId, ServiceName } from "./jobs.ts";
import type { Log } from "./log.ts";
import type { Connection } from "./script.ts";
import type { Operation } from "./services.ts";
import { type Run, redisNow } from "./settle.ts";
import type { Taken } from "./store/consume.ts";
import { endPark, notePark } from "./store/presence.ts";
import { reach } from "./transport.ts";

/** since: ms since 1970, by Redis */
export type Parked = { since: number; reason: string; probes: number };
export type ParkingSettings = { parkLimitMs: number; connectTimeoutMs: number };

/** ms that a job may take to come to a lane that could try one: an empty or paused queue gives none. */
const TRIAL_MS = 5_000;

/** So many answers in a row, of so many jobs, say that what stands before the service does not reach it. */
const AWAY_ANSWERS = 5;
const AWAY_JOBS = 3;
/** of a reason that is shown */
const MAX_REASON_CHARS = 300;

/** Whether an answer is one that proxies give when they do not reach the service, and that the service itself gives when it takes nothing. */
const isAway = (outcome: Outcome): outcome is Extract<Outcome, { kind: "retry" }> =>
  outcome.kind === "retry" &&
  !outcome.asked &&
  (outcome.error.http_status === 502 || outcome.error.http_status === 503);

export class Parking {
  /** undefined = the service is in use */
  parked: Parked | undefined;
  /** jobs that may be taken although it is parked */
  private trials = 0;
  /** jobs taken so whose call has not ended */
  private trying = 0;
  /** the service has answered since the lane began, or was last parked */
  private proven = false;
  /** answers that say that it is away, since the last other one, and their jobs */
  private away = 0;
  private readonly awayJobs = new Set<JobId>();
  private stopped = false;

  /** @param resume  called when jobs may be taken again */
  constructor(
    private readonly service: ServiceName,
    private readonly redis: Connection,
    private readonly settings: ParkingSettings,
    private readonly log: Log,
    private readonly resume: () => void,
  ) {}

  /** Jobs that may be taken beside those in hand. */
  get room(): number {
    return this.parked ? this.trials : Number.POSITIVE_INFINITY;
  }

  /** A call has ended: parks or resumes by what it says of the service. One that was refused is told to park(). */
  heard(outcome: Outcome, run: Run, op: Operation): void {
    if (outcome.kind === "refused" || outcome.kind === "aborted") return;
    if (!isAway(outcome)) {
      this.away = 0;
      this.awayJobs.clear();
      this.reached();
      return;
    }
    this.away++;
    if (this.awayJobs.size < AWAY_JOBS) this.awayJobs.add(run.job.id);
    if (!this.parked && (this.away < AWAY_ANSWERS || this.awayJobs.size < AWAY_JOBS)) return;
    const reason = short(headline(outcome.error.message), MAX_REASON_CHARS);
    this.park(reason, op, redisNow(run), `nothing but ${outcome.error.http_status} of ${AWAY_JOBS} jobs or more`);
  }

  /**
   * The service refuses connections: take nothing, probe with backoff.
   * @param now  by Redis @param why  for the log
   */
  park(reason: string, op: Operation, now: number, why = "the service refuses connections"): void {
    this.trials = 0;
    if (this.stopped) return;
    if (this.parked) {
      this.parked.reason = reason;
      return;
    }
    this.parked = { since: now, reason, probes: 0 };
    this.proven = false;
    this.log.warn(`lane parked: ${why}`, { reason });
    void notePark(this.redis, this.service).catch(() => {});
    void this.probe(op, this.parked);
  }

  /**
   * A job was taken while the service is parked. A call that is not refused within the time for connecting has got through: its
   * answer may take hours.
   * @returns to be called when its call has ended
   */
  tried(aborted: () => boolean): () => void {
    this.trials--;
    this.trying++;
    const { parked } = this;
    const timer = setTimeout(
      () => {
        if (this.parked === parked && !aborted()) this.reached();
      },
      2 * this.settings.connectTimeoutMs + 250,
    );
    return () => {
      clearTimeout(timer);
      this.trying--;
    };
  }

  /** A call got through. The first time it also ends what a worker noted that died while it was parked. */
  reached(): void {
    if (this.parked) this.unpark();
    else if (!this.proven) void endPark(this.redis, this.service).catch(() => {});
    this.proven = true;
  }

  /** Whether a refused job has been refused for PARK_LIMIT. @param now  by Redis, as the job's times are */
  async givenUp(job: Taken, now: number): Promise<boolean> {
    if (now - job.created <= this.settings.parkLimitMs) return false;
    return this.limitPassed().catch(() => false);
  }

  /** Probes no more. */
  stop(): void {
    this.stopped = true;
  }

  private async probe(op: Operation, parked: Parked): Promise<void> {
    const pause = (ms: number) => new Promise((done) => setTimeout(done, ms));
    const over = () => this.parked !== parked || this.stopped;
    let connected = 0;
    while (!over()) {
      await pause(backoffMs(++parked.probes, 1_000, 30_000) + 250);
      if (over()) return;
      if (this.trying > 0) continue; // a call is on its way, which says more than a probe
      const reached = await reach(op.url as string, this.settings.connectTimeoutMs).then(
        () => true,
        () => false,
      );
      const due = await this.limitPassed().catch(() => false);
      if (over()) return;
      // No job came to try it after the last probe, so that there is nothing else to go by.
      if (reached && connected > 0 && this.trials > 0) return this.reached();
      connected = reached ? connected + 1 : 0;
      if (due) parked.probes = 0;
      // After PARK_LIMIT jobs are taken to be failed.
      if (reached || due) this.trial(due ? Number.POSITIVE_INFINITY : 1);
      if (!reached) continue;
      for (const end = performance.now() + TRIAL_MS; this.trials > 0 && !over() && performance.now() < end; )
        await pause(100);
    }
  }

  private trial(jobs: number): void {
    this.trials = jobs;
    this.resume();
  }

  private unpark(): void {
    this.log.info("lane resumed");
    void endPark(this.redis, this.service).catch(() => {});
    this.parked = undefined;
    this.trials = 0;
    this.resume();
  }

  private async limitPassed(): Promise<boolean> {
    const { now, since } = await notePark(this.redis, this.service);
    return now - since > this.settings.parkLimitMs;
  }
}

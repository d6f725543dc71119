/**
 * One service's lane in one worker: takes jobs, makes the calls, settles them.
 *
 *   run()      turn ──▶ start calls ──▶ turn settles what is done and takes again …      one script in flight
 *   blocker()  waits in BLMOVE while the queue is empty, on a connection of its own; a turn that starts what BLMOVE
 *              brings lies behind it in Redis, so that no round trip is between them
 *
 * Crash windows, and who heals each:
 *   BLMOVE moved an id, its reply was lost       the id lies in wake: the next turn starts it (reconcile asks for one)
 *   turn took jobs, its reply was lost           they lie in held, unknown here: reconcile hands them back
 *   frozen, then reads a turn of long ago        its lease may be over: nothing is called, reconcile asks whose the job is
 *   the process died                             wake and held stay: another worker's reap, after the lease
 *   the call is done, the settle not yet sent    stays in `done` until Redis answers: a settle may be sent twice
 *   the lease was lost and another took the job  the settle reads "lost", or reconcile sees the foreign token: dropped
 */
import { setImmediate } from "node:timers";
import { Abort } from "./abort.ts";
import { Bell } from "./bell.ts";
import { call, type Outcome } from "./call.ts";
import type { JobError } from "./faults.ts";
import { logCall, logDropped, logEnds, type Settled } from "./job-log.ts";
import { type JobId, type JobOptions, random62, type ServiceName } from "./jobs.ts";
import { Lease } from "./lease.ts";
import type { Log } from "./log.ts";
import { Parking } from "./parking.ts";
import { Prefetch } from "./prefetch.ts";
import type { Operation } from "./services.ts";
import { MAX_INLINE, type Run, redisNow, type SettleSettings, Settles } from "./settle.ts";
import { type Ask, type Consumer, MORE, type Settle, type Taken, type Turned } from "./store/consume.ts";
import { logText } from "./store/redis.ts";
import { callOf } from "./told.ts";

export type LaneSettings = SettleSettings & {
  slots: number;
  concurrency: number;
  maxResultBytes: number;
  parkLimitMs: number;
  connectTimeoutMs: number;
  gatewayUrl: string | undefined;
  leaseMs: number;
};

/** Waits in BLMOVE; with `ask`, a turn goes right behind it (Consumer.block). */
export type Wait = (ask: Ask | undefined, nonce: string) => Promise<Turned | undefined>;

const SETTLE_BATCH = 256;
/** Sweeps after which the answer of a turn behind BLMOVE counts as lost, though its connection seems to live. */
const LATE_SIGHTS = 5;
type Seen = { token: string; sights: number };

export class Lane {
  readonly running = new Map<JobId, Run>();
  /** rings when there may be something to do: for run() and blocker() */
  private readonly bell = new Bell();
  /** takes nothing more (SIGTERM, or an operator) */
  quiet = false;
  /** takes nothing because Redis is nearly full */
  held = false;
  private done: Settled[] = [];
  /** the queue may hold jobs: ask; otherwise the blocker waits for them */
  private hungry = true;
  private blocking = false;
  private stopped = false;
  /** by performance.now(): a step of the wall clock must not stop a lane */
  private notBefore = 0;
  private reconcileDue = false;
  /** BLMOVE brought something whose reply did not come: the next turn starts it, or hands it back */
  private stray = false;
  private strangers = new Map<JobId, Seen>();
  private missing = new Set<JobId>();
  /** of the take behind a BLMOVE that has not answered: what it started is no stranger yet */
  private nonce = "";
  private readonly lease: Lease;
  /** Only what may be called twice is started before it is known that this worker lives. */
  private readonly eager: boolean;
  /** names of those that it can run */
  readonly operations: string[];
  private readonly asks: Omit<Ask, "slots">;
  private readonly settles: Settles;
  /** whether it takes nothing, because the service refuses connections */
  readonly parking: Parking;
  /** calls that are being made, and jobs that wait for a slot */
  readonly prefetch: Prefetch;

  constructor(
    readonly service: ServiceName,
    private readonly ops: Map<string, Operation>,
    readonly settings: LaneSettings,
    private readonly consumer: Consumer,
    private readonly wait: Wait,
    private readonly log: Log,
  ) {
    this.lease = new Lease(settings.leaseMs);
    const extend = ({ job }: Run, ms: number) => consumer.extend(service, job.id, job.token, ms).catch(() => {});
    this.settles = new Settles(consumer.worker, settings, log, extend);
    this.parking = new Parking(service, consumer.redis, settings, log, () => {
      this.hungry = true;
      this.bell.ring();
    });
    // Not where others share a limit, nor where a worker's death would end a job that was never called.
    this.eager = [...ops.values()].every((op) => op.onOrphan === "retry");
    const ahead = settings.concurrency === 0 && this.eager;
    const handBack = (runs: Run[]) => {
      for (const run of runs) this.over(run, this.settles.returned(run));
      this.bell.ring();
    };
    this.prefetch = new Prefetch(settings.slots, ahead, (run) => void this.work(run), handBack);
    // Only what it can call: a job of another operation is left to a worker that can.
    this.operations = [...ops.values()].filter((op) => op.url).map((op) => op.name);
    const limits = this.operations.map((name) => `${name}=${ops.get(name)?.timeoutMs}`).join(" ");
    this.asks = { concurrency: settings.concurrency, limits };
  }

  /** Jobs that it may hold: one less while BLMOVE may bring one, unless that one is here already. */
  private get room(): number {
    return this.settings.slots + this.prefetch.room() - (this.blocking && !this.stray ? 1 : 0);
  }

  /** Jobs whose large answer cannot be written to RESULTS_DIR, and why: until it is, nothing more is taken. */
  get unwritten(): ReadonlyMap<JobId, string> {
    return this.settles.unwritten;
  }

  private get taking(): boolean {
    return !this.quiet && !this.held && this.parking.room > 0 && !this.stopped && this.unwritten.size === 0;
  }

  /** Works until stop() was called and nothing is in hand. Outlives every outage of Redis. */
  async run(): Promise<void> {
    const blocker = this.blocker();
    let failures = 0;
    while (!this.stopped || this.running.size > 0 || this.done.length > 0) {
      const room = this.taking && this.hungry && this.running.size < this.room && performance.now() >= this.notBefore;
      if (!room && this.done.length === 0 && !this.reconcileDue && !this.stray) {
        await this.bell.rung();
        continue;
      }
      try {
        // Both, in this order: a reconcile on a slow Redis takes until the next one is due, and must not starve the turns.
        if (this.reconcileDue) await this.reconcile();
        if (room || this.done.length > 0 || this.stray) {
          // Answers come several to a tick of the event loop: all of them go with this turn.
          if (this.prefetch.busy > 0) await new Promise((next) => setImmediate(next));
          await this.turn(this.taking ? Math.min(this.room, this.running.size + this.parking.room) : -1);
        }
        failures = 0;
      } catch (error) {
        // Settles stay in `done` and go out when Redis is back: nothing is dropped, no call is aborted.
        if (failures++ === 0) this.log.warn("Redis refuses; trying on", { error: logText(error) });
        await sleep(Math.min(100 * 2 ** Math.min(failures, 5), 2_000) * (0.5 + Math.random()));
      }
    }
    await blocker;
    try {
      do await this.turn(-1);
      while (this.done.length > 0);
    } catch {} // what BLMOVE and its turn brought goes back; else the reaper does it
  }

  private async turn(slots: number): Promise<void> {
    const settles: Settled[] = [];
    let bytes = 0;
    for (const settle of this.done) {
      bytes += settle.result?.length ?? 0;
      if (settles.length >= SETTLE_BATCH || (settles.length > 0 && bytes > MAX_INLINE)) break;
      settles.push(settle);
    }
    const turned = await this.consumer.turn(this.service, settles, { slots, ...this.asks });
    this.stray = false;
    this.done.splice(0, settles.length);
    settles.forEach((settle, i) => {
      // A late settle of an earlier attempt must not strike the run that has the job now.
      if (this.running.get(settle.id)?.job.token === settle.token) this.running.delete(settle.id);
      if (turned.verdicts[i] !== "ok") this.settles.discard(settle);
    });
    logEnds(this.log, settles, turned.verdicts);
    if (slots > 0) this.took(turned);
    if (this.done.length === 0 && !this.hungry) this.bell.ring(); // the blocker's turn
  }

  private took({ verdicts, jobs, more }: Turned): void {
    for (const job of jobs) this.start(job);
    this.hungry = more === MORE.jobs || more === MORE.concurrency;
    // There are jobs, but it got none: held is full of strangers, until reconcile hands them back.
    const full = more === MORE.jobs && jobs.length + verdicts.length === 0;
    const waitMs = more === MORE.concurrency ? 300 : full ? 5 : 0;
    if (waitMs === 0) return;
    this.notBefore = performance.now() + waitMs;
    setTimeout(() => this.bell.ring(), waitMs);
  }

  /** Waits in BLMOVE while the queue is empty; every return, a time-out too, leads to a turn (protocol.md §2). */
  private async blocker(): Promise<void> {
    while (!this.stopped && !this.quiet) {
      if (!this.taking || this.hungry || this.running.size >= this.settings.slots) {
        await this.bell.rung();
        continue;
      }
      this.blocking = true;
      const nonce = random62(8);
      this.nonce = nonce;
      const sent = performance.now();
      // Room for one: what comes with it is for whoever is alive, and this worker may not be.
      const ask = this.eager ? { slots: this.running.size + 1, ...this.asks } : undefined;
      const turned = await this.wait(ask, nonce).catch(() => sleep(200 + 300 * Math.random()).then(() => undefined));
      this.blocking = false;
      this.hungry = true; // unless a turn says that nothing is left
      // Else it does not know whose the jobs are by now: reconcile will tell, or has told already.
      if (turned && this.nonce === nonce && this.lease.heldSince(sent)) this.took(turned);
      this.nonce = "";
      this.bell.ring();
    }
  }

  private start(job: Taken): void {
    const run: Run = { job, heardAt: performance.now(), abort: new Abort() };
    const earlier = this.running.get(job.id);
    // One that is over is being settled; and under a turn, `done` may only grow.
    if (earlier && !earlier.over) this.drop(earlier, "it was taken again here");
    this.running.set(job.id, run);
    // It may be what its last worker died of: what was not called must not be counted among its victims again and again.
    if (job.redeliveries > 0) this.prefetch.forget();
    this.prefetch.add(run);
    this.prefetch.fill(this.taking);
  }

  private async work(run: Run): Promise<void> {
    const { job } = run;
    const began = performance.now();
    const tried = this.parking.parked && this.parking.tried(() => run.abort.aborted);
    logCall(this.log, job);
    let settle: Settle;
    try {
      const op = this.ops.get(job.operation);
      if (op?.url) {
        const options = (job.options ? JSON.parse(job.options) : {}) as JobOptions;
        const barred = options.retries === 0 ? await this.barred(run) : undefined;
        const outcome: Outcome = barred ?? (await call(callOf(run, op, options, this.settings, this.log)));
        if (!barred) this.parking.heard(outcome, run, op);
        const made =
          outcome.kind === "refused"
            ? this.refused(run, op, outcome.error)
            : this.settles.of(run, op, options, outcome);
        settle = made instanceof Promise ? await made : made; // most are made at once: no further step of the event loop
      } else {
        const message = `This worker does not know the operation ${job.operation}, or no address for it`;
        settle = this.settles.redelivered(run, { code: "bad_job", message, retryable: true }, 5_000);
      }
    } catch (error) {
      // Nothing of ours may strand a job: what was not foreseen ends it with an error.
      this.log.error("unforeseen", { job: job.id, stack: error instanceof Error ? error : String(error) });
      settle = this.settles.failed(run, { code: "bad_job", message: String(error), retryable: false });
    }
    tried?.();
    run.ms = performance.now() - began;
    this.over(run, settle);
    this.prefetch.ended(run.ms);
    this.prefetch.fill(this.taking);
    this.bell.ring();
  }

  private over(run: Run, settle: Settled): void {
    settle.run = run;
    run.over = true;
    if (run.why !== "lost") this.done.push(settle);
    else this.settles.discard(settle);
  }

  /**
   * Notes in Redis that a job that may be called once is called now, which shows too that this worker still has it. So a reaper knows whether a
   * dead worker had called it.
   * @returns what it comes to without a call; undefined = it is to be called
   */
  private async barred(run: Run): Promise<Outcome | undefined> {
    const { id, token } = run.job;
    const word = await this.consumer.callOnce(this.service, id, token).catch(() => "unknown" as const);
    if (word === "ok") return undefined;
    if (word === "unknown") return { kind: "aborted" }; // handed back uncalled
    if (word === "called") return { kind: "failed", error: CALLED_BEFORE };
    this.drop(run, "another worker has it now");
    this.running.delete(id);
    return { kind: "aborted" };
  }

  private async refused(run: Run, op: Operation, error: JobError): Promise<Settle> {
    const now = redisNow(run);
    this.parking.park(error.message, op, now);
    if (!(await this.parking.givenUp(run.job, now))) return this.settles.returned(run);
    return this.settles.failed(run, { ...error, code: "service_unreachable", retryable: false });
  }

  /**
   * Compares what Redis says is held with what is in hand. Runs between turns, so no take of ours is in flight but
   * the one behind BLMOVE, whose jobs are known by its nonce.
   * A stranger counts at its second sight under the same token: then its take's reply was lost, and it goes back.
   * What is missing counts when its record shows another token: only then the work is dropped (rule 4).
   */
  private async reconcile(): Promise<void> {
    this.reconcileDue = false;
    const { held, waking, aside } = await this.consumer.holding(this.service);
    const strangers = new Map<JobId, Seen>();
    const unknown = [...held].filter((id) => !this.running.has(id));
    const records = await Promise.all(unknown.map((id) => this.consumer.token(this.service, id)));
    for (const [i, id] of unknown.entries()) {
      const { token, state } = records[i] as { token: string; state: string };
      if (this.running.has(id)) continue; // the answer of the turn behind BLMOVE came meanwhile
      const before = this.strangers.get(id);
      const sights = before?.token === token ? before.sights + 1 : 1;
      const coming = this.nonce !== "" && token.endsWith(this.nonce);
      if (state === "started" && sights >= (coming ? LATE_SIGHTS : 2)) {
        this.log.warn("job was taken, but its reply was lost; handed back", { job: id });
        this.done.push({ id, token, kind: "return", ttlMs: this.settings.failureTtlMs });
        if (coming) this.nonce = ""; // the answer is not believed any more when it comes
      } else strangers.set(id, { token, sights });
    }
    this.strangers = strangers;
    const missing = new Set<JobId>();
    for (const [id, run] of this.running) {
      if (held.has(id)) continue;
      if (!this.missing.has(id)) missing.add(id);
      else if ((await this.consumer.token(this.service, id)).token !== run.job.token) {
        this.drop(run, "another worker has it now");
        this.running.delete(id);
      }
    }
    this.missing = missing;
    // Also while BLMOVE waits: its reply may be lost, and a turn takes from wake whatever brought it there.
    if (waking > 0) this.stray = true;
    // No BLMOVE sees what another worker set aside.
    if (this.taking && (waking > 0 || aside.some((name) => this.operations.includes(name)))) this.hungry = true;
  }

  /** Closes the call of an attempt that is no longer ours, and forgets what it may have come to. */
  private drop(run: Run, why: string): void {
    logDropped(this.log, run.job, why);
    run.why = "lost";
    run.abort.abort();
    const its = (settle: Settle) => settle.token === run.job.token && settle.id === run.job.id;
    for (const settle of this.done.filter(its)) this.settles.discard(settle);
    this.done = this.done.filter((settle) => !its(settle));
  }

  /** Renews the lease, and closes the calls of what was canceled meanwhile. */
  async beat(): Promise<void> {
    const sent = performance.now();
    for (const id of await this.consumer.beat(this.service)) this.cancel(id);
    this.lease.renewed(sent);
  }

  /** Asks for a reconcile before the next turn. Called every second. */
  sweep(): void {
    this.reconcileDue = true;
    this.bell.ring();
  }

  /** Closes the call of a job whose cancel was asked for; the settle then reads "canceled". */
  cancel(id: JobId): void {
    const run = this.running.get(id);
    if (!run || run.why) return;
    run.why = "cancel";
    run.abort.abort();
  }

  /** Takes nothing more. */
  hush(): void {
    this.quiet = true;
    this.prefetch.clear();
    this.bell.ring();
  }

  /** Ends the lane: with `now`, calls are closed and their jobs handed back without an attempt spent. */
  stop(now: boolean): void {
    this.stopped = true;
    this.parking.stop();
    this.hush();
    if (now) {
      for (const run of this.running.values()) {
        run.why ??= "drain";
        run.abort.abort();
      }
    }
  }
}

const CALLED_BEFORE: JobError = {
  code: "orphaned",
  message: "An earlier call ended without an answer, and the job may be called once (retries: 0)",
  retryable: false,
};

const sleep = (ms: number) => new Promise<void>((done) => setTimeout(done, ms));

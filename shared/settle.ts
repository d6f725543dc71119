/**
 * What an ended attempt becomes: the words that a lane settles it with.
 * It knows neither when a lane takes nor what else it holds.
 */
import { Buffer } from "node:buffer";
import type { Abort } from "./abort.ts";
import { bothEnds } from "./answer.ts";
import { backoffMs, type Kept, type Outcome } from "./call.ts";
import type { JobError } from "./faults.ts";
import type { JobId, JobOptions, WorkerId } from "./jobs.ts";
import type { Log } from "./log.ts";
import { discardResult, keepResult, whyNotWritten } from "./result-file.ts";
import type { Operation } from "./services.ts";
import { POISON, type Settle, type Taken } from "./store/consume.ts";
import { durationText } from "./units.ts";

export type SettleSettings = {
  resultTtlMs: number;
  failureTtlMs: number;
  resultInlineBytes: number;
  resultsDir: string;
  /** ms that an answer is kept in memory while RESULTS_DIR cannot be written */
  resultWriteRetryMs: number;
};

/** An attempt in a lane's hands. heardAt: performance.now() when it came; over: its settle is made; ms: how long the call took. */
export type Run = {
  job: Taken;
  heardAt: number;
  abort: Abort;
  why?: "cancel" | "drain" | "lost";
  over?: boolean;
  ms?: number;
};

/** The time by Redis, ms since 1970: what it was when the job was taken, and what has passed since. */
export const redisNow = ({ job, heardAt }: Pick<Run, "job" | "heardAt">): number =>
  Math.round(job.started + performance.now() - heardAt);

type Answer = Extract<Outcome, { kind: "finished" }>;
type Result = Answer["result"];

/** A result above this never goes inline, not even when the volume fails (rule 1: 4 MiB a settle script). */
export const MAX_INLINE = 4 * 1024 * 1024;

/** An unreadable answer above this lies in RESULTS_DIR: a service that answers so always must not fill Redis for FAILURE_TTL. */
const MAX_KEPT_INLINE = 16_384;

/** Longest pause between two writes of an answer, ms. */
const MAX_WRITE_WAIT_MS = 10_000;

/** Whether a job must not be called again once a call may have reached the service: by its operation, or by its own wish. */
export const callsOnce = (op: Operation, options: JobOptions) => op.onOrphan !== "retry" || options.retries === 0;

/**
 * Whether a call may have done its work though its answer is one that is retried: the answer was cut, or something before the service
 * lost it or waited too long for it. A 503, 429, 425 or 408 says that nothing was begun; only Envoy says 503 of a lost answer, too.
 */
function mayHaveRun({ code, http_status, message }: JobError): boolean {
  if (code === "cut_short" || http_status === 502 || http_status === 504) return true;
  const lost = /disconnect\/reset before headers(?!.*(?:connection failure|connection timeout|overflow))/is;
  return http_status === 503 && lost.test(message);
}

export class Settles {
  /** jobs whose answer waits in memory until RESULTS_DIR can be written, and why it cannot */
  readonly unwritten = new Map<JobId, string>();

  /** @param extend  moves a running attempt's deadline so many ms from now: its answer is here, and no reaper may overrule it */
  constructor(
    private readonly worker: WorkerId,
    private readonly settings: SettleSettings,
    private readonly log: Log,
    private readonly extend: (run: Run, ms: number) => Promise<unknown>,
  ) {}

  /** contract.md §4: which outcome of a call becomes what; `refused` is the lane's. */
  of(
    run: Run,
    op: Operation,
    options: JobOptions,
    outcome: Exclude<Outcome, { kind: "refused" }>,
  ): Settle | Promise<Settle> {
    switch (outcome.kind) {
      case "finished":
        return this.finished(run, op, options, outcome);
      case "failed":
        if (outcome.error.code === "timeout" && op.retryTimeout) return this.retried(run, op, options, outcome.error);
        return this.ended(run, outcome.error, outcome.kept);
      case "retry": {
        const { error, kept } = outcome;
        if (op.onOrphan === "retry" || outcome.asked || !mayHaveRun(error))
          return this.retried(run, op, options, error, outcome);
        const message = `${error.message}; the service may have run it, and its operation may not run twice`;
        return this.ended(run, { ...error, message, retryable: false }, kept);
      }
      case "reset": {
        const { error } = outcome;
        if (!callsOnce(op, options)) {
          const { redeliveries } = run.job;
          // turn.lua fails it now. A job that ends its service breaks off the calls beside it too, so this one may be a victim.
          if (redeliveries >= POISON) {
            const message = `${error.message}, as in ${redeliveries} calls before; if other jobs' calls broke off then, too, one of them may be what ends ${op.service}: requeue this job when they are done`;
            return this.redelivered(run, { ...error, message }, 0);
          }
          return this.redelivered(run, error, backoffMs(run.job.redeliveries + 1, op.backoffMs));
        }
        // The service may have run it.
        const why =
          op.onOrphan !== "retry" ? "its operation may not run twice" : "the job may be called once (retries: 0)";
        return this.failed(run, { ...error, message: `${error.message}, and ${why}`, retryable: false });
      }
      case "aborted":
        return this.returned(run, this.entry(run, "canceled"));
    }
  }

  finished(run: Run, op: Operation, options: JobOptions, answer: Answer): Settle | Promise<Settle> {
    const { result, type, timing, status } = answer;
    const settle: Settle = {
      id: run.job.id,
      token: run.job.token,
      started: run.job.started,
      operation: run.job.operation,
      kind: "finish",
      ttlMs: op.resultTtlMs ?? this.settings.resultTtlMs,
      type,
      timing: `${timing.firstByteMs},${timing.lastByteMs}${status === 200 ? "" : `,${status}`}`,
    };
    const size = typeof result === "string" ? Buffer.byteLength(result) : result.byteLength;
    if (size > this.settings.resultInlineBytes) return this.filed(run, op, options, settle, result, size);
    settle.result = result;
    return settle;
  }

  /** A large result goes to the volume; inline only where that fails and it is small enough. */
  private async filed(run: Run, op: Operation, options: JobOptions, settle: Settle, result: Result, size: number) {
    const why = await this.write(run, result, size);
    if (why === undefined) return { ...settle, sizeBytes: size };
    if (size <= MAX_INLINE) return { ...settle, result };
    const mayRunAgain = !callsOnce(op, options);
    // The answer is lost with this process; a job that may not be called twice must not go back to the queue.
    if (run.why && (mayRunAgain || run.why === "cancel")) return this.returned(run, this.entry(run, "canceled"));
    const spent = this.settings.resultWriteRetryMs > 0 ? ` for ${durationText(this.settings.resultWriteRetryMs)}` : "";
    const message = `The answer of ${size} bytes could not be written to RESULTS_DIR${spent}: ${why}`;
    const error: JobError = { code: "result_lost", message, retryable: mayRunAgain };
    return mayRunAgain ? this.retried(run, op, options, error) : this.failed(run, error);
  }

  /**
   * Writes a result to the volume. One that is too large for Redis is written again until it succeeds, RESULT_WRITE_RETRY is over, or
   * the job is canceled or handed back: it may be the answer of a call of hours.
   * @returns why it could not be written; undefined = it was
   */
  private async write(run: Run, result: Result, size: number): Promise<string | undefined> {
    const { resultsDir, resultWriteRetryMs } = this.settings;
    const end = performance.now() + resultWriteRetryMs;
    let failures = 0;
    try {
      for (;;) {
        try {
          await keepResult(resultsDir, run.job, result);
          if (failures > 0) this.log.info("result was written to RESULTS_DIR at last", { job: run.job.id });
          return undefined;
        } catch (error) {
          const why = whyNotWritten(error);
          const leftMs = end - performance.now();
          if (failures++ === 0)
            this.log.error("result cannot be written to RESULTS_DIR", { job: run.job.id, bytes: size, error: why });
          if (size <= MAX_INLINE || leftMs <= 0 || run.why) return why;
          this.unwritten.set(run.job.id, why);
          if (failures === 1) void this.extend(run, resultWriteRetryMs); // without Redis nobody reaps, either
          const next = performance.now() + Math.min(250 * 2 ** failures, MAX_WRITE_WAIT_MS, leftMs);
          while (!run.why && performance.now() < next) await new Promise((done) => setTimeout(done, 100));
        }
      }
    } finally {
      this.unwritten.delete(run.job.id);
    }
  }

  /** What a settle wrote that Redis did not take. */
  discard({ id, token, sizeBytes }: Settle): void {
    if (sizeBytes !== undefined) void discardResult(this.settings.resultsDir, { id, token });
  }

  returned({ job: { id, token } }: Run, entry = ""): Settle {
    return { id, token, kind: "return", ttlMs: this.settings.failureTtlMs, entry };
  }

  /** Fails the attempt, and keeps the bytes of an unreadable 2xx with the job: the error says where they are. */
  ended(run: Run, error: JobError, kept: Kept | undefined): Settle | Promise<Settle> {
    return kept ? this.keeping(run, error, kept) : this.failed(run, error);
  }

  private async keeping(run: Run, error: JobError, { bytes, type }: Kept): Promise<Settle> {
    const { id } = run.job;
    const sizeBytes = bytes.byteLength;
    const small = sizeBytes <= Math.min(MAX_KEPT_INLINE, this.settings.resultInlineBytes);
    const why = small ? undefined : await this.write(run, bytes, sizeBytes);
    if (why !== undefined && sizeBytes > MAX_INLINE) {
      return this.failed(run, {
        ...error,
        message: `${error.message}; its ${sizeBytes} bytes could not be kept: ${why}`,
      });
    }
    const message = `${error.message}; its ${sizeBytes} bytes are kept: GET /jobs/${id}/result`;
    const stored = small || why !== undefined ? { result: bytes } : { sizeBytes };
    return { ...this.failed(run, { ...error, message }), ...stored, type: type || "application/octet-stream" };
  }

  failed(run: Run, error: JobError): Settle {
    const { id, token } = run.job;
    const entry = this.entry(run, error.code, error);
    return { id, token, kind: "fail", ttlMs: this.settings.failureTtlMs, entry, error: JSON.stringify(error) };
  }

  retried(
    run: Run,
    op: Operation,
    options: JobOptions,
    error: JobError,
    { retryAfterMs, kept }: { retryAfterMs?: number; kept?: Kept } = {},
  ): Settle | Promise<Settle> {
    if (run.job.attempt > (options.retries ?? op.retries)) return this.ended(run, error, kept);
    const delayMs = retryAfterMs ?? backoffMs(run.job.attempt, options.backoff ?? op.backoffMs);
    return { ...this.failed(run, error), kind: "retry", delayMs };
  }

  redelivered(run: Run, error: JobError, delayMs: number): Settle {
    return { ...this.failed(run, error), kind: "redeliver", delayMs };
  }

  entry(run: Run, outcome: string, error?: JobError): string {
    const { attempt } = run.job;
    const message = error && bothEnds(error.message, 250);
    return JSON.stringify({
      attempt,
      worker: this.worker,
      started: run.job.started,
      ended: redisNow(run),
      outcome,
      ...(message ? { message } : {}),
      ...(error?.http_status ? { http_status: error.http_status } : {}),
    });
  }
}

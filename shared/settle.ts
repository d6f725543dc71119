/**
 * What an ended attempt becomes: the words that a lane settles it with.
 * It knows neither when a lane takes nor what else it holds.
 */
import { Buffer } from "node:buffer";
import type { Abort } from "./abort.ts";
import { backoffMs, type Outcome } from "./call.ts";
import type { JobError } from "./faults.ts";
import type { JobOptions, WorkerId } from "./jobs.ts";
import { keepResult } from "./result-file.ts";
import type { Operation } from "./services.ts";
import type { Settle, Taken } from "./store/consume.ts";

export type SettleSettings = {
  resultTtlMs: number;
  failureTtlMs: number;
  resultInlineBytes: number;
  resultsDir: string;
};

/** An attempt in a lane's hands; over: its settle is made. */
export type Run = { job: Taken; started: number; abort: Abort; why?: "cancel" | "drain" | "lost"; over?: boolean };

type Answer = Extract<Outcome, { kind: "finished" }>;
type Result = Answer["result"];

/** A result above this never goes inline, not even when the volume fails (rule 1: 4 MiB a settle script). */
export const MOST_INLINE = 4 * 1024 * 1024;

export class Settles {
  constructor(
    private readonly worker: WorkerId,
    private readonly settings: SettleSettings,
    private readonly log: (line: string) => void,
  ) {}

  finished(run: Run, op: Operation, options: JobOptions, answer: Answer): Settle | Promise<Settle> {
    const { result, type, timing } = answer;
    const settle: Settle = {
      id: run.job.id,
      token: run.job.token,
      started: run.job.started,
      operation: run.job.operation,
      kind: "finish",
      ttlMs: op.resultTtlMs ?? this.settings.resultTtlMs,
      type,
      timing: `${timing.firstByteMs},${timing.lastByteMs}`,
    };
    const size = typeof result === "string" ? Buffer.byteLength(result) : result.byteLength;
    if (size > this.settings.resultInlineBytes) return this.filed(run, op, options, settle, result, size);
    settle.result = result;
    return settle;
  }

  /** A large result goes to the volume; inline only where that fails and it is small enough. */
  private async filed(run: Run, op: Operation, options: JobOptions, settle: Settle, result: Result, size: number) {
    try {
      await keepResult(this.settings.resultsDir, run.job, result);
      return { ...settle, sizeBytes: size };
    } catch (error) {
      this.log(`${settle.id}: RESULTS_DIR: ${(error as Error).message}`);
      if (size <= MOST_INLINE) return { ...settle, result };
      const message = `The answer of ${size} bytes could not be written to RESULTS_DIR: ${(error as Error).message}`;
      return this.retried(run, op, options, { code: "result_lost", message, retryable: true });
    }
  }

  failed(run: Run, error: JobError): Settle {
    const { id, token } = run.job;
    const entry = this.entry(run, error.code, error);
    return { id, token, kind: "fail", ttlMs: this.settings.failureTtlMs, entry, error: JSON.stringify(error) };
  }

  retried(run: Run, op: Operation, options: JobOptions, error: JobError, afterMs?: number): Settle {
    if (run.job.attempt > (options.retries ?? op.retries)) return this.failed(run, error);
    const delayMs = afterMs ?? backoffMs(run.job.attempt, options.backoff ?? op.backoffMs);
    return { ...this.failed(run, error), kind: "retry", delayMs };
  }

  redelivered(run: Run, error: JobError, delayMs: number): Settle {
    return { ...this.failed(run, error), kind: "redeliver", delayMs };
  }

  entry(run: Run, outcome: string, error?: JobError): string {
    const { attempt } = run.job;
    const message = error?.message.slice(0, 500);
    return JSON.stringify({
      attempt,
      worker: this.worker,
      started: run.started,
      ended: Date.now(),
      outcome,
      ...(message ? { message } : {}),
      ...(error?.http_status ? { http_status: error.http_status } : {}),
    });
  }
}

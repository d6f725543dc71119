/** Lines of the log that say what became of a job's attempt. Made only where they are written: see Log.on. */
import { Buffer } from "node:buffer";
import type { JobError } from "./faults.ts";
import type { Log } from "./log.ts";
import type { Run } from "./settle.ts";
import type { Settle, Taken, Verdict } from "./store/consume.ts";

/** What a line says of a settle that Redis accepted, and its level. A job that failed is the service's matter, and still to be looked at. */
const LINES = {
  finish: ["info", "job finished"],
  fail: ["warn", "job failed"],
  retry: ["warn", "job is tried again"],
  redeliver: ["warn", "job is redelivered"],
  return: ["info", "job handed back"],
  canceled: ["info", "job canceled"],
} as const;

export function logCall(log: Log, { id, operation, attempt }: Taken): void {
  if (log.on("debug")) log.debug("call starts", { job: id, operation, attempt });
}

export function logDropped(log: Log, { id, operation, attempt }: Taken, why: string): void {
  log.warn("call dropped", { job: id, operation, attempt, why });
}

/** A settle with the attempt that it ends; one that was found in Redis alone has none. */
export type Settled = Settle & { run?: Run };

/** A line for each settle of a turn. Those that finished, nearly all, are passed over where their level is off. */
export function logEnds(log: Log, settles: Settled[], verdicts: Verdict[]): void {
  const all = log.on("info");
  settles.forEach((settle, i) => {
    const verdict = verdicts[i] as Verdict;
    if (all || verdict !== "ok" || settle.kind !== "finish") logSettled(log, settle, verdict);
  });
}

function logSettled(log: Log, settle: Settled, verdict: Verdict): void {
  const { id, token, sizeBytes, delayMs, error, run } = settle;
  const job = run?.job;
  // "canceled", "failed": what Redis made of the settle instead of what it asked for
  const kind = verdict === "canceled" ? "canceled" : verdict === "failed" ? "fail" : settle.kind;
  const fields: Record<string, unknown> = {
    job: id,
    operation: job?.operation,
    attempt: job?.attempt ?? Number.parseInt(token, 10),
    redeliveries: job?.redeliveries || undefined,
    ms: run?.ms === undefined ? undefined : Math.round(run.ms),
  };
  if (verdict === "lost" || verdict === "gone") {
    const why = verdict === "lost" ? "another attempt has the job" : "the job is gone";
    log.warn("result came too late and is dropped", { ...fields, why, outcome: settle.kind });
    return;
  }
  if (kind === "finish") {
    const { result } = settle;
    fields.bytes = sizeBytes ?? (typeof result === "string" ? Buffer.byteLength(result) : result?.byteLength);
  } else if (kind !== "canceled" && error) {
    const { code, http_status, message } = JSON.parse(error) as JobError;
    fields.code = code;
    fields.http_status = http_status;
    if (kind !== "fail") fields.delay_ms = Math.round(delayMs ?? 0);
    fields.error = message;
  } else if (kind === "return")
    fields.why =
      run?.why === "drain" ? "the worker stops" : run?.ms === undefined ? "not called yet" : "the service refuses";
  const [level, message] = LINES[kind];
  log[level](message, fields);
}

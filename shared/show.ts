/** How a job is shown: the old status, and the full record. */
import type { JobError } from "./faults.ts";
import { isTerminal, type JobRecord, type State, serviceOf } from "./jobs.ts";
import { etaS, type Snapshot, type Standing } from "./snapshot.ts";
import type { Counts, Status } from "./store/inspect.ts";

/** Where estimates come from; `now` is by Redis, as the times of jobs are. A worker that shows an ended job has none. */
export type Estimates = { snapshots: { peek(): Snapshot | undefined; now(): number } };
export const NO_ESTIMATES: Estimates = { snapshots: { peek: () => undefined, now: () => 0 } };

export const iso = (ms: number | undefined): string | null => (ms === undefined ? null : new Date(ms).toISOString());

export type Forecast = { position: number | null; eta_s: number | null };

type Judged = Pick<Status, "id" | "state" | "sequence" | "operation" | "started"> & { ahead?: number | undefined };

/**
 * Where a job stands and when it is likely to be done. Nobody knows the latter while nothing takes it: its service is paused or
 * cannot be reached, or no worker serves it or knows its operation.
 */
export function forecast(gateway: Estimates, job: Judged): Forecast {
  const told = estimate(gateway, job);
  if (job.state !== "queued" || told.eta_s === null) return told;
  const service = serviceOf(job.id);
  const standing = gateway.snapshots.peek()?.services.find((s) => s.service === service)?.standing;
  return standing && isStill(standing, job.operation) ? { ...told, eta_s: null } : told;
}

function isStill({ word, operations }: Standing, operation: string): boolean {
  if (word === "blocked") return operations?.includes(operation) ?? true;
  return word === "parked" || word === "paused";
}

/** The same from measured durations and the jobs ahead alone, in the shared snapshot: when to ask again. */
export function estimate(gateway: Estimates, job: Judged): Forecast {
  const service = serviceOf(job.id);
  const state = isTerminal(job.state)
    ? undefined
    : gateway.snapshots.peek()?.services.find((s) => s.service === service);
  if (!state) return { position: null, eta_s: null };
  if (job.state === "started") {
    const now = gateway.snapshots.now();
    return { position: null, eta_s: etaS(state, job.operation, undefined, Math.max(0, now - (job.started ?? now))) };
  }
  if (job.state !== "queued") return { position: null, eta_s: null };
  const position = (job.ahead ?? aheadBySequence(job.sequence, state.counts)) + 1;
  return { position, eta_s: etaS(state, job.operation, position - 1) };
}

/**
 * Jobs before one of the default priority: urgent ones, and those of the list that came before it. Other priorities and scheduled jobs
 * take sequence numbers too, so the list's share of the numbers is counted, as if its jobs lay evenly among them.
 */
function aheadBySequence(sequence: number, { head, seq, urgent, listed }: Counts): number {
  const before = Math.max(0, Math.min(sequence - 1, seq) - head);
  const share = seq > head ? Math.min(1, listed / (seq - head)) : 0;
  return urgent + Math.round(before * share) + Math.max(0, sequence - seq - 1);
}

/** Longest time that a client is told to stay away, s: what was guessed may come sooner. */
const LONGEST_AWAY_S = 60;

/**
 * When it makes sense to ask for a job again, s.
 * @param dueMs  until a scheduled one is due: nothing happens to it before
 */
export function againS(etaS: number | null, dueMs?: number): number {
  const waitS = dueMs === undefined ? (etaS ?? 1) : Math.round(dueMs / 1_000);
  return Math.max(1, Math.min(waitS, LONGEST_AWAY_S));
}

/** againS of a job as it was read; undefined once it has ended. */
export const againOf = (gateway: Estimates, job: Judged & Pick<Status, "due">): number | undefined =>
  isTerminal(job.state)
    ? undefined
    : againS(estimate(gateway, job).eta_s, job.due === undefined ? undefined : job.due - gateway.snapshots.now());

/** What an answer shows of a job instead of what its record has: the text of its result, or why there is none. */
export type Shown = { result: string; error?: JobError };

/** A state as old clients read it: they stop only on finished and failed, so canceled must read failed here. */
export const statusWord = (state: State): State => (state === "canceled" ? "failed" : state);

/**
 * The status as old clients read it: always job_id, status, result, error; further keys beside them.
 * The result's text goes in as it was stored: parsing it would lose digits and key order.
 * @param shown  what stands for a result that lies in a file; without it a link does
 */
export function statusText(status: Status, estimate: Forecast, base = "", shown?: Shown): string {
  const { id } = status;
  const rest = {
    progress: status.state === "finished" ? 1 : (status.progress ?? null),
    message: status.message ?? null,
    ...estimate,
    attempt: status.attempt,
    redeliveries: status.redeliveries,
    created_at: iso(status.created),
    started_at: iso(status.started),
    ended_at: iso(status.ended),
    ...(status.due !== undefined ? { due_at: iso(status.due) } : {}),
  };
  // A result that is not there reads as a failure: an old client would take "finished" without it for success.
  const state = shown?.error ? "failed" : status.state;
  const error = errorText(shown?.error ? { ...status, state, error: shown.error } : status);
  const head = `{"job_id":${JSON.stringify(id)},"status":"${statusWord(state)}","result":`;
  return `${head}${shown?.result ?? resultText(status, base)},"error":${JSON.stringify(error)},${JSON.stringify(rest).slice(1)}`;
}

/** Words by which n8n's published workflow that waits for a job knows an error that no repetition cures. */
const KNOWN_AS_FINAL =
  /VisitError|SyntaxError|JSONDecodeError|Invalid.*selector|KeyError|ValueError|FileNotFoundError|No such file|Recipe.*not found|Invalid JSON/i;

/**
 * A job's error as old clients read it. That workflow sends every failed job up to three times more, unless the error has one
 * of its words; so one that says none of them, and is final, gets the nearest. The full record has the plain text.
 */
function errorText({ state, error }: Status): string | null {
  if (state === "canceled")
    return `${/^canceled/.test(error?.message ?? "") ? error?.message : "canceled by request"} (final: ValueError)`;
  if (!error) return state === "failed" ? "failed" : null;
  const { code, message, retryable } = error;
  // once the service is back, it is worth another try
  if (retryable || code === "service_unreachable" || KNOWN_AS_FINAL.test(message)) return message;
  const isFile = error.http_status === 404 && !/ answered 404 to POST /.test(message); // else it has no such route
  return `${message} (final: ${isFile ? "FileNotFoundError" : "ValueError"})`;
}

function resultText(status: Status, base: string): string {
  if (status.state !== "finished") return "null";
  if (status.result !== undefined) return status.result;
  return JSON.stringify({
    content_type: status.resultType,
    size: status.resultSize ?? 0,
    href: `${base}/jobs/${status.id}/result`,
  });
}

/**
 * The full record as a client reads it.
 * @param base   path before its links (BASE_PATH)
 * @param inline what stands for a result that lies in a file; without it a link does
 */
export function recordText(record: JobRecord, gateway: Estimates, base = "", inline?: Shown): string {
  const { id, service, result } = record;
  const at = `${base}/jobs/${id}`;
  const links = {
    self: at,
    status: `${at}/status`,
    ...(record.state === "finished" ? { result: `${at}/result` } : {}),
    ...(record.kept ? { unverified_result: `${at}/result` } : {}),
    ...(record.state === "failed" || record.state === "canceled" ? { requeue: `${at}/requeue` } : {}),
    ...(record.options.callback ? { deliveries: `${at}/deliveries` } : {}),
    ...(isTerminal(record.state) ? {} : { cancel: `${at}/cancel` }),
  };
  const { trace, traceState, tags, headers, ...options } = record.options;
  const body = {
    job_id: id,
    operation: record.operation,
    service,
    status: record.state,
    rev: record.rev,
    priority: record.priority,
    run: record.run,
    attempt: record.attempt,
    redeliveries: record.redeliveries,
    tags: tags ?? [],
    options: {
      ...(options.timeout !== undefined ? { timeout: options.timeout / 1_000 } : {}),
      ...(options.retries !== undefined ? { retries: options.retries } : {}),
      ...(options.backoff !== undefined ? { backoff: options.backoff / 1_000 } : {}),
      ...(options.resultTtl !== undefined ? { result_ttl: options.resultTtl / 1_000 } : {}),
      ...(options.callback ? { callback_url: options.callback } : {}),
      ...(headers ? { headers: Object.keys(headers) } : {}), // their values may be secrets
    },
    traceparent: trace ?? null,
    tracestate: traceState ?? null,
    batch_id: record.batch ?? null,
    worker: record.worker ?? null,
    created_at: iso(record.created),
    started_at: iso(record.started),
    deadline_at: iso(record.deadline),
    ended_at: iso(record.ended),
    due_at: iso(record.due),
    cancel_requested_at: iso(record.cancelAsked),
    progress: record.state === "finished" ? 1 : (record.progress ?? null),
    message: record.message ?? null,
    ...forecast(gateway, record),
    timing: record.timing ? { first_byte_ms: record.timing.firstByte, last_byte_ms: record.timing.lastByte } : null,
    error: record.error ? shownError(record) : (inline?.error ?? null),
    attempts: record.attempts.map(shownAttempt),
    links,
  };
  const jsonResult = record.resultType === "application/json" && result !== undefined;
  const shown = inline
    ? inline.result
    : jsonResult
      ? result.toString()
      : record.resultSize !== undefined && record.state === "finished"
        ? JSON.stringify({ content_type: record.resultType, size: record.resultSize, href: `${at}/result` })
        : "null";
  return `${JSON.stringify(body).slice(0, -1)},"payload":${record.payload ?? "null"},"result":${shown}}`;
}

function shownError({ error, attempts }: JobRecord) {
  const { answer, ...shown } = error as JobError;
  return { ...shown, attempts: attempts.map(shownAttempt) };
}

const shownAttempt = (a: JobRecord["attempts"][number]) => ({
  attempt: a.attempt,
  worker: a.worker,
  started_at: iso(a.started),
  ended_at: iso(a.ended),
  outcome: a.outcome,
  ...(a.message ? { message: a.message } : {}),
  ...(a.http_status ? { http_status: a.http_status } : {}),
});

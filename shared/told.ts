/** What the microservice is told beside its payload (contract.md §4). */
import { joinUrl } from "./base-url.ts";
import type { CallRequest } from "./call.ts";
import type { JobOptions } from "./jobs.ts";
import type { Operation } from "./services.ts";
import { callsOnce, type Run } from "./settle.ts";
import type { Taken } from "./store/consume.ts";

let said: [ms: number, text: string] = [0, ""];
/** As ISO 8601. Jobs of one turn mostly share it. */
function deadline(ms: number): string {
  if (said[0] !== ms) said = [ms, new Date(ms).toISOString()];
  return said[1];
}

/** @param gatewayUrl  where progress is told; undefined = nowhere
 * @param fixed       headers of the operation */
export function headersOf(
  job: Taken,
  options: JobOptions,
  gatewayUrl: string | undefined,
  fixed: Record<string, string> = {},
): Record<string, string> {
  const headers: Record<string, string> = {
    "x-job-id": job.id,
    "x-job-attempt": String(job.attempt),
    "x-job-deadline": deadline(job.deadline),
    // stable over attempts; a requeue is a new wish, whose answer must not be replayed from a stored failure
    "idempotency-key": job.run > 0 ? `${job.id}.${job.run}` : job.id,
  };
  if (gatewayUrl) headers["x-progress-url"] = joinUrl(gatewayUrl, `/jobs/${job.id}/progress?t=${job.token}`);
  if (options.trace) headers.traceparent = options.trace;
  if (options.traceState) headers.tracestate = options.traceState;
  // the operator's come before the client's, and neither replaces one of the above
  for (const name in fixed) headers[name] ??= fixed[name] as string;
  for (const name in options.headers) headers[name] ??= options.headers[name] as string;
  return headers;
}

type CallSettings = { gatewayUrl: string | undefined; maxResultBytes: number; connectTimeoutMs: number };

/** The call of an attempt. */
export const callOf = (
  { job, abort }: Run,
  op: Operation,
  options: JobOptions,
  settings: CallSettings,
  log: CallRequest["log"],
): CallRequest => ({
  service: op.service,
  url: joinUrl(op.url as string, op.path),
  body: job.payload,
  headers: headersOf(job, options, settings.gatewayUrl, op.headers),
  secrets: [op.headers, options.headers],
  timeoutMs: options.timeout ?? op.timeoutMs,
  abort,
  accepts: op.accepts,
  maxResultBytes: settings.maxResultBytes,
  retry500: op.retry500,
  keepError: op.replyWaitMs !== undefined,
  freshConnection: callsOnce(op, options),
  keepAlive: op.keepAlive,
  connectTimeoutMs: settings.connectTimeoutMs,
  log,
});

/** What the gateway's routes share: the deployment's parts, who may ask, and how a job is shown. */
import { Hono } from "hono";
import type { Caller, Guard } from "./auth.ts";
import type { Config, Scope } from "./config.ts";
import { Fault } from "./faults.ts";
import { isTerminal, type JobId, type JobRecord, jobId, type ServiceName } from "./jobs.ts";
import { problem, toFault } from "./problem.ts";
import { etaS, type Snapshots } from "./snapshot.ts";
import { type Inspector, noJob, type Status } from "./store/inspect.ts";
import type { Producer } from "./store/produce.ts";

/** The parts of a running gateway. */
export type Gateway = {
  config: Config;
  producer: Producer;
  inspector: Inspector;
  snapshots: Snapshots;
  guard: Guard;
};

/**
 * A Hono app whose environment carries the socket's address, and the caller where this process has checked it
 * already (the dashboard's session). Clients cannot set it: it never comes from the request.
 */
export type Env = { Bindings: { ip: string; caller?: Caller } };

/** A new app that answers every fault as a problem. */
export function newApp(): Hono<Env> {
  const app = new Hono<Env>();
  app.onError((error, c) => problem(toFault(error), new URL(c.req.url).pathname));
  return app;
}

/** Checks the caller. @throws Fault no_key, wrong_key, wrong_scope, foreign_origin */
export const allow = (gateway: Gateway, c: { req: { raw: Request }; env: Env["Bindings"] }, need: Scope): Caller =>
  c.env?.caller ? gateway.guard.demand(c.env.caller, need) : gateway.guard.check(c.req.raw, c.env?.ip ?? "", need);

/** The id in a path. @throws Fault unknown_job when it cannot be one */
export function idOf(text: string): JobId {
  const id = jobId(text);
  if (!id) throw noJob(text);
  return id;
}

export const iso = (ms: number | undefined): string | null => (ms === undefined ? null : new Date(ms).toISOString());

/** Where a job stands and when it is likely to be done; an estimate from the shared snapshot. */
export function forecast(
  gateway: Gateway,
  service: ServiceName,
  job: Pick<Status, "state" | "sequence" | "operation" | "started">,
) {
  const state = gateway.snapshots.peek()?.services.find((s) => s.service === service);
  if (!state) return { position: null, eta_s: null };
  if (job.state === "started") {
    return { position: null, eta_s: etaS(state, job.operation, undefined, Date.now() - (job.started ?? Date.now())) };
  }
  if (job.state !== "queued") return { position: null, eta_s: null };
  const position = Math.max(1, job.sequence - state.counts.head);
  return { position, eta_s: etaS(state, job.operation, position - 1) };
}

/**
 * The status as old clients read it: always job_id, status, result, error; further keys beside them.
 * The result's text goes in as it was stored: parsing it would lose digits and key order.
 */
export function statusText(id: JobId, service: ServiceName, status: Status, gateway: Gateway): string {
  const canceled = status.state === "canceled";
  const rest = {
    progress: status.progress ?? (status.state === "finished" ? 1 : null),
    message: status.message ?? null,
    ...forecast(gateway, service, status),
    attempt: status.attempt,
    created_at: iso(status.created),
    started_at: iso(status.started),
    ended_at: iso(status.ended),
    ...(status.due !== undefined ? { due_at: iso(status.due) } : {}),
  };
  // Old clients stop only on finished and failed: canceled must read failed here.
  const word = canceled ? "failed" : status.state;
  const error = canceled
    ? "canceled by request"
    : (status.error?.message ?? (status.state === "failed" ? "failed" : null));
  const head = `{"job_id":${JSON.stringify(id)},"status":"${word}","result":`;
  return `${head}${resultText(id, status)},"error":${JSON.stringify(error)},${JSON.stringify(rest).slice(1)}`;
}

function resultText(id: JobId, status: Status): string {
  if (status.state !== "finished") return "null";
  if (status.result !== undefined) return status.result;
  return JSON.stringify({ content_type: status.resultType, size: status.resultSize ?? 0, href: `/jobs/${id}/result` });
}

/** The full record as a client reads it: contract.md §3. */
export function recordText(record: JobRecord, gateway: Gateway): string {
  const { id, service, result } = record;
  const links = {
    self: `/jobs/${id}`,
    status: `/jobs/${id}/status`,
    ...(record.state === "finished" ? { result: `/jobs/${id}/result` } : {}),
    ...(record.state === "failed" || record.state === "canceled" ? { requeue: `/jobs/${id}/requeue` } : {}),
    ...(isTerminal(record.state) ? {} : { cancel: `/jobs/${id}/cancel` }),
  };
  const { trace, traceState, tags, ...options } = record.options;
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
    progress: record.progress ?? (record.state === "finished" ? 1 : null),
    message: record.message ?? null,
    ...forecast(gateway, service, record),
    timing: record.timing ? { first_byte_ms: record.timing.firstByte, last_byte_ms: record.timing.lastByte } : null,
    error: record.error ? { ...record.error, attempts: record.attempts.map(shownAttempt) } : null,
    attempts: record.attempts.map(shownAttempt),
    links,
  };
  const jsonResult = record.resultType === "application/json" && result !== undefined;
  const shown = jsonResult
    ? result.toString()
    : record.resultSize !== undefined && record.state === "finished"
      ? JSON.stringify({ content_type: record.resultType, size: record.resultSize, href: `/jobs/${id}/result` })
      : "null";
  return `${JSON.stringify(body).slice(0, -1)},"payload":${record.payload ?? "null"},"result":${shown}}`;
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

/** A JSON answer of ready text. */
export const jsonText = (text: string, status = 200, headers: Record<string, string> = {}) =>
  new Response(text, { status, headers: { "content-type": "application/json", ...headers } });

/** The operation of a body. @throws Fault unknown_operation, naming those there are */
export function operationOf(gateway: Gateway, name: string) {
  const op = gateway.config.registry.byName.get(name);
  if (!op) {
    const known = [...gateway.config.registry.byName.keys()].join(", ");
    throw new Fault(
      "unknown_operation",
      `There is no operation ${JSON.stringify(name.slice(0, 100))}; there are ${known}.`,
      {
        errors: [{ path: "operation", message: `must be one of ${known}` }],
      },
    );
  }
  return op;
}

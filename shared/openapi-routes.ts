/** The gateway's own routes as the document tells of them. The operations' routes come from the registry. */
import { z } from "zod";
import type { Scope } from "./config.ts";
import type { FaultCode } from "./faults.ts";
import { ANSWERS } from "./openapi-answers.ts";

/** What the mounted routes check requests with. */
export type Asked = Record<"bulk" | "fromUrl" | "jobs" | "link" | "list" | "progress", z.ZodType> & { kinds: string[] };

export const TAGS = {
  operations: "Submit a job, one route per operation",
  jobs: "Any operation, batches; follow and steer jobs",
  files: "The shared volumes: /uploads, /output, /examples",
  operators: "Health, metrics, and what the dashboard does",
  document: "This document",
} as const;

/** An answer: its schema, or the content type of one that is not JSON. */
export type Answer = {
  is: string;
  schema?: z.ZodType | undefined;
  types?: string[];
  headers?: (keyof typeof HEADERS)[];
};

export type Route = {
  /** operationId: has a capital, so that it never is the name of an operation */
  id: string;
  tag: keyof typeof TAGS;
  summary: string;
  /** undefined = open without a key */
  scope: Scope | undefined;
  query?: z.ZodType;
  /** request headers */
  takes?: (keyof typeof TAKEN)[];
  /** what a path parameter may be, where it is not any text */
  path?: Record<string, z.ZodType>;
  body?: z.ZodType;
  /** instead of a body: one file in a multipart form's field `file` */
  form?: true;
  /** by status, or "default" */
  answers: Record<string, Answer>;
  faults?: FaultCode[];
};

/** Headers of requests. */
export const TAKEN = {
  "Idempotency-Key": z
    .string()
    .min(1)
    .max(255)
    .describe("The same key for the same wish gets the first answer for 24 h; another body or other options, 422."),
  Prefer: z.string().describe("wait=30: answer when the job has ended, or after so many seconds, at most 60."),
  "If-None-Match": z.string().describe("An ETag that you have: 304 while nothing has changed."),
  Range: z.string().describe("bytes=0-1023: one range."),
  "Last-Event-ID": z.string().describe("The last revision that you have."),
  traceparent: z.string().describe("W3C Trace Context; the service is given it too."),
};
/** Headers of answers. */
export const HEADERS = {
  Location: z.string().describe("Where to look."),
  "Retry-After": z.int().min(1).describe("Seconds, when to look again."),
  "Preference-Applied": z.string().describe("How long the gateway waited at most."),
  "Idempotent-Replayed": z.literal("true").describe("The answer is that of an earlier request with the same key."),
  ETag: z.string(),
  Link: z.string().describe('The next page, rel="next".'),
  "Accept-Ranges": z.string(),
  "Content-Range": z.string(),
  "X-Longhaul-Unverified": z.string().describe("1: the bytes of an answer that could not be read"),
};

const wait = z.union([z.string(), z.number()]).describe("Seconds to wait for the end, at most 60.").optional();
const waiting = z.object({ wait });
/** Faults of every body that is read as JSON. */
export const BODY_FAULTS: FaultCode[] = ["malformed_json", "too_large", "not_json", "invalid"];
/** Faults of every submit. */
export const SUBMIT_FAULTS: FaultCode[] = [
  ...BODY_FAULTS,
  ...(["bad_request", "unknown_file", "not_supported", "idempotency_mismatch", "backlog_full", "memory_full"] as const),
  ...(["service_not_deployed", "redis_refuses"] as const),
];
export const SUBMIT_TAKES = ["Idempotency-Key", "Prefer", "traceparent"] as const satisfies (keyof typeof TAKEN)[];
export const SUBMIT_ANSWERS: Route["answers"] = {
  200: {
    is: "It has ended within the wait that was asked for.",
    schema: ANSWERS.Status,
    headers: ["Location", "ETag"],
  },
  202: {
    is: "Accepted.",
    schema: ANSWERS.Accepted,
    headers: ["Location", "Retry-After", "Preference-Applied", "Idempotent-Replayed"],
  },
};

const ok = (schema: z.ZodType, is = "Yes.") => ({ 200: { is, schema } });
const accepted = (schema: z.ZodType, is = "Taken.") => ({ 202: { is, schema } });
const unchanged = { 304: { is: "Nothing has changed." } };
const bytes: Record<number, Answer> = {
  200: { is: "The whole.", types: ["*/*"], headers: ["ETag", "Accept-Ranges"] },
  206: { is: "The range.", types: ["*/*"], headers: ["Content-Range"] },
  ...unchanged,
};
const read = { tag: "jobs", scope: "read" } as const;
const steer = { tag: "jobs", scope: "submit" } as const;
const admin = { tag: "operators", scope: "admin" } as const;
const open = { tag: "operators", scope: undefined } as const;
const page = (id: string, summary: string, type: string): Route => ({
  ...{ id, tag: "document", summary, scope: undefined },
  answers: { 200: { is: "Here it is.", types: [type], headers: ["ETag"] }, ...unchanged },
});

/** By method and path. The body of POST /jobs is made of the registry's. */
export const ownRoutes = (asked: Asked): Record<string, Route> => ({
  "post /jobs": {
    ...steer,
    ...{ id: "submitJobs", summary: "Submit one job of any operation, or a batch" },
    takes: [...SUBMIT_TAKES],
    query: waiting,
    answers: {
      ...SUBMIT_ANSWERS,
      202: { ...(SUBMIT_ANSWERS[202] as Answer), schema: z.union([ANSWERS.Accepted, ANSWERS.BatchAccepted]) },
    },
    faults: [...SUBMIT_FAULTS, "unknown_operation", "in_progress"],
  },
  "get /jobs": {
    ...read,
    ...{ id: "listJobs", summary: "Jobs, newest first", query: asked.jobs, faults: ["unknown_service", "invalid"] },
    answers: { 200: { is: "A page.", schema: ANSWERS.JobList, headers: ["Link"] } },
  },
  "get /jobs/{id}/status": {
    ...read,
    ...{ id: "getStatus", summary: "A job's status", query: waiting, takes: ["Prefer", "If-None-Match"] },
    answers: { 200: { is: "Its status.", schema: ANSWERS.Status, headers: ["ETag", "Retry-After"] }, ...unchanged },
    faults: ["unknown_job", "invalid"],
  },
  "get /jobs/{id}": {
    ...read,
    ...{ id: "getJob", summary: "A job's full record", query: waiting, takes: ["Prefer", "If-None-Match"] },
    answers: { 200: { is: "The record.", schema: ANSWERS.Job, headers: ["ETag"] }, ...unchanged },
    faults: ["unknown_job", "invalid"],
  },
  "get /jobs/{id}/result": {
    ...read,
    ...{ id: "getResult", summary: "The service's answer as it was", query: waiting },
    takes: ["Prefer", "Range", "If-None-Match"],
    answers: {
      ...bytes,
      422: {
        is: "The job failed because this answer could not be read; these are its bytes, as they came.",
        types: ["*/*"],
        headers: ["X-Longhaul-Unverified"],
      },
    },
    faults: ["unknown_job", "wrong_state", "unknown_file", "range", "invalid"],
  },
  "get /jobs/{id}/events": {
    ...read,
    ...{ id: "followJob", summary: "Changes of a job as server-sent events", takes: ["Last-Event-ID"] },
    query: z.object({ last_event_id: z.int().optional() }),
    answers: {
      200: { is: "Events; each one's data is the status.", types: ["text/event-stream"] },
      204: { is: "Over." },
    },
    faults: ["unknown_job"],
  },
  "get /jobs/{id}/deliveries": {
    ...read,
    ...{ id: "getDeliveries", summary: "Tries of a job's callback", faults: ["unknown_job"] },
    answers: ok(ANSWERS.Deliveries, "The last tries."),
  },
  "post /jobs/{id}/cancel": {
    ...steer,
    ...{ id: "cancelJob", summary: "Cancel a job", faults: ["unknown_job", "wrong_state"] },
    answers: accepted(ANSWERS.canceled),
  },
  "delete /jobs/{id}": {
    ...steer,
    ...{
      id: "deleteJob",
      summary: "Cancel a job, or erase one that has ended",
      faults: ["unknown_job", "wrong_state"],
    },
    answers: { ...ok(ANSWERS.erased, "Erased."), ...accepted(ANSWERS.canceled, "Canceled, or being canceled.") },
  },
  "post /jobs/{id}/requeue": {
    ...steer,
    ...{ id: "requeueJob", summary: "Run a failed or canceled job anew", takes: ["Idempotency-Key"] },
    faults: ["bad_request", "unknown_job", "wrong_state"],
    answers: { 200: { is: "Queued again.", schema: ANSWERS.requeued, headers: ["Idempotent-Replayed"] } },
  },
  "post /jobs/{id}/progress": {
    ...{ id: "reportProgress", tag: "jobs", summary: "What a service reports while it works", scope: undefined },
    query: z.object({ t: z.string().describe("The attempt's token, as in X-Progress-Url.") }),
    ...{ body: asked.progress, answers: ok(ANSWERS.noted, "Noted.") },
    faults: [...BODY_FAULTS, "unknown_job", "wrong_state"],
  },
  "get /batches/{id}": {
    ...read,
    ...{ id: "getBatch", summary: "How far a batch is", takes: ["Prefer"], faults: ["unknown_batch", "invalid"] },
    query: waiting.extend({ ids: z.string().optional().describe("Present, even if empty: adds job_ids.") }),
    answers: { 200: { is: "Its counts.", schema: ANSWERS.Batch, headers: ["Retry-After"] } },
  },
  "post /upload/{kind}": {
    ...{ id: "uploadFile", tag: "files", summary: "Put a file into /uploads", scope: "submit", form: true },
    path: { kind: z.enum(asked.kinds as [string]) },
    answers: ok(ANSWERS.Stored, "Stored."),
    faults: ["bad_request", "too_large", "not_multipart", "invalid", "not_stored"],
  },
  "post /download-from-url": {
    ...{ id: "fetchFile", tag: "files", summary: "Fetch a file from a public address into /uploads", scope: "submit" },
    ...{ body: asked.fromUrl, answers: ok(ANSWERS.Stored, "Stored.") },
    faults: [...BODY_FAULTS, "source_failed", "not_stored"],
  },
  "get /list_directories": {
    ...{ id: "listFiles", tag: "files", summary: "What lies in the volumes", scope: "read", query: asked.list },
    ...{ answers: ok(ANSWERS.Listing, "The files."), faults: ["invalid"] },
  },
  "post /create_download_link": {
    ...{ id: "linkFile", tag: "files", summary: "A link to a file, for a while", scope: "read", body: asked.link },
    ...{ answers: ok(ANSWERS.Link, "The link."), faults: [...BODY_FAULTS, "unknown_file"] },
  },
  "get /download/{token}": {
    ...{ id: "downloadFile", tag: "files", summary: "The file of a link", scope: undefined, answers: bytes },
    ...{ takes: ["Range", "If-None-Match"], faults: ["unknown_file", "range"] },
  },
  "get /ifc2json/{name}": {
    ...{
      id: "getIfcJson",
      tag: "files",
      summary: "The JSON that an ifc2json job wrote",
      scope: "read",
      answers: bytes,
    },
    ...{ takes: ["Range", "If-None-Match"], faults: ["unknown_file", "range", "invalid", "bad_request"] },
  },
  "get /health": { ...open, id: "getHealth", summary: "How all parts are", answers: ok(ANSWERS.Health, "Always 200.") },
  "get /livez": { ...open, id: "isAlive", summary: "Whether the process is up", answers: ok(ANSWERS.alive) },
  "get /readyz": {
    ...{ ...open, id: "isReady", summary: "Whether Redis can be used", answers: ok(ANSWERS.ready) },
    faults: ["redis_unreachable"],
  },
  "get /metrics": {
    ...{ id: "getMetrics", tag: "operators", summary: "Prometheus metrics", scope: "read" },
    answers: { 200: { is: "Metrics.", types: ["text/plain"] } },
  },
  "get /autoscale": {
    ...{ id: "getAutoscale", tag: "operators", summary: "How many workers there should be", scope: "read" },
    answers: ok(ANSWERS.Autoscale, "In all, and by service."),
  },
  "get /alerts": {
    ...{ id: "getAlerts", tag: "operators", summary: "Alert rules as they stand, and what was told", scope: "read" },
    answers: ok(ANSWERS.Alerts, "The rules, firing ones first."),
  },
  "post /queues/{service}/pause": {
    ...{ ...admin, id: "pauseQueue", summary: "Take no more jobs of a service", faults: ["unknown_service"] },
    answers: ok(ANSWERS.queue, "Paused."),
  },
  "post /queues/{service}/resume": {
    ...{ ...admin, id: "resumeQueue", summary: "Take jobs of a service again", faults: ["unknown_service"] },
    answers: ok(ANSWERS.queue, "Resumed."),
  },
  "post /queues/{service}/empty": {
    ...{
      ...admin,
      id: "emptyQueue",
      summary: "Cancel all that wait for a service, scheduled jobs too",
      takes: ["Idempotency-Key"],
    },
    ...{ answers: ok(ANSWERS.emptied, "Emptied."), faults: ["unknown_service"] },
  },
  "post /jobs/bulk": {
    ...{ ...admin, id: "startBulk", summary: "Cancel, requeue or delete many jobs", body: asked.bulk },
    takes: ["Idempotency-Key"],
    answers: { 202: { is: "Begun, or done.", schema: ANSWERS.Bulk, headers: ["Location", "Retry-After"] } },
    faults: [...BODY_FAULTS, "unknown_service", "idempotency_mismatch"],
  },
  "get /jobs/bulk/{id}": {
    ...{ id: "getBulk", tag: "operators", summary: "How far a bulk action is", scope: "read" },
    ...{ answers: ok(ANSWERS.Bulk, "Its counts."), faults: ["unknown_bulk"] },
  },
  "get /workers": {
    ...{
      id: "getWorkers",
      tag: "operators",
      summary: "Workers that run, with their services and calls",
      scope: "read",
    },
    answers: ok(ANSWERS.workers, "Those that have beaten within a lease."),
  },
  "post /workers/{id}/quiet": {
    ...{ ...admin, id: "quietWorker", summary: "A worker takes no more jobs", faults: ["unknown_worker"] },
    answers: accepted(ANSWERS.order),
  },
  "post /workers/{id}/stop": {
    ...{ ...admin, id: "stopWorker", summary: "A worker ends what it runs, then itself", faults: ["unknown_worker"] },
    answers: accepted(ANSWERS.order),
  },
  "get /audit": {
    ...{ ...admin, id: "getAudit", summary: "Who did what", faults: ["invalid"] },
    query: z.object({ limit: z.int().min(1).max(1_000).default(100) }),
    answers: ok(ANSWERS.audit, "The last entries."),
  },
  "get /": {
    ...{ id: "getStart", tag: "document", summary: "Where to go on from the bare address", scope: undefined },
    answers: ok(z.object({ name: z.string(), docs: z.string(), openapi: z.string(), health: z.string() })),
  },
  "get /openapi.json": page("getDocument", "This document", "application/json"),
  "get /docs": page("getDocs", "This document as a page", "text/html"),
  "get /docs/{file}": {
    ...page("getDocsFile", "A file of that page", "text/*"),
    faults: ["unknown_route"],
  },
});

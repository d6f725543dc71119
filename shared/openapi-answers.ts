/** What the gateway answers, as schemas: for the document, and for the test that holds real answers against them. */
import { z } from "zod";
import { RULES } from "./alerts.ts";
import { FAULTS, type FaultCode, JOB_ERRORS } from "./faults.ts";
import { STATES } from "./jobs.ts";
import { ACTIONS } from "./store/operate.ts";

const time = z.string().meta({ format: "date-time" }).nullable();
const state = z.enum(STATES);
const path = z.string().describe("relative to the gateway");
const count = z.int().min(0);

const Problem = z
  .looseObject({
    type: z.string().meta({ examples: ["urn:longhaul:invalid"] }),
    title: z.string(),
    status: z.int(),
    detail: z.string().describe("one readable sentence"),
    instance: z.string().describe("path of the request"),
    code: z.enum(Object.keys(FAULTS) as [FaultCode, ...FaultCode[]]),
    errors: z
      .array(z.strictObject({ path: z.string().meta({ examples: ["clash_sets.0.a.0.file"] }), message: z.string() }))
      .optional()
      .describe("each field that does not fit"),
    job_id: z.string().optional().describe("of a submit whose fate is unknown"),
    batch_id: z.string().optional(),
  })
  .meta({ id: "Problem", description: "RFC 9457" });

const JobError = z
  .strictObject({
    code: z.enum(Object.keys(JOB_ERRORS) as [keyof typeof JOB_ERRORS, ...(keyof typeof JOB_ERRORS)[]]),
    message: z.string(),
    http_status: z.int().optional(),
    retryable: z.boolean(),
  })
  .meta({ id: "JobError" });

const Attempt = z
  .strictObject({
    attempt: z.int(),
    worker: z.string(),
    started_at: time,
    ended_at: time,
    outcome: z.string(),
    message: z.string().optional(),
    http_status: z.int().optional(),
  })
  .meta({ id: "Attempt" });

const Accepted = z
  .strictObject({ job_id: z.string(), status: z.enum(["queued", "scheduled"]) })
  .meta({ id: "Accepted" });
const BatchAccepted = z
  .strictObject({ batch_id: z.string(), job_ids: z.array(z.string()).describe("in the order of the request") })
  .meta({ id: "BatchAccepted" });

const Status = z
  .strictObject({
    job_id: z.string(),
    status: z
      .enum(["scheduled", "deferred", "queued", "started", "finished", "failed"])
      .describe("a canceled job reads failed here"),
    result: z
      .unknown()
      .describe("the service's JSON; {content_type, size, href} when it is no JSON; null before the end"),
    error: z.string().nullable(),
    progress: z.number().min(0).max(1).nullable(),
    message: z.string().nullable(),
    position: z.int().nullable().describe("in the queue, an estimate"),
    eta_s: z.number().nullable(),
    attempt: z.int(),
    redeliveries: z
      .int()
      .describe("calls beside the attempts that ended without a verdict: worker died, connection reset"),
    created_at: time,
    started_at: time,
    ended_at: time,
    due_at: time.optional(),
  })
  .meta({ id: "Status" });

const JobRecord = z
  .strictObject({
    job_id: z.string(),
    operation: z.string(),
    service: z.string(),
    status: state,
    rev: z.int().describe("grows with each change"),
    priority: z.int(),
    run: z.int(),
    attempt: z.int(),
    redeliveries: z.int(),
    tags: z.array(z.string()),
    options: z.strictObject({
      timeout: z.number().optional(),
      retries: z.int().optional(),
      backoff: z.number().optional(),
      result_ttl: z.number().optional(),
      callback_url: z.string().optional(),
      headers: z.array(z.string()).describe("names of the client's headers that are passed on").optional(),
    }),
    traceparent: z.string().nullable(),
    tracestate: z.string().nullable(),
    batch_id: z.string().nullable(),
    worker: z.string().nullable(),
    created_at: time,
    started_at: time,
    deadline_at: time,
    ended_at: time,
    due_at: time,
    cancel_requested_at: time,
    progress: z.number().nullable(),
    message: z.string().nullable(),
    position: z.int().nullable(),
    eta_s: z.number().nullable(),
    timing: z.strictObject({ first_byte_ms: z.number(), last_byte_ms: z.number() }).nullable(),
    error: JobError.extend({ attempts: z.array(Attempt) }).nullable(),
    attempts: z.array(Attempt),
    links: z.record(z.string(), path),
    payload: z.unknown(),
    result: z.unknown(),
  })
  .meta({ id: "Job" });

const Card = z
  .strictObject({
    job_id: z.string(),
    operation: z.string(),
    service: z.string(),
    status: state,
    at: time,
    created_at: time,
    started_at: time,
    ended_at: time,
    due_at: time,
    priority: z.int(),
    attempt: z.int(),
    progress: z.number().nullable(),
    rev: z.int(),
    batch_id: z.string().nullable(),
    tags: z.array(z.string()),
    error: z.strictObject({ code: z.string(), message: z.string() }).nullable(),
  })
  .meta({ id: "JobCard" });
const JobList = z
  .strictObject({
    jobs: z.array(Card),
    next: z.string().nullable().describe("the cursor of the next page; null at the end"),
    scanned: count,
    reached: time,
  })
  .meta({ id: "JobList" });

const Batch = z
  .strictObject({
    batch_id: z.string(),
    status: z.enum(["running", "done"]),
    done: z.boolean(),
    total: count,
    counts: z.record(z.string(), count),
    progress: z.number().min(0).max(1),
    created_at: time,
    ended_at: time,
    failed_ids: z.array(z.string()),
    job_ids: z.array(z.string()).optional(),
  })
  .meta({ id: "Batch" });

const Bulk = z
  .strictObject({
    bulk_id: z.string(),
    action: z.enum(ACTIONS),
    dry_run: z.boolean(),
    filter: z.record(z.string(), z.unknown()),
    by: z.string(),
    status: z.enum(["running", "done"]),
    total: count,
    looked: count,
    matched: count,
    done: count,
    progress: z.number(),
    created_at: time,
    ended_at: time,
  })
  .meta({ id: "Bulk" });

const Deliveries = z
  .strictObject({
    job_id: z.string(),
    callback_url: z.string().nullable(),
    delivered: z.boolean(),
    next_at: time,
    deliveries: z.array(z.looseObject({ at: time, webhook_id: z.string(), gave_up: z.boolean().optional() })),
  })
  .meta({ id: "Deliveries" });

const Alerts = z
  .strictObject({
    sends: z.boolean().describe("whether ALERT_WEBHOOK is set; if not, the rules are judged as the figures are now"),
    rules: z.array(
      z.strictObject({
        rule: z.enum(RULES),
        service: z.string().nullable().describe("null = the whole deployment"),
        firing: z.boolean(),
        since: time.describe("when the condition began, or, if quiet, when it was last over; null = not known"),
        text: z.string(),
        value: z.number().nullable().describe("seconds, or a share from 0 to 1; null = a time that is not kept"),
        threshold: z.number(),
      }),
    ),
    deliveries: z
      .array(
        z.strictObject({
          ...{ at: time, ok: z.boolean(), webhook_id: z.string(), status: z.int().nullable(), text: z.string() },
        }),
      )
      .describe("the last 50 tries, the newest first"),
  })
  .meta({ id: "Alerts" });

const Health = z
  .strictObject({ status: z.enum(["healthy", "degraded", "unhealthy"]), services: z.record(z.string(), z.string()) })
  .meta({ id: "Health" });
const need = { queued: count, started: count, slots: count, desired_workers: count };
const Autoscale = z
  .strictObject({ ...need, services: z.record(z.string(), z.strictObject(need)) })
  .meta({ id: "Autoscale" });
const Stored = z.strictObject({ message: z.string(), file_path: z.string() }).meta({ id: "StoredFile" });
const Listing = z
  .strictObject({
    files: z.array(z.string()),
    directory_structure: z.record(z.string(), z.unknown()),
    truncated: z.boolean().optional(),
    limit: count.optional(),
  })
  .meta({ id: "Listing" });
const Link = z
  .strictObject({ download_token: z.string(), token: z.string(), expiry: time, url: path })
  .meta({ id: "DownloadLink" });

const word = (text: string) => z.strictObject({ status: z.literal(text) });
const queue = z.strictObject({ service: z.string(), paused: z.boolean(), queued: count });

export const ANSWERS = {
  Problem,
  Accepted,
  BatchAccepted,
  Status,
  Job: JobRecord,
  JobList,
  Batch,
  Bulk,
  Deliveries,
  Alerts,
  Health,
  Autoscale,
  Stored,
  Listing,
  Link,
  canceled: z.strictObject({ job_id: z.string(), status: z.enum(["canceled", "canceling"]) }),
  erased: z.strictObject({ job_id: z.string(), status: z.literal("erased") }),
  requeued: z.strictObject({ job_id: z.string(), status: z.literal("queued"), requeued: z.literal(true) }),
  noted: z.strictObject({ job_id: z.string() }),
  queue,
  emptied: z.strictObject({ service: z.string(), emptied: count }),
  order: z.strictObject({ worker: z.string(), order: z.enum(["quiet", "stop"]), state: z.string() }),
  workers: z.strictObject({
    workers: z.array(
      z.strictObject({
        worker: z.string(),
        host: z.string(),
        pid: z.int(),
        version: z.string(),
        runtime: z.string(),
        state: z.enum(["running", "quiet", "draining"]),
        started_at: z.string().nullable(),
        beat_at: z.string().nullable(),
        rss_bytes: z.int(),
        results_fault: z.string().nullable().describe("why it cannot keep large results; null = it can"),
        services: z.record(
          z.string(),
          z.strictObject({
            slots: z.int(),
            busy: z.int(),
            operations: z
              .array(z.string())
              .nullable()
              .describe("those that it can run; null = an older worker, unknown"),
            parked: z.strictObject({ reason: z.string(), since: z.string().nullable() }).nullable(),
            runs: z
              .array(z.strictObject({ job_id: z.string(), operation: z.string(), started_at: z.string().nullable() }))
              .describe("the longest running first, at most 16"),
          }),
        ),
      }),
    ),
  }),
  audit: z.strictObject({ entries: z.array(z.record(z.string(), z.unknown())) }),
  alive: word("alive"),
  ready: word("ready"),
};

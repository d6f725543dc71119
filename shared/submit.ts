/** From a request to a job: reads the body, checks it against the operation's schema, reads the options. */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { z } from "zod";
import type { Caller } from "./auth.ts";
import { type CallbackSettings, checkCallback } from "./callback.ts";
import { Fault, type FaultCode, type FaultExtra, type FieldFault } from "./faults.ts";
import { type JobOptions, newJobId, serviceName } from "./jobs.ts";
import { plainNumber } from "./json.ts";
import { checkFiles } from "./paths.ts";
import { ANY, BUILT_IN, type Operation } from "./services.ts";
import type { NewJob } from "./store/produce.ts";
import { durationMs, durationText, MAX_DURATION_MS, sizeText } from "./units.ts";
import { asKept, type VolumeDirs } from "./volumes.ts";

const tooLarge = (maxBytes: number, hint: string) =>
  new Fault("too_large", `The body is larger than ${sizeText(maxBytes)}${hint}.`);

/** The sender has gone: nobody hears this, and it is no fault of ours that the log should tell. */
const cut = (error: unknown) => {
  if (error instanceof Fault) throw error;
  throw new Fault("bad_request", "The connection was cut before the body was complete; send it again.");
};

/** A header that stands twice, as tools add one that their user has set, is joined by commas; here each has to be JSON. */
const JSON_TYPE = /^\s*(application\/([\w.+-]+\+)?|text\/)json\s*(;|$)/i;

/**
 * Reads a body with a limit that holds whatever Content-Length says. What is wrong already in the headers is thrown at once.
 * @param hint   what the problem says beside the limit
 * @param large  asked once, before more than `bytes` are read; what it throws ends the reading
 * @throws Fault too_large, not_json
 */
export function readBody(
  request: Request,
  maxBytes: number,
  hint = " (MAX_BODY_BYTES). Send large data as a file",
  large?: { bytes: number; ask(): void },
): Promise<Uint8Array> {
  const { headers } = request;
  const type = headers.get("content-type") ?? "";
  if (type !== "" && type !== "application/json" && !type.split(",").every((one) => JSON_TYPE.test(one))) {
    throw new Fault("not_json", `Send the body as application/json, not ${type.slice(0, 100)}.`);
  }
  const length = headers.get("content-length");
  if (length === null) return pieces(request, maxBytes, hint, large).catch(cut);
  const declared = Number(length);
  if (declared > maxBytes) throw tooLarge(maxBytes, hint);
  if (large && declared > large.bytes) large.ask();
  return request.bytes().then((whole) => {
    if (whole.length > maxBytes) throw tooLarge(maxBytes, hint);
    return whole;
  }, cut);
}

/** A body that does not tell its length. */
async function pieces(
  request: Request,
  maxBytes: number,
  hint: string,
  large?: { bytes: number; ask(): void },
): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let size = 0;
  if (request.body) {
    for await (const part of request.body as unknown as AsyncIterable<Uint8Array>) {
      size += part.length;
      if (size > maxBytes) throw tooLarge(maxBytes, hint);
      if (large && size > large.bytes && size - part.length <= large.bytes) large.ask();
      parts.push(part);
    }
  }
  return Buffer.concat(parts);
}

const duration = z.union([z.string(), z.number()]).transform((value, ctx) => {
  const ms = durationMs(String(value));
  if (ms !== undefined && ms <= MAX_DURATION_MS) return ms;
  ctx.addIssue(`must be seconds, or a duration such as 30s, 5m or 2h, at most 30d; not ${JSON.stringify(value)}`);
  return z.NEVER;
});
/** A whole number, also as a query's text; "" is none, though Number("") is 0. */
const whole = (min: number, max: number) =>
  z
    .union(
      [
        z.number(),
        z
          .string()
          .regex(/^\d{1,9}$/, "must be a whole number")
          .transform(Number),
      ],
      {
        error: `must be a whole number from ${min} to ${max}`,
      },
    )
    .pipe(z.int().min(min).max(max));
const tag = z.string().regex(/^[\w.:/-]{1,64}$/, "a tag may have letters, digits and _ . : / -, at most 64");

/** Options of a job: query parameters of an operation's route, or fields of POST /jobs. Durations become ms. */
export const OPTIONS = z.strictObject({
  priority: whole(0, 9).optional().describe("5 if left out; 9 goes first"),
  delay: duration.optional().describe("how long to wait before it may run: seconds, or 30s, 5m, 2h"),
  run_at: z.iso
    .datetime({ offset: true, error: "must be an ISO 8601 time such as 2026-01-31T08:00:00Z" })
    .optional()
    .describe("not before this time; either this or delay"),
  timeout: duration.optional().describe("longest that one call may take; at most the operation's own limit"),
  retries: whole(0, 100).optional().describe("further attempts after a failure that may pass"),
  backoff: duration.optional().describe("before the first retry; doubles with each, with jitter"),
  result_ttl: duration.optional().describe("how long the record and its result are kept after the end"),
  tags: z
    .union([z.array(tag).max(16), z.string().transform((text) => text.split(",").map((item) => item.trim()))])
    .pipe(z.array(tag).max(16))
    .optional()
    .describe("words to find the job by"),
  callback_url: z
    .string()
    .optional()
    .describe("gets the full record when the job has ended, signed as Standard Webhooks"),
  after: z.unknown().optional(),
  on_dependency_failure: z.unknown().optional(),
});
export type Options = z.infer<typeof OPTIONS>;
export const OPTION_NAMES = Object.keys(OPTIONS.shape);

/** Zod's issues as a client reads them. */
export const fieldFaults = (error: z.ZodError): FieldFault[] =>
  error.issues.map((issue) => ({ path: issue.path.join("."), message: issue.message }));

/** Makes plain numbers, in place, of those kept as written where the schema has something else. @returns whether any */
function rounded(value: object, issues: z.core.$ZodIssue[]): boolean {
  let any = false;
  for (const { path, input } of issues) {
    const number = plainNumber(input);
    const name = path.at(-1);
    if (number === undefined || name === undefined) continue;
    let holder = value as Record<PropertyKey, unknown>;
    for (const key of path.slice(0, -1)) holder = holder[key] as typeof holder;
    holder[name] = number;
    any = true;
  }
  return any;
}

/** @throws Fault invalid, with every field; `what` names the thing in the sentence */
export function fit<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  let result = schema.safeParse(value, { reportInput: true });
  // 0.10000000000000001 is kept as it was written for whom it concerns; a field that is a number gets the number.
  if (!result.success && typeof value === "object" && value && rounded(value, result.error.issues)) {
    result = schema.safeParse(value, { reportInput: true });
  }
  if (result.success) return result.data;
  throw invalidFields(what, fieldFaults(result.error));
}

/** A fault of fields of `what`; the first one stands in its sentence. */
function invalidFields(what: string, errors: FieldFault[]): Fault {
  const first = errors[0] as FieldFault;
  const more = errors.length > 1 ? ` (and ${errors.length - 1} more, see errors)` : "";
  const place = first.path === "" ? "" : `${first.path}: `;
  return new Fault("invalid", `${what}: ${place}${first.message}${more}.`, { errors });
}

/** Runs `work`; a fault that it throws is told of the field `prefix`, and of those below it. */
export function under<T>(prefix: string, work: () => T): T {
  if (prefix === "") return work();
  try {
    return work();
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    const given = error.extra.errors ?? [{ path: "", message: error.detail.replace(/\.$/, "") }];
    throw faultOf(
      error.code,
      given.map(({ path, message }) => ({ path: path === "" ? prefix : `${prefix}.${path}`, message })),
      error.extra,
    );
  }
}

/** A fault of fields; the first one stands in its sentence. */
export function faultOf(code: FaultCode, errors: FieldFault[], extra: FaultExtra = {}): Fault {
  const more = errors.length > 1 ? ` (and ${errors.length - 1} more, see errors)` : "";
  return new Fault(code, `${errors[0]?.path}: ${errors[0]?.message}${more}.`, { ...extra, errors });
}

/** Options from a query. One that stands twice is refused: which of the two was meant? Only tags add up. */
export function queryOptions(query: Record<string, string[]>): Options {
  const errors = Object.entries(query).flatMap(([path, values]) =>
    values.length > 1 && path !== "tags" ? [{ path, message: "stands more than once" }] : [],
  );
  if (errors.length > 0) throw new Fault("invalid", `The query: ${errors[0]?.path} stands more than once.`, { errors });
  if (query.wait) {
    const message = "is no option of a submit; to wait for the end send the header Prefer: wait=30";
    throw new Fault("invalid", `The query: wait: ${message}.`, { errors: [{ path: "wait", message }] });
  }
  return fit(OPTIONS, Object.fromEntries(Object.entries(query).map(([k, v]) => [k, v.join(",")])), "The query");
}

/** Where a service's address is set. */
const addressOf = (service: string) =>
  BUILT_IN.some((op) => op.service === service)
    ? `${service.toUpperCase().replaceAll("-", "_")}_URL for gateways and workers, or its url in SERVICES`
    : "its url in SERVICES";

/** What an operation takes. @throws Fault invalid, unknown_file */
function checkedPayload(judge: Judge, op: Operation, payload: unknown): Record<string, unknown> {
  if (typeof payload !== "object" || payload === null || Array.isArray(payload)) {
    throw new Fault("invalid", `The body of ${op.route} must be a JSON object.`, {
      errors: [{ path: "", message: "expected an object" }],
    });
  }
  const errors = op.jsonSchema?.check(payload) ?? [];
  if (errors.length > 0) throw invalidFields(op.route, errors);
  const value = op.schema === ANY ? (payload as Record<string, unknown>) : fit(op.schema, payload, op.route);
  checkFiles(op, value, (path) => asKept(judge.config, path));
  return value;
}

/** What a job is judged by: the deployment's settings, and Redis's clock, ms since 1970. */
type Judge = { config: CallbackSettings & VolumeDirs; snapshots: { now(): number } };

/**
 * Builds a job of an operation.
 * @param payload  parsed, not yet checked
 * @param options  checked; undefined = none, as most jobs have
 * @param at       where the payload stands in the body, "" = it is the body
 * @throws Fault invalid, not_supported, service_not_deployed, unknown_file
 */
export function newJob(judge: Judge, op: Operation, payload: unknown, options: Options | undefined, at = ""): NewJob {
  if (!op.url) {
    throw new Fault(
      "service_not_deployed",
      `The service ${op.service} is not deployed here: it has no address. Set ${addressOf(op.service)}.`,
    );
  }
  if (options) refuseUnsupported(options);
  const checked = at === "" ? checkedPayload(judge, op, payload) : under(at, () => checkedPayload(judge, op, payload));
  const id = newJobId(serviceName(op.service));
  const job: NewJob = { id, operation: op.name, payload: JSON.stringify(checked) };
  return options ? { ...job, ...optionsOf(judge, op, options) } : job;
}

function refuseUnsupported(options: Options): void {
  for (const name of ["after", "on_dependency_failure"] as const) {
    if (options[name] !== undefined) throw faultOf("not_supported", [{ path: name, message: "is not supported yet" }]);
  }
}

/** What a job has of its options. @throws Fault invalid */
function optionsOf({ config, snapshots }: Judge, op: Operation, options: Options): Partial<NewJob> {
  if (options.timeout !== undefined && options.timeout > op.timeoutMs) {
    const most = durationText(op.timeoutMs);
    throw new Fault("invalid", `timeout: ${op.name} may run for ${most} at most, its limit in SERVICES.`, {
      errors: [{ path: "timeout", message: `at most ${most}` }],
    });
  }
  if (options.timeout === 0) {
    throw new Fault("invalid", "timeout: must be longer than 0.", {
      errors: [{ path: "timeout", message: "must be longer than 0" }],
    });
  }
  if (options.run_at && options.delay !== undefined) {
    throw new Fault("invalid", "delay: send either delay or run_at, not both.", {
      errors: [{ path: "delay", message: "not together with run_at" }],
    });
  }
  const kept: JobOptions = {};
  if (options.timeout !== undefined) kept.timeout = options.timeout;
  if (options.retries !== undefined) kept.retries = options.retries;
  if (options.backoff !== undefined) kept.backoff = options.backoff;
  if (options.result_ttl !== undefined) kept.resultTtl = options.result_ttl;
  if (options.tags?.length) kept.tags = options.tags;
  if (options.callback_url !== undefined) {
    checkCallback(options.callback_url, config);
    kept.callback = options.callback_url;
  }
  const due = options.run_at === undefined ? undefined : Date.parse(options.run_at);
  if (due !== undefined && due > snapshots.now() + 12 * MAX_DURATION_MS) {
    throw new Fault("invalid", "run_at: lies more than 360 days ahead.", {
      errors: [{ path: "run_at", message: "at most 360 days ahead" }],
    });
  }
  return {
    options: kept,
    priority: options.priority,
    due,
    delayMs: options.delay || undefined,
    timeoutMs: options.timeout,
    effects: kept.callback ? "c" : undefined,
    // a life of 0 would erase the result before anybody reads it
    ttlMs: options.result_ttl === undefined ? undefined : Math.max(1_000, options.result_ttl),
  };
}

/** Stores the headers that the operation passes on with a job. */
export function addForwarded(job: NewJob, forwarded: Record<string, string> | undefined): NewJob {
  if (forwarded) job.options = { ...job.options, headers: forwarded };
  return job;
}

const TRACEPARENT = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;

/** The trace of a request that its jobs carry on. */
export function traceOf(headers: Headers): Pick<JobOptions, "trace" | "traceState"> | undefined {
  const trace = headers.get("traceparent");
  if (!trace || !TRACEPARENT.test(trace)) return undefined;
  const traceState = headers.get("tracestate");
  return { trace, ...(traceState && traceState.length <= 512 ? { traceState } : {}) };
}

/** The header itself. @throws Fault bad_request */
export function idempotencyKey(headers: Headers): string | undefined {
  const key = headers.get("idempotency-key");
  if (key === null) return undefined;
  if (key === "" || key.length > 255) throw new Fault("bad_request", "Idempotency-Key must have 1 to 255 characters.");
  return key;
}

/**
 * What an Idempotency-Key stands for, as two hashes. Its scope is the API key and `scope`: a batch has one of its own,
 * a job's key in Redis is its service's.
 * @throws Fault bad_request
 */
export function idempotencyOf(headers: Headers, caller: Caller, scope: string, ...body: (string | Uint8Array)[]) {
  const key = idempotencyKey(headers);
  if (key === undefined) return undefined;
  const hash = (...parts: (string | Uint8Array)[]) => {
    const h = createHash("sha256");
    for (const part of parts) h.update(part).update("\0");
    return h.digest("base64url").slice(0, 27);
  };
  return { key: scope ? hash(caller.key, key, scope) : hash(caller.key, key), body: hash(...body) };
}

/**
 * Adds what the request's headers say: trace and idempotency.
 * @param body     with `options`, what an Idempotency-Key stands for
 * @param options  those that do not stand in the body
 */
export function fromHeaders(
  job: NewJob,
  headers: Headers,
  caller: Caller,
  body: Uint8Array | string,
  options: Options = {},
): NewJob {
  const trace = traceOf(headers);
  if (trace) job.options = { ...job.options, ...trace };
  if (idempotencyKey(headers) === undefined) return job;
  // as they were understood: their order and spelling (30s, 30) make no other job
  const beside = Object.keys(options).length > 0 ? [JSON.stringify(options)] : [];
  job.idempotency = idempotencyOf(headers, caller, "", job.operation, body, ...beside);
  return job;
}

/**
 * Every way in which a request or a job can go wrong, by one code.
 * Left of everything: it knows no other file.
 */

/** Faults that a client sees as `application/problem+json` (RFC 9457): code → [HTTP status, title]. */
export const FAULTS = {
  malformed_json: [400, "The body is not JSON"],
  bad_request: [400, "The request cannot be read"],
  no_key: [401, "An API key is needed"],
  wrong_key: [403, "This API key is not known"],
  wrong_scope: [403, "This API key may not do that"],
  foreign_origin: [403, "Requests from another site are refused"],
  unknown_route: [404, "No such route"],
  unknown_job: [404, "No such job"],
  unknown_batch: [404, "No such batch"],
  unknown_file: [404, "No such file"],
  unknown_service: [404, "No such service"],
  unknown_bulk: [404, "No such bulk action"],
  unknown_worker: [404, "No such worker"],
  wrong_method: [405, "The route has other methods"],
  wrong_state: [409, "The job's state does not allow that"],
  in_progress: [409, "The same request is being worked on"],
  already_exists: [409, "That name is taken"],
  too_large: [413, "The body is too large"],
  not_json: [415, "The body must be application/json"],
  not_multipart: [415, "The body must be multipart/form-data"],
  invalid: [422, "The request does not fit the schema"],
  unknown_operation: [422, "No such operation"],
  not_supported: [422, "That option is not supported yet"],
  idempotency_mismatch: [422, "The Idempotency-Key was used with another body"],
  range: [416, "The range lies outside the content"],
  backlog_full: [429, "Too many jobs are waiting"],
  rate_limited: [429, "Too many requests"],
  memory_full: [429, "Redis is nearly full"],
  source_failed: [502, "The file could not be fetched from the other server"],
  job_failed: [502, "The job failed"],
  internal: [500, "Internal error of the gateway"],
  redis_unreachable: [503, "Redis does not answer"],
  redis_refuses: [503, "Redis refuses writes"],
  stopping: [503, "The gateway is stopping"],
  not_stored: [507, "The file cannot be stored"],
  job_timeout: [504, "The service did not answer in time"],
  service_not_deployed: [503, "The service of that operation is not deployed"],
} as const satisfies Record<string, readonly [number, string]>;

export type FaultCode = keyof typeof FAULTS;

/** One field of a body that does not fit, addressed as `clash_sets.0.a.0.file`. */
export type FieldFault = { path: string; message: string };

/** What else a problem may carry beside its code and sentence. */
export type FaultExtra = {
  errors?: FieldFault[];
  /** instead of the code's own: of a service, handed on */
  status?: number;
  /** seconds; becomes the header Retry-After */
  retryAfterS?: number;
  /** further headers */
  headers?: Record<string, string>;
  /** further members of the problem document */
  members?: Record<string, unknown>;
};

/** A fault on its way to a client. `detail` is one readable sentence that says what to do. */
export class Fault extends Error {
  readonly status: number;
  constructor(
    readonly code: FaultCode,
    readonly detail: string,
    readonly extra: FaultExtra = {},
  ) {
    super(detail);
    this.status = extra.status ?? FAULTS[code][0];
  }
}

/**
 * Why a job failed: the `code` of its error. The message beside it is a sentence for a person.
 * contract.md §4 tells which answer of a microservice leads to which.
 */
export const JOB_ERRORS = {
  bad_answer: "the microservice answered 2xx with something that is not what the operation accepts",
  http_error: "the microservice answered with an error status",
  redirect: "the microservice answered with a redirect, which is never followed",
  timeout: "the call took longer than the operation's time limit",
  cut_short: "the answer ended before it was complete",
  reset: "the connection was closed before the first byte of an answer",
  wrong_job: "the answer was for another job, or could not be told from one, and was refused",
  service_unreachable: "the microservice could not be reached for PARK_LIMIT",
  result_too_large: "the answer is larger than MAX_RESULT_BYTES",
  orphaned: "the worker died and the operation may not run twice",
  poison: "workers died under this job more than three times",
  bad_job: "this worker cannot run the job as it is stored",
  result_lost: "the answer came but could not be kept",
  canceled: "a client or an operator canceled the job",
} as const;

export type JobErrorCode = keyof typeof JOB_ERRORS;

/** A job's error as the full record shows it. Durations are ms, times ISO in the record. */
export type JobError = {
  code: JobErrorCode;
  message: string;
  http_status?: number;
  retryable: boolean;
  /** the service's own answer, where an operation replies with it; not shown in the record */
  answer?: { type: string; body: string };
};

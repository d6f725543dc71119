/**
 * One HTTP call to a microservice → one outcome (contract.md §4). It never retries, and knows nothing of Redis.
 *
 * What the two runtimes throw was measured with real sockets (Bun 1.4.5, Deno 2.9.6); tests/call.test.ts repeats it.
 */
import type { Abort } from "./abort.ts";
import {
  acceptHeader,
  checkedJson,
  detail,
  essence,
  excerpt,
  isWhole,
  keptAs,
  MAX_EXCERPT_CHARS,
  oneType,
  parsedRetryAfter,
  short,
} from "./answer.ts";
import { hideSent } from "./call-headers.ts";
import type { Head } from "./exchange.ts";
import type { JobError, JobErrorCode } from "./faults.ts";
import { MAX_HEAD_BYTES } from "./http1.ts";
import { OtherJob } from "./job-name.ts";
import type { Log } from "./log.ts";
import { post } from "./transport.ts";
import { durationText, sizeText } from "./units.ts";

export type CallRequest = {
  /** for the sentences of errors: "ifcconvert answered 404: …" */
  service: string;
  url: string;
  /** JSON text, sent as it is */
  body: string;
  /** the call's own: Content-Type and Accept are added to it here */
  headers: Record<string, string>;
  /** headers that are secrets, and which no error shows */
  secrets?: readonly (Record<string, string> | undefined)[];
  /** > 0, from now to the last byte of the answer; any length, 30 d included */
  timeoutMs: number;
  /** cancel or hand-back: closes the connection, so that the microservice sees it. The call's own limits abort it too */
  abort: Abort;
  // Types kept as bytes: "model/gltf-binary", "image/*", "*/*". JSON is accepted always, and always checked
  accepts: string[];
  /** of the decoded answer */
  maxResultBytes: number;
  /** whether a 500 is retryable */
  retry500: boolean;
  /** whether the answer of an error status is kept with the error */
  keepError?: boolean;
  /** for operations that may not run twice: a connection of its own, so that a reset never is a stale keep-alive */
  freshConnection: boolean;
  /** the operator vouches for the service: its connections serve further calls though its answers name no job */
  keepAlive: boolean;
  /** for the connection to come about; a third of the time limit counts where that is less */
  connectTimeoutMs: number;
  log: Log;
};

/** The bytes of a 2xx that is no result: it may be the answer of hours, so a failed job keeps them. `type` as the service gave it, "" = none */
export type Kept = { bytes: Uint8Array; type: string };

/** ms from the call to the headers and to the last byte of the answer */
export type Timing = { firstByteMs: number; lastByteMs: number };

export type Outcome =
  /** `result` as received: text when it is JSON, else bytes. `type` "" = application/json */
  | { kind: "finished"; result: string | Uint8Array; type: string; timing: Timing; status: number }
  /** final, `error.code` "timeout" included: whether that one is retried is the worker's to say */
  | { kind: "failed"; error: JobError; kept?: Kept }
  /** `asked`: by the service itself, with X-Job-Retry */
  | { kind: "retry"; error: JobError; retryAfterMs?: number; kept?: Kept; asked?: true }
  /** closed before the headers were complete, or answered for another job. It may have run: redelivered, not a spent attempt */
  | { kind: "reset"; error: JobError }
  /** surely not delivered: not an attempt, the lane parks */
  | { kind: "refused"; error: JobError }
  /** request.abort */
  | { kind: "aborted" };

const RETRYABLE = new Set([408, 425, 429, 502, 503, 504]);
/** enough for any reason; the rest of an error's body is not read */
const MAX_DETAIL_BYTES = 262_144;
/** Longest `Retry-After` that is honoured; the attempt says when more was asked for. */
const MAX_RETRY_AFTER_MS = 24 * 3_600_000;

const fault = (code: JobErrorCode, message: string, retryable: boolean, status?: number): JobError =>
  status === undefined ? { code, message, retryable } : { code, message, http_status: status, retryable };
const failed = (code: JobErrorCode, message: string, status?: number, kept?: Kept): Outcome => ({
  kind: "failed",
  error: fault(code, message, false, status),
  ...(kept && kept.bytes.byteLength > 0 ? { kept } : {}),
});

/** Says "time limit": n8n's published workflow takes "timeout" for something that a repetition cures (show.ts). */
const tooSlow = (service: string, ms: number) =>
  `${service} did not finish within ${durationText(ms)}, its time limit; the job or its operation in SERVICES sets it`;

const LATE = new Error("the time limit passed");
const UNWANTED = new Error("the rest is not wanted");

const isOk = ({ status }: Head) => status >= 200 && status < 300;

/**
 * Whether only the connection's end is the body's, as in HTTP/1.0. A server that closes before it has read its request resets the
 * connection behind its answer, so that JSON tells more surely than the connection whether it is whole.
 */
const endsWithConnection = ({ header }: Head) =>
  header("content-length") === null && header("transfer-encoding") === null && header("content-encoding") === null;

/** What a JSON result is stored with: "" = application/json. @param recoded  it is UTF-8 now, whatever the type says */
function jsonType(type: string, recoded: true | undefined): string {
  if (type === "" || type === "application/json") return "";
  const plain = essence(type);
  return plain === "application/json" ? "" : recoded ? plain : type;
}

/** Makes the call. Never throws; on every outcome the answer's body is read to its end or its connection closed. */
export async function call(request: CallRequest): Promise<Outcome> {
  const { service, abort } = request;
  if (abort.aborted) return { kind: "aborted" };
  const began = performance.now();
  const since = () => Math.round(performance.now() - began);
  const aborted = () => abort.aborted && abort.reason !== LATE && abort.reason !== UNWANTED;
  const stopTimer = after(request.timeoutMs, () => abort.abort(LATE));
  let head: Head | undefined;
  let as: "json" | "bytes" | undefined;
  let type = "";
  let firstByteMs = 0;
  let readAll = false;
  try {
    request.headers["content-type"] = "application/json";
    request.headers.accept = acceptHeader(request.accepts);
    const {
      bytes,
      complete,
      fault: unread,
    } = await post({
      url: request.url,
      body: request.body,
      headers: request.headers,
      abort,
      fresh: request.freshConnection,
      vouched: request.keepAlive,
      connectMs: Math.min(request.connectTimeoutMs, request.timeoutMs / 3),
      log: request.log,
      onHead(came) {
        head = came;
        firstByteMs = since();
        type = oneType(came.header("content-type") ?? "");
        const ok = isOk(came);
        as = ok ? keptAs(type, request.accepts) : undefined;
        return { cap: ok ? request.maxResultBytes : MAX_DETAIL_BYTES, whole: as !== undefined, raw: ok };
      },
    });
    readAll = complete;
    const answer = head as unknown as Head;
    if (!isOk(answer)) return aborted() ? { kind: "aborted" } : notKept(request, answer, type, bytes);
    if (as === undefined && !complete && aborted()) return { kind: "aborted" };
    if (unread) return badAnswer(service, answer.status, `with ${unread.message}`, "", { bytes, type });
    if (as !== undefined && !complete) {
      const message = `${service} answered more than ${sizeText(request.maxResultBytes)} (MAX_RESULT_BYTES)`;
      return failed("result_too_large", message, answer.status);
    }
    const timing = { firstByteMs, lastByteMs: since() };
    const { status } = answer;
    if (bytes.byteLength === 0 && !(as === "bytes" && type !== "")) {
      if (complete) return { kind: "finished", result: "null", type: "", timing, status };
      return cutShort(service, answer, new Error("no byte of its body came"), undefined);
    }
    if (as === undefined) return unwelcome(request, answer, { bytes, type });
    if (as === "bytes") {
      return { kind: "finished", result: bytes, type: type || "application/octet-stream", timing, status };
    }
    const json = checkedJson(bytes, type);
    if ("fault" in json)
      return badAnswer(service, answer.status, json.fault, hidden(request, excerpt(bytes, type)), { bytes, type });
    return { kind: "finished", result: json.text, type: jsonType(type, json.recoded), timing, status };
  } catch (error) {
    if (aborted()) return { kind: "aborted" };
    if (abort.reason === LATE) return failed("timeout", tooSlow(service, request.timeoutMs), head?.status);
    if (!head) return noAnswer(request, error);
    const { partial } = error as { partial?: Uint8Array };
    const kept = partial && isOk(head) ? { bytes: partial, type } : undefined;
    // A chunk that cannot be read now never will be.
    if (/^(?:HPE_|InvalidHTTP)/.test(codeOf(error)))
      return badAnswer(service, head.status, `with a body that cannot be read (${codeOf(error)})`, "", kept);
    if (kept && as === "json" && endsWithConnection(head)) {
      const json = checkedJson(kept.bytes, type);
      const timing = { firstByteMs, lastByteMs: since() };
      if ("text" in json && isWhole(json.text))
        return { kind: "finished", result: json.text, type: jsonType(type, json.recoded), timing, status: head.status };
    }
    return cutShort(service, head, error, kept);
  } finally {
    stopTimer();
    if (!readAll) abort.abort(UNWANTED); // closes the socket under a body that is not wanted
  }
}

/**
 * Exponential with full jitter: any time from 0 to the ceiling, so that jobs that failed together do not return together.
 * @param attempt  1 = the attempt that just failed was the first
 * @param baseMs   ceiling after the first attempt; doubles with each
 */
export function backoffMs(attempt: number, baseMs: number, capMs = 600_000): number {
  return Math.floor(Math.random() * Math.min(capMs, baseMs * 2 ** (attempt - 1)));
}

/** From here on a time limit has no timer of its own, which would be a twentieth of what a call costs a worker. */
const LONG_MS = 10_000;
/** ms between two looks at the long limits: by so much at most one is late. */
const LOOK_MS = 250;
/** by performance.now(): a step of the wall clock ends no call */
const limits = new Set<{ at: number; run: () => void }>();
let looking: ReturnType<typeof setInterval> | undefined;

function look(): void {
  const now = performance.now();
  for (const limit of limits) {
    if (limit.at > now) continue;
    limits.delete(limit);
    limit.run();
  }
  if (limits.size > 0) return;
  clearInterval(looking);
  looking = undefined;
}

/**
 * setTimeout of any length: that of the runtimes would fire at once beyond 2^31-1 ms (24.8 d).
 * @param ms  from LONG_MS on up to LOOK_MS late @returns stops it
 */
export function after(ms: number, run: () => void): () => void {
  if (ms < LONG_MS) {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  }
  const limit = { at: performance.now() + ms, run };
  limits.add(limit);
  looking ??= setInterval(look, LOOK_MS);
  return () => limits.delete(limit);
}

/** A 2xx of a type that nobody asked for. What is longer than MAX_RESULT_BYTES is not kept. */
function unwelcome(request: CallRequest, { status }: Head, kept: Kept): Outcome {
  const { service, accepts, maxResultBytes } = request;
  const { bytes, type } = kept;
  const what = `with ${essence(type)} instead of ${acceptHeader(accepts)} (accepts)`;
  const told = hidden(request, excerpt(bytes, type));
  return badAnswer(service, status, what, told, bytes.byteLength < maxResultBytes ? kept : undefined);
}

/** Bytes of an error's answer that are kept with it: enough for a sentence or a list of fields. */
const MAX_KEPT_ERROR = 8_192;

/** A text as it came; undefined when it is longer, or none. */
function shortText(bytes: Uint8Array): string | undefined {
  if (bytes.byteLength > MAX_KEPT_ERROR) return undefined;
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** What a service said, for people who must not learn its keys or other people's. */
const hidden = ({ secrets }: CallRequest, text: string) => (secrets ? hideSent(text, secrets) : text);

/** An answer of another status than 2xx. */
function notKept(request: CallRequest, { status, header }: Head, type: string, bytes: Uint8Array): Outcome {
  const { service } = request;
  if (status < 300) return badAnswer(service, status, "", hidden(request, excerpt(bytes, type)));
  const redirect = status < 400;
  const said = redirect
    ? `a redirect to ${short(header("location") ?? "nowhere", MAX_EXCERPT_CHARS)}`
    : detail(bytes, type);
  const reason = hidden(request, said);
  const asked = isNoRoute(status, reason) ? ` to POST ${placeOf(request.url)}` : "";
  const message = `${service} answered ${status}${asked}${reason && `: ${reason}`}`;
  const code = redirect ? "redirect" : "http_error";
  const wish = header("x-job-retry")?.trim().toLowerCase();
  const again = wish === "yes" || (wish !== "no" && (RETRYABLE.has(status) || (status === 500 && request.retry500)));
  const askedMs = again ? parsedRetryAfter(header("retry-after"), header("date")) : undefined;
  const isCut = askedMs !== undefined && askedMs > MAX_RETRY_AFTER_MS;
  const cut = isCut ? ` (Retry-After of ${Math.round(askedMs / 1_000)} s, cut to 24 h)` : "";
  const error = fault(code, message + cut, again, status);
  const text = request.keepError && !redirect ? shortText(bytes) : undefined;
  if (text !== undefined) error.answer = { type, body: hidden(request, text) };
  if (!again) return { kind: "failed", error };
  const retryAfterMs = askedMs === undefined ? undefined : Math.min(askedMs, MAX_RETRY_AFTER_MS);
  return {
    kind: "retry",
    error,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    ...(wish === "yes" ? { asked: true } : {}),
  };
}

/**
 * Whether a service has most likely no such route, so that the registry's `path` is to be looked at: 404 or 405 in a
 * framework's words. A 404 with words of the service's own is about the job: "File x.ifc not found".
 */
const isNoRoute = (status: number, reason: string) =>
  (status === 404 || status === 405) &&
  (/^(?:40[45][\s:-]*)?(?:(?:page )?not found|method not allowed)?\.?$/i.test(reason) ||
    /^cannot post /i.test(reason) ||
    /^\(a page of HTML\) .*(?:not found|not allowed|cannot post)/is.test(reason));

/** Where a call went, for people: no user, password or query. */
const placeOf = (url: string) => new URL(url).origin + new URL(url).pathname;

const badAnswer = (service: string, status: number, what: string, told: string, kept?: Kept): Outcome =>
  failed("bad_answer", `${service} answered ${status} ${what}${told && `: ${told}`}`.trim(), status, kept);

/**
 * A connection that ended inside the body. By fetch every other failure to read is one, too: the runtimes do not tell them apart
 * (Deno says "error reading a body" of a chunk, "unexpected end of file" of a wrong gzip).
 * An answer with neither length nor chunks ends with its connection, so its cut shows only if it is JSON.
 */
const cutShort = (service: string, { status }: Head, error: unknown, kept: Kept | undefined): Outcome => {
  const message = `${service} answered ${status}, but the answer ended before it was complete (${codeOf(error)})`;
  return { kind: "retry", error: fault("cut_short", message, true, status), ...(kept ? { kept } : {}) };
};

/** Bun: `code`, Node's names and some of its own. Deno: no code, hyper's words in the cause. */
const codeOf = (error: unknown): string => {
  const { code, cause, message } = error as { code?: unknown; cause?: { message?: string }; message?: string };
  return typeof code === "string" ? code : (cause?.message ?? message ?? String(error));
};

/** Never sent: refused, no such name, no way there, no trust. A reset is not among them, it may have run. */
const UNSENT =
  /^(?:ECONNREFUSED|ConnectionRefused|ENOTFOUND|EAI_|DNS|E(?:HOST|NET)(?:UNREACH|DOWN)|EADDRNOTAVAIL|E[MN]FILE|FailedToOpenSocket|TLSHandshakeFailed|EPROTO$|ERR_(?:SSL|TLS)_\w+$|[A-Z_]*(?:CERT|CRL|UNABLE_TO)[A-Z_]*$)|client error \(Connect\)/;
/** Something answered, but not HTTP. */
const NOT_HTTP =
  /^(?:HPE_|Malformed|Invalid(?:HTTP|Content)|Unrequested|UnexpectedData|ResponseHeadersTooLarge|UnsupportedTransferEncoding)|\bparsed$|message head is too large/;
/** The request could not be made at all: a fault of the job or of the registry, not of the microservice. */
const UNSENDABLE = /^ERR_INVALID|invalid (?:url|header)|has invalid value|are blocked$/i;

function noAnswer({ service, url }: CallRequest, error: unknown): Outcome {
  const code = codeOf(error);
  // Bun's fetch says ETIMEDOUT of a connection attempt; of a live connection it would be a reset.
  const unsent =
    (error as { unsent?: true }).unsent === true ||
    UNSENT.test(code) ||
    (code === "ETIMEDOUT" && /unable to connect/i.test((error as Error).message));
  const reason = short(code.replace(/^.*client error \((?:Connect|SendRequest)\): /s, ""), MAX_EXCERPT_CHARS);
  if (unsent) {
    const at = URL.canParse(url) ? ` at ${new URL(url).origin}` : "";
    return {
      kind: "refused",
      error: fault("service_unreachable", `${service} cannot be reached${at}: ${reason}`, true),
    };
  }
  if (error instanceof OtherJob) {
    const message = `${service} answered for another job (${error.message}); the answer was refused`;
    return { kind: "reset", error: fault("wrong_job", message, true) };
  }
  if (NOT_HTTP.test(code)) {
    const what = /OVERFLOW|TooLarge|too large/.test(code)
      ? `with more than ${MAX_HEAD_BYTES / 1_024} KiB of headers`
      : /UNEXPECTED_CONTENT_LENGTH|InvalidContentLength/.test(code)
        ? "with two lengths that differ"
        : "something that is not HTTP";
    const { partial } = error as { partial?: Uint8Array };
    const kept = partial && { bytes: partial, type: "application/octet-stream" };
    return failed("bad_answer", `${service} answered ${what} (${reason})`, undefined, kept);
  }
  if (UNSENDABLE.test(code)) return failed("bad_job", `the call to ${service} cannot be made: ${reason}`);
  return {
    kind: "reset",
    error: fault("reset", `${service} closed the connection before it answered (${reason})`, true),
  };
}

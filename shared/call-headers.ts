/**
 * Headers of a call beside Longhaul's own: those that the operator gives a service (`headers`), and those of the client that are
 * passed on (`forward_headers`). Both may be secrets: no answer, page or log shows their values.
 */
import { Fault } from "./faults.ts";
import type { Operation } from "./services.ts";

/** What the names of the dashboard's cookies begin with. */
export const SESSION_COOKIE = "lh_session";
/** Names that an operation may pass on. */
export const MAX_FORWARDED = 16;
/** Bytes of all names and values that are stored with one job. */
export const MAX_FORWARDED_BYTES = 8_192;

const NAME = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;
/** What a header can carry. */
const VALUE = /^[\t\x20-\x7e\x80-\xff]+$/;
/** They belong to one connection, to the body, or to Longhaul itself. */
const OWN =
  /^(?:connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|http2-settings|expect|host|content-.*|accept|accept-encoding|user-agent|idempotency-key|x-job-.*|x-progress-url|traceparent|tracestate)$/;

/** Why a name, in lower case, may not be set; undefined when it may. */
export function nameMistake(name: string): string | undefined {
  if (!NAME.test(name)) return "is no name of a header";
  if (name === "accept") return "is made of the key accepts; set that";
  if (OWN.test(name)) return "is set by Longhaul itself, or belongs to one connection; leave it out";
  return undefined;
}

/** Why a value cannot be sent. The value itself is a secret, and not shown. */
export function valueMistake(value: string): string | undefined {
  if (value.trim() === "") return "is empty";
  if (!VALUE.test(value)) return "has a line break or a character that no header can carry";
  return value.length > MAX_FORWARDED_BYTES ? `is longer than ${MAX_FORWARDED_BYTES} characters` : undefined;
}

/** Browsers send the dashboard's cookie to every port of its host, and so to this gateway's. */
const withoutSession = (cookies: string | null) =>
  cookies
    ?.split(";")
    .filter((one) => !one.trim().startsWith(SESSION_COOKIE))
    .join(";")
    .trim();

/** Shorter values are names of tenants and the like, and would tear holes into any text. */
const MIN_SECRET = 8;
const SHOWN = "•••";

/**
 * A text of a service without the headers that it was sent: many an error message quotes its request. What stands behind a scheme
 * (Bearer, Basic) is hidden alone, too.
 */
export function hideSent(text: string, sent: readonly (Record<string, string> | undefined)[]): string {
  let clean = text;
  for (const headers of sent) {
    for (const name in headers) {
      const value = headers[name] as string;
      const cookies = name === "cookie" ? value.split(";").map((one) => one.slice(one.indexOf("=") + 1).trim()) : [];
      for (const secret of [value, value.slice(value.lastIndexOf(" ") + 1), ...cookies]) {
        if (secret.length >= MIN_SECRET) clean = clean.replaceAll(secret, SHOWN);
      }
    }
  }
  return clean;
}

/**
 * The headers of a request that the operation passes on. A key of this gateway is never among them: it would let the service in here.
 * @returns undefined when there are none
 * @throws Fault bad_request when they are too large
 */
export function forwardedOf(
  headers: Headers,
  op: Operation,
  apiKeys: readonly { key: string }[],
): Record<string, string> | undefined {
  let found: Record<string, string> | undefined;
  let size = 0;
  for (const name of op.forwardHeaders) {
    const value = name === "cookie" ? withoutSession(headers.get(name)) : headers.get(name);
    if (!value || apiKeys.some(({ key }) => value.includes(key))) continue;
    if (!VALUE.test(value))
      throw new Fault("bad_request", `The header ${name} cannot be passed on: its value is no text.`);
    size += name.length + value.length;
    found ??= {};
    found[name] = value;
  }
  if (size > MAX_FORWARDED_BYTES) {
    const most = `at most ${MAX_FORWARDED_BYTES} are passed on to the service`;
    throw new Fault("bad_request", `The headers ${op.forwardHeaders.join(", ")} have ${size} bytes; ${most}.`);
  }
  return found;
}

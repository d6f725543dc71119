/** A Fault as a client sees it: RFC 9457 `application/problem+json`. */
import { FAULTS, Fault } from "./faults.ts";
import { log } from "./log.ts";

/** @param instance  path of the request */
export function problem(fault: Fault, instance: string, headers: Record<string, string> = {}): Response {
  const { errors, retryAfterS, members } = fault.extra;
  const { status } = fault;
  const [, title] = FAULTS[fault.code];
  const body = {
    type: `urn:longhaul:${fault.code}`,
    title,
    status,
    detail: fault.detail,
    instance,
    code: fault.code,
    ...(errors ? { errors } : {}),
    ...members,
  };
  return new Response(JSON.stringify(body), {
    status,
    headers: {
      "content-type": "application/problem+json",
      "cache-control": "no-store",
      "x-content-type-options": "nosniff",
      ...(retryAfterS !== undefined ? { "retry-after": String(Math.max(1, Math.ceil(retryAfterS))) } : {}),
      ...(fault.code === "no_key" ? { "www-authenticate": 'Bearer realm="longhaul"' } : {}),
      ...fault.extra.headers,
      ...headers,
    },
  });
}

/** What was thrown, as a fault; anything unforeseen is ours, is logged, and is never shown. */
export function toFault(error: unknown): Fault {
  if (error instanceof Fault) return error;
  log.error("unforeseen", { stack: error instanceof Error ? error : String(error) });
  return new Fault("internal", "Something went wrong in the gateway; the operators find it in its log.");
}

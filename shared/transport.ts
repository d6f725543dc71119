/**
 * One POST and its answer, as bytes. Two ways to the same end:
 *   sockets  http://, on connections of the process's own (http1.ts): a fetch of Bun costs a thread with eleven system calls and
 *            two wake-ups a call, a connection a write and a read (docs/performance.md)
 *   fetch    the rest: https://, an address with a user, a proxy in the environment. Its pool cannot be read, so that a surplus
 *            answer would go unseen: each call has a connection of its own, unless the operator vouches for the service
 *
 * Both refuse an answer that names another job, and both have a time limit for connecting.
 */
import { Buffer } from "node:buffer"; // no global in Deno
import { setImmediate } from "node:timers";
import type { Abort } from "./abort.ts";
import { decoded } from "./decode.ts";
import { dial } from "./dial.ts";
import { type Body, type Exchange, NOTHING } from "./exchange.ts";
import { available, Connection } from "./http1.ts";
import { namesJob, OtherJob } from "./job-name.ts";
import type { Log } from "./log.ts";
import { type Pool, poolOf } from "./pool.ts";
import { proxied } from "./runtime.ts";
import { VERSION } from "./version.ts";

export type Post = {
  url: string;
  /** JSON text, sent as it is */
  body: string;
  /** names in lower case */
  headers: Record<string, string>;
  abort: Abort;
  /** a connection of its own, so that a reset never is a stale keep-alive */
  fresh: boolean;
  /** the operator says that the service sends one answer a request: its connections are used again unseen */
  vouched: boolean;
  /** ms for the connection to come about */
  connectMs: number;
  log: Log;
  onHead: Exchange["onHead"];
};

/** @throws what the runtime throws, at once or later, told by `code` or words (see call.ts); what Exchange.reject says */
export function post(request: Post): Promise<Body> {
  const origin = originOf(request.url);
  const { pool } = origin;
  pool.log = request.log;
  if (!origin.plain) return fetched(request, origin);
  const { abort, onHead, fresh, vouched, connectMs, headers } = request;
  const reuse = fresh || !pool.reuses(vouched) ? "never" : vouched ? "vouched" : "named";
  const text = textOf(origin.start, request, reuse === "never");
  const jobId = headers["x-job-id"];
  return new Promise((resolve, reject) => {
    abort.onabort = () => reject(abort.reason);
    const sent = sendQueue.push({ origin, connectMs, text, reuse, jobId, abort, onHead, resolve, reject });
    if (sent === 1) setImmediate(sendAll);
  });
}

/**
 * Connects as a call would, and sends nothing.
 * @param url  of the service
 * @throws Unreachable; where a proxy makes the calls, what fetch throws
 */
export async function reach(url: string, limitMs: number): Promise<void> {
  const origin = originOf(url);
  if (origin.proxied) {
    const response = await fetch(`${url}/health`, { signal: AbortSignal.timeout(limitMs), redirect: "manual" });
    await response.body?.cancel();
    return;
  }
  await connectable(origin, limitMs);
}

type Origin = {
  host: string;
  port: number;
  /** of a request: its line and the headers that never change */
  start: string;
  pool: Pool;
  /** by sockets, else by fetch */
  plain: boolean;
  proxied: boolean;
};
/** By URL, of which a deployment has a few. */
const origins = new Map<string, Origin>();
const MAX_ORIGINS = 1_000;

/** @throws TypeError when it is no URL */
function originOf(url: string): Origin {
  const known = origins.get(url);
  if (known) return known;
  if (origins.size === MAX_ORIGINS) origins.clear();
  const { protocol, origin, host, hostname, port, pathname, search, username, password } = new URL(url);
  const name = hostname.replace(/^\[|\]$/g, "");
  const behind = proxied(protocol, name);
  const made = {
    host: name,
    port: Number(port || (protocol === "https:" ? 443 : 80)),
    start: `POST ${pathname}${search} HTTP/1.1\r\nhost: ${host}\r\nuser-agent: longhaul/${VERSION}\r\naccept-encoding: identity\r\n`,
    pool: poolOf(origin),
    plain: available && !behind && protocol === "http:" && !username && !password,
    proxied: behind,
  };
  origins.set(url, made);
  return made;
}

const ASCII = /^[\t\x20-\x7e]*$/;
const LATIN1 = /^[\t\x20-\x7e\x80-\xff]*$/;

/** The request as it is sent. @throws TypeError with code ERR_INVALID_CHAR */
function textOf(start: string, { body, headers }: Post, close: boolean): string | Buffer {
  let head = start;
  let ascii = true;
  for (const name in headers) {
    const value = headers[name] as string;
    if (!ASCII.test(value)) {
      const error = new TypeError(`the header ${name} has an invalid value`);
      if (!LATIN1.test(value)) throw Object.assign(error, { code: "ERR_INVALID_CHAR" });
      ascii = false;
    }
    head += `${name}: ${value}\r\n`;
  }
  if (close) head += "connection: close\r\n";
  head += `content-length: ${Buffer.byteLength(body)}\r\n\r\n`;
  return ascii ? head + body : Buffer.concat([Buffer.from(head, "latin1"), Buffer.from(body)]);
}

type PendingRequest = Exchange & { origin: Origin; connectMs: number; text: string | Buffer };
/**
 * Goes out at the end of the event loop's tick: a service that is woken for one request finds the others of the tick, instead
 * of being woken for each, and a connection that was closed in the same tick is not taken.
 */
const sendQueue: PendingRequest[] = [];

function sendAll(): void {
  const now = performance.now();
  for (const request of sendQueue.splice(0)) {
    if (request.abort.aborted) continue;
    const { origin, jobId, reuse, text } = request;
    try {
      const idle = reuse === "never" ? undefined : origin.pool.take(now, jobId, reuse === "vouched");
      if (idle) idle.send(text, request);
      else connectAndSend(request);
    } catch (error) {
      request.reject(error); // the others must go out
    }
  }
}

function connectAndSend(request: PendingRequest): void {
  const { origin, abort, text, connectMs } = request;
  const giveUp = dial(origin.host, origin.port, connectMs, (error, socket) => {
    if (socket) new Connection(socket, origin.pool).send(text, request);
    else request.reject(error);
  });
  abort.onabort = () => {
    giveUp();
    request.reject(abort.reason);
  };
}

/**
 * Bun's own cut of a silent call (300–360 s) is off, and `keepalive: false` gives a new socket; a header
 * `Connection: close` would not, it goes out on a pooled one.
 * It decodes nothing either: what it cannot decode it would throw away (decode.ts).
 * Deno sends a POST again, untold, when a pooled socket closes under it: there every call has a new one.
 */
type Runtime = RequestInit & { timeout?: false; decompress?: false; client?: unknown };
type DenoClient = { createHttpClient(options: { poolMaxIdlePerHost: number }): unknown };
const deno = (globalThis as { Deno?: DenoClient }).Deno;
const bun: Runtime = { timeout: false, decompress: false };
const pooled: Runtime = deno ? { client: deno.createHttpClient({ poolMaxIdlePerHost: 0 }) } : bun;
const fresh: Runtime = deno ? pooled : { ...bun, keepalive: false };

/**
 * Bun's fetch has no limit for connecting, so that a call to a host that drops packets would end as a call that took too long.
 * It is made only when a connection of ours came about just before.
 */
function connectable({ host, port }: Origin, limitMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const giveUp = dial(host, port, limitMs, (error, socket) => {
      socket?.on("error", () => {}).destroy();
      if (error) reject(error);
      else resolve();
    });
    signal?.addEventListener("abort", () => {
      giveUp();
      reject(signal.reason);
    });
  });
}

/** Plain fetch, not ofetch: 24 µs a call against 30–33, and ofetch turns a truncated or empty answer into a success. */
async function fetched(request: Post, origin: Origin): Promise<Body> {
  const { abort, vouched } = request;
  const controller = new AbortController();
  abort.onabort = () => controller.abort(abort.reason);
  const sent = new Headers(request.headers); // throws before anything is tried
  if (!origin.proxied) await connectable(origin, request.connectMs, controller.signal);
  const response = await fetch(request.url, {
    method: "POST", // never PUT or GET: Bun sends those again on a socket that closed
    body: request.body,
    headers: sent,
    redirect: "manual",
    signal: controller.signal,
    ...(vouched && !request.fresh && origin.pool.reuses(true) ? pooled : fresh),
  });
  const { headers } = response;
  const named = headers.get("x-job-id");
  const jobId = request.headers["x-job-id"];
  if (named !== null && jobId !== undefined && !namesJob(named, jobId)) {
    const error = new OtherJob("other", named);
    origin.pool.refused(error, jobId);
    throw error;
  }
  const wanted = request.onHead({ status: response.status, header: (name) => headers.get(name) });
  const { cap, whole } = wanted;
  // the length says nothing of a body that is decoded or chunked
  const told = !headers.has("content-encoding") && !headers.has("transfer-encoding");
  if (whole && told && Number(headers.get("content-length")) > cap) return { bytes: NOTHING, complete: false };
  if (!response.body) return { bytes: NOTHING, complete: true };
  const parts: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const part of response.body) {
      parts.push(part);
      size += part.byteLength;
      if (size > cap) return { bytes: whole ? NOTHING : Buffer.concat(parts).subarray(0, cap), complete: false };
    }
  } catch (error) {
    const bytes = Buffer.concat(parts);
    if (whole) throw bytes.length > 0 && !abort.aborted ? Object.assign(error as Error, { partial: bytes }) : error;
    return { bytes, complete: false };
  }
  const bytes = Buffer.concat(parts);
  if (deno || bytes.length === 0) return { bytes, complete: true }; // Deno has decoded it
  return decoded(bytes, headers.get("content-encoding"), wanted);
}

/**
 * One POST and its answer, as bytes. Two ways to the same end:
 *   sockets  http://, on connections of the process's own (http1.ts): a fetch of Bun costs a thread with eleven system calls and
 *            two wake-ups a call, a connection a write and a read (docs/performance.md)
 *   fetch    the rest: https://, an address with a user, a proxy in the environment
 */
import { Buffer } from "node:buffer"; // no global in Deno
import { setImmediate, setTimeout } from "node:timers";
import type { Abort } from "./abort.ts";
import { decoded } from "./decode.ts";
import { available, type Body, Connection, type Exchange, type Home, NOTHING } from "./http1.ts";
import { PROXIED } from "./runtime.ts";
import { VERSION } from "./version.ts";

export type Post = {
  url: string;
  /** JSON text, sent as it is */
  body: string;
  headers: Record<string, string>;
  abort: Abort;
  /** a connection of its own, so that a reset never is a stale keep-alive */
  fresh: boolean;
  onHead: Exchange["onHead"];
};

/** @throws what the runtime throws, at once or later, told by `code` or words (see call.ts); what Exchange.reject says */
export function post(request: Post): Promise<Body> {
  const { host, port, start, pool, plain } = placeOf(request.url);
  if (!plain) return fetched(request);
  const text = textOf(start, request);
  const { abort, onHead, fresh } = request;
  return new Promise((resolve, reject) => {
    abort.onabort = () => reject(abort.reason);
    const sent = outbox.push({ host, port, pool: fresh ? undefined : pool, text, abort, onHead, resolve, reject });
    if (sent === 1) setImmediate(sendAll);
  });
}

/** ms; servers close an idle connection after 2 to 75 s, and what is sent at that moment is lost. */
const IDLE_MS = 1_000;

/**
 * A service that closes so soon after a connection's first answer, without having said so, closes after each: the next request
 * would often be lost. It gets a connection a call for a while. (One that is restarted closes connections that have served for longer.)
 */
const SOON_MS = 100;
const DISTRUST_MS = 600_000;

/** The idle connections to one origin, the one that was used last at the end. */
class Pool implements Home {
  private readonly idle: Connection[] = [];
  /** by performance.now() */
  private distrustedUntil = 0;

  /** @param now  performance.now() */
  take(now: number): Connection | undefined {
    for (;;) {
      const connection = this.idle.pop();
      if (!connection) return undefined;
      if (connection.alive && now - connection.since < IDLE_MS) return connection;
      connection.close();
    }
  }

  keep(connection: Connection): void {
    if (connection.since < this.distrustedUntil) {
      connection.close();
      return;
    }
    this.idle.push(connection);
    lookLater();
  }

  drop(connection: Connection, theirs: boolean): void {
    const at = this.idle.indexOf(connection);
    if (at >= 0) this.idle.splice(at, 1);
    const now = performance.now();
    if (theirs && now - connection.first < SOON_MS) this.distrustedUntil = now + DISTRUST_MS;
  }

  /** @returns how many are left */
  closeOld(): number {
    const old = performance.now() - IDLE_MS;
    while (this.idle[0] && this.idle[0].since < old) this.idle.shift()?.close();
    return this.idle.length;
  }
}

const pools = new Map<string, Pool>();
let looking = false;

/** Closes what is idle for too long, while anything is idle. */
function lookLater(): void {
  if (looking) return;
  looking = true;
  setTimeout(() => {
    looking = false;
    for (const pool of pools.values()) if (pool.closeOld() > 0) lookLater();
  }, IDLE_MS).unref();
}

type Place = { host: string; port: number; start: string; pool: Pool; plain: boolean };
/** By URL, of which a deployment has a few. */
const places = new Map<string, Place>();
const MAX_PLACES = 1_000;

/** @throws TypeError when it is no URL */
function placeOf(url: string): Place {
  const known = places.get(url);
  if (known) return known;
  if (places.size === MAX_PLACES) places.clear();
  const { protocol, origin, host, hostname, port, pathname, search, username, password } = new URL(url);
  const pool = pools.get(origin) ?? new Pool();
  pools.set(origin, pool);
  const place = {
    host: hostname.replace(/^\[|\]$/g, ""),
    port: Number(port || 80),
    start: `POST ${pathname}${search} HTTP/1.1\r\nhost: ${host}\r\nuser-agent: longhaul/${VERSION}\r\naccept-encoding: identity\r\n`,
    pool,
    plain: available && !PROXIED && protocol === "http:" && !username && !password,
  };
  places.set(url, place);
  return place;
}

const ASCII = /^[\t\x20-\x7e]*$/;
const LATIN1 = /^[\t\x20-\x7e\x80-\xff]*$/;

/** The request as it is sent. @throws TypeError with code ERR_INVALID_CHAR */
function textOf(start: string, { body, headers, fresh }: Post): string | Buffer {
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
  if (fresh) head += "connection: close\r\n";
  head += `content-length: ${Buffer.byteLength(body)}\r\n\r\n`;
  return ascii ? head + body : Buffer.concat([Buffer.from(head, "latin1"), Buffer.from(body)]);
}

type Letter = Exchange & { host: string; port: number; pool: Pool | undefined; text: string | Buffer };
/**
 * Goes out at the end of the event loop's tick: a service that is woken for one request finds the others of the tick, instead
 * of being woken for each, and a connection that was closed in the same tick is not taken.
 */
const outbox: Letter[] = [];

function sendAll(): void {
  const now = performance.now();
  for (const letter of outbox.splice(0)) {
    if (letter.abort.aborted) continue;
    const { host, port, pool, text } = letter;
    try {
      (pool?.take(now) ?? new Connection(host, port, pool)).send(text, letter);
    } catch (error) {
      letter.reject(error); // the others must go out
    }
  }
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

/** Plain fetch, not ofetch: 24 µs a call against 30–33, and ofetch turns a truncated or empty answer into a success. */
async function fetched(request: Post): Promise<Body> {
  const { abort } = request;
  const controller = new AbortController();
  abort.onabort = () => controller.abort(abort.reason);
  const response = await fetch(request.url, {
    method: "POST", // never PUT or GET: Bun sends those again on a socket that closed
    body: request.body,
    headers: request.headers,
    redirect: "manual",
    signal: controller.signal,
    ...(request.fresh ? fresh : pooled),
  });
  const { headers } = response;
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

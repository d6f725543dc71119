/**
 * Requests to addresses that a client names: callbacks and download-from-url. Without a guard such a request
 * reaches what only this machine can reach: Redis, the microservices, a cloud's metadata service.
 *
 * The name is resolved once and the socket opened to that very address, so a name that resolves differently a
 * moment later (DNS rebinding) gains nothing. The address takes the host's place in the request, and the name goes
 * into Host and SNI: a runtime that ignored either would fail, never connect elsewhere. Each redirect is judged anew.
 */
import { lookup } from "node:dns/promises";
import { type IncomingMessage, type RequestOptions, request as requestHttp } from "node:http";
import { request as requestHttps } from "node:https";
import ip from "ipaddr.js";
import { sizeText } from "./units.ts";

/**
 * Why there is no answer.
 * - `refused`: the guard says no; nothing was sent
 * - `unreachable`: no such name, no connection, a certificate that does not fit, an answer that is not HTTP
 * - `timeout`, `cut`, `too_large`, `redirects`: something was sent, and what came cannot be used
 */
export type GuardErrorKind = "refused" | "unreachable" | "timeout" | "cut" | "too_large" | "redirects";

export class GuardError extends Error {
  constructor(
    readonly kind: GuardErrorKind,
    message: string,
  ) {
    super(message);
  }
}

/** Public by its range, and yet a metadata service (Azure's). Those of other clouds lie in ranges that are refused. */
const NEVER = new Set(["168.63.129.16"]);
/** IPv6 that is routed at all (RFC 4291 §2.4, IANA): all forms that carry an IPv4 within lie outside, or are named by `range`. */
const GLOBAL_V6: [ip.IPv6, number] = [ip.IPv6.parse("2000::"), 3];

/** Whether a numeric address is one that anybody may reach. Anything that cannot be read is not. */
export function isPublic(address: string): boolean {
  if (!ip.isValid(address)) return false;
  const parsed = ip.process(address); // ::ffff:10.0.0.1 is 10.0.0.1
  if (parsed.range() !== "unicast" || NEVER.has(parsed.toString())) return false;
  return parsed.kind() === "ipv4" || (parsed as ip.IPv6).match(GLOBAL_V6);
}

/** What an operator allows beside public addresses: whether it holds `host` (with port), or the `address` it has. */
export type Allowance = ((url: URL, address: string) => boolean) & {
  /** where an operator may list a host that is refused */
  variable?: string;
};

/**
 * Reads a list of hosts (`n8n`, `n8n:5678`), addresses and CIDR ranges.
 * @throws Error naming the item that is none
 */
export function allowance(items: readonly string[], variable: string): Allowance {
  const hosts = new Set<string>();
  const nets: [ip.IPv4 | ip.IPv6, number][] = [];
  for (const item of items) {
    const bare = item.replace(/^\[(.*)\]$/, "$1");
    if (ip.isValidCIDR(item)) nets.push(ip.parseCIDR(item));
    else if (ip.IPv4.isValidFourPartDecimal(bare) || ip.IPv6.isValid(bare)) {
      const address = ip.process(bare);
      nets.push([address, address.kind() === "ipv4" ? 32 : 128]);
    } else if (/^[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?(:\d{1,5})?$/i.test(item) && !/^[\d.]+$/.test(item)) {
      hosts.add(item.toLowerCase());
    } else {
      throw new Error(
        `${variable}: ${JSON.stringify(item)} is neither a host such as n8n or n8n:5678, nor an address, nor a CIDR range`,
      );
    }
  }
  const allow = (url: URL, address: string) => {
    const port = url.port || (url.protocol === "https:" ? "443" : "80");
    if (hosts.has(url.hostname) || hosts.has(`${url.hostname}:${port}`)) return true;
    const parsed = ip.process(address);
    return nets.some(([net, bits]) => net.kind() === parsed.kind() && parsed.match(net as ip.IPv4 & ip.IPv6, bits));
  };
  return Object.assign(allow, { variable });
}

export const NOTHING: Allowance = () => false;

export type GuardOptions = {
  /** private addresses that are allowed all the same */
  allow?: Allowance;
  method?: string;
  headers?: Record<string, string>;
  body?: string | Uint8Array;
  /** of the answer's body; more is `too_large` */
  maxBytes: number;
  /** for the whole exchange, redirects and body included */
  timeoutMs: number;
  /** longest silence: of the name server, until connected, before the answer, between two pieces of it. Default 30 s */
  silenceMs?: number;
  /** 0 = a redirect is the answer. Only GET and HEAD follow any, and carry no header of `headers` to another origin */
  maxRedirects?: number;
  signal?: AbortSignal;
  /** for tests: name → addresses */
  resolve?: (host: string) => Promise<string[]>;
};

export type GuardedAnswer = {
  status: number;
  headers: Headers;
  /** after redirects */
  url: string;
  address: string;
  /** read it to the end, leave the loop, or call `discard`; @throws GuardError timeout, cut, too_large */
  body: AsyncIterable<Uint8Array>;
  discard(): void;
};

/** Addresses of one name that are tried when none before could be connected to. */
const MOST_ADDRESSES = 4;
const resolveName = async (host: string) => (await lookup(host, { all: true })).map(({ address }) => address);

/**
 * Judges a text as a target, without asking the name server: what is wrong with it at first sight is told at submit.
 * @throws GuardError refused
 */
export function targetOf(text: string, base?: string): URL {
  const url = URL.canParse(text, base) ? new URL(text, base) : undefined;
  if (!url) throw new GuardError("refused", `${JSON.stringify(text.slice(0, 200))} is not a URL`);
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new GuardError("refused", `only http and https are allowed, not ${url.protocol.slice(0, 40)}`);
  }
  if (url.username || url.password) throw new GuardError("refused", "the URL must not hold a user or a password");
  if (url.port === "0") throw new GuardError("refused", "port 0 cannot be reached");
  return url;
}

/**
 * Like `targetOf`, for what is POSTed to. A fragment is refused: no request carries it, so the receiver that it was to
 * choose (`/#/hooks/7`) is never asked.
 * @throws GuardError refused
 */
export function receiverOf(text: string): URL {
  const url = targetOf(text);
  if (text.includes("#"))
    throw new GuardError("refused", "the URL has a fragment, which no request carries; leave out # and what follows");
  return url;
}

/** The host as an address when it is a numeric one. URL has made 0x7f.1, 2130706433 and 0177.0.0.1 into 127.0.0.1. */
const literal = (url: URL) => {
  const bare = url.hostname.replace(/^\[(.*)\]$/, "$1");
  return ip.isValid(bare) ? bare : undefined;
};

/**
 * Like `targetOf`, and refuses numeric addresses that are not allowed. Names are judged when they are resolved.
 * @throws GuardError refused
 */
export function checkTarget(text: string, allow: Allowance = NOTHING): URL {
  const url = targetOf(text);
  const address = literal(url);
  if (address && !isPublic(address) && !allow(url, address)) throw notPublic(url, allow);
  return url;
}

/**
 * Judges a name by the addresses that it has now. One that cannot be resolved within `waitMs` is let pass: it may be resolved when it
 * is called, and is judged again then.
 * @throws GuardError refused
 */
export async function checkName(url: URL, allow: Allowance, waitMs: number, resolve = resolveName): Promise<void> {
  if (literal(url)) return;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<string[]>((done) => {
    timer = setTimeout(() => done([]), waitMs);
  });
  const found = await Promise.race([resolve(url.hostname).catch(() => []), late]);
  clearTimeout(timer);
  const fits = (address: string) => ip.isValid(address) && (isPublic(address) || allow(url, address));
  if (found.length > 0 && !found.some(fits)) throw notPublic(url, allow);
}

// The address itself is not told: a stranger could map the names of an inner network.
const notPublic = (url: URL, allow: Allowance) => {
  const cure = allow.variable ? `; an operator may list it in ${allow.variable}` : "";
  return new GuardError("refused", `${url.hostname} has no public address${cure}`);
};

/** ms; a timer of the runtimes that is longer fires at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Runs out when the exchange takes too long or its caller leaves. */
class Clock {
  private readonly end: number;
  constructor(
    private readonly silenceMs: number,
    timeoutMs: number,
    private readonly signal: AbortSignal | undefined,
  ) {
    this.end = performance.now() + timeoutMs;
  }
  /** Waits for one step. @throws GuardError timeout, after `undo`, when the step is too slow */
  async step<T>(what: string, work: Promise<T>, undo: () => void = () => {}): Promise<T> {
    const ms = Math.max(0, Math.min(this.silenceMs, this.end - performance.now(), MAX_TIMER_MS));
    let timer: ReturnType<typeof setTimeout> | undefined;
    let left: (() => void) | undefined;
    const late = new Promise<never>((_, reject) => {
      const stop = (message: string) => {
        undo();
        reject(new GuardError("timeout", message));
      };
      left = () => stop("the request was given up");
      timer = setTimeout(() => stop(`${what} took longer than ${Math.round(ms / 100) / 10} s`), ms);
      if (this.signal?.aborted) left();
      else this.signal?.addEventListener("abort", left, { once: true });
    });
    work.catch(() => {}); // its end after ours concerns nobody
    try {
      return await Promise.race([work, late]);
    } finally {
      clearTimeout(timer);
      if (left) this.signal?.removeEventListener("abort", left);
    }
  }
}

/**
 * Fetches a URL that a stranger chose. Neither compressed bodies nor cookies nor proxies: what comes is what is read.
 * @throws GuardError
 */
export async function guardedFetch(text: string, options: GuardOptions): Promise<GuardedAnswer> {
  const { method = "GET", maxRedirects = 0, signal } = options;
  const clock = new Clock(options.silenceMs ?? 30_000, options.timeoutMs, signal);
  const follows = method === "GET" || method === "HEAD" ? maxRedirects : 0;
  let url = targetOf(text);
  const { origin } = url;
  for (let hop = 0; ; hop++) {
    const headers = url.origin === origin ? options.headers : {};
    const { message, address } = await send(url, { ...options, method, headers: headers ?? {} }, clock);
    const status = message.statusCode ?? 0;
    const location = message.headers.location;
    if (follows > 0 && [301, 302, 303, 307, 308].includes(status) && location !== undefined) {
      message.destroy();
      if (hop >= follows) throw new GuardError("redirects", `more than ${follows} redirects`);
      url = targetOf(location, url.href);
      continue;
    }
    return {
      status,
      headers: headersOf(message),
      url: url.href,
      address,
      body: bodyOf(message, options.maxBytes, clock),
      discard: () => message.destroy(),
    };
  }
}

/** Sends one request to the first address that lets itself be connected to. */
async function send(
  url: URL,
  options: GuardOptions & { method: string; headers: Record<string, string> },
  clock: Clock,
) {
  const host = literal(url);
  let found: string[];
  try {
    found = host ? [host] : await clock.step("the name server", (options.resolve ?? resolveName)(url.hostname));
  } catch (error) {
    if (error instanceof GuardError) throw error;
    throw new GuardError("unreachable", `the name ${url.hostname} cannot be resolved`);
  }
  const allow = options.allow ?? NOTHING;
  const fit = found.filter((address) => ip.isValid(address) && (isPublic(address) || allow(url, address)));
  if (fit.length === 0) throw notPublic(url, allow);
  let failed: unknown;
  for (const address of fit.slice(0, MOST_ADDRESSES)) {
    try {
      return { message: await exchange(url, address, options, clock), address };
    } catch (error) {
      if (!(error instanceof NotConnected)) throw error;
      failed = error;
    }
  }
  throw failed;
}

/** Nothing was sent, so another address may be tried. */
class NotConnected extends GuardError {}
const CONNECTING = /^(ECONNREFUSED|ENETUNREACH|EHOSTUNREACH|EADDRNOTAVAIL|ETIMEDOUT|ConnectionRefused)$/;

async function exchange(
  url: URL,
  address: string,
  { method, headers, body }: { method: string; headers: Record<string, string>; body?: string | Uint8Array },
  clock: Clock,
): Promise<IncomingMessage> {
  const secure = url.protocol === "https:";
  const name = literal(url) ? {} : { servername: url.hostname };
  const bytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
  const settings: RequestOptions & { servername?: string } = {
    method,
    hostname: address,
    port: url.port || (secure ? 443 : 80),
    path: `${url.pathname}${url.search}`,
    agent: false, // a pooled socket belongs to a name, not to the address that was judged for this call
    headers: {
      accept: "*/*",
      "accept-encoding": "identity",
      "user-agent": "longhaul",
      ...headers,
      host: url.host,
      ...(bytes ? { "content-length": String(bytes.length) } : {}),
    },
    ...(secure ? name : {}),
  };
  const call = (secure ? requestHttps : requestHttp)(settings);
  const answered = new Promise<IncomingMessage>((resolve, reject) => {
    call.once("response", resolve);
    call.on("error", (error: Error & { code?: string }) => {
      const why = `${url.host}: ${error.message}`;
      reject(CONNECTING.test(error.code ?? "") ? new NotConnected("unreachable", why) : fault(error, why));
    });
  });
  call.end(bytes);
  const message = await clock.step("the other server's answer", answered, () => call.destroy());
  message.on("error", () => {}); // told by the body's own reader; without a reader it concerns nobody
  return message;
}

const fault = (error: { code?: string }, why: string) =>
  new GuardError(/^(ECONNRESET|EPIPE|ABORT_ERR)$/.test(error.code ?? "") ? "cut" : "unreachable", why);

function headersOf(message: IncomingMessage): Headers {
  const headers = new Headers();
  for (let i = 0; i + 1 < message.rawHeaders.length; i += 2) {
    headers.append(message.rawHeaders[i] as string, message.rawHeaders[i + 1] as string);
  }
  return headers;
}

/** The body piece by piece; a reader that stops or fails closes the connection. */
async function* bodyOf(message: IncomingMessage, maxBytes: number, clock: Clock): AsyncGenerator<Uint8Array> {
  const tooLarge = () => new GuardError("too_large", `the other server's answer is larger than ${sizeText(maxBytes)}`);
  try {
    if (Number(message.headers["content-length"] ?? 0) > maxBytes) throw tooLarge();
    const pieces = message[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
    for (let size = 0; ; ) {
      const { done, value } = await clock.step("the rest of the answer", pieces.next(), () => message.destroy());
      if (done) return;
      size += value.length;
      if (size > maxBytes) throw tooLarge();
      yield value;
    }
  } catch (error) {
    if (error instanceof GuardError) throw error;
    throw new GuardError("cut", `the answer was cut short: ${(error as Error).message}`);
  } finally {
    message.destroy();
  }
}

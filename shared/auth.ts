/** Who may do what: API keys with scopes, trusted address ranges, and the rules when no key is set. */
import { Buffer } from "node:buffer";
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { isIP } from "node:net";
import { containerGateways, isLoopback, plainIp as plain, ranges } from "./addresses.ts";
import type { Scope } from "./config.ts";
import { Fault } from "./faults.ts";

const RANK: Record<Scope, number> = { read: 0, submit: 1, admin: 2 };

/** Who asks. `key` is a short hash that may be logged and scopes Idempotency-Keys; never the key itself. */
export type Caller = { scope: Scope; key: string; ip: string };

export { isLoopback };

const sha256 = (text: string) => createHash("sha256").update(text).digest();
export type AuthSettings = {
  apiKeys: { key: string; scope: Scope }[];
  allowedRanges: string[];
  trustedProxies: string[];
  /** other sites whose pages may ask */
  corsOrigins?: string[];
};

/**
 * Builds the check of one deployment.
 * @param gateways  addresses that no range lets in: behind a container's own gateway stands everybody
 * @throws Error when a range cannot be read
 */
export function guard(settings: AuthSettings, gateways = containerGateways()) {
  const keys = settings.apiKeys.map(({ key, scope }) => ({ hash: sha256(key), scope }));
  const listed = ranges(settings.allowedRanges);
  const outside = ranges(gateways);
  const allowed = (ip: string) => listed(ip) && !outside(ip);
  const trusted = ranges(settings.trustedProxies);

  let last = { text: "", ip: "" };
  /** Mostly the same as a moment ago: one machine, or a proxy. */
  const plainIp = (text: string): string => {
    if (text !== last.text) last = { text, ip: plain(text) };
    return last.ip;
  };

  /** The client's address: the rightmost hop that is not a trusted proxy; the socket's when it is none itself. */
  const clientIp = (socketIp: string, forwarded: string | null): string => {
    let ip = plainIp(socketIp);
    if (!forwarded || !trusted(ip)) return ip;
    for (const hop of forwarded.split(",").reverse()) {
      const next = plain(hop);
      if (!isIP(next)) break;
      ip = next;
      if (!trusted(ip)) break;
    }
    return ip;
  };

  /** Finds the key among all, in the same time wherever it stands. */
  const find = (key: string) => {
    const hash = sha256(key);
    let found: (typeof keys)[number] | undefined;
    for (const candidate of keys) if (timingSafeEqual(candidate.hash, hash)) found = candidate;
    return found && { scope: found.scope, key: hash.toString("hex").slice(0, 16) };
  };

  const keyOf = (headers: Headers): string | undefined => {
    const plain = headers.get("x-api-key");
    if (plain) return plain;
    return /^Bearer +(\S+) *$/i.exec(headers.get("authorization") ?? "")?.[1];
  };

  /** the last names that were ours: the next request mostly has the same, and URLs are dear */
  let found: { host: string | null; origin: string } | undefined;
  /** Without a key only loopback may ask, by a loopback name, and from no other site: else any web page could. */
  const openCaller = (request: Request, ip: string): Caller => {
    // The name is the client's to write: only the address tells where it is.
    if (!isLoopback(ip)) {
      throw new Fault("no_key", "Without API_KEYS this gateway answers only to its own machine.");
    }
    // Deno takes the URL from the request line where that names a host, and Bun from Host: each must be ours.
    const header = request.headers.get("host");
    if (!found || header !== found.host || !request.url.startsWith(found.origin)) {
      for (const url of header ? [request.url, `http://${header}`] : [request.url]) {
        const host = URL.canParse(url) ? new URL(url).hostname : "";
        if (isLoopback(host)) continue;
        throw new Fault("foreign_origin", `Without API_KEYS this gateway answers only to localhost, not to ${host}.`);
      }
      found = { host: header, origin: `${/^\w+:\/\/[^/?#]*/.exec(request.url)?.[0]}/` };
    }
    const origin = request.headers.get("origin");
    const own = origin && URL.canParse(origin) && isLoopback(new URL(origin).hostname);
    if (origin && !own && !settings.corsOrigins?.includes(origin)) {
      throw new Fault("foreign_origin", "Without API_KEYS requests from another site are refused.");
    }
    return { scope: "admin", key: "open", ip };
  };

  /** @throws Fault wrong_scope */
  const demand = (caller: Caller, need: Scope): Caller => {
    if (RANK[caller.scope] >= RANK[need]) return caller;
    throw new Fault("wrong_scope", `This needs a key of scope ${need}; yours has ${caller.scope}.`);
  };

  return {
    clientIp,
    find,
    /**
     * @param need  the scope that the route asks for
     * @throws Fault no_key, wrong_key, wrong_scope, foreign_origin
     */
    check(request: Request, socketIp: string, need: Scope): Caller {
      const forwarded = settings.trustedProxies.length > 0 ? request.headers.get("x-forwarded-for") : null;
      const ip = clientIp(socketIp, forwarded);
      const key = keys.length > 0 ? keyOf(request.headers) : undefined;
      let caller: Caller;
      if (key !== undefined) {
        const found = find(key);
        if (!found) throw new Fault("wrong_key", "This API key is not known; check X-API-Key.");
        caller = { ...found, ip };
      } else if (allowed(ip)) {
        caller = { scope: "submit", key: `ip:${ip}`, ip };
      } else if (keys.length === 0) {
        caller = openCaller(request, ip);
      } else {
        throw new Fault("no_key", "Send your API key in the header X-API-Key, or as Authorization: Bearer.");
      }
      return demand(caller, need);
    },
    demand,
    /** Whether any key is configured; without one, loopback alone may ask. */
    open: keys.length === 0,
    session: sessions(keys),
  };
}

/** ms; a browser signs in again after this. */
export const SESSION_MS = 12 * 3_600_000;

/**
 * Sessions of the dashboard without a store: the cookie names the key by its hash and is signed with the key, so any
 * gateway can check it, and taking a key away ends its sessions.
 */
function sessions(keys: { hash: Buffer; scope: Scope }[]) {
  const sign = (hash: Buffer, text: string) => createHmac("sha256", hash).update(text).digest("base64url");
  return {
    /** @returns the cookie's value. @param key  must be one of the configured keys */
    issue(key: string, now = Date.now()): string {
      const hash = sha256(key);
      const text = `${hash.toString("hex").slice(0, 16)}.${now + SESSION_MS}`;
      return `${text}.${sign(hash, text)}`;
    },
    /** @returns who it is, or undefined when the cookie is forged, over, or of a key that is gone */
    read(cookie: string, ip: string, now = Date.now()): Caller | undefined {
      const [name = "", until = "", signature = ""] = cookie.split(".");
      if (!(Number(until) > now)) return undefined;
      for (const { hash, scope } of keys) {
        if (hash.toString("hex").slice(0, 16) !== name) continue;
        const good = Buffer.from(sign(hash, `${name}.${until}`));
        const given = Buffer.from(signature);
        if (good.length === given.length && timingSafeEqual(good, given)) return { scope, key: name, ip };
      }
      return undefined;
    },
  };
}

export type Guard = ReturnType<typeof guard>;

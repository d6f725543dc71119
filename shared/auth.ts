/** Who may do what: API keys with scopes, trusted address ranges, and the rules when no key is set. */
import { Buffer } from "node:buffer";
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { isIP } from "node:net";
import { containerGateways, isLoopback, plainIp as plain, ranges } from "./addresses.ts";
import type { ApiKey, Scope } from "./config.ts";
import { knownHosts, sitePolicy } from "./cross-site.ts";
import { Fault } from "./faults.ts";

const RANK: Record<Scope, number> = { read: 0, submit: 1, admin: 2 };

/**
 * Who asks. `key` is a short hash that scopes Idempotency-Keys, never the key itself; `name` is what people read: the
 * key's name in API_KEYS, else that hash.
 */
export type Caller = { scope: Scope; key: string; name: string; ip: string };

export { isLoopback };

const PROXIED =
  "the request came through a proxy (X-Forwarded-For, X-Real-IP or Forwarded) for somebody who is not let in by address.";

const sha256 = (text: string) => createHash("sha256").update(text).digest();
export type AuthSettings = {
  apiKeys: ApiKey[];
  allowedRanges: string[];
  trustedProxies: string[];
  /** names under which callers without a key may ask, beside addresses and localhost */
  allowedHosts?: string[];
  /** other sites whose pages may ask */
  corsOrigins?: string[];
  /** its host is such a name too */
  gatewayUrl?: string | undefined;
};

/**
 * Builds the check of one deployment.
 * @param gateways  addresses that no range lets in: behind a container's own gateway stands everybody
 * @throws Error when a range cannot be read
 */
export function guard(settings: AuthSettings, gateways = containerGateways()) {
  const keys = settings.apiKeys.map(({ key, scope, name }) => {
    const hash = sha256(key);
    const short = hash.toString("hex").slice(0, 16);
    return { hash, scope, short, name: name ?? short };
  });
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

  /**
   * Whether an address tells who asks. A proxy that is not in TRUSTED_PROXIES shows its own, and everybody's behind it, but
   * mostly says for whom it asks: that is not believed, yet each of them must be one that may ask.
   * @param may  whether an address may ask without a key
   */
  const isTold = (headers: Headers, socketIp: string, ip: string, may: (ip: string) => boolean): boolean => {
    const forwarded = headers.get("x-forwarded-for");
    const real = headers.get("x-real-ip");
    const standard = headers.get("forwarded");
    if (forwarded === null && real === null && standard === null) return true;
    const hops: string[] = [];
    // a trusted proxy's list is believed up to the first that is not: where there is none, one cannot be read
    if (forwarded !== null && (!trusted(plainIp(socketIp)) || trusted(ip))) hops.push(...forwarded.split(","));
    if (real !== null) hops.push(...real.split(","));
    for (const [, quoted, bare] of (standard ?? "").matchAll(/\bfor=(?:"([^"]*)"|([^;,\s]*))/gi))
      hops.push(quoted ?? bare ?? "");
    return hops.every((hop) => {
      const one = plain(hop);
      return trusted(one) || may(one);
    });
  };

  /** Finds the key among all, in the same time wherever it stands. */
  const find = (key: string) => {
    const hash = sha256(key);
    let found: (typeof keys)[number] | undefined;
    for (const candidate of keys) if (timingSafeEqual(candidate.hash, hash)) found = candidate;
    return found && { scope: found.scope, key: found.short, name: found.name };
  };

  const keyOf = (headers: Headers): string | undefined => {
    const plain = headers.get("x-api-key");
    if (plain) return plain;
    return /^Bearer +(\S+) *$/i.exec(headers.get("authorization") ?? "")?.[1];
  };

  const { gatewayUrl, allowedHosts = [], corsOrigins = [] } = settings;
  const checkLocalSite = sitePolicy({
    isKnown: isLoopback,
    isOwn: (origin) => isLoopback(origin.hostname),
    corsOrigins,
    words: {
      host: (name) => `Without API_KEYS this gateway answers only to localhost, not to ${name}. Set API_KEYS.`,
      site: "Without API_KEYS requests from another site are refused. Set API_KEYS, or list the site in CORS_ORIGINS.",
    },
  });
  const checkSite = sitePolicy({
    isKnown: knownHosts([...allowedHosts, ...(gatewayUrl ? [new URL(gatewayUrl).host] : [])]),
    isOwn: () => false,
    corsOrigins,
    words: {
      host: (name) =>
        `Without a key this gateway does not answer under the name ${name}. Send X-API-Key, or list the name in ALLOWED_HOSTS.`,
      site: "Without a key requests from another site are refused. Send X-API-Key, or list the site in CORS_ORIGINS; a proxy must pass Host on.",
    },
  });

  /** Without a key only loopback may ask, by a loopback name, and from no other site: else any web page could. */
  const openCaller = (request: Request, socketIp: string, ip: string): Caller => {
    // The name is the client's to write: only the address tells where it is.
    if (!isLoopback(ip)) {
      throw new Fault("no_key", "Without API_KEYS this gateway answers only to its own machine. Set API_KEYS.");
    }
    if (!isTold(request.headers, socketIp, ip, isLoopback)) {
      throw new Fault(
        "no_key",
        `Without API_KEYS this gateway answers only to its own machine, and ${PROXIED} Set API_KEYS.`,
      );
    }
    checkLocalSite(request);
    return { scope: "admin", key: "open", name: "open", ip };
  };

  /** @throws Fault wrong_scope */
  const demand = (caller: Caller, need: Scope, unknownKey = false): Caller => {
    if (RANK[caller.scope] >= RANK[need]) return caller;
    const yours = unknownKey ? "yours is not known, and your address" : "your address";
    const why = caller.key.startsWith("ip:")
      ? `This needs an API key of scope ${need} in X-API-Key; ${yours} may read and submit only.`
      : `This needs an API key of scope ${need}; yours has the scope ${caller.scope}.`;
    throw new Fault("wrong_scope", why);
  };

  return {
    clientIp,
    find,
    /**
     * @param need  the scope that the route asks for
     * @throws Fault no_key, wrong_key, wrong_scope, foreign_origin
     */
    check(request: Request, socketIp: string, need: Scope): Caller {
      const proxied = settings.trustedProxies.length > 0;
      const ip = clientIp(socketIp, proxied ? request.headers.get("x-forwarded-for") : null);
      const key = keys.length > 0 ? keyOf(request.headers) : undefined;
      const known = key === undefined ? undefined : find(key);
      if (known) return demand({ ...known, ip }, need);
      // An unknown key counts as none here: clients that always send one are let in by their address as before.
      const isInside = allowed(ip);
      if (isInside && isTold(request.headers, socketIp, ip, allowed)) {
        checkSite(request, proxied && trusted(plainIp(socketIp)) ? request.headers.get("x-forwarded-host") : null);
        const name = `ip:${ip}`;
        return demand({ scope: "submit", key: name, name, ip }, need, key !== undefined);
      }
      if (key !== undefined) throw new Fault("wrong_key", "This API key is not known; check X-API-Key.");
      if (keys.length === 0) return openCaller(request, socketIp, ip);
      const send = "Send your API key in the header X-API-Key, or as Authorization: Bearer.";
      const why = `Your address does not count: ${PROXIED} If the proxy may be believed, list it in TRUSTED_PROXIES.`;
      throw new Fault("no_key", isInside ? `${send} ${why}` : send);
    },
    demand,
    /** Names that a trusted proxy was asked by; [] of anybody else. */
    forwardedHosts(request: Request, socketIp: string): string[] {
      const hosts = request.headers.get("x-forwarded-host");
      return hosts && trusted(plainIp(socketIp)) ? hosts.split(",").map((host) => host.trim().toLowerCase()) : [];
    },
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
function sessions(keys: { hash: Buffer; scope: Scope; short: string; name: string }[]) {
  const sign = (hash: Buffer, text: string) => createHmac("sha256", hash).update(text).digest("base64url");
  return {
    /** @returns the cookie's value. @param key  must be one of the configured keys. @param now  by Redis: any gateway may read it */
    issue(key: string, now: number): string {
      const hash = sha256(key);
      const text = `${hash.toString("hex").slice(0, 16)}.${now + SESSION_MS}`;
      return `${text}.${sign(hash, text)}`;
    },
    /** What a sign-out writes down, so that a copy of the cookie is worth nothing. */
    id: (cookie: string) => sha256(cookie).toString("base64url"),
    /** ms since 1970: until then the cookie would be good */
    until: (cookie: string) => Number(cookie.split(".")[1]),
    /** @returns who it is, or undefined when the cookie is forged, over, or of a key that is gone */
    read(cookie: string, ip: string, now: number): Caller | undefined {
      const [of = "", until = "", signature = ""] = cookie.split(".");
      if (!(Number(until) > now)) return undefined;
      for (const { hash, scope, short, name } of keys) {
        if (short !== of) continue;
        const good = Buffer.from(sign(hash, `${short}.${until}`));
        const given = Buffer.from(signature);
        if (good.length === given.length && timingSafeEqual(good, given)) return { scope, key: short, name, ip };
      }
      return undefined;
    },
  };
}

export type Guard = ReturnType<typeof guard>;

/**
 * Callers who are let in by their address carry no secret. So any web page that is open in a browser at such an address
 * could act for them: with a form or fetch to our address (cross-site requests), or under a name of its own that it has
 * pointed to our address (DNS rebinding). A browser shows both: in Sec-Fetch-Site and Origin, and in Host.
 */
import { isIP } from "node:net";
import { isLoopback } from "./addresses.ts";
import { Fault } from "./faults.ts";

/** The name of a host in small letters, without its port, its brackets and the dot of a full name. */
export function hostName(host: string): string {
  const text = host.trim().toLowerCase();
  const name = /^\[([^\]]*)\](?::\d*)?$/.exec(text) ?? /^([^:]*)(?::\d*)?$/.exec(text);
  return (name?.[1] ?? text).replace(/\.$/, "");
}

/** A host as an Origin spells it: without the ports that go without saying. */
const asOrigin = (host: string) =>
  host
    .trim()
    .toLowerCase()
    .replace(/:(80|443)$/, "");

/** What is refused, and what cures it. */
type Words = { host: (name: string) => string; site: string };

export type SitePolicy = {
  /** whether a request may come under this name */
  isKnown(name: string): boolean;
  /** whether a page of this origin may ask, beside those of our own host */
  isOwn(origin: URL): boolean;
  corsOrigins: string[];
  words: Words;
};

/** Hosts that no page of another site can take: addresses, since rebinding needs a name, and those of the deployment. */
export function knownHosts(names: string[]): (name: string) => boolean {
  const known = new Set(names.map(hostName));
  return (name) => isLoopback(name) || isIP(name) !== 0 || known.has(name);
}

/**
 * Builds the check of requests that carry no key.
 * @returns a function that throws Fault foreign_origin. `forwarded`: X-Forwarded-Host of a trusted proxy
 */
export function sitePolicy({ isKnown, isOwn, corsOrigins, words }: SitePolicy) {
  /** the last host that was known: the next request mostly has the same, and URLs are dear */
  let last: { host: string | null; base: string } | undefined;

  const checkHost = (request: Request, host: string | null): void => {
    // Deno takes the URL from the request line where that names a host, and Bun from Host: each must be known.
    if (last && host === last.host && request.url.startsWith(last.base)) return;
    for (const url of host ? [request.url, `http://${host}`] : [request.url]) {
      const name = URL.canParse(url) ? hostName(new URL(url).hostname) : "";
      if (!isKnown(name)) throw new Fault("foreign_origin", words.host(name || "a Host that cannot be read"));
    }
    last = { host, base: `${/^\w+:\/\/[^/?#]*/.exec(request.url)?.[0]}/` };
  };

  return (request: Request, forwarded: string | null = null): void => {
    const { headers } = request;
    const origin = headers.get("origin");
    const site = headers.get("sec-fetch-site");
    const listed = origin !== null && corsOrigins.includes(origin);
    if (site !== null && site !== "same-origin" && site !== "none" && !listed) {
      throw new Fault("foreign_origin", words.site);
    }
    const host = headers.get("host");
    checkHost(request, host);
    const proxied = forwarded?.split(",") ?? [];
    for (const item of proxied) {
      if (!isKnown(hostName(item))) throw new Fault("foreign_origin", words.host(hostName(item)));
    }
    if (origin === null || listed) return;
    const from = URL.canParse(origin) ? new URL(origin) : undefined;
    const hosts = [host ?? new URL(request.url).host, ...proxied].map(asOrigin);
    if (!from || !(isOwn(from) || hosts.includes(from.host))) throw new Fault("foreign_origin", words.site);
  };
}

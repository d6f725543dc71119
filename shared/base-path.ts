/**
 * A deployment below a path of its own: behind a proxy that serves it at https://tools.example/queue/, every link of an answer must begin
 * with /queue. The proxy may take the path off before it passes a request on; where it leaves it on, BASE_PATH tells what is to be taken
 * off. X-Forwarded-Prefix stands before links only: a proxy that does not set it passes on what a client wrote, and a request for
 * /x/queues/… that counted as /queues/… would go round what the proxy forbids.
 */
import { plainIp, ranges } from "./addresses.ts";

/** What BASE_PATH and X-Forwarded-Prefix may be: /queue, /tools/queue */
export const BASE_PATH = /^(?:\/[\w.~-]+)+$/;

const bases = new WeakMap<Request, string>();
/** The path before every link that answers this request: "/queue", or "" where the deployment has a host of its own. */
export const baseOf = (request: Request): string => bases.get(request) ?? "";

export type BasePathSettings = { basePath: string; trustedProxies: string[] };

/** The same request under another address. Its body is handed on as a stream: Bun would read it whole to copy it. */
function moved(request: Request, url: string): Request {
  const { method, headers, body, signal } = request;
  return new Request(url, { method, headers, signal, ...(body ? { body, duplex: "half" } : {}) } as RequestInit);
}

/**
 * Builds what finds a request's base path, and takes it off its address.
 * @returns undefined where no deployment below a path is possible, so that nobody pays for it; else a function that answers the bare
 * path without a slash at its end with a redirect, since a page's relative addresses need that slash
 */
export function basePaths({ basePath, trustedProxies }: BasePathSettings) {
  if (basePath === "" && trustedProxies.length === 0) return undefined;
  const trusted = ranges(trustedProxies);
  /** @param ip  of the socket: only a trusted proxy may name a prefix */
  return (request: Request, ip: string): Request | Response => {
    const given = request.headers.get("x-forwarded-prefix")?.replace(/\/+$/, "");
    const named = given && BASE_PATH.test(given) && trusted(plainIp(ip)) ? given : undefined;
    const base = named ?? basePath;
    if (base === "") return request;
    const { url } = request;
    const start = url.startsWith("/") ? 0 : url.indexOf("/", "https://".length);
    const taken = basePath; // off the path: never what a header names
    const rest = url.slice(start + taken.length);
    const isBelow = taken !== "" && start >= 0 && url.startsWith(taken, start) && /^(?:[/?#]|$)/.test(rest);
    if (isBelow && !rest.startsWith("/"))
      return new Response(null, { status: 308, headers: { location: `${base}/${rest}` } });
    const found = isBelow ? moved(request, url.slice(0, start) + rest) : request;
    bases.set(found, base);
    return found;
  };
}

/** Puts the base path before the links in an answer's headers. */
export function withBase(response: Response, base: string): Response {
  const { headers } = response;
  const location = headers.get("location");
  if (location?.startsWith("/")) headers.set("location", base + location);
  const link = headers.get("link");
  if (link?.startsWith("</")) headers.set("link", `<${base}${link.slice(1)}`);
  return response;
}

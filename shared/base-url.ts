/** Addresses of services as an operator writes them. They are read once at start, so that no job meets one that cannot be called. */

/** A text as it may stand in a log: what stands before an @ may be a password. */
export const bare = (text: string) => JSON.stringify(text.replace(/^([a-z+]*:\/\/)?.*@/is, "$1…@").slice(0, 200));

/** Letters of any script, digits and `. _ -`, or an IPv6 address in brackets; with a port or without. */
const HOST = /^(?:[\p{L}\p{N}._-]+|\[[\da-f:.]+\])(?::\d+)?$/iu;

/**
 * Reads a base URL. Blanks around it and slashes at its end do not count. It may have a query, which joinUrl puts behind the path.
 * @param example  what the sentence of a mistake shows
 * @returns the URL, or a sentence that says what is wrong
 */
export function readBaseUrl(text: string, example: string): { url: string } | { mistake: string } {
  const given = text.trim();
  const host = /^https?:\/\/(?:[^/?#]*@)?([^/?#]*)/i.exec(given)?.[1] ?? "";
  if (!HOST.test(host) || !URL.canParse(given))
    return { mistake: `must be an http(s) URL such as ${example}, not ${bare(given)}` };
  if (/[\s\\]/.test(given))
    return { mistake: `has a blank or a backslash inside: ${bare(given)}; write a blank as %20` };
  if (given.includes("#"))
    return { mistake: `has a fragment, which no request carries: ${bare(given)}; leave out # and what follows` };
  const url = new URL(given);
  try {
    decodeURIComponent(url.username + url.password);
  } catch {
    return { mistake: `has a % in its user or password that begins no escape: ${bare(given)}; write it as %25` };
  }
  const user = url.username || url.password ? `${url.username}:${url.password}@` : "";
  return { url: `${url.protocol}//${user}${url.host}${url.pathname.replace(/\/+$/, "")}${url.search}` };
}

/** Parts a URL's user and password from it. @returns the URL without them, and the header that stands for them */
export function splitCredentials(base: string): { url: string; authorization?: string } {
  const { username, password } = new URL(base);
  if (!username && !password) return { url: base };
  const bytes = new TextEncoder().encode(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`);
  return {
    url: base.replace(/^(https?:\/\/)[^/?#]*@/, "$1"),
    authorization: `Basic ${btoa(String.fromCharCode(...bytes))}`,
  };
}

/** The URL of a path below a base that readBaseUrl made. A query of the base stands behind the path, and behind the path's own query. */
export function joinUrl(base: string, path: string): string {
  const at = base.indexOf("?");
  if (at < 0) return base + path;
  return `${base.slice(0, at)}${path}${path.includes("?") ? "&" : "?"}${base.slice(at + 1)}`;
}

/** Why a text cannot be the path of a call; undefined when it can. A query may stand in it. */
export function pathMistake(path: string): string | undefined {
  if (!path.startsWith("/")) return `must begin with a slash, such as /thumbnail, not ${JSON.stringify(path)}`;
  if (path.includes("#")) return `has a fragment, which no request carries: ${JSON.stringify(path)}; write # as %23`;
  if (/[\s\\]/.test(path)) return `has a blank or a backslash inside: ${JSON.stringify(path)}; write a blank as %20`;
  return undefined;
}

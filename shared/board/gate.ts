/**
 * Who may look and who may act on the dashboard: a session's cookie, an API key, or anybody on loopback when no key is
 * set. A page of another site can neither read nor act: the cookie is SameSite=Strict, and what changes something must
 * show that it comes from our own page.
 */
import type { Context } from "hono";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import type { Env, Gateway } from "../app.ts";
import { type Caller, isLoopback, SESSION_MS } from "../auth.ts";
import { baseOf } from "../base-path.ts";
import { Fault } from "../faults.ts";
import { parseJson } from "../json.ts";
import { readBody } from "../submit.ts";

const COOKIE = "lh_session";
/** Wrong keys that one address may send in a minute. */
const MOST_WRONG = 10;
const MOST_ADDRESSES = 10_000;
const FOREIGN = "Actions are taken from the dashboard's own page only.";

/** A proxy that does not pass the browser's Host on looks just like another site: the text names the cure. */
const otherHost = (page: string, host: string) =>
  `${FOREIGN} Your browser's page is of ${page}, but the request came here as ${host}. If a proxy stands between, let it pass Host on (nginx: proxy_set_header Host $http_host), or list it in TRUSTED_PROXIES and let it send X-Forwarded-Host.`;

type C = Context<Env>;

export function gate({ guard, inspector }: Gateway) {
  const ipOf = (c: C) => guard.clientIp(c.env?.ip ?? "", c.req.header("x-forwarded-for") ?? null);
  const wrong = new Map<string, { n: number; until: number }>();

  /** @throws Fault no_key, wrong_key, wrong_scope, foreign_origin */
  const caller = (c: C): Caller => {
    const cookie = getCookie(c, COOKIE);
    const session = cookie ? guard.session.read(cookie, ipOf(c), inspector.time.now()) : undefined;
    const found = session ?? guard.check(c.req.raw, c.env?.ip ?? "", "read");
    if (c.env?.seen) c.env.seen.caller = found;
    return found;
  };

  /**
   * What changes something comes from our own page. A browser says where a request comes from, in Origin or in
   * Sec-Fetch-Site; a request that says neither must carry a key in a header, which no other site's page can set.
   * @throws Fault foreign_origin
   */
  const own = (c: C): void => {
    const site = c.req.header("sec-fetch-site");
    const origin = c.req.header("origin");
    const keyed = c.req.header("x-api-key") !== undefined || c.req.header("authorization") !== undefined;
    if (site !== undefined && site !== "same-origin" && site !== "none") throw new Fault("foreign_origin", FOREIGN);
    if (origin !== undefined) {
      const hosts = [new URL(c.req.url).host, ...guard.forwardedHosts(c.req.raw, c.env?.ip ?? "")];
      const page = URL.canParse(origin) ? new URL(origin).host : "an unknown place";
      if (!hosts.includes(page)) throw new Fault("foreign_origin", otherHost(page, hosts[0] as string));
    } else if (site === undefined && !keyed) {
      throw new Fault("foreign_origin", `${FOREIGN} Without a browser, send your key in X-API-Key.`);
    }
  };

  /** @throws Fault wrong_key, rate_limited */
  async function signIn(c: C): Promise<Response> {
    own(c);
    const ip = ipOf(c);
    const now = performance.now();
    const tries = wrong.get(ip);
    if (tries && tries.until > now && tries.n >= MOST_WRONG) {
      const detail = "Too many wrong keys came from your address; wait a minute.";
      throw new Fault("rate_limited", detail, { retryAfterS: Math.ceil((tries.until - now) / 1_000) });
    }
    const body = parseJson(await readBody(c.req.raw, 10_000), 4) as { key?: unknown } | null;
    const key = typeof body?.key === "string" ? body.key.trim() : "";
    const found = guard.find(key);
    if (!found) {
      if (wrong.size >= MOST_ADDRESSES) wrong.clear();
      wrong.set(ip, tries && tries.until > now ? { ...tries, n: tries.n + 1 } : { n: 1, until: now + 60_000 });
      throw new Fault("wrong_key", "This API key is not known; enter one of API_KEYS.");
    }
    wrong.delete(ip);
    const url = new URL(c.req.url);
    const secure = c.req.header("x-forwarded-proto") === "https" || url.protocol === "https:";
    setCookie(c, COOKIE, guard.session.issue(key, inspector.time.now()), {
      httpOnly: true,
      sameSite: "Strict",
      path: `${baseOf(c.req.raw)}/`,
      maxAge: SESSION_MS / 1_000,
      secure: secure && !isLoopback(url.hostname),
    });
    return c.json({ scope: found.scope, key: found.name });
  }

  function signOut(c: C): Response {
    own(c);
    deleteCookie(c, COOKIE, { path: `${baseOf(c.req.raw)}/` });
    return c.json({ signed_out: true });
  }
  return { caller, own, signIn, signOut, ipOf };
}

/**
 * Who may look and who may act on the dashboard: a session's cookie, an API key, or anybody on loopback when no key is
 * set. A page of another site can neither read nor act: the cookie is SameSite=Strict, and what changes something must
 * show that it comes from our own page.
 */
import type { Context } from "hono";
import { deleteCookie, setCookie } from "hono/cookie";
import type { Env, Gateway } from "../app.ts";
import { type Caller, isLoopback, SESSION_MS } from "../auth.ts";
import { baseOf } from "../base-path.ts";
import { SESSION_COOKIE } from "../call-headers.ts";
import { Fault } from "../faults.ts";
import { parseJson } from "../json.ts";
import { log } from "../log.ts";
import { within } from "../store/redis.ts";
import { isSignedOut, signOutSession } from "../store/tokens.ts";
import { readBody } from "../submit.ts";
import { Guesses } from "./guesses.ts";

/** Cookies of our name that are looked at. */
const MOST_COOKIES = 20;
/** ms; without Redis a sign-out cannot be looked up, and the dashboard must show that Redis is away. */
const ANSWER_MS = 500;
const FOREIGN = "Actions are taken from the dashboard's own page only.";

/** A proxy that does not pass the browser's Host on looks just like another site: the text names the cure. */
const otherHost = (page: string, host: string) =>
  `${FOREIGN} Your browser's page is of ${page}, but the request came here as ${host}. If a proxy stands between, let it pass Host on (nginx: proxy_set_header Host $http_host), or list it in TRUSTED_PROXIES and let it send X-Forwarded-Host.`;

type C = Context<Env>;

export function gate({ guard, inspector }: Gateway) {
  const ipOf = (c: C) => guard.clientIp(c.env?.ip ?? "", c.req.header("x-forwarded-for") ?? null);
  const guesses = new Guesses();

  /**
   * Sessions that a browser shows, by the names of their cookies. A host has one set of cookies for all its ports: each key has a cookie of
   * its own, so that the dashboards of two deployments do not end each other's sessions, and one that is none hides none that is good.
   */
  const sessions = (c: C) => {
    const found: { name: string; cookie: string; caller: Caller }[] = [];
    const ours = (c.req.header("cookie") ?? "").split(";").filter((one) => one.trim().startsWith(SESSION_COOKIE));
    for (const one of ours.slice(0, MOST_COOKIES)) {
      const [name = "", cookie = ""] = one.trim().split("=", 2);
      const caller = guard.session.read(cookie, ipOf(c), inspector.time.now());
      if (caller) found.push({ name, cookie, caller });
    }
    return found;
  };

  const signedIn = async (c: C): Promise<Caller | undefined> => {
    for (const { cookie, caller } of sessions(c)) {
      const over = await within(ANSWER_MS, isSignedOut(inspector, guard.session.id(cookie))).catch(() => false);
      if (!over) return caller;
    }
    return undefined;
  };

  /** @throws Fault no_key, wrong_key, wrong_scope, foreign_origin, rate_limited */
  const caller = async (c: C): Promise<Caller> => {
    const found = (await signedIn(c)) ?? byKey(c);
    if (c.env?.seen) c.env.seen.caller = found;
    return found;
  };

  /** Who has no session. A key in a header may be a guess, too. */
  const byKey = (c: C): Caller => {
    const ip = ipOf(c);
    const keyed = !guard.open && (c.req.header("x-api-key") ?? c.req.header("authorization")) !== undefined;
    if (keyed) guesses.check(ip);
    try {
      return guard.check(c.req.raw, c.env?.ip ?? "", "read");
    } catch (error) {
      if (error instanceof Fault && error.code === "wrong_key") guesses.count(ip);
      throw error;
    }
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
    guesses.check(ip);
    const body = parseJson(await readBody(c.req.raw, 10_000), 4) as { key?: unknown } | null;
    const key = typeof body?.key === "string" ? body.key.trim() : "";
    guesses.check(ip); // many may have waited with their bodies
    const found = guard.find(key);
    if (!found) {
      guesses.count(ip);
      throw new Fault("wrong_key", "This API key is not known; enter one of API_KEYS.");
    }
    const url = new URL(c.req.url);
    // of several proxies the first one speaks to the browser
    const proto = c.req.header("x-forwarded-proto")?.split(",", 1)[0]?.trim().toLowerCase();
    const secure = proto === "https" || url.protocol === "https:";
    const path = `${baseOf(c.req.raw)}/`;
    for (const { name } of sessions(c)) deleteCookie(c, name, { path }); // of another key: one browser is one caller
    setCookie(c, `${SESSION_COOKIE}_${found.key}`, guard.session.issue(key, inspector.time.now()), {
      httpOnly: true,
      sameSite: "Strict",
      path,
      maxAge: SESSION_MS / 1_000,
      secure: secure && !isLoopback(url.hostname),
    });
    return c.json({ scope: found.scope, key: found.name });
  }

  /** Ends the browser's sessions here, and every copy of their cookies at every gateway. */
  async function signOut(c: C): Promise<Response> {
    own(c);
    for (const { name, cookie, caller } of sessions(c)) {
      deleteCookie(c, name, { path: `${baseOf(c.req.raw)}/` });
      const leftMs = guard.session.until(cookie) - inspector.time.now();
      await signOutSession(inspector, guard.session.id(cookie), leftMs).catch((error) =>
        log.warn("sign-out not written down: a copy of its cookie stays good", {
          caller: caller.name,
          error: String(error),
        }),
      );
    }
    return c.json({ signed_out: true });
  }
  return { caller, own, signIn, signOut, ipOf };
}

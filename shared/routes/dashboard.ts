/**
 * The dashboard on its own port: static files, sign-in, the state that it shows, and the gateway's routes under /api
 * for its actions. A page of another site can neither read nor act: the cookie is SameSite=Strict, and what changes
 * something needs an Origin of our own.
 */
import { readFile } from "node:fs/promises";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import { type Env, type Gateway, newApp } from "../app.ts";
import { isLoopback, SESSION_MS } from "../auth.ts";
import { Fault } from "../faults.ts";
import { serviceName } from "../jobs.ts";
import { parseJson } from "../json.ts";
import { readBody } from "../submit.ts";
import { VERSION } from "../version.ts";

const COOKIE = "lh_session";
const FILES = new URL("../../dashboard/", import.meta.url);
const TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};
/** Nothing from another host, no inline script or style, no frame around us (reliability.md §4). */
const HEADERS = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
};
/** Newest jobs of each state and service that a state carries. */
const NEWEST = 5;

/** @param api  the gateway's own app; the dashboard's actions are its routes */
export function dashboard(
  gateway: Gateway,
  api: { fetch(request: Request, env: Env["Bindings"]): Response | Promise<Response> },
) {
  const { guard } = gateway;
  const app = newApp();

  app.use(async (c, next) => {
    await next();
    for (const [name, value] of Object.entries(HEADERS)) c.res.headers.set(name, value);
  });

  /** Who asks: by session, by key, or anybody on loopback when no key is set. @throws Fault no_key */
  const caller = (c: { req: { raw: Request }; env: Env["Bindings"] }, cookie: string | undefined) => {
    const session = cookie
      ? guard.session.read(cookie, guard.clientIp(c.env.ip, c.req.raw.headers.get("x-forwarded-for")))
      : undefined;
    return session ?? guard.check(c.req.raw, c.env.ip, "read");
  };

  /** What changes something comes from our own page only. @throws Fault foreign_origin */
  const sameOrigin = (request: Request): void => {
    const site = request.headers.get("sec-fetch-site");
    const origin = request.headers.get("origin");
    const own = new URL(request.url).host;
    if (site !== null && site !== "same-origin" && site !== "none") {
      throw new Fault("foreign_origin", "Actions are taken from the dashboard's own page only.");
    }
    if (origin !== null && !(URL.canParse(origin) && new URL(origin).host === own)) {
      throw new Fault("foreign_origin", "Actions are taken from the dashboard's own page only.");
    }
  };

  app.post("/signin", async (c) => {
    sameOrigin(c.req.raw);
    const body = parseJson(await readBody(c.req.raw, 10_000), 4) as { key?: unknown };
    const key = typeof body?.key === "string" ? body.key : "";
    const found = guard.find(key);
    if (!found) throw new Fault("wrong_key", "This API key is not known.");
    const secure = c.req.header("x-forwarded-proto") === "https" || new URL(c.req.url).protocol === "https:";
    setCookie(c, COOKIE, guard.session.issue(key), {
      httpOnly: true,
      sameSite: "Strict",
      path: "/",
      maxAge: SESSION_MS / 1_000,
      secure: secure && !isLoopback(new URL(c.req.url).hostname),
    });
    return c.json({ scope: found.scope });
  });

  app.post("/signout", (c) => {
    sameOrigin(c.req.raw);
    deleteCookie(c, COOKIE, { path: "/" });
    return c.json({ signed_out: true });
  });

  app.get("/state.json", async (c) => {
    const who = caller(c, getCookie(c, COOKIE));
    c.header("cache-control", "no-store");
    return c.json({ ...(await state(gateway)), you: { scope: who.scope, open: guard.open } });
  });

  app.all("/api/*", async (c) => {
    const who = caller(c, getCookie(c, COOKIE));
    if (c.req.method !== "GET" && c.req.method !== "HEAD") sameOrigin(c.req.raw);
    const url = new URL(c.req.url);
    url.pathname = url.pathname.slice("/api".length);
    return api.fetch(new Request(url, c.req.raw), { ip: c.env.ip, caller: who });
  });

  app.get("/*", async (c) => {
    const path = new URL(c.req.url).pathname;
    const name = path === "/" ? "index.html" : path.slice(1);
    const type = TYPES[extname(name)];
    // a plain name below dashboard/: no dots but the extension's, so nothing above it can be named
    if (!type || !/^(?:[a-z0-9-]+\/)*[a-z0-9-]+\.[a-z]+$/.test(name))
      throw new Fault("unknown_route", `There is no ${path.slice(0, 200)}.`);
    const bytes = await readFile(fileURLToPath(new URL(name, FILES))).catch(() => undefined);
    if (!bytes) throw new Fault("unknown_route", `There is no ${path.slice(0, 200)}.`);
    return new Response(new Uint8Array(bytes), { headers: { "content-type": type, "cache-control": "no-cache" } });
  });
  return app;
}

/** What the page shows, from the shared snapshot. */
async function state(gateway: Gateway) {
  const { snapshots, inspector, config } = gateway;
  const snapshot = await snapshots.get();
  const lines = await Promise.all(
    [...config.registry.services.keys()].map((name) => inspector.newest(serviceName(name), NEWEST)),
  );
  const newest = lines
    .flat()
    .sort((a, b) => (b.ended ?? b.started ?? b.created) - (a.ended ?? a.started ?? a.created))
    .slice(0, 40);
  return {
    at: snapshot.at,
    version: VERSION,
    services: snapshot.services.map(({ service, standing, counts, slots, busy }) => {
      const { queued, scheduled, started, finished, failed, canceled, oldest, paused } = counts;
      return {
        service,
        standing,
        slots,
        busy,
        queued,
        scheduled,
        started,
        finished,
        failed,
        canceled,
        paused,
        oldest: oldest ?? null,
      };
    }),
    workers: snapshot.workers,
    memory: snapshot.memory ?? null,
    newest,
  };
}

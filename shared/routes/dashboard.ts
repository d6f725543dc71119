/**
 * The dashboard on its own port: static files, sign-in, the state that it shows, and the gateway's routes under /api
 * for its actions.
 */
import type { Context } from "hono";
import { streamSSE } from "hono/streaming";
import { z } from "zod";
import { type Env, faultAnswer, type Gateway, newApp, noRoute, operationOf } from "../app.ts";
import { Assets } from "../board/assets.ts";
import { Feed, type Tick } from "../board/feed.ts";
import { gate } from "../board/gate.ts";
import { RANGES, type Range } from "../board/history.ts";
import { type Api, relay } from "../board/relay.ts";
import { Fault } from "../faults.ts";
import { jobId, serviceOf } from "../jobs.ts";
import { parseJson } from "../json.ts";
import { HIDDEN, masked, restore, secretKeys } from "../redact.ts";
import type { Operation } from "../services.ts";
import { Viewer } from "../store/view.ts";
import { fit, readBody } from "../submit.ts";

/** Nothing from another host, no inline script or style, no frame around us (reliability.md §4). */
const HEADERS = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
};
/** Event streams at once; who comes later polls. */
const MOST_VIEWERS = 1_000;
/** ms; then a stream ends and the browser comes again, so that a session that is over sees nothing more. */
const STREAM_MS = 15 * 60_000;

const SUBMIT = z.strictObject({
  operation: z.string(),
  payload: z.unknown(),
  of: z.string().optional().describe("the job that was edited: its hidden values are put back"),
  options: z.record(z.string(), z.union([z.string(), z.number()])).default({}),
});

/** @param api  the gateway's own app; the dashboard's actions are its routes */
export function dashboard(gateway: Gateway, api: Api) {
  const { config, inspector, snapshots, history } = gateway;
  const viewer = new Viewer(inspector.redis);
  const feed = new Feed(config, snapshots, history, viewer);
  const assets = new Assets();
  const relayed = relay(gateway, api);
  const secret = secretKeys(config.redactKeys);
  const { caller, own, signIn, signOut } = gate(gateway);
  const app = newApp();

  app.use(async (c, next) => {
    await next();
    for (const [name, value] of Object.entries(HEADERS)) {
      // an answer of the API brings a stricter policy of its own
      if (!(name === "content-security-policy" && c.res.headers.has(name))) c.res.headers.set(name, value);
    }
    if (!c.res.headers.has("cache-control")) c.res.headers.set("cache-control", "no-store");
  });
  app.post("/signin", signIn);
  app.post("/signout", signOut);

  const youOf = async (c: Context<Env>) => {
    const { scope, name } = await caller(c);
    return { scope, key: name, open: gateway.guard.open };
  };
  app.get("/state.json", async (c) => {
    const you = JSON.stringify(await youOf(c));
    const text = await feed.text();
    return c.body(`{"you":${you},${text.slice(1)}`, 200, {
      "content-type": "application/json",
      "cache-control": "no-store",
    });
  });
  app.get("/state/events", async (c) => {
    const you = await youOf(c);
    if (feed.viewers >= MOST_VIEWERS) {
      throw new Fault("rate_limited", "Too many viewers; poll /state.json instead.", { retryAfterS: 5 });
    }
    c.header("cache-control", "no-store");
    // a stream that nobody reads would hold its place for as long as the stream may last
    if (c.req.raw.method === "HEAD") return c.body(null, 200, { "content-type": "text/event-stream" });
    c.header("x-accel-buffering", "no"); // nginx would keep events back
    return streamSSE(c, async (stream) => {
      const over = Promise.withResolvers<void>();
      const timer = setTimeout(over.resolve, STREAM_MS);
      let busy = true;
      let owed = true; // a viewer that is slow misses states in between, never the last one
      const send = async ({ state, changed, beat }: Tick) => {
        owed ||= changed;
        if (busy) return;
        busy = true;
        await stream.write(owed && state ? state : beat);
        owed = state === undefined;
        busy = false;
      };
      const stop = feed.listen((tick) => void send(tick).catch(over.resolve));
      for (const signal of [c.req.raw.signal, gateway.stopping]) {
        if (signal.aborted) over.resolve();
        signal.addEventListener("abort", () => over.resolve(), { once: true });
      }
      stream.onAbort(over.resolve);
      await stream.write(`retry: 1000\nevent: you\ndata: ${JSON.stringify(you)}\n\n`);
      busy = false;
      await over.promise;
      stop();
      clearTimeout(timer);
    });
  });

  app.get("/history.json", async (c) => {
    await caller(c);
    const range = (c.req.query("range") ?? "1h") as Range;
    const service = c.req.query("service") || undefined;
    if (!Object.hasOwn(RANGES, range)) throw new Fault("bad_request", "range must be 1h, 24h or 7d.");
    if (service !== undefined && !config.registry.services.has(service)) {
      throw new Fault(
        "unknown_service",
        `There is no such service here; there are ${[...config.registry.services.keys()].join(", ")}.`,
      );
    }
    c.header("cache-control", "no-store");
    return c.json(await history.chart(range, service));
  });

  let operations: ReturnType<typeof operationShown>[] | undefined;
  app.get("/operations.json", async (c) => {
    await caller(c);
    operations ??= config.registry.operations.map(operationShown);
    const base = config.gatewayUrl ?? `http://localhost:${config.port}`;
    return c.json({ gateway: base, operations });
  });

  /** A job by hand: a new one, or another one edited and sent again, whose hidden values come from its record. */
  app.post("/submit", async (c) => {
    const who = await caller(c);
    own(c);
    gateway.guard.demand(who, "submit");
    const body = parseJson(await readBody(c.req.raw, config.maxBodyBytes), config.maxJsonDepth + 1);
    const { operation, payload, of, options } = fit(SUBMIT, body, "The job");
    const op = operationOf(gateway, operation);
    const id = of === undefined ? undefined : jobId(of);
    const original = id && serviceOf(id) === op.service ? (await inspector.record(id))?.payload : undefined;
    const whole = original === undefined ? payload : restore(payload, JSON.parse(original), secret);
    if (masked(whole, secret)) {
      throw new Fault("invalid", `A hidden value (${HIDDEN}) cannot be sent; write the real one.`);
    }
    const query = new URLSearchParams(Object.entries(options).map(([name, value]) => [name, String(value)]));
    const headers = new Headers({ "content-type": "application/json", prefer: "respond-async" }); // the page follows the job
    const key = c.req.header("idempotency-key");
    if (key) headers.set("idempotency-key", key);
    const url = new URL(`${op.route}?${query}`, c.req.url);
    const request = new Request(url, { method: "POST", headers, body: JSON.stringify(whole) });
    return relayed.forward(c, who, op.route, request);
  });

  app.all("/api/*", async (c) => {
    const who = await caller(c);
    if (c.req.method !== "GET" && c.req.method !== "HEAD") own(c);
    return relayed.answer(c, who);
  });

  app.get("/*", async (c) => {
    const path = new URL(c.req.url).pathname;
    const answer = await assets.answer(path, c.req.raw);
    if (!answer) throw noRoute(app, c.req.method, path);
    return answer;
  });
  app.notFound((c) => faultAnswer(noRoute(app, c.req.method, c.req.path), c.req.url, c.req.path));
  return app;
}

/** An operation as the form for it needs it. A schema that cannot be told in JSON is any object. */
function operationShown(op: Operation) {
  let schema: unknown = { type: "object" };
  try {
    schema = op.jsonSchema?.document ?? z.toJSONSchema(op.schema, { io: "output", unrepresentable: "any" });
  } catch {}
  const { name, service, summary, files, timeoutMs, retries } = op;
  return { name, service, summary, files, timeout: timeoutMs / 1_000, retries, deployed: op.url !== undefined, schema };
}

/** What stands before every route: CORS and rate limits where they are configured, and headers that cost nothing. */
import type { Hono } from "hono";
import { cors } from "hono/cors";
import { plainIp, subnetOf } from "../addresses.ts";
import type { Env, Gateway } from "../app.ts";
import { Fault } from "../faults.ts";
import { take } from "../store/rate.ts";
import { within } from "../store/redis.ts";
import { durationText } from "../units.ts";

/** Asked by probes and by browsers, without a key. */
const OPEN = /^\/(health|livez|readyz|openapi\.json|docs|download)(\/|$)/;
/** ms; a limit that cannot be asked lets through: the route itself will tell what is wrong. */
const ANSWER_MS = 500;

/** Puts the layers on an app, by `use`: the gateway looks for it. Without settings there are none, and no request pays for them. */
export function edge(app: Hono<Env>, gateway: Gateway): void {
  const { config, guard, inspector } = gateway;
  if (config.corsOrigins.length > 0) {
    app.use(
      "*",
      cors({
        origin: config.corsOrigins,
        allowMethods: ["GET", "HEAD", "POST", "PUT", "DELETE"],
        allowHeaders: [
          "Authorization",
          "Content-Type",
          "Idempotency-Key",
          "If-None-Match",
          "Last-Event-ID",
          "Prefer",
          "Range",
          "Traceparent",
          "Tracestate",
          "X-API-Key",
          ...new Set(config.registry.operations.flatMap((op) => op.forwardHeaders)),
        ],
        exposeHeaders: [
          "Accept-Ranges",
          "Content-Range",
          "ETag",
          "Idempotent-Replayed",
          "Link",
          "Location",
          "Preference-Applied",
          "Retry-After",
        ],
        maxAge: 600,
      }),
    );
  }
  const { rateLimit } = config;
  if (!rateLimit) return;
  app.use("*", async (c, next) => {
    if (OPEN.test(c.req.path)) return next();
    const waitMs = await within(ANSWER_MS, take(inspector.redis, callerOf(c.req.raw, c.env), rateLimit)).catch(() => 0);
    if (waitMs > 0) {
      throw new Fault(
        "rate_limited",
        `More than ${rateLimit.requests} requests in ${durationText(rateLimit.perMs)} (RATE_LIMIT); slow down.`,
        { retryAfterS: waitMs / 1_000 },
      );
    }
    return next();
  });

  /** Whoever has no valid key shares the rate of its address, so that guessing keys is slow too. */
  function callerOf(request: Request, env: Env["Bindings"]): string {
    const ip = subnetOf(plainIp(guard.clientIp(env?.ip ?? "", request.headers.get("x-forwarded-for"))));
    try {
      const { key } = env?.caller ?? guard.check(request, env?.ip ?? "", "read");
      return key === "open" ? `ip:${ip}` : key;
    } catch {
      return `ip:${ip}`;
    }
  }
}

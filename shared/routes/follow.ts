/** Long polls and server-sent events: a client follows one job without asking again and again. */
import { streamSSE } from "hono/streaming";
import { allow, type Gateway, idOf, newApp } from "../app.ts";
import { baseOf } from "../base-path.ts";
import { Fault } from "../faults.ts";
import { isTerminal } from "../jobs.ts";
import { MAX_REPLY_WAIT_MS } from "../services.ts";
import { forecast, statusText } from "../show.ts";
import { noJob } from "../store/inspect.ts";
import { LOOK_MS, Wakes } from "../store/wakes.ts";
import { durationMs } from "../units.ts";

/** ms; a longer wait is cut to this, and Preference-Applied says so. Proxies cut silent requests after about as long. */
const MAX_WAIT_MS = MAX_REPLY_WAIT_MS;

const RESPOND_ASYNC = /(?:^|[,;])\s*respond-async\s*(?:$|[,;])/i;

/**
 * How long the request wants to wait, by `?wait=30` or by `Prefer: wait=30` (RFC 7240, which has a preference that
 * cannot be read ignored). `Prefer: respond-async` asks for none.
 * @throws Fault invalid
 */
function waitOf(request: Request, otherwiseMs: number): { ms: number; preferred: boolean } {
  const prefer = request.headers.get("prefer");
  const query = request.url.includes("wait=") ? new URL(request.url).searchParams.get("wait") : null;
  if (query !== null) {
    const ms = durationMs(query);
    if (ms === undefined) {
      throw new Fault("invalid", `wait: must be seconds, not ${JSON.stringify(query.slice(0, 50))}.`, {
        errors: [{ path: "wait", message: "must be seconds, at most 60" }],
      });
    }
    return { ms: Math.min(ms, MAX_WAIT_MS), preferred: false };
  }
  const seconds = prefer && /(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:$|[,;])/i.exec(prefer)?.[1];
  return seconds
    ? { ms: Math.min(Number(seconds) * 1_000, MAX_WAIT_MS), preferred: true }
    : { ms: prefer && RESPOND_ASYNC.test(prefer) ? 0 : otherwiseMs, preferred: false };
}

export function follow(gateway: Gateway) {
  const { config, inspector } = gateway;
  const wakes = new Wakes(() => gateway.open("longhaul-wakes"));
  gateway.stopping.addEventListener("abort", () => wakes.ringAll());
  gateway.hold = (request, topic, ended, otherwiseMs = 0) => {
    const wait = waitOf(request, otherwiseMs);
    if (wait.ms === 0 || wakes.size >= config.maxWaits) return undefined;
    return hold(topic, ended, wait.ms, request.signal).then((done) => ({
      ended: done,
      headers: wait.preferred ? { "preference-applied": `wait=${wait.ms / 1_000}` } : {},
    }));
  };

  /** Waits until `ended` says so. @returns whether it did */
  async function hold(topic: string, ended: () => Promise<boolean>, ms: number, signal: AbortSignal): Promise<boolean> {
    const end = performance.now() + ms;
    const bell = await wakes.join(topic);
    const ring = () => bell.ring();
    signal.addEventListener("abort", ring);
    try {
      for (;;) {
        if (await ended()) return true;
        const left = end - performance.now();
        if (left <= 0 || signal.aborted || gateway.stopping.aborted) return false;
        await bell.next(Math.min(left, LOOK_MS));
      }
    } finally {
      signal.removeEventListener("abort", ring);
      wakes.leave(topic, bell);
    }
  }

  const app = newApp();
  app.get("/jobs/:id/events", async (c) => {
    allow(gateway, c, "read");
    const id = idOf(c.req.param("id"));
    const first = await inspector.watch(id);
    if (!first) throw noJob(id);
    const last = Number(c.req.header("last-event-id") ?? c.req.query("last_event_id") ?? -1);
    // 204 tells an EventSource, which always comes again, that there is nothing to come for.
    if (isTerminal(first.state) && last === first.rev) return c.body(null, 204);
    if (wakes.size >= config.maxWaits) {
      throw new Fault("rate_limited", "Too many clients wait on this gateway (MAX_WAITS).", { retryAfterS: 5 });
    }
    // A stream that nobody reads would wait for its reader for ever, and hold its place among the waits.
    if (c.req.raw.method === "HEAD") return c.body(null, 200, { "content-type": "text/event-stream" });
    c.header("X-Accel-Buffering", "no"); // nginx would keep events back
    return streamSSE(c, async (stream) => {
      const bell = await wakes.join(id);
      const ring = () => bell.ring();
      stream.onAbort(ring);
      c.req.raw.signal.addEventListener("abort", ring);
      let rev = last;
      let spoke = performance.now();
      try {
        await stream.write("retry: 2000\n\n");
        while (!stream.aborted && !c.req.raw.signal.aborted && !gateway.stopping.aborted) {
          // A Redis that is away ends no stream: the next look finds it again.
          const seen = await inspector.glance(id).catch(() => ({ state: "queued" as const, rev }));
          if (!seen) return;
          if (seen.rev !== rev) {
            const status = await inspector.status(id).catch(() => undefined);
            if (status) {
              rev = status.rev;
              spoke = performance.now();
              await stream.writeSSE({
                id: String(rev),
                data: statusText(status, forecast(gateway, status), baseOf(c.req.raw)),
              });
              if (isTerminal(status.state)) return;
            }
          } else if (performance.now() - spoke >= config.heartbeatMs) {
            spoke = performance.now();
            await stream.write(": still here\n\n");
          }
          await bell.next(Math.min(LOOK_MS, config.heartbeatMs));
        }
      } finally {
        c.req.raw.signal.removeEventListener("abort", ring);
        wakes.leave(id, bell);
      }
    });
  });
  return app;
}

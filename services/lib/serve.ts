/** What every microservice shares: health, errors, reading the body, progress, starting and stopping. */
import { type Context, Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import * as z from "zod";
import { Fault, messageOf } from "./fault.ts";
import { keepWarm, type Progress, stopAll } from "./work.ts";

/**
 * A Hono app with GET /health, and errors as `{"detail": "one readable sentence"}`. Every answer names its job, as the queue asks:
 * so it can tell whose it is, and use the connection again.
 */
export function service(): Hono {
  const app = new Hono();
  app.use(async (c, next) => {
    await next();
    const job = c.req.header("x-job-id");
    if (job !== undefined) c.header("X-Job-Id", job);
  });
  app.get("/health", (c) => c.json({ status: "healthy" }));
  app.notFound((c) => c.json({ detail: `No such route: ${c.req.method} ${c.req.path}` }, 404));
  app.onError((error, c) => {
    if (error instanceof SchemaFault) return c.json({ detail: error.message, errors: error.errors }, 422);
    if (error instanceof Fault) return c.json({ detail: error.message }, error.status);
    if (error instanceof HTTPException) return c.json({ detail: error.message }, error.status);
    // Nobody reads this answer: the client has hung up.
    if (c.req.raw.signal.aborted) return c.json({ detail: "The client closed the call" }, 400);
    console.error(error);
    return c.json({ detail: `Internal error: ${messageOf(error)}` }, 500);
  });
  return app;
}

class SchemaFault extends Fault {
  constructor(
    detail: string,
    readonly errors: { path: string; message: string }[],
  ) {
    super(422, detail);
  }
}

/**
 * The request's JSON, checked.
 * @throws Fault 400 when it is not JSON; 422 with `errors` when it does not fit the schema
 */
export async function bodyOf<S extends z.ZodType>(c: Context, schema: S): Promise<z.output<S>> {
  let json: unknown;
  try {
    json = await c.req.json();
  } catch {
    throw new Fault(400, "The body is not valid JSON");
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const errors = parsed.error.issues.map(({ path, message }) => ({
    path: path.join("."),
    message: message.endsWith("received undefined") ? "is required" : message,
  }));
  throw new SchemaFault(errors.map(({ path, message }) => `${path || "body"}: ${message}`).join("; "), errors);
}

/** A path in a payload: never empty. */
export const path = z.string().min(1, "must name a file");

/**
 * Posts progress to the X-Progress-Url that the queue's worker sent, at most twice a second; a no-op without one.
 * Progress is a courtesy: an answer that fails, or is slow, never harms the work.
 */
export function progressTo(c: Context): (progress: Progress) => void {
  const url = c.req.header("x-progress-url");
  if (!url || !/^https?:\/\//.test(url)) return () => {};
  let last = -Infinity;
  return (progress) => {
    if (performance.now() - last < 500) return;
    last = performance.now();
    fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(progress),
      signal: AbortSignal.timeout(2000),
      redirect: "error",
    }).catch(() => {});
  };
}

/**
 * Serves the app on HOST:PORT (default 127.0.0.1:80; a container needs HOST=0.0.0.0) until SIGTERM or SIGINT.
 * Call it only where `import.meta.main`, so that tests can import the app.
 * @param work  the work file, of which a process is kept ready
 */
export function serve(name: string, app: Hono, work: string): void {
  const server = Bun.serve({
    hostname: process.env.HOST || "127.0.0.1",
    port: Number(process.env.PORT ?? 80),
    // Bun closes a silent connection after 10 s by default; a conversion is silent for an hour. 0 = never.
    idleTimeout: 0,
    maxRequestBodySize: 16 * 1024 * 1024,
    fetch: app.fetch,
  });
  keepWarm(work);
  console.log(`${name} listens on http://${server.hostname}:${server.port}`);

  // Without a handler PID 1 of a container ignores SIGTERM. Calls are cut rather than drained: a conversion outlives
  // every grace period, and the queue delivers a cut job again.
  const stop = async () => {
    stopAll();
    await Promise.race([server.stop(true), Bun.sleep(1000)]);
    process.exit(0);
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
}

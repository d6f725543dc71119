/**
 * The gateway: takes jobs in over HTTP and tells what became of them. This file is the kernel's table of routes;
 * everything else is mounted from shared/routes/.
 */
import process from "node:process";
import { METHOD_NAME_ALL } from "hono/router";
import { accept, showStatus } from "./shared/accept.ts";
import { accessLogged } from "./shared/access.ts";
import {
  allow,
  allowed,
  type Direct,
  type End,
  type Env,
  faultAnswer,
  type Gateway,
  idOf,
  jsonText,
  newApp,
  noRoute,
  revised,
  sealed,
  served,
  unchanged,
} from "./shared/app.ts";
import { type Caller, guard } from "./shared/auth.ts";
import { tellAway } from "./shared/away.ts";
import { baseOf, basePaths } from "./shared/base-path.ts";
import { History } from "./shared/board/history.ts";
import { forwardedOf } from "./shared/call-headers.ts";
import { everywhere } from "./shared/clocks/index.ts";
import { type Config, ConfigError, readConfig } from "./shared/config.ts";
import { Fault } from "./shared/faults.ts";
import { health } from "./shared/health.ts";
import { withResultFile } from "./shared/inline-result.ts";
import type { JobId } from "./shared/jobs.ts";
import { parseJson } from "./shared/json.ts";
import { useNamespace } from "./shared/keys.ts";
import { Leave } from "./shared/leave.ts";
import { die, endLog, log, logSettings, noLog, startLog } from "./shared/log.ts";
import { answers } from "./shared/metrics.ts";
import { nearest } from "./shared/nearest.ts";
import { problem } from "./shared/problem.ts";
import { repeat } from "./shared/repeat.ts";
import { dashboard, edge, routes } from "./shared/routes/index.ts";
import { PortBusy, RUNTIME, type Server, serve } from "./shared/runtime.ts";
import type { Connection } from "./shared/script.ts";
import type { Operation } from "./shared/services.ts";
import { recordText, type Shown } from "./shared/show.ts";
import { onStop } from "./shared/signals.ts";
import { Snapshots } from "./shared/snapshot.ts";
import { keepFit } from "./shared/store/fit.ts";
import { Inspector, noJob } from "./shared/store/inspect.ts";
import { register } from "./shared/store/presence.ts";
import { Producer } from "./shared/store/produce.ts";
import { connect, ready } from "./shared/store/redis.ts";
import { Viewer } from "./shared/store/view.ts";
import { addForwarded, fromHeaders, idempotencyOf, newJob, queryOptions, readBody } from "./shared/submit.ts";
import { VERSION } from "./shared/version.ts";

/** ms that a gateway waits for its first connection before it listens: else who comes first would be told that Redis is away. */
const FIRST_MS = 1_000;

/** Takes one job of an operation in, and answers its faults itself: few promises make it fast (docs/performance.md). */
async function submit(
  gateway: Gateway,
  request: Request,
  env: Env["Bindings"],
  op: Operation,
  { query, end }: { query?: Record<string, string[]> | undefined; end?: End | undefined },
): Promise<Response> {
  const { config } = gateway;
  let response: Response;
  try {
    const caller = allowed(gateway, request, env, "submit");
    const body = await readBody(request, config.maxBodyBytes);
    const options = query && queryOptions(query);
    const job = newJob(gateway, op, parseJson(body, config.maxJsonDepth), options);
    fromHeaders(job, request.headers, caller, body, options);
    if (op.forwardHeaders.length > 0) addForwarded(job, forwardedOf(request.headers, op, config.apiKeys));
    response = await accept(gateway, request, job, op.replyWaitMs);
  } catch (error) {
    response = faultAnswer(error, request.url, op.route);
  }
  return end ? end("POST", response) : response;
}

/** The submits of a deployment, for `served`; none when the app has layers, which would not be asked. */
export function submits(gateway: Gateway, app: ReturnType<typeof gatewayApp>): Direct {
  if (app.routes.some(({ method }) => method === METHOD_NAME_ALL)) return new Map();
  const { operations } = gateway.config.registry;
  return new Map(operations.map((op) => [op.route, (request, env, end) => submit(gateway, request, env, op, { end })]));
}

/** The gateway's app over the parts of a deployment. A test calls `app.request` and needs no socket. */
export function gatewayApp(gateway: Gateway, warnings: () => string[] = () => []) {
  const { config, producer, inspector } = gateway;
  const app = newApp();
  edge(app, gateway);

  for (const op of config.registry.operations) {
    app.post(op.route, (c) =>
      submit(gateway, c.req.raw, c.env, op, { query: c.req.url.includes("?") ? c.req.queries() : undefined }),
    );
  }
  app.get("/jobs/:id/status", async (c) => {
    allow(gateway, c, "read");
    const id = idOf(c.req.param("id"));
    const held = await gateway.hold?.(c.req.raw, id, inspector.ended(id));
    return showStatus(gateway, c.req.raw, id, held?.headers, c.env?.links);
  });
  app.get("/jobs/:id", async (c) => {
    allow(gateway, c, "read");
    const id = idOf(c.req.param("id"));
    const held = await gateway.hold?.(c.req.raw, id, inspector.ended(id));
    const same = await unchanged(c.req.raw, () => inspector.glance(id), held?.headers);
    if (same) return same;
    const record = await inspector.record(id);
    if (!record) throw noJob(id);
    const text = (shown?: Shown) => recordText(record, gateway, baseOf(c.req.raw), shown);
    const { rev, resultFile: file } = record;
    if (file && !c.env?.links) return withResultFile(gateway, c.req.raw, { id, rev, file }, text, held?.headers);
    return revised(c.req.raw, rev, text, held?.headers);
  });
  app.post("/jobs/:id/cancel", (c) => {
    const caller = allow(gateway, c, "submit");
    return cancel(idOf(c.req.param("id")), caller);
  });
  app.delete("/jobs/:id", (c) => {
    const caller = allow(gateway, c, "submit");
    return remove(idOf(c.req.param("id")), caller);
  });
  app.post("/jobs/:id/requeue", (c) => {
    const caller = allow(gateway, c, "submit");
    const id = idOf(c.req.param("id"));
    return requeue(id, caller, idempotencyOf(c.req.raw.headers, caller, `requeue ${id}`)?.key);
  });
  app.route("/", health(gateway, warnings));
  for (const mounted of routes) app.route("/", mounted(gateway));
  app.notFound((c) => {
    const path = URL.canParse(c.req.url) ? new URL(c.req.url).pathname : c.req.path;
    return problem(noRoute(app, c.req.method, c.req.path, hint(c.req.method, c.req.path)), path);
  });

  async function cancel(id: JobId, by: Caller): Promise<Response> {
    const reply = await producer.cancel(id);
    if (reply === "gone") throw noJob(id);
    if (reply === "ended") throw new Fault("wrong_state", `Job ${id} has ended already; there is nothing to cancel.`);
    log.info(reply === "canceled" ? "job canceled" : "cancel asked of a running job", { job: id, caller: by.name });
    return jsonText(JSON.stringify({ job_id: id, status: reply === "canceled" ? "canceled" : "canceling" }), 202);
  }

  async function remove(id: JobId, by: Caller): Promise<Response> {
    const reply = await producer.erase(id);
    if (reply === "gone") throw noJob(id);
    if (reply === "running") return cancel(id, by);
    log.info(reply === "ok" ? "job erased" : "job canceled", { job: id, caller: by.name });
    return jsonText(
      JSON.stringify({ job_id: id, status: reply === "ok" ? "erased" : "canceled" }),
      reply === "ok" ? 200 : 202,
    );
  }

  /** @param once  hash of an Idempotency-Key: the wish it stood for is answered again, wherever the job is by now */
  async function requeue(id: JobId, by: Caller, once?: string): Promise<Response> {
    for (let tries = 0; tries < 5; tries++) {
      const seen = await inspector.glance(id);
      if (!seen) throw noJob(id);
      const reply = await producer.requeue(id, seen.rev, once);
      if (reply === "ok" || reply === "again") {
        if (reply === "ok") log.info("job requeued", { job: id, caller: by.name });
        const replayed: Record<string, string> = reply === "again" ? { "idempotent-replayed": "true" } : {};
        return jsonText(JSON.stringify({ job_id: id, status: "queued", requeued: true }), 200, replayed);
      }
      if (reply === "gone") throw noJob(id);
      if (reply === "state" && seen.state !== "failed" && seen.state !== "canceled") {
        throw new Fault("wrong_state", `Job ${id} is ${seen.state}; only a failed or canceled job can be requeued.`);
      }
    }
    throw new Fault("wrong_state", `Job ${id} changes too fast to be requeued; try again.`);
  }

  function hint(method: string, path: string): string {
    const best = nearest(path, new Set(app.routes.filter((r) => r.method === method).map((r) => r.path)));
    return best ? ` Did you mean ${best}?` : " See /openapi.json.";
  }
  return app;
}

/** Puts the parts of a gateway together over one connection. */
export function assemble(
  config: Config,
  redis: Connection,
  stopping = new AbortController().signal,
  leaving = stopping,
): Gateway {
  const inspector = new Inspector(redis);
  return {
    config,
    stopping,
    leaving,
    open: (name) => connect(config.redisUrl, "work", name),
    inspector,
    producer: new Producer(redis, config),
    snapshots: new Snapshots(inspector, config.registry, config.leaseMs),
    history: new History(new Viewer(redis), [...config.registry.services.keys()], () => inspector.time.now()),
    guard: guard(config),
  };
}

const logged = logSettings(process.env);

async function main(): Promise<void> {
  startLog(logged);
  const config = readConfig(process.env, { listens: true });
  useNamespace(config.namespace);
  for (const warning of config.mistyped.values()) log.warn(warning);
  const redis = connect(config.redisUrl, "request", "longhaul-gateway");
  tellAway(redis, config.redisUrl, log);
  let warnings: string[] = [];
  redis.on("ready", () => void gateway.inspector.time.ask(redis)); // this may be another Redis, with another clock
  keepFit(redis, config.allowVolatile, {
    async fit(found) {
      warnings = found;
      await register(redis, config.registry.deployed());
    },
    unfit: (error) => die(logged, `Redis cannot be used: ${error.message}`),
    log,
  });
  const ending = new AbortController();
  const leave = new Leave();
  const gateway = assemble(config, redis, ending.signal, leave.signal);
  const app = gatewayApp(gateway, () => warnings);
  const findBase = basePaths(config);
  const answer = served(
    app,
    submits(gateway, app),
    (method, response) => answers.count(method, leave.told(sealed(response))),
    findBase,
  );
  await ready(redis, FIRST_MS).catch(() => {});
  const servers: Server[] = [
    serve(config.accessLog ? accessLogged(answer, "gateway") : answer, config.port, config.host),
  ];
  if (config.dashboardPort !== 0) {
    const board = served(dashboard(gateway, app), undefined, (_, response) => leave.told(response), findBase);
    servers.push(
      serve(config.accessLog ? accessLogged(board, "dashboard") : board, config.dashboardPort, config.dashboardHost),
    );
  }
  log.info(`gateway ready under ${RUNTIME}`, {
    url: `http://${config.host}:${servers[0]?.port}`,
    dashboard: servers[1] && `http://${config.dashboardHost}:${servers[1].port}`,
    version: VERSION,
  });
  for (const { name, everyMs, step } of everywhere) {
    const context = { ...gateway, redis, log };
    void repeat(
      name,
      everyMs(config),
      () => step(context),
      context.log,
      () => ending.signal.aborted,
    );
  }
  void repeat(
    "time",
    5_000,
    () => gateway.inspector.time.ask(redis),
    noLog,
    () => ending.signal.aborted,
  );
  onStop(async (signals) => {
    if (signals > 1) process.exit(0);
    // not ready for SHUTDOWN_DELAY, then what is in hand is answered; a second signal ends it
    log.info("stopping", { delay_s: config.shutdownMs / 1_000 });
    await leave.begin(servers, config.shutdownMs, ending);
    log.info("stopped");
    await endLog();
    process.exit(0);
  });
}

if (import.meta.main) {
  main().catch((error) => {
    if (error instanceof PortBusy)
      die(logged, `Port ${error.message} is taken. Set PORT or DASHBOARD_PORT to a free one.`);
    die(logged, error instanceof ConfigError ? error.message : String(error?.stack ?? error));
  });
}

/** Redis away and Redis silent, as a client of the gateway sees it; and a gateway that must not start. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import process from "node:process";
import type { Fault } from "../shared/faults.ts";
import { startGatewayApp, type TestGateway } from "./support/gateway.ts";
import { limit } from "./support/patience.ts";
import { freePort, startRedis, type TestRedis } from "./support/redis.ts";
import { startProcess, until } from "./support/stack.ts";
import { job } from "./support/store.ts";

/** 2 s are promised; the rest is for a busy machine. */
const LIMIT_MS = 2_700;
const BODY = { filename: "a.ifc", output_filename: "a.json" };
let redis: TestRedis;
let g: TestGateway;
let frozen = false;
const freeze = () => {
  process.kill(redis.pid, "SIGSTOP");
  frozen = true;
};
const thaw = () => {
  if (frozen) process.kill(redis.pid, "SIGCONT");
  frozen = false;
};
beforeEach(async () => {
  redis = await startRedis();
  g = await startGatewayApp(redis.url);
});
afterEach(async () => {
  thaw();
  g?.close();
  await redis?.stop();
});

type Told = { status: number; code: string; accepted?: string; job_id?: string; detail: string };
/** Asks, and holds the answer to 2 s. */
const timed = async (work: Promise<Response>) => {
  const began = performance.now();
  const response = await work;
  expect(performance.now() - began).toBeLessThan(limit(LIMIT_MS));
  expect(Number(response.headers.get("retry-after"))).toBeGreaterThan(0);
  return (await response.json()) as Told;
};
const back = () => until(async () => (await g.ask("GET", "/readyz")).status === 200, 20_000);
const queued = async () => Number(await redis.client.llen("lh:{ifc2json}:ready"));

test("a gateway that listens has found its Redis: whoever comes first is served", async () => {
  const port = await freePort();
  const env = { REDIS_URL: redis.url, PORT: String(port), DASHBOARD_PORT: "0", IFC2JSON_URL: "http://127.0.0.1:9" };
  const gateway = startProcess("gateway.ts", env);
  try {
    const url = `http://127.0.0.1:${port}/ifc2json`;
    const post = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(BODY) };
    let first: Response | undefined;
    // refused while it does not listen; asked so often that it is met as soon as it does
    for (const end = Date.now() + limit(30_000); !first && Date.now() < end; await Bun.sleep(1))
      first = await fetch(url, post).catch(() => undefined);
    expect(first?.status).toBe(202);
  } finally {
    gateway.kill("SIGKILL");
    await gateway.exited;
  }
}, 60_000);

test("Redis down: a submit is 503 within 2 s, surely not accepted, and leaves no ghost", async () => {
  await redis.kill9();
  await until(() => g.redis.status !== "ready");
  for (let i = 0; i < 3; i++) {
    const told = await timed(g.post("/ifc2json", BODY));
    expect(told).toMatchObject({ status: 503, code: "redis_unreachable", accepted: "no" });
  }
  await redis.restart();
  await back();
  await Bun.sleep(300); // a command that had waited somewhere would run now
  expect(await queued()).toBe(0);
  expect((await g.post("/ifc2json", BODY)).status).toBe(202);
}, 60_000);

test("Redis down: reads and verbs are 503, never 404 or 500; /health tells, /livez lives", async () => {
  const id = await g.submit("/ifc2json", BODY);
  await redis.kill9();
  await until(() => g.redis.status !== "ready");
  for (const [method, path] of [
    ["GET", `/jobs/${id}`],
    ["GET", `/jobs/${id}/status`],
    ["GET", `/jobs/${id}/result`],
    ["POST", `/jobs/${id}/cancel`],
    ["POST", `/jobs/${id}/requeue`],
    ["DELETE", `/jobs/${id}`],
    ["GET", "/readyz"],
  ] as const) {
    expect([path, (await timed(g.ask(method, path))).status]).toEqual([path, 503]);
  }
  const health = await g.ask("GET", "/health");
  expect([health.status, ((await health.json()) as { status: unknown }).status]).toEqual([200, "unhealthy"]);
  expect((await g.ask("GET", "/livez")).status).toBe(200);
}, 60_000);

test("Redis silent: a submit is 503 within 2 s with its id and accepted unknown; the id can be looked up later", async () => {
  await g.submit("/ifc2json", BODY);
  freeze();
  const told = await timed(g.post("/ifc2json", BODY));
  expect(told).toMatchObject({ status: 503, accepted: "unknown" });
  expect(told.job_id).toMatch(/^ifc2json_[0-9A-Za-z]{22}$/);
  expect(told.detail).toContain(told.job_id as string);
  thaw();
  await back();
  // Redis had it in its socket: it was accepted, and the id that the client was told is true
  await until(async () => (await g.ask("GET", `/jobs/${told.job_id}/status`)).status === 200);
  expect(await queued()).toBe(2);
}, 60_000);

test("Redis silent: whoever retries with the Idempotency-Key gets the first job, and there is one", async () => {
  const headers = { "idempotency-key": "once" };
  freeze();
  const told = await timed(g.post("/ifc2json", BODY, headers));
  expect(told.accepted).toBe("unknown");
  thaw();
  await back();
  const again = await g.post("/ifc2json", BODY, headers);
  expect(again.status).toBe(202);
  expect(((await again.json()) as { job_id: string }).job_id).toBe(told.job_id as string);
  expect(await queued()).toBe(1);
}, 60_000);

test("Redis silent: every one of many submits is answered within 2 s, and none that was surely not accepted appears", async () => {
  freeze();
  const first = timed(g.post("/ifc2json", BODY));
  await Bun.sleep(100);
  const rest = Array.from({ length: 300 }, () => timed(g.post("/ifc2json", BODY)));
  const told = await Promise.all([first, ...rest]);
  thaw();
  await back();
  const unknown = told.filter((t) => t.accepted === "unknown").map((t) => t.job_id as string);
  expect(unknown.length + told.filter((t) => t.accepted === "no").length).toBe(301);
  await Bun.sleep(500);
  const listed = await redis.client.lrange("lh:{ifc2json}:ready", 0, -1);
  for (const id of listed) expect(unknown).toContain(id);
}, 60_000);

test("Redis that dies with a submit in its socket: unknown, never a false no", async () => {
  freeze();
  // Without the gateway's own reads: behind them it would wait unsent, and no would be true.
  const asked = g.gateway.producer.submit(job());
  const told = asked.then(
    () => undefined,
    (error: Fault) => error.extra.members,
  );
  await Bun.sleep(300);
  await redis.kill9();
  frozen = false;
  expect(await told).toMatchObject({ accepted: "unknown", job_id: expect.stringMatching(/^work_/) });
}, 60_000);

test("Redis silent: reads are 503 within 2 s, /health too is answered", async () => {
  const id = await g.submit("/ifc2json", BODY);
  await Bun.sleep(300); // a snapshot that the submit has begun may still be answered
  freeze();
  const asked = performance.now();
  const [status, health] = await Promise.all([timed(g.ask("GET", `/jobs/${id}/status`)), g.ask("GET", "/health")]);
  expect(performance.now() - asked).toBeLessThan(limit(LIMIT_MS));
  expect(status.status).toBe(503);
  expect(((await health.json()) as { status: string }).status).toBe("unhealthy");
}, 60_000);

// ---- starting

const started = async (env: Record<string, string>) => {
  const child = startProcess("gateway.ts", { REDIS_URL: redis.url, PORT: "0", DASHBOARD_PORT: "0", ...env });
  const code = await Promise.race([child.exited, Bun.sleep(20_000).then(() => -1)]);
  child.kill("SIGKILL");
  return { code, output: child.output() };
};

test("a gateway without keys starts on loopback only, whichever port is public", async () => {
  for (const env of [{ HOST: "0.0.0.0" }, { DASHBOARD_HOST: "0.0.0.0", DASHBOARD_PORT: String(await freePort()) }]) {
    const { code, output } = await started(env as Record<string, string>);
    expect(code).toBe(1);
    expect(output).toContain("API_KEYS");
    expect(output).toContain(Object.keys(env)[0] as string);
    expect(output).not.toContain("at "); // a sentence, no stack
  }
}, 60_000);

test("a gateway on a busy port says so in one sentence", async () => {
  const taken = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response("") });
  const { code, output } = await started({ PORT: String(taken.port) });
  expect([code, output.trim()]).toEqual([
    1,
    `Port 127.0.0.1:${taken.port} is taken. Set PORT or DASHBOARD_PORT to a free one.`,
  ]);
  await taken.stop(true);
}, 60_000);

test("two gateways do not share a port, nor a dashboard's: the second says so and ends", async () => {
  const [port, dashboardPort] = [String(await freePort()), String(await freePort())];
  const env = { REDIS_URL: redis.url, PORT: port, DASHBOARD_PORT: dashboardPort };
  const first = startProcess("gateway.ts", env);
  try {
    await first.says(/dashboard=http/);
    for (const [taken, more] of [
      [port, { DASHBOARD_PORT: "0" }],
      [dashboardPort, { PORT: String(await freePort()) }],
    ] as const) {
      const second = startProcess("gateway.ts", { ...env, ...more });
      await second.says(/is taken|gateway ready.*\n/);
      second.kill("SIGKILL");
      expect(second.output().trim()).toBe(
        `Port 127.0.0.1:${taken} is taken. Set PORT or DASHBOARD_PORT to a free one.`,
      );
    }
  } finally {
    first.kill("SIGKILL");
    await first.exited;
  }
}, 60_000);

test("a Redis that loses what it accepts is refused, with what to do; ALLOW_VOLATILE starts and shows degraded", async () => {
  await redis.client.config("SET", "appendonly", "no");
  await redis.client.config("SET", "maxmemory-policy", "allkeys-lru");
  const { code, output } = await started({});
  expect(code).toBe(1);
  for (const words of ["appendonly", "noeviction", "ALLOW_VOLATILE"]) expect(output).toContain(words);
  const port = await freePort();
  const child = startProcess("gateway.ts", {
    ...{ REDIS_URL: redis.url, PORT: String(port), DASHBOARD_PORT: "0", ALLOW_VOLATILE: "1" },
  });
  try {
    await child.says(/gateway ready/, 20_000);
    const health = async () => (await fetch(`http://127.0.0.1:${port}/health`)).json() as Promise<{ status: string }>;
    await until(async () => (await health()).status === "degraded", 10_000);
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
}, 60_000);

test("another major of the protocol is refused, with what to do", async () => {
  await redis.client.hset("lh:protocol", { major: 99, minor: 0 });
  const { code, output } = await started({});
  expect(code).toBe(1);
  expect(output).toContain("protocol 99");
}, 60_000);

test("a body that is too large is a problem on a real socket too, and the gateway lives on", async () => {
  const port = await freePort();
  const child = startProcess("gateway.ts", {
    ...{ REDIS_URL: redis.url, PORT: String(port), DASHBOARD_PORT: "0", IFC2JSON_URL: "http://127.0.0.1:9" },
  });
  try {
    await child.says(/gateway ready/, 20_000);
    const url = `http://127.0.0.1:${port}/ifc2json`;
    await until(async () => (await fetch(`http://127.0.0.1:${port}/readyz`)).ok);
    const headers = { "content-type": "application/json" };
    const large = "x".repeat(10_000_000);
    for (const body of [large, new Blob([large]).stream()]) {
      const response = await fetch(url, { method: "POST", headers, body, duplex: "half" } as RequestInit);
      expect(response.status).toBe(413);
      expect(response.headers.get("content-type")).toBe("application/problem+json");
      expect(((await response.json()) as Told).code).toBe("too_large");
    }
    expect((await fetch(url, { method: "POST", headers, body: JSON.stringify(BODY) })).status).toBe(202);
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
}, 60_000);

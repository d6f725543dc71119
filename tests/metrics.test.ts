/** /metrics against an independent parser, and /autoscale, on a real gateway. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import parsePrometheus from "parse-prometheus-text-format";
import { freePort } from "./support/redis.ts";
import { type Stack, startStack, until } from "./support/stack.ts";

setDefaultTimeout(60_000);
let stack: Stack;
beforeAll(async () => {
  stack = await startStack({
    operation: { slots: 4 },
    operations: {
      one: { url: "http://127.0.0.1:9", slots: 2, concurrency: 2 },
      idle: { url: "http://127.0.0.1:9", slots: 5 },
    },
    env: {
      WORKER_SERVICES: "work",
      AUTOSCALE_MAX: "7",
      AUTOSCALE_TARGET: "2",
      API_KEYS: "reader-key-1:read,admin-key-1",
    },
  });
});
afterAll(() => stack?.stop());

const KEY = { "x-api-key": "admin-key-1" };
const scrape = async (url = stack.url) => {
  const response = await fetch(`${url}/metrics`, { headers: { "x-api-key": "reader-key-1" } });
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toMatch(/^text\/plain; version=0\.0\.4/);
  const text = await response.text();
  const families = new Map(parsePrometheus(text).map((family) => [family.name, family]));
  const value = (name: string, labels: Record<string, string> = {}) => {
    const metric = families
      .get(name)
      ?.metrics.find((one) => Object.entries(labels).every(([label, text]) => one.labels?.[label] === text));
    return metric?.value === undefined ? undefined : Number(metric.value);
  };
  return { text, families, value };
};
const submit = (payload: unknown, route = "/work") => stack.submit(payload, route, KEY);
const ended = (id: string) =>
  until(async () => {
    const response = await fetch(`${stack.url}/jobs/${id}/status`, { headers: KEY });
    return ["finished", "failed"].includes(((await response.json()) as { status: string }).status);
  });

test("every figure of the contract is there, and counts what happened", async () => {
  for (const id of [
    await submit({}),
    await submit({ sleep: 3_000 }),
    await submit({ status: 400 }),
    await submit({ fail: 1 }),
  ])
    await ended(id);
  await submit({}, "/one");
  await Bun.sleep(1_100);
  const { families, value } = await scrape();
  expect(value("longhaul_jobs_total", { service: "work", outcome: "finished" })).toBe(3);
  expect(value("longhaul_jobs_total", { service: "work", outcome: "failed" })).toBe(1);
  expect(value("longhaul_jobs_submitted_total", { service: "work" })).toBe(4);
  expect(value("longhaul_retries_total", { service: "work" })).toBe(1);
  expect(value("longhaul_queued", { service: "one" })).toBe(1);
  expect(value("longhaul_oldest_wait_seconds", { service: "one" })).toBeGreaterThan(0.9);
  expect(value("longhaul_oldest_wait_seconds", { service: "work" })).toBe(0);
  expect(value("longhaul_slots", { service: "work" })).toBe(4);
  expect(value("longhaul_slots_busy", { service: "work" })).toBe(0);
  expect(value("longhaul_workers", { state: "running" })).toBe(1);
  expect(value("longhaul_redis_up")).toBe(1);
  expect(value("longhaul_redis_memory_bytes")).toBeGreaterThan(500_000);
  expect(value("longhaul_http_requests_total", { method: "POST", status: "202" })).toBe(5);
  for (const name of ["redeliveries", "orphans", "returns", "poisoned", "stale_settles", "requeues"])
    expect(value(`longhaul_${name}_total`, { service: "work" })).toBe(0);
  expect(families.get("longhaul_run_seconds")?.type).toBe("HISTOGRAM");
});

test("the histograms are cumulative, in seconds, and agree with their sum and count", async () => {
  const { text } = await scrape();
  const lines = text.split("\n").filter((line) => /^longhaul_run_seconds_bucket\{.*service="work"/.test(line));
  const buckets = lines.map((line) => ({
    le: /le="([^"]+)"/.exec(line)?.[1] as string,
    n: Number(line.split(" ")[1]),
  }));
  expect(buckets.map(({ n }) => n)).toEqual(buckets.map(({ n }) => n).sort((a, b) => a - b));
  expect(buckets.at(-1)).toEqual({ le: "+Inf", n: 3 });
  const below = (seconds: number) => buckets.filter(({ le }) => Number(le) <= seconds).at(-1)?.n;
  expect(below(2.9)).toBe(2); // the third slept 3 s
  expect(below(60)).toBe(3);
  const sum = Number(/^longhaul_run_seconds_sum\{service="work"\} (\S+)$/m.exec(text)?.[1]);
  expect(sum).toBeGreaterThan(3);
  expect(sum).toBeLessThan(60);
  expect(text).toContain('longhaul_wait_seconds_count{service="work"} 4');
  expect(text).toContain('longhaul_run_seconds_count{service="idle"} 0');
});

test("autoscale: the rule, bounds, concurrency, a paused service", async () => {
  const read = async () => (await fetch(`${stack.url}/autoscale`, { headers: KEY })).json();
  const { redis } = stack;
  const need = async () => {
    await Bun.sleep(1_050);
    // biome-ignore lint/suspicious/noExplicitAny: read field by field
    return (await read()) as any;
  };
  expect(await need()).toMatchObject({
    queued: 1,
    slots: 4,
    desired_workers: 1,
    services: {
      work: { queued: 0, started: 0, slots: 4, desired_workers: 1 },
      one: { queued: 1, started: 0, slots: 0, desired_workers: 1 },
    },
  });
  await Promise.all(Array.from({ length: 20 }, () => submit({}, "/one"))); // 21 ÷ 2 slots would be 6, but only 2 may run at once
  await Promise.all(Array.from({ length: 24 }, () => submit({}, "/idle"))); // 24 ÷ (5 slots × target 2) = 3
  const busy = await need();
  expect(busy.services.one.desired_workers).toBe(1);
  expect(busy.services.idle.desired_workers).toBe(3);
  expect(busy).toMatchObject({ queued: 45, desired_workers: 3 });
  await Promise.all(Array.from({ length: 60 }, () => submit({}, "/idle"))); // 84 ÷ 10 = 9, at most 7
  expect((await need()).services.idle.desired_workers).toBe(7);
  await stack.post("/queues/idle/pause", {}, KEY);
  expect((await need()).services.idle.desired_workers).toBe(1);
  expect(await redis.client.ping()).toBe("PONG");
});

test("a scrape needs a key of scope read, and costs Redis nothing within a second", async () => {
  expect((await fetch(`${stack.url}/metrics`)).status).toBe(401);
  expect((await fetch(`${stack.url}/autoscale`)).status).toBe(401);
  const commands = async () =>
    Number(/evalsha:calls=(\d+)/.exec(await stack.redis.client.info("commandstats"))?.[1] ?? 0);
  stack.workers[0]?.kill("SIGSTOP");
  await scrape();
  const before = await commands();
  const start = Date.now();
  for (let i = 0; i < 50; i++) await scrape();
  // one script a service, built-in ones too, and a second
  const rounds = Math.ceil((Date.now() - start) / 1_000) + 1;
  expect(await commands()).toBeLessThanOrEqual(before + (rounds + 1) * 10);
  stack.workers[0]?.kill("SIGCONT");
});

test("without Redis a scrape still answers, and says so", async () => {
  await stack.redis.kill9();
  await Bun.sleep(1_100);
  const { value, families } = await scrape();
  expect(value("longhaul_redis_up")).toBe(0);
  expect(value("longhaul_http_requests_total", { method: "POST", status: "202" })).toBeGreaterThan(4);
  expect(families.get("longhaul_queued")?.metrics ?? []).toEqual([]);
});

test("the same text under Deno", async () => {
  await stack.redis.restart();
  const port = String(await freePort());
  await stack.startGateway({ PORT: port, DASHBOARD_PORT: "0" }, "deno");
  const { value, families } = await scrape(`http://127.0.0.1:${port}`);
  expect(value("longhaul_jobs_total", { service: "work", outcome: "finished" })).toBe(3);
  expect(families.get("longhaul_wait_seconds")?.type).toBe("HISTOGRAM");
});

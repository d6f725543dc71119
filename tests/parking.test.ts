/** A lane whose service refuses connections, over a real Redis: when it parks, what it tries, and when it counts as back. */
import { expect, test } from "bun:test";
import { TLS } from "./fixtures/tls.ts";
import { type Lanes, laneStage, type Stage } from "./support/lane.ts";
import { listLog } from "./support/log.ts";
import { freePort } from "./support/redis.ts";
import { startService } from "./support/service.ts";
import { until } from "./support/stack.ts";
import { KEYS, SERVICE } from "./support/store.ts";

let { s, lanes } = {} as Stage;
laneStage((stage) => {
  ({ s, lanes } = stage);
});
function start(url: string, more: Parameters<Lanes["start"]>[1] = {}) {
  const lines: string[] = [];
  const { lane } = lanes.start("w1", more, undefined, { url }, listLog(lines, "info"));
  return { lane, lines };
}
const count = (lines: string[], word: string) => lines.filter((line) => line.includes(word)).length;
/** Waits as `until` does, and makes retried jobs due meanwhile, as a worker's clock does. */
const untilRetried = (holds: () => Promise<boolean>, ms: number) =>
  until(async () => {
    await s.maintainer.promote(SERVICE);
    return holds();
  }, ms);
const parkedSince = async () => Number(await s.redis.client.hget(KEYS.counts, "parked"));

test("a service that takes connections and refuses each call parks once, until PARK_LIMIT fails its jobs", async () => {
  const untrusted = Bun.serve({ port: 0, hostname: "127.0.0.1", tls: TLS, fetch: () => Response.json({}) });
  const { lane, lines } = start(`https://127.0.0.1:${untrusted.port}`, { parkLimitMs: 6_000 });
  const ids = await Promise.all([1, 2, 3].map(() => s.submit()));
  await until(async () => lane.parking.parked !== undefined);
  const since = await parkedSince();
  await until(async () => (lane.parking.parked?.probes ?? 0) >= 3, 20_000);
  expect([await parkedSince(), await s.state(ids[0]!)]).toEqual([since, "queued"]);
  for (const id of ids) await until(async () => (await s.state(id)) === "failed", 30_000);
  expect((await s.inspector.record(ids[0]!))?.error?.code).toBe("service_unreachable");
  expect([count(lines, "lane parked"), count(lines, "lane resumed")]).toEqual([1, 0]);
  await untrusted.stop(true);
}, 60_000);

test("a service that comes back: one job tries it, then all run; parked once, resumed once, no attempt spent", async () => {
  const port = await freePort();
  const { lane, lines } = start(`http://127.0.0.1:${port}`);
  const ids = await Promise.all(Array.from({ length: 20 }, () => s.submit()));
  await until(async () => lane.parking.parked !== undefined);
  await Bun.sleep(1_500);
  const service = await startService(port);
  for (const id of ids) await until(async () => (await s.state(id)) === "finished", 30_000);
  expect([count(lines, "lane parked"), count(lines, "lane resumed"), await parkedSince()]).toEqual([1, 1, 0]);
  const records = await Promise.all(ids.map((id) => s.inspector.record(id)));
  expect(records.map((record) => [record?.attempt, record?.redeliveries])).toEqual(ids.map(() => [1, 0]));
  await service.stop();
}, 60_000);

test("a call of hours ends the parking as soon as it can no longer be refused", async () => {
  const port = await freePort();
  const { lane, lines } = start(`http://127.0.0.1:${port}`, { connectTimeoutMs: 500 });
  const id = await s.submit({ payload: '{"sleep":20000}' });
  await until(async () => lane.parking.parked !== undefined);
  const service = await startService(port);
  await until(async () => count(lines, "lane resumed") === 1, 15_000);
  expect(await s.state(id)).toBe("started");
  await service.stop();
}, 60_000);

test("a lane without a job to try is back when its service can be connected to twice", async () => {
  const port = await freePort();
  const { lane, lines } = start(`http://127.0.0.1:${port}`);
  await s.submit();
  await until(async () => lane.parking.parked !== undefined);
  lane.held = true; // as an empty queue: nothing is taken
  const service = await startService(port);
  await until(async () => count(lines, "lane resumed") === 1, 30_000);
  await service.stop();
}, 60_000);

/** What a proxy says while its service is away; `away` = false lets calls through. */
function proxy(status: number) {
  const state = { away: true, calls: [] as string[], headers: {} as Record<string, string> };
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch(request) {
      state.calls.push(request.headers.get("x-job-id") as string);
      if (state.away) return new Response("Bad Gateway", { status, headers: state.headers });
      return Response.json({ ok: true });
    },
  });
  return { state, url: `http://127.0.0.1:${server.port}`, stop: () => server.stop(true) };
}

test("a proxy that answers 502 for a service that is away: the lane parks, few attempts are spent, all jobs finish", async () => {
  for (const status of [502, 503]) {
    const { state, url, stop } = proxy(status);
    const lines: string[] = [];
    const { lane } = lanes.start("w1", { slots: 4 }, undefined, { url, backoffMs: 100 }, listLog(lines, "info"));
    const ids = await Promise.all(Array.from({ length: 40 }, () => s.submit()));
    await until(async () => lane.parking.parked !== undefined);
    expect(lane.parking.parked?.reason).toContain(`answered ${status}: Bad Gateway`);
    await Bun.sleep(2_000);
    expect(state.calls.length).toBeLessThan(16);
    state.away = false;
    for (const id of ids) await untilRetried(async () => (await s.state(id)) === "finished", 30_000);
    expect([count(lines, `lane parked: nothing but ${status}`), count(lines, "lane resumed")]).toEqual([1, 1]);
    await stop();
    await lanes.stop();
    await s.clear();
  }
}, 60_000);

test("one job that gets 502 each time, and 503s that the service asks to repeat, park nothing and end as ever", async () => {
  const { state, url, stop } = proxy(502);
  const { lane } = lanes.start("w1", {}, undefined, { url, backoffMs: 20, retries: 7 });
  const id = await s.submit();
  await untilRetried(async () => (await s.state(id)) === "failed", 30_000);
  expect([state.calls.length, lane.parking.parked]).toEqual([8, undefined]);
  state.headers = { "X-Job-Retry": "yes" };
  const ids = await Promise.all(Array.from({ length: 4 }, () => s.submit()));
  for (const each of ids) await untilRetried(async () => (await s.state(each)) === "failed", 30_000);
  expect(lane.parking.parked).toBeUndefined();
  await stop();
}, 60_000);

test("jobs that each break the service end while its lane is parked, and the next good one resumes it", async () => {
  const { state, url, stop } = proxy(502);
  const { lane } = lanes.start("w1", {}, undefined, { url, backoffMs: 20, retries: 1 });
  const bad = await Promise.all(Array.from({ length: 3 }, () => s.submit()));
  for (const id of bad) await untilRetried(async () => (await s.state(id)) === "failed", 40_000);
  expect(lane.parking.parked).toBeDefined();
  state.away = false;
  const good = await s.submit();
  await untilRetried(async () => (await s.state(good)) === "finished", 40_000);
  expect(lane.parking.parked).toBeUndefined();
  await stop();
}, 90_000);

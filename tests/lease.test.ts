/** Rules 4 and 5: who may judge others dead, and that whoever holds a job can be found. */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { connect, ready } from "../shared/store/redis.ts";
import { Watch } from "../shared/watch.ts";
import { startLossyProxy } from "./chaos/proxy.ts";
import { until } from "./support/stack.ts";
import { DAY, KEYS, SERVICE, startStore, type TestStore } from "./support/store.ts";

const LEASE = 30_000;
/** Looks every 2 s. @param until steady ms; @param redis what Redis's clock says at a steady time */
const looks = (watch: Watch, from: number, until: number, redis = (ms: number) => ms) => {
  let may = false;
  for (let ms = from; ms <= until; ms += 2_000) may = watch.look("work", redis(ms), ms);
  return may;
};

test("Watch judges nobody before a full lease of its own looks", () => {
  const watch = new Watch(LEASE);
  expect(looks(watch, 0, 30_000)).toBe(false);
  expect(looks(watch, 32_000, 32_000)).toBe(true);
});

test("Watch starts anew after an outage of Redis, or a pause of this process", () => {
  const watch = new Watch(LEASE);
  expect(looks(watch, 0, 60_000)).toBe(true);
  expect(looks(watch, 80_000, 110_000)).toBe(false);
  expect(looks(watch, 112_000, 112_000)).toBe(true);
});

test("Watch starts anew when the clock of Redis is set, forward or back", () => {
  for (const step of [3_600_000, -3_600_000]) {
    const watch = new Watch(LEASE);
    expect(looks(watch, 0, 60_000)).toBe(true);
    expect(looks(watch, 62_000, 92_000, (ms) => ms + step)).toBe(false);
    expect(looks(watch, 94_000, 94_000, (ms) => ms + step)).toBe(true);
  }
});

test("Watch keeps services apart: on a cluster another node may be away", () => {
  const watch = new Watch(LEASE);
  expect(looks(watch, 0, 60_000)).toBe(true);
  expect(watch.look("other", 60_000, 60_000)).toBe(false);
});

let s: TestStore;
beforeAll(async () => {
  s = await startStore();
});
afterAll(() => s?.stop());
beforeEach(() => s.clear());

const rules = (seen: number) => ({ leaseMs: LEASE, ttlMs: DAY, once: [], seen });

test("reap that outlived an outage of Redis writes nothing: it comes before the beats of the living", async () => {
  const worker = s.worker("w1");
  await s.submit();
  await worker.take();
  await s.age(worker, LEASE + 1_000);
  const before = await s.dump();
  expect(await s.maintainer.reap(SERVICE, worker.worker, rules(Date.now() - LEASE))).toEqual([0, 0, -2, []]);
  expect(await s.dump()).toEqual(before);
  expect((await s.maintainer.reap(SERVICE, worker.worker, rules(Date.now())))[0]).toBe(1);
});

test("reap takes back from a worker whose last beat is from before the clock was set back", async () => {
  const worker = s.worker("w1");
  const id = await s.submit();
  await worker.take();
  await s.age(worker, -3_600_000);
  expect((await s.maintainer.reap(SERVICE, worker.worker, rules(Date.now())))[0]).toBe(1);
  expect(await s.state(id)).toBe("queued");
});

test("turn registers the lease of a worker that took before it beat, so that a reaper finds what it holds", async () => {
  const id = await s.submit();
  const worker = s.worker("w1");
  const ask = { slots: 1, concurrency: 0, limits: "work=1000" };
  expect((await worker.turn(SERVICE, [], ask)).jobs.map((job) => job.id)).toEqual([id]);
  expect(await s.redis.client.zscore(KEYS.leases, "w1")).not.toBeNull();
});

test("block leaves nothing with a worker without a lease", async () => {
  const blocking = connect(s.redis.url, "block", "test-block");
  const worker = s.worker("w1");
  const moved = worker.block(blocking, SERVICE);
  const id = await s.submit();
  await moved;
  expect(await s.redis.client.lrange(KEYS.wake(worker.worker), 0, -1)).toEqual([id]);
  expect(await s.redis.client.zscore(KEYS.leases, "w1")).not.toBeNull();
  blocking.disconnect();
});

test("reap leaves a short job alone that overran while its worker's connection was half open: it may not have run at all", async () => {
  const worker = s.worker("w1");
  const id = await s.submit({ timeoutMs: 1_000 });
  await worker.take(); // as if this reply was lost
  await s.overrun(id, 15_000);
  expect(await worker.reapOf(worker, [], 2_500)).toEqual([0, 0, 1]);
  expect(await s.state(id)).toBe("started");
});

test("block leaves the job in the worker's wake list when its reply is lost: moved, not popped", async () => {
  const proxy = await startLossyProxy(s.redis.port, Math.random);
  const blocking = connect(`redis://127.0.0.1:${proxy.port}`, "block", "test-block");
  await ready(blocking, 5_000);
  const worker = s.worker("w1");
  const moved = worker.block(blocking, SERVICE).catch(() => "lost");
  await until(async () => (await s.redis.client.zscore(KEYS.leases, "w1")) !== null);
  await Bun.sleep(50);
  proxy.lose({ kind: "drop", chance: 1 });
  const id = await s.submit();
  expect(await moved).toBe("lost");
  expect(await s.redis.client.lrange(KEYS.wake(worker.worker), 0, -1)).toEqual([id]);
  blocking.disconnect();
  proxy.stop();
});

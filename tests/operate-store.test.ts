/** Pause, resume, empty and bulk actions on the store: where each id stands, what is counted, what a crash leaves. */
import { afterAll, beforeAll, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import type { JobId } from "../shared/jobs.ts";
import { Operator } from "../shared/store/operate.ts";
import { DAY, job, KEYS, SERVICE, settle, startStore, type TestStore, type TestWorker, wish } from "./support/store.ts";

setDefaultTimeout(60_000);
let s: TestStore;
let w: TestWorker;
let o: Operator;
beforeAll(async () => {
  s = await startStore();
  o = new Operator(s.connection, 7 * DAY);
});
afterAll(() => s?.stop());
beforeEach(async () => {
  await s.clear();
  w = s.worker("w1");
});

const many = async (n: number, more: (i: number) => object = () => ({})) => {
  const jobs = Array.from({ length: n }, (_, i) => job(more(i)));
  for (let i = 0; i < n; i += 250) await s.producer.send(SERVICE, jobs.slice(i, i + 250));
  return jobs.map(({ id }) => id);
};
const states = async (ids: JobId[]) => Promise.all(ids.map((id) => s.state(id)));
const figures = async () => {
  const { queued, scheduled, started, finished, failed, canceled } = await s.counts();
  return { queued, scheduled, started, finished, failed, canceled };
};
const none = { queued: 0, scheduled: 0, started: 0, finished: 0, failed: 0, canceled: 0 };
const fail = async (ids: JobId[]) => {
  for (let left = ids.length; left > 0; ) {
    const taken = await w.take(250);
    await w.settle(...taken.map((one) => settle(one, "fail")));
    left -= taken.length;
  }
};

// ---- pause and resume

test("pause: a blocked BLMOVE gets nothing, nothing is taken, the count stays; resume wakes it, in order", async () => {
  const blocked = s.redis.client.duplicate();
  const wait = blocked.blmove(KEYS.ready, KEYS.wake(w.worker), "RIGHT", "LEFT", "5");
  await Bun.sleep(50);
  await o.pause(SERVICE);
  const ids = await many(5);
  expect(await o.pause(SERVICE)).toBe(5);
  expect(await w.takeIds(10)).toEqual([]);
  expect(await s.redis.client.llen(KEYS.ready)).toBe(0);
  expect(await figures()).toEqual({ ...none, queued: 5 });
  expect((await s.counts()).paused).toBe(true);
  expect(await o.resume(SERVICE)).toBe(5);
  expect(await wait).toBe(ids[0] as string);
  blocked.disconnect();
  expect(await w.takeIds(10)).toEqual(ids);
});

test("pause and resume sent twice change nothing more", async () => {
  const ids = await many(3);
  await o.pause(SERVICE);
  const once = await s.dump(/leases/);
  await o.pause(SERVICE);
  expect(await s.dump(/leases/)).toEqual(once);
  await o.resume(SERVICE);
  const resumed = await s.dump();
  await o.resume(SERVICE);
  expect(await s.dump()).toEqual(resumed);
  expect(await w.takeIds(5)).toEqual(ids);
});

test("a job that is handed back while paused waits on the shelf, in front", async () => {
  const [first, second] = await many(2);
  const [taken] = await w.take(1);
  await o.pause(SERVICE);
  await w.settle(settle(taken as never, "return"));
  expect(await s.redis.client.lrange(KEYS.shelf, 0, -1)).toEqual([second, first] as string[]);
});

// ---- empty

test("empty: nothing of it is taken from that moment, and until it is canceled hash and counts say it waits", async () => {
  const ids = await many(700);
  const low = await many(20, () => ({ priority: 2 }));
  const later = await many(30, () => ({ due: Date.now() + DAY }));
  const running = await w.take(1);
  expect(await o.empty(SERVICE, "n1")).toBe(749);
  expect(await figures()).toEqual({ ...none, queued: 719, scheduled: 30, started: 1 });
  const after = await s.submit();
  expect(await w.takeIds(10)).toEqual([after]);
  // a killed process in the middle: two steps, then another process goes on
  expect([await o.purge(SERVICE), await o.purge(SERVICE)]).toEqual([
    [20, 20],
    [500, 500],
  ]);
  expect(await figures()).toEqual({ ...none, queued: 199, scheduled: 30, started: 2, canceled: 520 });
  await new Operator(s.connection, DAY).carryOut(SERVICE, 5_000);
  expect(await figures()).toEqual({ ...none, started: 2, canceled: 749 });
  expect(new Set(await states([...ids.slice(1), ...low, ...later]))).toEqual(new Set(["canceled"]));
  for (const id of [ids[1], low[0], later[0]]) expect(await s.ttl(id as JobId)).toBeGreaterThan(0);
  expect(await s.state(running[0]?.id as JobId)).toBe("started");
  expect(await s.redis.client.keys("*condemned*")).toEqual([]);
  expect(await s.redis.client.hmget(KEYS.counts, "condemned", "condemnedlater", "ghosts")).toEqual(["0", "0", null]);
});

test("empty sent twice takes nothing that came in between", async () => {
  await many(3);
  expect(await o.empty(SERVICE, "same")).toBe(3);
  const after = await s.submit();
  expect(await o.empty(SERVICE, "same")).toBe(3);
  await o.carryOut(SERVICE, 1_000);
  expect(await w.takeIds(5)).toEqual([after]);
});

test("empty of a paused queue empties the shelf, and the queue stays paused", async () => {
  await o.pause(SERVICE);
  await many(4);
  expect(await o.empty(SERVICE, "n")).toBe(4);
  await o.carryOut(SERVICE, 1_000);
  expect(await figures()).toEqual({ ...none, canceled: 4 });
  expect((await s.counts()).paused).toBe(true);
});

test("jobs canceled before, during and requeued during an empty are counted once and end as they were told", async () => {
  const ids = await many(6);
  const low = await many(2, () => ({ priority: 1 }));
  const later = await many(2, () => ({ due: Date.now() + DAY }));
  const id = (i: number) => ids[i] as JobId;
  await s.producer.cancel(id(0));
  expect(await o.empty(SERVICE, "n")).toBe(9);
  await s.producer.cancel(id(1));
  await s.producer.cancel(low[0] as JobId);
  await s.producer.cancel(later[0] as JobId);
  const rev = async (one: JobId) => (await s.inspector.glance(one))?.rev ?? 0;
  expect(await s.producer.requeue(id(0), await rev(id(0)))).toBe("ok"); // its entry stands in the part
  expect(await s.producer.requeue(id(1), await rev(id(1)))).toBe("ok");
  expect(await figures()).toEqual({ ...none, queued: 7, scheduled: 1, canceled: 2 });
  await o.carryOut(SERVICE, 1_000);
  expect(await figures()).toEqual({ ...none, queued: 2, canceled: 8 });
  expect((await w.takeIds(10)).sort()).toEqual([id(0), id(1)].sort());
  expect(Number(await s.redis.client.hget(KEYS.counts, "ghosts"))).toBe(0);
});

test("two empties, one on the other's heels, cancel each job once", async () => {
  await many(600);
  await o.empty(SERVICE, "a");
  await many(600);
  expect(await o.empty(SERVICE, "b")).toBe(600);
  await Promise.all([o.carryOut(SERVICE, 5_000), o.carryOut(SERVICE, 5_000)]);
  expect(await figures()).toEqual({ ...none, canceled: 1_200 });
  expect((await s.counts()).totals.get("canceled")).toBe(1_200);
});

test("what an empty took still counts against MAX_QUEUED until it is canceled", async () => {
  const producer = s.producerOf({ maxQueued: 3 });
  await many(3);
  await o.empty(SERVICE, "n");
  expect(producer.submit(job())).rejects.toMatchObject({ code: "backlog_full" });
  await o.carryOut(SERVICE, 1_000);
  await producer.submit(job());
});

// ---- bulk

test("bulk requeue: every failed job once, 500 a step, resumable, none that failed later", async () => {
  const ids = await many(1_200);
  await fail(ids);
  const asked = wish("requeue", { state: "failed" });
  await Bun.sleep(2);
  expect(await o.startBulk(SERVICE, asked)).toBe(true);
  await Bun.sleep(5);
  const late = await s.submit();
  await fail([late]);
  expect(await o.stepBulk(SERVICE)).toEqual([500, 1]);
  expect(await o.bulk(SERVICE, asked.id)).toMatchObject({ total: 1_200, looked: 500, done: 500, ended: undefined });
  expect(await o.startBulk(SERVICE, asked)).toBe(true); // sent again: nothing starts anew
  expect(await o.bulk(SERVICE, asked.id)).toMatchObject({ looked: 500, done: 500 });
  await Promise.all([o.carryOut(SERVICE, 5_000), o.carryOut(SERVICE, 5_000)]);
  const part = await o.bulk(SERVICE, asked.id);
  expect(part).toMatchObject({ looked: 1_200, matched: 1_200, done: 1_200 });
  expect(part?.ended).toBeNumber();
  expect(await figures()).toEqual({ ...none, queued: 1_200, failed: 1 });
  const taken: JobId[] = [];
  for (let got = await w.takeIds(1_000); got.length > 0; got = await w.takeIds(2_000)) taken.push(...got);
  expect(new Set(taken).size).toBe(1_200);
  expect(taken.length).toBe(1_200);
});

test("bulk by tag and age; a dry run counts the same and changes nothing", async () => {
  const tagged = await many(40, (i) => ({ options: { tags: i % 2 ? ["night", "x"] : ["nightly"] } }));
  await many(10, () => ({ options: { callback: 'https://a/?"tags":["night"]' } }));
  const before = await s.dump(/leases/);
  const dry = wish("cancel", { state: "queued", tag: "night", dry: true });
  await o.startBulk(SERVICE, dry);
  await o.carryOut(SERVICE, 1_000);
  expect(await o.bulk(SERVICE, dry.id)).toMatchObject({ total: 50, looked: 50, matched: 20, done: 0 });
  await s.redis.client.del(KEYS.bulk(dry.id));
  expect(await s.dump(/leases/)).toEqual(before);
  const old = wish("cancel", { state: "queued", tag: "night", olderMs: 60_000 });
  await o.startBulk(SERVICE, old);
  await o.carryOut(SERVICE, 1_000);
  expect(await o.bulk(SERVICE, old.id)).toMatchObject({ matched: 0 });
  const real = wish("cancel", { state: "queued", tag: "night" });
  await o.startBulk(SERVICE, real);
  await o.carryOut(SERVICE, 1_000);
  expect(await o.bulk(SERVICE, real.id)).toMatchObject({ matched: 20, done: 20 });
  expect(await figures()).toEqual({ ...none, queued: 30, canceled: 20 });
  expect(await states(tagged.filter((_, i) => i % 2))).toEqual(Array(20).fill("canceled"));
});

test("bulk cancel of scheduled jobs that are all due in the same millisecond reaches each, and skips what stays", async () => {
  const due = Date.now() + DAY;
  await many(1_300, (i) => ({ due, options: { tags: [i % 3 ? "go" : "stay"] } }));
  const asked = wish("cancel", { state: "scheduled", tag: "go" });
  await o.startBulk(SERVICE, asked);
  await o.carryOut(SERVICE, 5_000);
  expect(await o.bulk(SERVICE, asked.id)).toMatchObject({ looked: 1_300, done: 866 });
  expect(await figures()).toEqual({ ...none, scheduled: 434, canceled: 866 });
});

test("bulk cancel of the queue reaches the backlog too; bulk cancel of running jobs asks each", async () => {
  await many(1_010);
  await many(700, () => ({ priority: 8 }));
  const running = await w.take(4);
  for (const state of ["queued", "started"]) {
    await o.startBulk(SERVICE, wish("cancel", { state }));
    await o.carryOut(SERVICE, 5_000);
  }
  expect(await figures()).toEqual({ ...none, started: 4, canceled: 1_706 });
  expect((await w.beat(SERVICE)).sort()).toEqual(running.map(({ id }) => id).sort());
});

test("bulk delete of ended jobs; a canceled one that is still listed goes with its entry; ids name jobs of any state", async () => {
  const ids = await many(6);
  const [finished] = await w.take(1);
  await w.settle(settle(finished as never, "finish"));
  await s.producer.cancel(ids[1] as JobId);
  for (const state of ["finished", "canceled"]) {
    const asked = wish("delete", { state });
    await o.startBulk(SERVICE, asked);
    await o.carryOut(SERVICE, 1_000);
    expect(await o.bulk(SERVICE, asked.id)).toMatchObject({ matched: 1, done: 1 });
  }
  expect(await s.state(ids[0] as JobId)).toBeNull();
  const asked = wish("cancel", { ids: [ids[2], ids[0], ids[2]] as JobId[] });
  await o.startBulk(SERVICE, asked);
  await o.carryOut(SERVICE, 1_000);
  expect(await o.bulk(SERVICE, asked.id)).toMatchObject({ total: 3, looked: 3, done: 1 });
  expect(await w.takeIds(1)).toEqual([ids[3] as JobId]);
  await Bun.sleep(5);
  expect(await s.state(ids[1] as JobId)).toBeNull();
});

test("a bulk action that is over leaves nothing behind but its record, which expires", async () => {
  await many(10);
  const asked = wish("cancel", { state: "queued" });
  await o.startBulk(SERVICE, asked);
  await o.carryOut(SERVICE, 1_000);
  expect(await s.redis.client.keys("*todo*")).toEqual([]);
  expect(await s.redis.client.keys("*bulks")).toEqual([]);
  expect(await s.redis.client.pttl(KEYS.bulk(asked.id))).toBeGreaterThan(DAY);
});

test("more bulk actions than one service may have in hand are refused", async () => {
  await many(1);
  for (let i = 0; i < 100; i++) expect(await o.startBulk(SERVICE, wish("cancel", { state: "queued" }))).toBe(true);
  expect(await o.startBulk(SERVICE, wish("cancel", { state: "queued" }))).toBe(false);
});

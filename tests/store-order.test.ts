/** In which order jobs are taken, and how many at once: priorities, hand-backs, concurrency, pause, limits. */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import type { JobId } from "../shared/jobs.ts";
import { MORE } from "../shared/store/consume.ts";
import { BLOCK_MS, connect } from "../shared/store/redis.ts";
import { until } from "./support/stack.ts";
import { ASK, job, KEYS, SERVICE, settle, startStore, type TestStore, type TestWorker } from "./support/store.ts";

let s: TestStore;
let w: TestWorker;
beforeAll(async () => {
  s = await startStore();
});
afterAll(() => s?.stop());
beforeEach(async () => {
  await s.clear();
  w = s.worker("w1");
});

const submitAll = async (...priorities: number[]) => {
  const ids: JobId[] = [];
  for (const priority of priorities) ids.push(await s.submit({ priority }));
  return ids;
};
/** Takes one by one until nothing comes. */
const drain = async (by = w) => {
  const ids: JobId[] = [];
  for (;;) {
    const [taken] = await by.take(1);
    if (!taken) return ids;
    ids.push(taken.id);
    await by.settle(settle(taken, "finish"));
  }
};
const pick = (ids: JobId[], ...places: number[]) => places.map((i) => ids[i] as JobId);

test("a worker with thousands of free slots takes a thousand a call, and each job once", async () => {
  const ids: JobId[] = [];
  for (let i = 0; i < 9_000; i += 250) {
    const some = Array.from({ length: 250 }, () => job());
    expect(await s.producer.send(SERVICE, some)).toEqual(Array(250).fill("ok"));
    ids.push(...some.map(({ id }) => id));
  }
  const taken: JobId[] = [];
  for (let more: number = MORE.jobs; more === MORE.jobs; ) {
    const reply = await w.turn(SERVICE, [], { ...ASK, slots: 10_000 });
    expect(reply.jobs.length).toBeLessThanOrEqual(1_000);
    taken.push(...reply.jobs.map(({ id }) => id));
    more = reply.more;
  }
  expect(taken).toEqual(ids);
  expect(await s.redis.client.scard(KEYS.held(w.worker))).toBe(ids.length);

  for (let i = 0; i < ids.length; i += 500) {
    const replies = await Promise.all(ids.slice(i, i + 500).map((id) => s.producer.cancel(id)));
    expect(new Set(replies)).toEqual(new Set(["asked"]));
  }
  const asked = await w.beat(SERVICE); // the rest with the next ones, when these have ended
  expect([asked.length, new Set(asked).size]).toEqual([1_000, 1_000]);
});

test("take is FIFO within the default priority", async () => {
  const ids = await submitAll(5, 5, 5, 5);
  expect(await drain()).toEqual(ids);
});

test("take is FIFO within every other priority", async () => {
  for (const p of [0, 3, 6, 9]) {
    const ids = await submitAll(p, p, p, p);
    expect(await drain()).toEqual(ids);
  }
});

test("take goes by priority, 9 first, then by age", async () => {
  const ids = await submitAll(5, 0, 9, 4, 5, 6, 9, 0);
  expect(await drain()).toEqual(pick(ids, 2, 6, 5, 0, 4, 3, 1, 7));
});

test("take many at once gives the same order as one by one", async () => {
  const ids = await submitAll(1, 5, 9, 5, 1, 9);
  expect(await w.takeIds(6)).toEqual(pick(ids, 2, 5, 1, 3, 0, 4));
});

test("a low priority that was pushed to an empty list waits for the default ones that came after", async () => {
  const ids = await submitAll(2, 5, 5);
  expect(await s.redis.client.lrange(KEYS.ready, 0, -1)).toEqual(pick(ids, 2, 1, 0)); // it did go to the list
  expect(await drain()).toEqual(pick(ids, 1, 2, 0));
});

test("two 9s, the first pushed to an empty list: FIFO all the same", async () => {
  const ids = await submitAll(9, 9, 9);
  expect(await drain()).toEqual(ids);
});

test("9 in an empty list, then default, then 9, then 8: strict order", async () => {
  const ids = await submitAll(9, 5, 9, 8);
  expect(await drain()).toEqual(pick(ids, 0, 2, 3, 1));
});

test("a 6 in an empty list waits for a 9 that came after", async () => {
  const ids = await submitAll(6, 9, 5);
  expect(await drain()).toEqual(pick(ids, 1, 0, 2));
});

test("priorities in one batch: as when they are sent one by one", async () => {
  const batch = [3, 5, 9, 5, 9, 0].map((priority) => job({ priority }));
  await s.producer.send(SERVICE, batch);
  const ids = batch.map((b) => b.id);
  expect(await drain()).toEqual(pick(ids, 2, 4, 1, 3, 0, 5));
});

test("a handed-back default job does not overtake a 9 that found the list empty meanwhile", async () => {
  await s.submit();
  const [taken] = await w.take(1);
  const nine = await s.submit({ priority: 9 }); // to the list, since it is empty
  await w.settle(settle(taken!, "return")); // to the taking end
  expect(await drain()).toEqual([nine, taken!.id]);
});

test("a handed-back default job goes before a 2 that found the list empty meanwhile", async () => {
  await s.submit();
  const [taken] = await w.take(1);
  const two = await s.submit({ priority: 2 });
  const later = await s.submit();
  await w.settle(settle(taken!, "return"));
  expect(await drain()).toEqual([taken!.id, later, two]);
});

test("hand-backs and redeliveries rejoin at the taking end, retries and requeues at the far end", async () => {
  for (const priority of [5, 9, 1]) {
    for (const [kind, first] of [
      ["return", true],
      ["redeliver", true],
      ["retry", false],
    ] as const) {
      await submitAll(priority, priority);
      const waiting = await s.submit({ priority });
      const [a, b] = await w.take(2);
      await w.settle(settle(b!, "finish"));
      await w.settle(settle(a!, kind));
      // a retry of another priority keeps its sequence, hence its place
      const expected = first || priority !== 5 ? [a!.id, waiting] : [waiting, a!.id];
      expect(await drain()).toEqual(expected);
    }
  }
});

test("a delayed redelivery rejoins at the taking end, a delayed retry at the far end", async () => {
  for (const [kind, first] of [
    ["redeliver", true],
    ["retry", false],
  ] as const) {
    await s.submit();
    const [taken] = await w.take(1);
    const waiting = await s.submit();
    await w.settle(settle(taken!, kind, { delayMs: 1 }));
    let promoted = 0;
    while (promoted === 0) [promoted] = await s.maintainer.promote(SERVICE);
    expect(await drain()).toEqual(first ? [taken!.id, waiting] : [waiting, taken!.id]);
  }
});

test("promote queues in the order of due times, at most 100 a call", async () => {
  const due = Date.now() + 200;
  const ids: JobId[] = [];
  for (let i = 0; i < 120; i++) ids.push(await s.submit({ due: due + i }));
  while (Date.now() < due + 150) await Bun.sleep(20);
  expect(await s.maintainer.promote(SERVICE)).toEqual([100, 0]);
  expect(await s.maintainer.promote(SERVICE)).toEqual([20, -1]);
  expect(await w.takeIds(200)).toEqual(ids);
});

test("BLMOVE brings a job to wake; the next turn starts it, and counts it against slots", async () => {
  const blocking = connect(s.redis.url, "block", "b");
  const id = await s.submit();
  expect(await w.block(blocking, SERVICE)).toBeUndefined();
  expect(await w.holding(SERVICE)).toEqual({ held: new Set(), waking: 1, aside: [] });
  expect((await s.counts()).queued).toBe(1); // block beats first, so that counts and reapers know this wake list
  await s.submit();
  expect(await w.takeIds(1)).toEqual([id]);
  blocking.disconnect();
});

test("a turn sent behind BLMOVE starts what it brings, under the nonce that the caller chose, and nothing when it is over", async () => {
  const blocking = connect(s.redis.url, "block", "b");
  const brought = w.block(blocking, SERVICE, { ...ASK, slots: 2 }, "mine");
  await until(async () => (await s.redis.client.zscore(KEYS.leases, w.worker)) !== null);
  await Bun.sleep(50);
  const id = await s.submit({ payload: '{"a":1}' });
  const { jobs, more } = (await brought)!;
  expect(jobs).toMatchObject([{ id, token: `1.${w.worker}.mine`, payload: '{"a":1}' }]);
  expect(more).toBe(MORE.empty);
  expect(await w.holding(SERVICE)).toEqual({ held: new Set([id]), waking: 0, aside: [] });
  expect(await s.state(id)).toBe("started");
  expect(await w.block(blocking, SERVICE, { ...ASK, slots: 2 }, "next")).toMatchObject({ jobs: [], more: MORE.empty });
  blocking.disconnect();
});

test("what a turn sent behind BLMOVE started counts, though BLMOVE was refused; with nothing started the refusal is told", async () => {
  const blocking = connect(s.redis.url, "block", "b");
  const id = await s.submit();
  await s.redis.client.config("SET", "maxmemory", "1");
  try {
    expect((await w.block(blocking, SERVICE, { ...ASK, slots: 1 }, "mine"))?.jobs).toMatchObject([{ id }]);
    await expect(w.block(blocking, SERVICE, { ...ASK, slots: 1 }, "next")).rejects.toThrow("OOM");
  } finally {
    await s.redis.client.config("SET", "maxmemory", "0");
  }
  blocking.disconnect();
});

test("a turn sent behind BLMOVE gives back what there is no room for, and says that there is more", async () => {
  const blocking = connect(s.redis.url, "block", "b");
  const [first] = await submitAll(5);
  expect(await w.takeIds(1)).toEqual([first!]);
  const id = await s.submit();
  expect(await w.block(blocking, SERVICE, { ...ASK, slots: 1 }, "mine")).toMatchObject({ jobs: [], more: MORE.jobs });
  expect(await s.state(id)).toBe("queued");
  expect(await s.redis.client.lrange(KEYS.ready, 0, -1)).toEqual([id]);
  blocking.disconnect();
});

test("turn with slots -1 hands back what BLMOVE brought, oldest first to be taken again", async () => {
  const ids = await submitAll(5, 5, 5);
  await s.redis.client.blmove(KEYS.ready, KEYS.wake(w.worker), "RIGHT", "LEFT", 1);
  await s.redis.client.blmove(KEYS.ready, KEYS.wake(w.worker), "RIGHT", "LEFT", 1);
  await w.turn(SERVICE, [], { ...ASK, slots: -1 });
  expect(await w.holding(SERVICE)).toEqual({ held: new Set(), waking: 0, aside: [] });
  expect(await drain()).toEqual(ids);
});

test("turn with no room hands back what BLMOVE brought too much of", async () => {
  const ids = await submitAll(5, 5);
  await s.redis.client.blmove(KEYS.ready, KEYS.wake(w.worker), "RIGHT", "LEFT", 1);
  await s.redis.client.blmove(KEYS.ready, KEYS.wake(w.worker), "RIGHT", "LEFT", 1);
  expect(await w.takeIds(1)).toEqual(pick(ids, 0));
  expect(await w.holding(SERVICE)).toEqual({ held: new Set(pick(ids, 0)), waking: 0, aside: [] });
  expect(await s.redis.client.lrange(KEYS.ready, 0, -1)).toEqual(pick(ids, 1));
});

test("turn with slots 0 leaves the wake list alone", async () => {
  await s.submit();
  await s.redis.client.blmove(KEYS.ready, KEYS.wake(w.worker), "RIGHT", "LEFT", 1);
  await w.turn(SERVICE, [], { ...ASK, slots: 0 });
  expect((await w.holding(SERVICE)).waking).toBe(1);
});

test("turn tells more: jobs, empty, concurrency, paused", async () => {
  const more = async (slots: number, concurrency = 0) =>
    (await w.turn(SERVICE, [], { ...ASK, slots, concurrency })).more as number;
  expect(await more(1)).toBe(MORE.empty);
  await submitAll(5, 5, 5);
  expect(await more(1)).toBe(MORE.jobs);
  expect(await more(5, 1)).toBe(MORE.concurrency);
  expect(await more(2)).toBe(MORE.jobs);
  expect(await more(9)).toBe(MORE.empty);
  await s.redis.client.set(KEYS.paused, "1");
  expect(await more(9)).toBe(MORE.paused);
});

test("concurrency holds over two workers, from the first take on (rule 9)", async () => {
  const other = s.worker("w2");
  await submitAll(5, 5, 5, 5, 5, 5);
  const take = async (by: TestWorker, slots: number) =>
    (await by.turn(SERVICE, [], { ...ASK, slots, concurrency: 3 })).jobs; // no beat: before the first one
  const mine = await take(w, 2);
  expect(mine).toHaveLength(2);
  expect(await take(other, 4)).toHaveLength(1);
  expect(await take(other, 4)).toHaveLength(0);
  expect(await take(w, 4)).toHaveLength(0);
  await w.settle(settle(mine[0]!, "finish"));
  expect(await take(other, 4)).toHaveLength(1);
});

test("concurrency 1: many workers at once never hold two", async () => {
  for (let i = 0; i < 20; i++) await s.submit();
  const workers = Array.from({ length: 8 }, (_, i) => s.worker(`c${i}`));
  const taken = await Promise.all(workers.map((by) => by.take(4, { concurrency: 1 })));
  expect(taken.flat()).toHaveLength(1);
});

test("paused: submit, promote and hand-back go to the shelf, take gives nothing", async () => {
  const ids = await submitAll(5, 5);
  const [taken] = await w.take(1);
  await s.redis.client.set(KEYS.paused, "1");
  await s.redis.client.rename(KEYS.ready, KEYS.shelf);
  const late = await s.submit();
  const low = await s.submit({ priority: 2 });
  await w.settle(settle(taken!, "return"));
  expect(await s.redis.client.exists(KEYS.ready)).toBe(0); // so that a blocked BLMOVE gets nothing
  expect(await s.redis.client.lrange(KEYS.shelf, 0, -1)).toEqual([late, ids[1]!, ids[0]!]);
  expect(await w.takeIds(10)).toEqual([]);
  expect(await s.counts()).toMatchObject({ queued: 4, paused: true });
  await s.redis.client.rename(KEYS.shelf, KEYS.ready);
  await s.redis.client.del(KEYS.paused);
  expect(await drain()).toEqual([...ids, late, low]);
});

test("paused: what BLMOVE had brought goes to the shelf", async () => {
  const id = await s.submit();
  await s.redis.client.blmove(KEYS.ready, KEYS.wake(w.worker), "RIGHT", "LEFT", 1);
  await s.redis.client.set(KEYS.paused, "1");
  expect(await w.takeIds(3)).toEqual([]);
  expect(await s.redis.client.lrange(KEYS.shelf, 0, -1)).toEqual([id]);
  expect((await w.holding(SERVICE)).waking).toBe(0);
});

test("paused: what runs may end", async () => {
  await s.submit();
  const [taken] = await w.take(1);
  await s.redis.client.set(KEYS.paused, "1");
  expect(await w.settle(settle(taken!, "finish"))).toEqual(["ok"]);
});

test("maxQueued: the edge passes, one more is full, a taken one makes room; scheduled ones count", async () => {
  const p = s.producerOf({ maxQueued: 3 });
  const batch = [job(), job({ due: Date.now() + 60_000 }), job({ priority: 9 }), job()];
  expect(await p.send(SERVICE, batch)).toEqual(["ok", "ok", "ok", "full"]);
  await expect(p.submit(job())).rejects.toMatchObject({ code: "backlog_full" });
  expect(await p.send(SERVICE, batch.slice(0, 3))).toEqual(["ok", "ok", "ok"]); // sent again: accepted before
  expect(await w.takeIds(1)).toEqual([batch[2]!.id]);
  expect((await p.submit(job())).replayed).toBe(false);
});

test("maxQueued does not count a canceled job that is still listed", async () => {
  const p = s.producerOf({ maxQueued: 1 });
  const { id } = await p.submit(job());
  await p.cancel(id);
  await p.submit(job());
  await expect(p.submit(job())).rejects.toMatchObject({ code: "backlog_full" });
});

test("Idempotency-Key: same key and body → same id; another body → mismatch; kept for its time (I9)", async () => {
  const idempotency = { key: "k", body: "b" };
  const first = await s.producer.submit(job({ idempotency }));
  expect(first.replayed).toBe(false);
  expect(await s.producer.submit(job({ idempotency }))).toEqual({ id: first.id, replayed: true });
  await expect(s.producer.submit(job({ idempotency: { key: "k", body: "c" } }))).rejects.toMatchObject({
    code: "idempotency_mismatch",
  });
  expect(await s.redis.client.pttl("lh:{work}:idem:k")).toBeWithin(86_390_000, 86_400_001);
  expect((await s.counts()).queued).toBe(1);
});

test("Idempotency-Key: two at once in one batch make one job", async () => {
  const idempotency = { key: "k", body: "b" };
  const answers = await Promise.all(Array.from({ length: 20 }, () => s.producer.submit(job({ idempotency }))));
  expect(new Set(answers.map((a) => a.id)).size).toBe(1);
  expect(answers.filter((a) => !a.replayed)).toHaveLength(1);
  expect((await s.counts()).queued).toBe(1);
});

test("Idempotency-Key: a job that was refused as full leaves no key", async () => {
  const p = s.producerOf({ maxQueued: 1 });
  await p.submit(job());
  await expect(p.submit(job({ idempotency: { key: "k", body: "b" } }))).rejects.toMatchObject({ code: "backlog_full" });
  expect(await s.redis.client.exists("lh:{work}:idem:k")).toBe(0);
});

test("submits that arrive together get each their own answer, also above one batch", async () => {
  const p = s.producerOf({ maxQueued: 600 });
  const answers = await Promise.allSettled(Array.from({ length: 650 }, () => p.submit(job())));
  expect(answers.filter((a) => a.status === "fulfilled")).toHaveLength(600);
  expect((await s.counts()).queued).toBe(600);
});

test("counts and position: seq and head tell how many are ahead", async () => {
  await submitAll(5, 5, 5);
  await w.take(1);
  const counts = await s.counts();
  expect(counts).toMatchObject({ queued: 2, started: 1, seq: 3, head: 1, workers: 1 });
  expect(counts.oldest).toBeGreaterThan(0);
});

test("the block time is within the protocol's 2–5 s", () => {
  expect(BLOCK_MS).toBeWithin(2_000, 5_001);
});

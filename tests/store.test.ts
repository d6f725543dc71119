/** Each arrow of the lifecycle in shared/jobs.ts, and what each mutation does when it is sent twice. */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { type JobId, newJobId } from "../shared/jobs.ts";
import { reportProgress } from "../shared/store/progress.ts";
import { DAY, job, KEYS, SERVICE, settle, startStore, type TestStore, type TestWorker } from "./support/store.ts";

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

const one = async (more = {}) => {
  await s.submit(more);
  const [taken] = await w.take(1);
  if (!taken) throw new Error("nothing was taken");
  return taken;
};

// ---- arrows

test("submit → queued: the record and its list entry come in one step, without a TTL", async () => {
  const id = await s.submit({ payload: '{"a":1}' });
  expect(await s.state(id)).toBe("queued");
  expect(await s.ttl(id)).toBe(-1);
  expect(await s.redis.client.lrange(KEYS.ready, 0, -1)).toEqual([id]);
  expect(await s.inspector.record(id)).toMatchObject({
    operation: "work",
    payload: '{"a":1}',
    attempt: 0,
    priority: 5,
  });
});

test("submit with a due time → scheduled, in no list", async () => {
  const due = Date.now() + 60_000;
  const id = await s.submit({ due });
  expect(await s.state(id)).toBe("scheduled");
  expect(await s.redis.client.llen(KEYS.ready)).toBe(0);
  expect(await s.redis.client.zscore(KEYS.scheduled, id)).toBe(String(due));
  expect((await s.inspector.status(id))?.due).toBe(due);
});

test("submit with a due time in the past → queued", async () => {
  expect(await s.state(await s.submit({ due: Date.now() - 5_000 }))).toBe("queued");
});

test("scheduled → queued when due, not before", async () => {
  const early = await s.submit({ due: Date.now() + 60_000 });
  const id = await s.submit({ due: Date.now() + 30 });
  expect((await s.maintainer.promote(SERVICE))[0]).toBe(0);
  let promoted = 0;
  while (promoted === 0) [promoted] = await s.maintainer.promote(SERVICE);
  expect([await s.state(id), await s.state(early)]).toEqual(["queued", "scheduled"]);
  expect(await w.takeIds(5)).toEqual([id]);
});

test("queued → started: an owner, an attempt, a deadline, a lease (I2)", async () => {
  const id = await s.submit();
  const { jobs } = await w.turn(SERVICE, [], { slots: 1, concurrency: 0, limits: "work=5000" });
  expect(jobs[0]).toMatchObject({ id, attempt: 1, run: 0, redeliveries: 0, operation: "work", payload: "{}" });
  const record = await s.inspector.record(id);
  expect(record).toMatchObject({ state: "started", attempt: 1, worker: "w1" });
  expect((record?.deadline ?? 0) - (record?.started ?? 0)).toBe(5_000);
  expect(await s.redis.client.smembers(KEYS.held(w.worker))).toEqual([id]);
  // before the worker's first beat, too: a reaper looks at leases only
  expect(await s.redis.client.zscore(KEYS.leases, w.worker)).not.toBeNull();
});

test("turn with room writes a lease even when it takes nothing: BLMOVE may bring the next job", async () => {
  await w.turn(SERVICE, [], { slots: 1, concurrency: 0, limits: "work=5000" });
  expect(await s.redis.client.zscore(KEYS.leases, w.worker)).not.toBeNull();
});

test("turn does not renew a lease: a beat does", async () => {
  await s.age(w, 20_000);
  const old = await s.redis.client.zscore(KEYS.leases, w.worker);
  await w.turn(SERVICE, [], { slots: 1, concurrency: 0, limits: "work=5000" });
  expect(await s.redis.client.zscore(KEYS.leases, w.worker)).toBe(old);
});

test("the deadline is the job's own limit, else its operation's", async () => {
  const own = await s.submit({ timeoutMs: 1_000 });
  const op = await s.submit({ operation: "slow" });
  const other = await s.submit();
  await w.turn(SERVICE, [], { slots: 3, concurrency: 0, limits: "fast=1 slow=2000 work=3000" });
  const limit = async (id: JobId) => {
    const record = await s.inspector.record(id);
    return (record?.deadline ?? 0) - (record?.started ?? 0);
  };
  expect([await limit(own), await limit(op), await limit(other)]).toEqual([1_000, 2_000, 3_000]);
});

test("started → finished: result, TTL, index, held empty", async () => {
  const taken = await one();
  expect(await w.settle(settle(taken, "finish", { result: '{"n":1.0}', ttlMs: 5_000 }))).toEqual(["ok"]);
  expect(await s.inspector.status(taken.id)).toMatchObject({ state: "finished", result: '{"n":1.0}' });
  expect(await s.ttl(taken.id)).toBeGreaterThan(4_000);
  expect(await s.redis.client.zscore(KEYS.ended("finished"), taken.id)).not.toBeNull();
  expect(await s.redis.client.scard(KEYS.held(w.worker))).toBe(0);
});

test("a job's own result_ttl wins over the operation's", async () => {
  const taken = await one({ ttlMs: 2_000 });
  await w.settle(settle(taken, "finish", { ttlMs: DAY }));
  expect(await s.ttl(taken.id)).toBeWithin(1, 2_001);
});

test("an answer as bytes: its type, and its size in bytes, not in characters", async () => {
  const taken = await one();
  const bytes = new Uint8Array([0x67, 0x6c, 0xff, 0xfe, 0xc3, 0xa9, 0, 1]);
  await w.settle(settle(taken, "finish", { result: bytes, type: "model/gltf-binary" }));
  expect(await s.inspector.status(taken.id)).toMatchObject({ resultType: "model/gltf-binary", resultSize: 8 });
  expect(new Uint8Array((await s.inspector.record(taken.id))?.result as Uint8Array)).toEqual(bytes);
});

test("an answer in a file: the record holds its size and no result", async () => {
  const taken = await one();
  await w.settle(settle(taken, "finish", { result: "", sizeBytes: 300_000 }));
  expect(await s.inspector.record(taken.id)).toMatchObject({
    resultFile: { token: taken.token, bytes: 300_000 },
    resultSize: 300_000,
    result: undefined,
  });
});

test("started → failed: the error and the attempt stay", async () => {
  const taken = await one();
  await w.settle(settle(taken, "fail"));
  const record = await s.inspector.record(taken.id);
  expect(record).toMatchObject({ state: "failed", error: { code: "http_error" }, attempts: [{ outcome: "fail" }] });
  expect(await s.ttl(taken.id)).toBeGreaterThan(0);
});

test("started → scheduled by retry with delay: one attempt spent, the next one is 2", async () => {
  const taken = await one();
  await w.settle(settle(taken, "retry", { delayMs: 1 }));
  expect(await s.state(taken.id)).toBe("scheduled");
  expect(await s.ttl(taken.id)).toBe(-1);
  let promoted = 0;
  while (promoted === 0) [promoted] = await s.maintainer.promote(SERVICE);
  expect((await w.take(1))[0]).toMatchObject({ id: taken.id, attempt: 2, redeliveries: 0 });
});

test("started → queued by hand-back: neither an attempt nor a redelivery is spent, however often", async () => {
  await s.submit();
  for (let i = 0; i < 6; i++) {
    const [taken] = await w.take(1);
    expect(taken).toMatchObject({ attempt: 1, redeliveries: 0 });
    expect(await w.settle(settle(taken!, "return"))).toEqual(["ok"]);
  }
});

test("started → queued by redelivery: counted apart from attempts; the fourth fails as poison (I5)", async () => {
  const id = await s.submit();
  for (let i = 0; i < 4; i++) {
    const [taken] = await w.take(1);
    expect(taken).toMatchObject({ id, attempt: 1, redeliveries: i });
    await w.settle(settle(taken!, "redeliver"));
  }
  expect(await s.inspector.record(id)).toMatchObject({ state: "failed", redeliveries: 4 });
});

test("failed → queued by requeue: a new run, attempts and redeliveries start anew", async () => {
  const taken = await one();
  await w.settle(settle(taken, "fail"));
  const rev = (await s.inspector.status(taken.id))?.rev ?? 0;
  expect(await s.producer.requeue(taken.id, rev)).toBe("ok");
  expect(await s.ttl(taken.id)).toBe(-1);
  expect(await s.redis.client.zcard(KEYS.ended("failed"))).toBe(0);
  expect((await w.take(1))[0]).toMatchObject({ id: taken.id, attempt: 1, redeliveries: 0, run: 1 });
  expect(await w.settle(settle(taken, "finish"))).toEqual(["lost"]); // the first run's token is void (I4)
});

test("scheduled → canceled: out of the schedule in the same step, with a TTL", async () => {
  const id = await s.submit({ due: Date.now() + 60_000 });
  expect(await s.producer.cancel(id)).toBe("canceled");
  expect(await s.redis.client.zcard(KEYS.scheduled)).toBe(0);
  expect(await s.state(id)).toBe("canceled");
  expect(await s.ttl(id)).toBeGreaterThan(0);
});

test("started → cancel asked → canceled, whatever the call came to (rule 8)", async () => {
  for (const kind of ["finish", "fail", "retry", "redeliver", "return"] as const) {
    const taken = await one();
    expect(await s.producer.cancel(taken.id)).toBe("asked");
    expect(await s.state(taken.id)).toBe("started");
    expect(await w.beat(SERVICE)).toEqual([taken.id]); // seen even when its message was lost
    expect(await w.settle(settle(taken, kind))).toEqual(["canceled"]);
    const record = await s.inspector.record(taken.id);
    expect(record).toMatchObject({ state: "canceled", result: undefined, error: { code: "canceled" } });
    expect(await s.ttl(taken.id)).toBeGreaterThan(0);
    expect(await w.beat(SERVICE)).toEqual([]);
  }
});

// ---- sent twice

const twice = async (send: () => Promise<unknown>, but?: RegExp) => {
  const first = await send();
  const after = await s.dump(but);
  const second = await send();
  expect(await s.dump(but)).toEqual(after);
  return [first, second];
};

test("submit sent twice under one id accepts once (I1, I7)", async () => {
  const batch = [job(), job({ priority: 9 }), job({ due: Date.now() + 60_000 })];
  expect(await twice(() => s.producer.send(SERVICE, batch))).toEqual([Array(3).fill("ok"), Array(3).fill("ok")]);
});

test("one id twice at the same time is one job, as it came first, and goes in two calls (I1, I7)", async () => {
  const [mine, other] = [job({ due: Date.now() + 60_000 }), job()];
  const sent = [mine, { ...mine, due: undefined, payload: '{"second":true}' }, other].map((j) => s.producer.submit(j));
  expect((await Promise.all(sent)).map(({ id }) => id)).toEqual([mine.id, mine.id, other.id]);
  expect(await s.state(mine.id)).toBe("scheduled");
  expect(await s.redis.client.hget(KEYS.job(mine.id), "p")).toBe(mine.payload);
  expect(await s.redis.client.lrange(KEYS.ready, 0, -1)).toEqual([other.id]);
  expect(await s.redis.client.hget(KEYS.counts, "seq")).toBe("2");
});

test("jobs are numbered in their order, whatever the call: 1, 9, 10, 99, 100, 199, 200, 1000", async () => {
  const jobs = Array.from({ length: 1_010 }, () => job());
  for (let at = 0, size = 1; at < jobs.length; at += size, size = (size % 11) + 1) {
    await s.producer.send(SERVICE, jobs.slice(at, at + size));
  }
  const heads = await Promise.all(jobs.map(({ id }) => s.redis.client.hget(KEYS.job(id), "h")));
  expect(heads.map((head) => head?.split(" ")[0])).toEqual(jobs.map((_, i) => String(i + 1)));
});

test("submit sent again after the job has started or ended changes nothing", async () => {
  const mine = job();
  await s.producer.send(SERVICE, [mine]);
  const [taken] = await w.take(1);
  expect(await twice(() => s.producer.send(SERVICE, [mine]))).toEqual([["ok"], ["ok"]]);
  await w.settle(settle(taken!, "finish"));
  expect(await twice(() => s.producer.send(SERVICE, [mine]))).toEqual([["ok"], ["ok"]]);
  expect(await s.state(mine.id)).toBe("finished");
});

for (const kind of ["finish", "fail", "retry", "redeliver", "return"] as const) {
  test(`turn sent twice with the same ${kind} changes nothing more and answers ok`, async () => {
    for (const delayMs of [0, 60_000]) {
      const taken = await one();
      expect(await twice(() => w.settle(settle(taken, kind, { delayMs })))).toEqual([["ok"], ["ok"]]);
      await s.clear();
    }
  });
}

test("turn sent twice does not overfill: it counts what is held itself (rule 2)", async () => {
  for (let i = 0; i < 10; i++) await s.submit();
  expect(await w.takeIds(4)).toHaveLength(4);
  expect(await w.takeIds(4)).toHaveLength(0);
  expect(await w.takeIds(6)).toHaveLength(2);
});

test("cancel sent twice changes nothing more: queued, scheduled, started", async () => {
  const queued = await s.submit();
  expect(await twice(() => s.producer.cancel(queued))).toEqual(["canceled", "canceled"]);
  const scheduled = await s.submit({ due: Date.now() + 60_000 });
  expect(await twice(() => s.producer.cancel(scheduled))).toEqual(["canceled", "canceled"]);
  const taken = await one();
  expect(await twice(() => s.producer.cancel(taken.id))).toEqual(["asked", "asked"]);
});

test("requeue sent twice starts one run", async () => {
  const taken = await one();
  await w.settle(settle(taken, "fail"));
  const rev = (await s.inspector.status(taken.id))?.rev ?? 0;
  expect(await twice(() => s.producer.requeue(taken.id, rev))).toEqual(["ok", "ok"]);
});

test("erase sent twice changes nothing more", async () => {
  const taken = await one();
  await w.settle(settle(taken, "fail"));
  expect(await twice(() => s.producer.erase(taken.id))).toEqual(["ok", "gone"]);
});

test("promote sent twice queues once", async () => {
  await s.submit({ due: Date.now() + 20 });
  let promoted = 0;
  while (promoted === 0) [promoted] = await s.maintainer.promote(SERVICE);
  expect(await twice(() => s.maintainer.promote(SERVICE))).toEqual([
    [0, -1],
    [0, -1],
  ]);
  expect(await s.redis.client.llen(KEYS.ready)).toBe(1);
});

test("reap sent twice hands back once", async () => {
  await one();
  await s.age(w, 31_000);
  expect(await twice(() => w.reapOf(w))).toEqual([
    [1, 0, 0],
    [0, 0, 0],
  ]);
});

test("progress sent twice changes nothing more, its rev included", async () => {
  const { id, token } = await one();
  const send = () => reportProgress(s.connection, SERVICE, id, token, "0.5", "half");
  expect(await twice(send)).toEqual(["ok", "ok"]);
  expect(await s.inspector.status(id)).toMatchObject({ progress: 0.5, message: "half" });
});

// ---- replies that write nothing

const untouched = async (send: () => Promise<unknown>, but?: RegExp) => {
  const before = await s.dump(but);
  const reply = await send();
  expect(await s.dump(but)).toEqual(before);
  return reply;
};
const STATS = /:tally$/;

test("turn writes nothing to the job when the token is not ours (I4)", async () => {
  const taken = await one();
  const forged = { ...taken, token: `${taken.token}x` };
  for (const kind of ["finish", "fail", "retry", "redeliver", "return"] as const) {
    expect(await untouched(() => w.settle(settle(forged, kind)), STATS)).toEqual(["lost"]);
  }
  expect(await w.settle(settle(taken, "finish"))).toEqual(["ok"]);
});

test("turn answers gone for a record that is not there, and lets go of it", async () => {
  const taken = await one();
  await s.redis.client.del(KEYS.job(taken.id));
  expect(await w.settle(settle(taken, "finish"))).toEqual(["gone"]);
  expect(await s.redis.client.scard(KEYS.held(w.worker))).toBe(0);
  expect(await s.state(taken.id)).toBeNull();
});

test("cancel writes nothing: ended, gone", async () => {
  for (const kind of ["finish", "fail"] as const) {
    const taken = await one();
    await w.settle(settle(taken, kind));
    expect(await untouched(() => s.producer.cancel(taken.id))).toBe("ended");
  }
  expect(await untouched(() => s.producer.cancel(newJobId(SERVICE)))).toBe("gone");
});

test("requeue writes nothing: changed, state, gone", async () => {
  const taken = await one();
  const rev = async () => (await s.inspector.status(taken.id))?.rev ?? 0;
  const now = await rev();
  expect(await untouched(() => s.producer.requeue(taken.id, now))).toBe("state");
  await w.settle(settle(taken, "fail"));
  expect(await untouched(() => s.producer.requeue(taken.id, now))).toBe("changed");
  expect(await untouched(() => s.producer.requeue(newJobId(SERVICE), 1))).toBe("gone");
  const [again] = [await one()];
  await w.settle(settle(again, "finish"));
  const finishedRev = (await s.inspector.status(again.id))?.rev ?? 0;
  expect(await untouched(() => s.producer.requeue(again.id, finishedRev))).toBe("state");
});

test("erase writes nothing: listed, running, gone", async () => {
  const listed = await s.submit();
  await s.producer.cancel(listed);
  expect(await untouched(() => s.producer.erase(listed))).toBe("listed");
  const taken = await one();
  expect(await untouched(() => s.producer.erase(taken.id))).toBe("running");
  expect(await untouched(() => s.producer.erase(newJobId(SERVICE)))).toBe("gone");
});

test("progress writes nothing: lost after the end and for another token, gone", async () => {
  const taken = await one();
  const send = (id: JobId, token: string) => reportProgress(s.connection, SERVICE, id, token, "0.5", "");
  expect(await untouched(() => send(taken.id, "1.w1.forged"))).toBe("lost");
  expect(await untouched(() => send(taken.id, ""))).toBe("lost");
  await w.settle(settle(taken, "return"));
  expect(await untouched(() => send(taken.id, taken.token))).toBe("lost");
  expect(await untouched(() => send(newJobId(SERVICE), taken.token))).toBe("gone");
});

test("submit writes nothing: conflict, the Idempotency-Key's job, full", async () => {
  const first = job({ idempotency: { key: "k", body: "b" } });
  await s.producer.send(SERVICE, [first]);
  const same = job({ idempotency: { key: "k", body: "b" } });
  const other = job({ idempotency: { key: "k", body: "c" } });
  expect(await untouched(() => s.producer.send(SERVICE, [same, other]))).toEqual([`=${first.id}`, "conflict"]);
  const full = s.producerOf({ maxQueued: 1 });
  expect(await untouched(() => full.send(SERVICE, [job()]))).toEqual(["full"]);
});

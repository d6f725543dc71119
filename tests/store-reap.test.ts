/** Leases, the reaper, and what a worker that comes back too late may do: nothing. */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { reap as clock } from "../shared/clocks/reap.ts";
import { readConfig } from "../shared/config.ts";
import { noLog } from "../shared/log.ts";
import { overrunMs } from "../shared/store/maintain.ts";
import { register } from "../shared/store/presence.ts";
import { reportProgress } from "../shared/store/progress.ts";
import { BLOCK_MS } from "../shared/store/redis.ts";
import { Watch } from "../shared/watch.ts";
import { ASK, DAY, KEYS, SERVICE, settle, startStore, type TestStore, type TestWorker } from "./support/store.ts";

const LEASE = 30_000;
let s: TestStore;
let w: TestWorker;
let other: TestWorker;
beforeAll(async () => {
  s = await startStore();
});
afterAll(() => s?.stop());
beforeEach(async () => {
  await s.clear();
  w = s.worker("w1");
  other = s.worker("w2");
  await other.beat(SERVICE);
});

const reap = (once: string[] = []) => other.reapOf(w, once, LEASE);
const started = async (more = {}) => {
  await s.submit(more);
  const [taken] = await w.take(100, { limits: "work=3600000 once=3600000 once-only=3600000" });
  return taken!;
};

test("reap leaves a worker alone whose lease holds", async () => {
  const { id } = await started();
  await s.age(w, LEASE - 2_000);
  expect(await reap()).toEqual([0, 0, 1]);
  expect(await s.state(id)).toBe("started");
});

test("reap hands back what a dead worker held: a redelivery, no attempt, at the taking end", async () => {
  const taken = await started();
  const waiting = await s.submit();
  await s.age(w, LEASE + 1_000);
  expect(await reap()).toEqual([1, 0, 0]);
  expect(await s.inspector.record(taken.id)).toMatchObject({
    state: "queued",
    attempt: 0,
    redeliveries: 1,
    attempts: [{ attempt: 1, worker: "w1", outcome: "orphaned" }],
  });
  expect(await other.takeIds(2)).toEqual([taken.id, waiting]);
});

test("reap voids the token: settle, progress and hand-back of the old worker change nothing (I4)", async () => {
  const taken = await started();
  await s.age(w, LEASE + 1_000);
  await reap();
  for (const kind of ["finish", "fail", "return"] as const) {
    expect(await w.settle(settle(taken, kind))).toEqual(["lost"]);
  }
  const [again] = await other.take(1);
  expect(again?.token).not.toBe(taken.token);
  expect(await w.settle(settle(taken, "finish", { result: '"old"' }))).toEqual(["lost"]);
  expect(await reportProgress(s.connection, SERVICE, taken.id, taken.token, "1", "")).toBe("lost");
  expect(await other.settle(settle(again!, "finish", { result: '"new"' }))).toEqual(["ok"]);
  expect((await s.inspector.status(taken.id))?.result).toBe('"new"');
});

test("a lease that is renewed between the look and the reap keeps its jobs: the script reads it again", async () => {
  const { id } = await started();
  await s.age(w, LEASE + 1_000);
  await w.beat(SERVICE);
  expect(await reap()).toEqual([0, 0, 1]);
  expect(await s.state(id)).toBe("started");
});

test("a fourth death under the same job fails it as poison (I5)", async () => {
  const id = await s.submit();
  for (let death = 1; death <= 4; death++) {
    expect(await w.takeIds(1)).toEqual([id]);
    await s.age(w, LEASE + 1_000);
    expect(await reap()).toEqual(death < 4 ? [1, 0, 0] : [0, 1, 0]);
  }
  const record = await s.inspector.record(id);
  expect(record).toMatchObject({ state: "failed", redeliveries: 4, error: { code: "poison" } });
  expect(record?.attempts).toHaveLength(4);
  expect(await s.ttl(id)).toBeGreaterThan(0);
});

test("redeliveries of both kinds add up: resets and deaths", async () => {
  const id = await s.submit();
  for (let i = 0; i < 2; i++) {
    const [taken] = await w.take(1);
    await w.settle(settle(taken!, "redeliver"));
  }
  for (let i = 0; i < 2; i++) {
    await w.take(1);
    await s.age(w, LEASE + 1_000);
    await reap();
  }
  expect(await s.inspector.record(id)).toMatchObject({ state: "failed", error: { code: "poison" } });
});

test("on_orphan: fail: the job of a dead worker fails as orphaned and never runs again", async () => {
  const { id } = await started({ operation: "once-only" });
  await s.age(w, LEASE + 1_000);
  expect(await reap(["other", "once-only"])).toEqual([0, 1, 0]);
  expect(await s.inspector.record(id)).toMatchObject({ state: "failed", error: { code: "orphaned" } });
});

test("on_orphan: fail matches whole names", async () => {
  await started({ operation: "once" });
  await s.age(w, LEASE + 1_000);
  expect(await reap(["once-only", "not-once"])).toEqual([1, 0, 0]);
});

test("a job whose cancel was asked for ends canceled when its worker dies (rule 8)", async () => {
  const { id } = await started();
  await s.producer.cancel(id);
  await s.age(w, LEASE + 1_000);
  expect(await reap()).toEqual([0, 0, 0]);
  expect(await s.inspector.record(id)).toMatchObject({ state: "canceled", error: { code: "canceled" } });
  expect(await s.redis.client.scard("lh:{work}:cancels")).toBe(0);
});

test("deadline: a live worker that forgot is overruled after the grace, and its token voided (rule 7)", async () => {
  const taken = await started({ timeoutMs: 1 });
  const kept = await started({ timeoutMs: 60_000 });
  expect(await reap()).toEqual([0, 0, 2]);
  await s.overrun(taken.id, overrunMs(LEASE) + 1_000);
  await s.overrun(kept.id, overrunMs(LEASE));
  expect(await reap()).toEqual([0, 1, 1]);
  expect(await s.inspector.record(taken.id)).toMatchObject({ state: "failed", error: { code: "timeout" } });
  expect(await w.settle(settle(taken, "finish"))).toEqual(["lost"]);
  expect(await s.state(kept.id)).toBe("started");
});

test("reap returns a dead worker's wake list, oldest first to be taken, and counts no redelivery", async () => {
  const ids = [await s.submit(), await s.submit(), await s.submit()];
  await w.beat(SERVICE);
  for (let i = 0; i < 2; i++) await s.redis.client.blmove(KEYS.ready, KEYS.wake(w.worker), "RIGHT", "LEFT", 1);
  await s.age(w, LEASE + 1_000);
  await reap();
  const taken = await other.take(3);
  expect(taken.map((t) => t.id)).toEqual(ids);
  expect(taken.map((t) => t.redeliveries)).toEqual([0, 0, 0]);
});

test("a live worker's wake list is its own", async () => {
  await s.submit();
  await w.beat(SERVICE);
  await s.redis.client.blmove(KEYS.ready, KEYS.wake(w.worker), "RIGHT", "LEFT", 1);
  expect(await reap()).toEqual([0, 0, 1]);
});

test("a lease entry goes only when nothing is left and it is older than lease + block", async () => {
  await started();
  await s.age(w, LEASE + BLOCK_MS - 1_000);
  expect(await reap()).toEqual([1, 0, 0]); // a blocked BLMOVE may still bring something
  expect((await s.maintainer.leased(SERVICE)).workers).toContain(w.worker);
  await s.age(w, LEASE + BLOCK_MS + 1_000);
  expect(await reap()).toEqual([0, 0, -1]);
  expect((await s.maintainer.leased(SERVICE)).workers).toEqual([other.worker]);
});

test("a hundred jobs a call; the rest comes with the next calls", async () => {
  await Promise.all(Array.from({ length: 250 }, () => s.submit()));
  expect(await w.take(250)).toHaveLength(250);
  await s.age(w, LEASE + 1_000);
  expect(await reap()).toEqual([100, 0, 150]);
  expect(await reap()).toEqual([100, 0, 50]);
  expect(await reap()).toEqual([50, 0, 0]);
  expect((await s.counts()).queued).toBe(250);
});

test("an id in held whose record is another's is let go of, untouched", async () => {
  const { id } = await started();
  await s.redis.client.sadd(KEYS.held(other.worker), id);
  await s.age(other, LEASE + 1_000);
  await w.reapOf(other, [], LEASE);
  expect(await s.state(id)).toBe("started");
  expect(await s.redis.client.scard(KEYS.held(other.worker))).toBe(0);
});

test("a worker that was struck and comes back has a lease again with its next take", async () => {
  await w.beat(SERVICE);
  await s.age(w, LEASE + BLOCK_MS + 1_000);
  await reap();
  await s.submit();
  await w.turn(SERVICE, [], ASK);
  expect((await s.maintainer.leased(SERVICE)).workers).toContain(w.worker);
});

// ---- the clock

const context = (env: Record<string, string>, watch: Pick<Watch, "look"> = { look: () => true }) => ({
  maintainer: s.maintainer,
  config: readConfig(env),
  watch,
  log: noLog,
});

test("the reap clock does nothing before a full lease of its own unbroken beats (rule 4)", async () => {
  const { id } = await started();
  await register(other.redis, [SERVICE]);
  await s.age(w, LEASE + 1_000);
  const once = new Map([["work", []]]);
  const known = { ...context({}, new Watch(LEASE)), config: { registry: { services: once } } as never };
  await clock.step(known);
  await clock.step(known);
  expect(await s.state(id)).toBe("started");
});

test("the reap clock leaves a service alone that it has no entry for: may its jobs run twice?", async () => {
  const { id } = await started();
  await register(other.redis, [SERVICE]);
  await s.age(w, LEASE + 1_000);
  await clock.step(context({})); // knows the eight built-in services only
  expect(await s.state(id)).toBe("started");
});

test("two reapers at once hand each job back once", async () => {
  await Promise.all(Array.from({ length: 50 }, () => s.submit()));
  await w.take(50);
  await s.age(w, LEASE + 1_000);
  const third = s.worker("w3");
  const replies = await Promise.all([reap(), third.reapOf(w, [], LEASE), reap()]);
  expect(replies.reduce((sum, [back]) => sum + back, 0)).toBe(50);
  expect(new Set(await s.redis.client.lrange(KEYS.ready, 0, -1)).size).toBe(50);
  expect((await s.counts()).queued).toBe(50);
});

test("reconcile sees what a lost reply left: held tells the truth, the token tells whose it is", async () => {
  const taken = await started();
  expect(await w.holding(SERVICE)).toEqual({ held: new Set([taken.id]), waking: 0, aside: [] });
  expect(await w.token(SERVICE, taken.id)).toEqual({ token: taken.token, state: "started" });
  expect(await w.settle({ id: taken.id, token: taken.token, kind: "return", ttlMs: DAY })).toEqual(["ok"]);
  expect((await w.holding(SERVICE)).held.size).toBe(0);
});

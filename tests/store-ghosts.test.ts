/** Canceled jobs that are still listed (rule 8), expired records, the ended index, and I6 over all of it. */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sweep } from "../shared/clocks/sweep.ts";
import { readConfig } from "../shared/config.ts";
import type { JobId } from "../shared/jobs.ts";
import { noLog } from "../shared/log.ts";
import { register } from "../shared/store/presence.ts";
import { ASK, DAY, KEYS, SERVICE, settle, startStore, type TestStore, type TestWorker } from "./support/store.ts";

let s: TestStore;
let w: TestWorker;
let dir: string;
beforeAll(async () => {
  s = await startStore();
  dir = mkdtempSync(join(tmpdir(), "longhaul-ghosts-"));
});
afterAll(async () => {
  await s?.stop();
  rmSync(dir, { recursive: true, force: true });
});
beforeEach(async () => {
  await s.clear();
  w = s.worker("w1");
});

const ghosts = async () => Number((await s.redis.client.hget(KEYS.counts, "ghosts")) ?? 0);
const rev = async (id: JobId) => (await s.inspector.status(id))?.rev ?? 0;
const canceled = async (more = {}) => {
  const id = await s.submit(more);
  await s.producer.cancel(id);
  return id;
};

test("cancel of a queued job leaves its entry: counts are right, and the TTL stays off (I6)", async () => {
  await s.submit();
  const id = await canceled();
  expect(await s.redis.client.llen(KEYS.ready)).toBe(2);
  expect(await s.counts()).toMatchObject({ queued: 1, canceled: 1 });
  expect(await s.ttl(id)).toBe(-1);
});

test("a take drops the entry, gives the TTL of a canceled job and never starts it", async () => {
  const id = await canceled();
  const own = await canceled({ ttlMs: 5_000 });
  const next = await s.submit();
  expect(await w.takeIds(5)).toEqual([next]);
  expect(await s.ttl(id)).toBeWithin(7 * DAY - 10_000, 7 * DAY + 1);
  expect(await s.ttl(own)).toBeWithin(1, 5_001);
  expect(await ghosts()).toBe(0);
  expect(await s.counts()).toMatchObject({ queued: 0, canceled: 2 });
});

test("cancel of another priority in the backlog leaves no entry", async () => {
  await s.submit();
  const id = await canceled({ priority: 9 });
  expect(await s.redis.client.zcard(KEYS.backlog)).toBe(0);
  expect(await s.ttl(id)).toBeGreaterThan(0);
  expect(await ghosts()).toBe(0);
});

test("a canceled job of another priority at the list's end is dropped, and never moves to the backlog", async () => {
  const id = await canceled({ priority: 0 }); // the list was empty
  const rest = [await s.submit(), await s.submit({ priority: 9 })];
  expect(await w.takeIds(1)).toEqual([rest[1]!]);
  expect(await s.redis.client.zscore(KEYS.backlog, id)).toBeNull();
  expect(await s.ttl(id)).toBeGreaterThan(0);
  expect(await ghosts()).toBe(0);
});

test("a canceled job that BLMOVE had brought is dropped: by a take, by a hand-back, by the reaper", async () => {
  const drops: (() => Promise<unknown>)[] = [
    () => w.take(1),
    () => w.turn(SERVICE, [], { ...ASK, slots: -1 }),
    async () => {
      await s.age(w, 40_000);
      await w.reapOf(w);
    },
  ];
  for (const drop of drops) {
    const id = await s.submit({ priority: 3 });
    await s.redis.client.blmove(KEYS.ready, KEYS.wake(w.worker), "RIGHT", "LEFT", 1);
    await s.submit(); // so that a push of it would go to the backlog, where no sweep looks
    expect(await s.producer.cancel(id)).toBe("canceled");
    await drop();
    expect(await s.ttl(id)).toBeGreaterThan(0);
    expect(await ghosts()).toBe(0);
    expect(await s.redis.client.zcard(KEYS.backlog)).toBe(0);
    await s.clear();
  }
});

test("requeue while listed pushes nothing: one entry, one run (I7)", async () => {
  const id = await canceled();
  expect(await s.producer.requeue(id, await rev(id))).toBe("ok");
  expect(await s.redis.client.lrange(KEYS.ready, 0, -1)).toEqual([id]);
  expect(await s.counts()).toMatchObject({ queued: 1, canceled: 0 });
  expect(await w.takeIds(5)).toEqual([id]);
  expect(await s.ttl(id)).toBe(-1);
});

test("cancel, requeue, cancel: still one entry, counted once", async () => {
  const id = await canceled();
  await s.producer.requeue(id, await rev(id));
  expect(await s.producer.cancel(id)).toBe("canceled");
  expect(await s.counts()).toMatchObject({ queued: 0, canceled: 1 });
  expect(await s.redis.client.llen(KEYS.ready)).toBe(1);
  expect(await w.takeIds(5)).toEqual([]);
  expect(await s.ttl(id)).toBeGreaterThan(0);
  expect(await ghosts()).toBe(0);
});

test("requeue after the take dropped the entry pushes one", async () => {
  const id = await canceled();
  await w.take(1);
  expect(await s.producer.requeue(id, await rev(id))).toBe("ok");
  expect(await w.takeIds(1)).toEqual([id]);
});

test("sweepGhosts gives the TTL and leaves a tombstone that a take drops and counts", async () => {
  const first = await s.submit();
  const id = await canceled();
  const last = await s.submit();
  expect(await s.maintainer.sweepGhosts(SERVICE, "ready", 0)).toEqual({ seen: 3, dropped: 1 });
  expect(await s.redis.client.lrange(KEYS.ready, 0, -1)).toEqual([last, "", first]);
  expect(await s.ttl(id)).toBeGreaterThan(0);
  expect(await s.counts()).toMatchObject({ queued: 2 });
  expect(await s.maintainer.sweepGhosts(SERVICE, "ready", 0)).toEqual({ seen: 3, dropped: 0 }); // sent twice
  expect(await w.takeIds(5)).toEqual([first, last]);
  expect(await ghosts()).toBe(0);
});

test("requeue after the sweep pushes a new entry; the tombstone stays counted", async () => {
  const id = await canceled();
  await s.maintainer.sweepGhosts(SERVICE, "ready", 0);
  expect(await s.producer.requeue(id, await rev(id))).toBe("ok");
  expect(await s.counts()).toMatchObject({ queued: 1 });
  expect(await w.takeIds(5)).toEqual([id]);
  expect(await ghosts()).toBe(0);
});

test("sweepGhosts walks in slices of 500 from the taking end", async () => {
  const ids = await Promise.all(Array.from({ length: 1_100 }, () => s.submit()));
  const mine = [ids[0]!, ids[499]!, ids[500]!, ids[999]!, ids[1_000]!, ids[1_099]!];
  for (const id of mine) await s.producer.cancel(id);
  expect(await s.maintainer.sweepGhosts(SERVICE, "ready", 0)).toEqual({ seen: 500, dropped: 2 });
  expect(await s.maintainer.sweepGhosts(SERVICE, "ready", 500)).toEqual({ seen: 500, dropped: 2 });
  expect(await s.maintainer.sweepGhosts(SERVICE, "ready", 1_000)).toEqual({ seen: 100, dropped: 2 });
  const list = await s.redis.client.lrange(KEYS.ready, 0, -1);
  expect(list.reverse()).toEqual(ids.map((id) => (mine.includes(id) ? "" : id)) as JobId[]);
  const taken = [...(await w.takeIds(2_000)), ...(await w.takeIds(2_000))]; // a thousand a call at most
  expect(taken).toEqual(ids.filter((id) => !mine.includes(id)));
});

test("sweepGhosts looks at the shelf of a paused service", async () => {
  const id = await canceled();
  await s.redis.client.set(KEYS.paused, "1");
  await s.redis.client.rename(KEYS.ready, KEYS.shelf);
  expect(await s.maintainer.sweepGhosts(SERVICE, "shelf", 0)).toEqual({ seen: 1, dropped: 1 });
  expect(await s.ttl(id)).toBeGreaterThan(0);
});

test("a take over a run of dead entries is bounded, says that there is more, and comes to the live one", async () => {
  const dead = await Promise.all(Array.from({ length: 1_200 }, () => s.submit()));
  for (const id of dead) await s.producer.cancel(id);
  const live = await s.submit();
  const first = await w.turn(SERVICE, [], { ...ASK, slots: 4 });
  expect(first).toMatchObject({ jobs: [], more: 1 });
  expect(await s.redis.client.llen(KEYS.ready)).toBeGreaterThan(500);
  const found: JobId[] = [];
  for (let i = 0; i < 5 && found.length === 0; i++) found.push(...(await w.takeIds(4)));
  expect(found).toEqual([live]);
  expect(await ghosts()).toBe(0);
});

test("an entry whose record is gone is dropped", async () => {
  const lost = await s.submit();
  const id = await s.submit();
  await s.redis.client.del(KEYS.job(lost));
  expect(await w.takeIds(5)).toEqual([id]);
});

// ---- expiry

const config = () => readConfig({ RESULTS_DIR: dir, WORK_URL: "" });
const context = () => ({ maintainer: s.maintainer, config: config(), watch: { look: () => true }, log: noLog });
const finished = async (more = {}) => {
  const id = await s.submit();
  const [taken] = await w.take(1);
  await w.settle(settle(taken!, "finish", more));
  return id;
};

test("the sweep strikes an expired record and deletes its file, and keeps the others", async () => {
  await register(w.redis, [SERVICE]);
  const file = (id: JobId) => join(dir, SERVICE, id, "1.w1.x");
  const gone = await finished({ sizeBytes: 3, ttlMs: 1 });
  const kept = await finished({ sizeBytes: 3 });
  for (const id of [gone, kept]) {
    mkdirSync(join(dir, SERVICE, id), { recursive: true });
    writeFileSync(file(id), "abc");
  }
  while (await s.redis.client.exists(KEYS.job(gone))) await Bun.sleep(5);
  await sweep.step(context());
  expect([existsSync(file(gone)), existsSync(file(kept))]).toEqual([false, true]);
  expect(await s.redis.client.zrange(KEYS.ended("finished"), "0", "-1")).toEqual([kept]);
});

test("erase leaves the index entry of a result in a file to the sweep, which deletes the file", async () => {
  await register(w.redis, [SERVICE]);
  const id = await finished({ sizeBytes: 3 });
  mkdirSync(join(dir, SERVICE, id), { recursive: true });
  writeFileSync(join(dir, SERVICE, id, "1.w1.x"), "abc");
  expect(await s.producer.erase(id)).toBe("ok");
  expect(await s.state(id)).toBeNull();
  await sweep.step(context());
  expect(existsSync(join(dir, SERVICE, id))).toBe(false);
  expect((await s.counts()).finished).toBe(0);
});

test("erase of an inline result strikes it from the index at once", async () => {
  const id = await finished();
  expect(await s.producer.erase(id)).toBe("ok");
  expect((await s.counts()).finished).toBe(0);
});

test("strike keeps an entry whose record exists: a cron id used again", async () => {
  const id = await finished();
  expect(await s.maintainer.strike(SERVICE, "finished", [id])).toEqual({ struck: 0, went: 0 });
  expect((await s.counts()).finished).toBe(1);
});

test("the sweep comes through more than one slice of expired records", async () => {
  await register(w.redis, [SERVICE]);
  const pairs = Array.from({ length: 1_234 }, (_, i) => [i, `work_x${i}`]).flat();
  await s.redis.client.zadd(KEYS.ended("failed"), ...pairs);
  await sweep.step(context());
  expect((await s.counts()).failed).toBe(0);
});

test("I6 over a mixed crowd: no TTL while not terminal, always one when terminal, none while listed", async () => {
  for (let i = 0; i < 60; i++) {
    await s.submit({ priority: i % 10, ...(i % 7 === 0 ? { due: Date.now() + 60_000 } : {}) });
  }
  const kinds = ["finish", "fail", "retry", "redeliver", "return"] as const;
  const taken = await w.take(20);
  for (const [i, t] of taken.entries()) {
    if (i % 4 === 0) await s.producer.cancel(t.id);
    if (i % 3 !== 0) await w.settle(settle(t, kinds[i % 5] as (typeof kinds)[number], { delayMs: i % 2 ? 60_000 : 0 }));
  }
  for (const key of await s.redis.client.keys(KEYS.job("*" as JobId))) {
    const id = key.slice(key.lastIndexOf(":") + 1) as JobId;
    if (Math.random() < 0.3) await s.producer.cancel(id);
    const [state, listed] = [await s.state(id), await s.field(id, "listed")];
    const terminal = ["finished", "failed", "canceled"].includes(state ?? "");
    expect([id, state, (await s.ttl(id)) > 0]).toEqual([id, state, terminal && !listed]);
  }
});

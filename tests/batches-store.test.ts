import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { type BatchId, type JobId, newBatchId, newJobId, serviceName } from "../shared/jobs.ts";
import { keysOf, root } from "../shared/keys.ts";
import type { Connection } from "../shared/script.ts";
import { BatchView } from "../shared/store/batch-view.ts";
import { Batches, chunksOf } from "../shared/store/batches.ts";
import { Consumer } from "../shared/store/consume.ts";
import { Inspector } from "../shared/store/inspect.ts";
import { type NewJob, Producer } from "../shared/store/produce.ts";
import { connect, ready } from "../shared/store/redis.ts";
import { startRedis, type TestRedis } from "./support/redis.ts";

const SETTINGS = { maxQueued: 0, idempotencyTtlMs: 60_000, batchTimeoutMs: 0, failureTtlMs: 60_000 };

describe("store", () => {
  let server: TestRedis;
  let redis: Connection;
  beforeAll(async () => {
    server = await startRedis();
    redis = connect(server.url, "work", "test");
    await ready(redis, 5_000);
  }, 30_000);
  afterAll(async () => {
    redis.disconnect();
    await server.stop();
  });
  beforeEach(async () => {
    await server.client.flushall();
  });

  const [a, b] = [serviceName("a"), serviceName("b")];
  const make = (n: number, more: Partial<NewJob> = {}): NewJob[] =>
    Array.from({ length: n }, (_, i) => ({
      id: newJobId(i % 2 ? b : a),
      operation: "work",
      payload: "{}",
      effects: "b",
      ...more,
    }));
  const batches = (settings: Partial<typeof SETTINGS> = {}) => new Batches(redis, { ...SETTINGS, ...settings });
  const view = () => new BatchView(redis);
  const keysLeft = async () =>
    (await server.client.keys("*")).filter((key) => !/:(counts|tally|stats:.*)$/.test(key)).sort();
  /** Where I1 says each member may be. */
  const places = async (ids: JobId[]) => {
    const lists = await Promise.all(
      [a, b].flatMap((s) => [
        server.client.lrange(keysOf(s).ready, "0", "-1"),
        server.client.zrange(keysOf(s).backlog, "0", "-1"),
        server.client.zrange(keysOf(s).scheduled, "0", "-1"),
      ]),
    );
    return ids.map((id) => lists.flat().filter((entry) => entry === id).length);
  };

  test("submit: accepted whole, each member queued once, in the client's order, over two services", async () => {
    const jobs = make(700);
    const { id, ids, replayed } = await batches().submit(jobs, 60_000);
    expect(replayed).toBe(false);
    expect(ids).toEqual(jobs.map((job) => job.id));
    expect(await places(ids)).toEqual(ids.map(() => 1));
    const listed = (await server.client.lrange(keysOf(a).ready, "0", "-1")).reverse();
    expect(listed).toEqual(ids.filter((_, i) => i % 2 === 0));
    expect(await view().read(id, [a, b])).toMatchObject({
      total: 700,
      left: 700,
      counts: { queued: 700, deferred: 0 },
    });
    expect(await server.client.hget(keysOf(a).counts, "staged")).toBe("0");
    expect(await keysLeft()).toEqual(expect.arrayContaining([`lh:{batch:${id}}`]) as unknown as string[]);
    expect(await server.client.exists(keysOf(a).staged, keysOf(b).staged)).toBe(0);
  });

  // The gateway dies after `steps` of: open, three chunks, commit, one release.
  const crashAfter = async (steps: number) => {
    const store = batches();
    const id = newBatchId();
    const jobs = make(1_200).map((job) => ({ ...job, batch: id }));
    const ids = jobs.map((job) => job.id);
    const chunks = [a, b].flatMap((s) =>
      [...chunksOf(jobs.filter((job) => job.id.startsWith(`${s}_`)))].map((c) => [s, c] as const),
    );
    const all = [
      () => store.open(id, ids, 60_000),
      ...chunks.map(
        ([s, chunk]) =>
          () =>
            store.stage(s, id, chunk, 600, 60_000),
      ),
      () => store.end(id, "committed"),
      () => redisRelease(store, id),
    ];
    for (const step of all.slice(0, steps)) await step();
    return { store, id, ids, committed: steps > chunks.length + 1, last: all.length };
  };
  // one chunk only, as if the gateway had died in between
  const redisRelease = (_store: Batches, id: BatchId) =>
    (redis as unknown as Record<string, (...args: unknown[]) => Promise<number>>).lh_release?.call(redis, root(a), id);

  test("a crash between any two steps leaves all or nothing, and the clocks finish it", async () => {
    const { last } = await crashAfter(0);
    for (let steps = 0; steps <= last; steps++) {
      await server.client.flushall();
      const { store, id, ids, committed } = await crashAfter(steps);
      // not accepted yet: nothing of it is in any queue
      if (!committed) expect((await places(ids)).every((n) => n === 0)).toBe(true);
      for (let round = 0; round < 2; round++) for (const s of [a, b]) await store.tidy(s);
      if (committed) {
        expect(await places(ids)).toEqual(ids.map(() => 1));
        expect((await view().read(id, [a, b]))?.counts.queued).toBe(1_200);
        expect(await server.client.pttl(`lh:{batch:${id}}`)).toBe(-1);
      } else {
        const kept = (await keysLeft()).filter((key) => key !== `lh:{batch:${id}}`);
        expect(kept).toEqual([]);
        if (steps > 1) expect(await store.end(id, "committed")).not.toBe("committed");
        expect(await view().services(id)).toBeUndefined();
      }
      for (const s of [a, b]) {
        expect(await server.client.exists(keysOf(s).staged, keysOf(s).stage(id))).toBe(0);
        expect(Number(await server.client.hget(keysOf(s).counts, "staged"))).toBe(0);
      }
    }
  });

  test("every step sent twice changes nothing more (lost reply)", async () => {
    const store = batches();
    const id = newBatchId();
    const jobs = make(10).map((job) => ({ ...job, batch: id }));
    const ids = jobs.map((job) => job.id);
    const twice = async (step: () => Promise<unknown>) => {
      await step();
      await step();
    };
    await twice(() => store.open(id, ids, 60_000));
    for (const s of [a, b]) {
      await twice(() =>
        store.stage(
          s,
          id,
          jobs.filter((job) => job.id.startsWith(`${s}_`)),
          5,
          60_000,
        ),
      );
      expect(await server.client.llen(keysOf(s).stage(id))).toBe(5);
    }
    await twice(() => store.end(id, "committed"));
    expect(await store.end(id, "aborted")).toBe("committed");
    for (const s of [a, b]) await twice(() => store.release(s, id));
    expect(await places(ids)).toEqual(ids.map(() => 1));
    expect((await view().read(id, [a, b]))?.left).toBe(10);
  });

  test("what a given-up gateway stages late is discarded, and its commit is refused", async () => {
    const store = batches();
    const id = newBatchId();
    const jobs = make(6).map((job) => ({ ...job, batch: id }));
    await store.open(
      id,
      jobs.map((job) => job.id),
      60_000,
    );
    await store.stage(
      a,
      id,
      jobs.filter((job) => job.id.startsWith("a_")),
      3,
      60_000,
    );
    await store.tidy(a);
    await store.stage(
      b,
      id,
      jobs.filter((job) => job.id.startsWith("b_")),
      3,
      60_000,
    );
    expect(await store.end(id, "committed")).toBe("aborted");
    await store.tidy(b);
    expect((await keysLeft()).filter((key) => !key.startsWith("lh:{batch:"))).toEqual([]);
  });

  test("a young batch is left alone by the clocks", async () => {
    const store = batches({ batchTimeoutMs: 60_000 });
    const id = newBatchId();
    const jobs = make(2).map((job) => ({ ...job, batch: id }));
    await store.open(
      id,
      jobs.map((job) => job.id),
      60_000,
    );
    await store.stage(a, id, [jobs[0] as NewJob], 1, 60_000);
    await store.tidy(a);
    expect(await server.client.llen(keysOf(a).stage(id))).toBe(1);
    expect(await store.end(id, "committed")).toBe("committed");
  });

  test("MAX_QUEUED holds for the whole batch: none of it is accepted, and nothing stays", async () => {
    const store = batches({ maxQueued: 300 });
    await expect(store.submit(make(800), 60_000)).rejects.toMatchObject({ code: "backlog_full" });
    expect((await keysLeft()).filter((key) => !key.startsWith("lh:{batch:"))).toEqual([]);
    expect((await store.submit(make(600), 60_000)).ids.length).toBe(600);
    await expect(store.submit(make(2), 60_000)).rejects.toMatchObject({ code: "backlog_full" });
  });

  test("members keep their priority and their due time; a staged one has no TTL and is canceled like any other", async () => {
    const store = batches();
    const id = newBatchId();
    const due = Date.now() + 60_000;
    const [plain, high, later, gone] = make(8, {}).filter((_, i) => i % 2 === 0) as [NewJob, NewJob, NewJob, NewJob];
    const jobs = [plain, { ...high, priority: 9 }, { ...later, due }, gone].map((job) => ({ ...job, batch: id }));
    await store.open(
      id,
      jobs.map((job) => job.id),
      60_000,
    );
    await store.stage(a, id, jobs, 4, 60_000);
    for (const job of jobs) expect(await server.client.pttl(keysOf(a).job(job.id))).toBe(-1);
    expect(await new Producer(redis, SETTINGS).cancel(gone.id)).toBe("canceled");
    await store.end(id, "committed");
    await store.release(a, id);
    expect(await server.client.zscore(keysOf(a).scheduled, later.id)).toBe(String(due));
    const batch = await view().read(id, [a]);
    expect(batch).toMatchObject({ left: 3, counts: { queued: 2, scheduled: 1, canceled: 1 } });
    const worker = new Consumer(redis, "w12345678" as never);
    const { jobs: taken } = await worker.turn(a, [], { slots: 5, concurrency: 0, limits: "work=60000" });
    expect(taken.map((job) => job.id)).toEqual([high.id, plain.id]);
  });

  test("a member that was canceled before its batch was given up can be requeued, and its end is no error", async () => {
    const store = batches();
    const id = newBatchId();
    const [job] = make(1).map((each) => ({ ...each, batch: id })) as unknown as [NewJob];
    await store.open(id, [job.id], 60_000);
    await store.stage(a, id, [job], 1, 60_000);
    const producer = new Producer(redis, SETTINGS);
    expect(await producer.cancel(job.id)).toBe("canceled");
    await store.end(id, "aborted");
    await store.discard(a, id);
    const rev = (await new Inspector(redis).glance(job.id))?.rev ?? 0;
    expect(await producer.requeue(job.id, rev)).toBe("ok");
    const worker = new Consumer(redis, "w12345678" as never);
    const ask = { slots: 5, concurrency: 0, limits: "work=60000" };
    const [taken] = (await worker.turn(a, [], ask)).jobs;
    const settle = { id: job.id, token: taken?.token as string, kind: "finish" as const, ttlMs: 60_000, result: "1" };
    expect((await worker.turn(a, [settle], ask)).verdicts).toEqual(["ok"]);
    expect(await keysLeft()).not.toContain(keysOf(a).batch(id));
  });

  test("counts follow each end and each requeue; the record lives until the last member has gone", async () => {
    const store = batches();
    const { id, ids } = await store.submit(make(4), 60_000);
    const producer = new Producer(redis, SETTINGS);
    const note = async () => {
      for (const s of [a, b]) await store.note(s, id);
    };
    for (const s of [a, b]) {
      const worker = new Consumer(redis, "w12345678" as never);
      const ask = { slots: 2, concurrency: 0, limits: "work=60000" };
      const { jobs } = await worker.turn(s, [], ask);
      expect((await view().read(id, [a, b]))?.counts.started).toBeGreaterThan(0);
      const kinds = ["finish", "fail"] as const;
      const settles = jobs.map((job, i) => ({
        id: job.id,
        token: job.token,
        kind: kinds[i] ?? "finish",
        ttlMs: 60_000,
      }));
      await worker.turn(s, settles, { ...ask, slots: 0 });
      await worker.turn(s, settles, { ...ask, slots: 0 }); // a lost reply: counted once
    }
    expect(await view().read(id, [a, b])).toMatchObject({
      left: 0,
      counts: { finished: 2, failed: 2, queued: 0, started: 0 },
      failed: expect.arrayContaining([ids[2], ids[3]]),
    });
    await note();
    expect(await server.client.pttl(`lh:{batch:${id}}`)).toBeGreaterThan(0);
    expect(await server.client.pttl(keysOf(a).batch(id))).toBeGreaterThan(0);
    const failed = ids[2] as JobId;
    const rev = (await new Inspector(redis).status(failed))?.rev as number;
    for (let i = 0; i < 2; i++) expect(await producer.requeue(failed, rev)).toBe("ok");
    await note();
    expect(await server.client.pttl(`lh:{batch:${id}}`)).toBe(-1);
    expect(await server.client.pttl(keysOf(a).batch(id))).toBe(-1);
    expect(await view().read(id, [a, b])).toMatchObject({
      left: 1,
      counts: { failed: 1, queued: 1 },
      failed: [ids[3]],
    });
    expect(await producer.cancel(failed)).toBe("canceled");
    await note();
    expect(await view().read(id, [a, b])).toMatchObject({ left: 0, counts: { finished: 2, failed: 1, canceled: 1 } });
    expect(await server.client.pttl(`lh:{batch:${id}}`)).toBeGreaterThan(0);
  });

  test("an Idempotency-Key replays an accepted batch, refuses another body, and replaces one that was given up", async () => {
    const store = batches();
    const name = { key: "k", body: "h" };
    const first = await store.submit(make(4), 60_000, name);
    const again = await store.submit(make(4), 60_000, name);
    expect(again).toEqual({ id: first.id, ids: first.ids, replayed: true });
    expect((await places(first.ids)).reduce((x, y) => x + y)).toBe(4);
    expect(await server.client.llen(keysOf(a).ready)).toBe(2);
    await expect(store.submit(make(2), 60_000, { key: "k", body: "other" })).rejects.toMatchObject({
      code: "idempotency_mismatch",
    });
    // one that is being staged elsewhere: in progress, until it is old enough to be given up
    const slow = newBatchId();
    await store.open(slow, [newJobId(a)], 60_000);
    await server.client.set("lh:{batch-name:k2}", `${slow} h`);
    await expect(
      batches({ batchTimeoutMs: 60_000 }).submit(make(2), 60_000, { key: "k2", body: "h" }),
    ).rejects.toMatchObject({
      code: "in_progress",
    });
    expect((await store.submit(make(2), 60_000, { key: "k2", body: "h" })).replayed).toBe(false);
    expect(await store.end(slow, "committed")).toBe("aborted");
  });

  test("the same Idempotency-Key twenty times at once: one batch, the others replay it or are told to come again", async () => {
    const store = batches({ batchTimeoutMs: 60_000 });
    const replies = await Promise.allSettled(
      Array.from({ length: 20 }, () => store.submit(make(50), 60_000, { key: "k", body: "h" })),
    );
    const accepted = replies.flatMap((r) => (r.status === "fulfilled" ? [r.value] : []));
    expect(new Set(accepted.map((r) => r.id)).size).toBe(1);
    expect(accepted.filter((r) => !r.replayed).length).toBe(1);
    for (const r of replies) if (r.status === "rejected") expect(r.reason.code).toBe("in_progress");
    expect((await server.client.llen(keysOf(a).ready)) + (await server.client.llen(keysOf(b).ready))).toBe(50);
  });
});

import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { Buffer } from "node:buffer";
import { type JobId, newJobId, serviceName } from "../shared/jobs.ts";
import { keysOf } from "../shared/keys.ts";
import type { Connection } from "../shared/script.ts";
import { Consumer } from "../shared/store/consume.ts";
import { Inspector } from "../shared/store/inspect.ts";
import { type Cursor, LISTED, type Listed, Lister, MAX_SCANNED } from "../shared/store/list.ts";
import { type NewJob, Producer } from "../shared/store/produce.ts";
import { connect, ready } from "../shared/store/redis.ts";
import { startRedis, type TestRedis } from "./support/redis.ts";
import { type Stack, startStack } from "./support/stack.ts";

const [a, b] = [serviceName("a"), serviceName("b")];
const ASK = { slots: 1_000, concurrency: 0, limits: "work=60000" };

describe("store", () => {
  let server: TestRedis;
  let redis: Connection;
  let producer: Producer;
  beforeAll(async () => {
    server = await startRedis();
    redis = connect(server.url, "work", "test");
    await ready(redis, 5_000);
    producer = new Producer(redis, { maxQueued: 0, idempotencyTtlMs: 60_000, failureTtlMs: 600_000 });
  }, 30_000);
  afterAll(async () => {
    redis.disconnect();
    await server.stop();
  });
  beforeEach(async () => {
    await server.client.flushall();
  });

  const submit = async (n: number, more: Partial<NewJob> = {}, service = a): Promise<JobId[]> => {
    const jobs = Array.from({ length: n }, () => ({
      id: newJobId(service),
      operation: "work",
      payload: "{}",
      ...more,
    }));
    for (let i = 0; i < n; i += 250) await producer.send(service, jobs.slice(i, i + 250));
    return jobs.map((job) => job.id);
  };
  type Ask = { states?: Listed[]; limit?: number; tag?: string; q?: string; services?: (typeof a)[]; since?: number };
  const page = (ask: Ask = {}, cursor?: Cursor) =>
    new Lister(redis).page({
      services: ask.services ?? [a, b],
      states: ask.states ?? LISTED,
      limit: ask.limit ?? 50,
      tag: ask.tag,
      q: ask.q,
      since: ask.since,
      cursor,
    });
  /** All pages, with a step between them. */
  const walk = async (ask: Ask = {}, between: () => Promise<unknown> = async () => {}) => {
    const ids: JobId[] = [];
    const ats: number[] = [];
    let cursor: Cursor | undefined;
    for (let i = 0; i < 1_000; i++) {
      const got = await page(ask, cursor);
      ids.push(...got.cards.map((card) => card.id));
      ats.push(...got.cards.map((card) => card.at));
      // through the text that a client carries
      cursor = got.next && JSON.parse(Buffer.from(JSON.stringify(got.next)).toString());
      if (!cursor) return { ids, ats };
      await between();
    }
    throw new Error("it never ends");
  };
  const finish = async (n: number, service = a, kind: "finish" | "fail" = "finish", worker = "w12345678") => {
    const consumer = new Consumer(redis, worker as never);
    const { jobs } = await consumer.turn(service, [], { ...ASK, slots: n });
    await consumer.turn(
      service,
      jobs.map((job) => ({
        id: job.id,
        token: job.token,
        started: job.started,
        operation: job.operation,
        kind,
        ttlMs: 600_000,
        error: '{"code":"http_error","message":"Boom"}',
      })),
      { ...ASK, slots: 0 },
    );
    return jobs.map((job) => job.id);
  };
  const falling = (ats: number[]) => ats.every((at, i) => i === 0 || at <= (ats[i - 1] as number));

  test("a list of what is newer ends at the first job that is older, without looking at the rest", async () => {
    await submit(300);
    const early = await finish(300);
    await Bun.sleep(30);
    const [s, us] = (await server.client.time()) as unknown as [string, string];
    const since = Number(s) * 1_000 + Math.ceil(Number(us) / 1_000);
    await Bun.sleep(5);
    await submit(4);
    const late = await finish(4);
    const waits = await submit(3);
    const got = await page({ since });
    expect(got.cards.map((card) => card.id).sort()).toEqual([...late, ...waits].sort());
    expect(got.next).toBeUndefined();
    expect(got.scanned).toBeLessThan(20);
    expect(early).toHaveLength(300);
  });

  test("a queue reads newest first, every job once, whatever the page's size", async () => {
    const ids = await submit(523);
    for (const limit of [1, 7, 50, 200]) {
      const walked = await walk({ limit, states: ["queued"] });
      expect(walked.ids).toEqual(ids.toReversed());
    }
  });

  test("all states of two services in one order, each job once", async () => {
    const all = [
      ...(await submit(60)),
      ...(await submit(40, {}, b)),
      ...(await submit(30, { priority: 9 })),
      ...(await submit(30, { priority: 1 })),
      ...(await submit(20, { due: Date.now() + 60_000 }, b)),
    ];
    await finish(25);
    await finish(10, a, "fail");
    await finish(5, b);
    const holder = new Consumer(redis, "wholder12" as never);
    await holder.turn(a, [], { ...ASK, slots: 12 });
    const [canceled] = await submit(1, { due: Date.now() + 60_000 });
    await producer.cancel(canceled as JobId);
    for (const limit of [3, 50, 200]) {
      const { ids, ats } = await walk({ limit });
      expect(ids.length).toBe(all.length + 1);
      expect(new Set(ids)).toEqual(new Set([...all, canceled as JobId]));
      expect(falling(ats)).toBe(true);
    }
    expect((await walk({ states: ["started"] })).ids.length).toBe(12);
    expect((await walk({ states: ["failed"], limit: 4 })).ids.length).toBe(10);
    expect((await walk({ states: ["finished"], services: [b], limit: 2 })).ids.length).toBe(5);
  });

  test("hundreds of ends within one millisecond: every one once over the pages", async () => {
    await submit(300);
    await submit(200, {}, b);
    for (const n of [1, 120, 1, 78]) await finish(n); // those of one turn share an entry of the index
    await finish(100, a, "fail");
    await finish(60, b);
    await finish(140, b, "fail");
    for (const key of [a, b].flatMap((s) => [keysOf(s).ended("finished"), keysOf(s).ended("failed")])) {
      for (const entry of await server.client.zrange(key, "0", "-1")) {
        await server.client.zadd(key, 1_700_000_000_000, entry);
      }
    }
    expect(await server.client.zcard(keysOf(a).ended("finished"))).toBe(9); // 32 ids at most in each
    for (const limit of [1, 7, 90]) {
      const { ids } = await walk({ limit });
      expect(ids.length).toBe(500);
      expect(new Set(ids).size).toBe(500);
    }
    expect((await walk({ states: ["finished"], limit: 11 })).ids).toEqual((await walk({ states: ["finished"] })).ids);
  });

  test("jobs that come between two pages do not show up behind, and shift nothing", async () => {
    const before = await submit(40);
    await finish(15);
    const { ids } = await walk({ limit: 6 }, () => submit(3));
    expect(new Set(ids)).toEqual(new Set(before));
    expect(ids.length).toBe(40);
  });

  test("jobs taken between two pages are not shown twice", async () => {
    await submit(60);
    const { ids } = await walk({ limit: 5, states: ["queued"] }, () => finish(2));
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids.length).toBeGreaterThanOrEqual(40);
  });

  test("paused, handed back, requeued, canceled while listed: no page loses its way", async () => {
    const ids = await submit(100);
    const holder = new Consumer(redis, "wholder12" as never);
    const { jobs } = await holder.turn(a, [], { ...ASK, slots: 10 });
    await holder.turn(
      a,
      jobs.map((job) => ({ id: job.id, token: job.token, kind: "return" as const, ttlMs: 1_000 })),
      { ...ASK, slots: 0 },
    );
    for (const id of ids.slice(40, 60)) await producer.cancel(id);
    const failed = await finish(5, a, "fail");
    for (const id of failed.slice(0, 3)) await producer.requeue(id, (await new Inspector(redis).glance(id))?.rev ?? 0);
    await server.client.rename(keysOf(a).ready, keysOf(a).shelf);
    await server.client.set(keysOf(a).paused, "1");
    const queued = await walk({ limit: 9, states: ["queued"] });
    expect(new Set(queued.ids).size).toBe(queued.ids.length);
    expect(queued.ids.length).toBe(78);
    expect((await walk({ limit: 9, states: ["canceled"] })).ids.length).toBe(20);
    const all = new Set((await walk({ limit: 9 })).ids);
    expect(all.size).toBe(100);
  });

  test("expired records are passed over", async () => {
    await submit(20);
    const ended = await finish(20);
    for (const id of ended.slice(0, 15)) await server.client.del(keysOf(a).job(id));
    const { ids } = await walk({ limit: 3 });
    expect(new Set(ids)).toEqual(new Set(ended.slice(15)));
  });

  test("tag and q find what is there, in id, error and payload; a bounded scan says how far it reached", async () => {
    const [tagged] = await submit(1, { options: { tags: ["Night:Run/1"] }, payload: '{"file":"Haus.IFC"}' });
    await submit(MAX_SCANNED + 500);
    const first = await page({ tag: "Night:Run/1", limit: 10 });
    expect(first).toMatchObject({ cards: [], scanned: MAX_SCANNED });
    expect(first.next).toBeDefined();
    expect((await walk({ tag: "Night:Run/1" })).ids).toEqual([tagged as JobId]);
    expect((await walk({ tag: "Night:Run" })).ids).toEqual([]);
    expect((await walk({ q: "haus.ifc" })).ids).toEqual([tagged as JobId]);
    expect((await walk({ q: (tagged as string).slice(3, 20) })).ids).toEqual([tagged as JobId]);
    expect((await walk({ q: "%.*" })).ids).toEqual([]); // a text, not a pattern
    await finish(1, a, "fail");
    // no bare word: one of 2,500 ids of letters and digits would hold those four in one run of sixteen
    expect((await walk({ q: '"boom"' })).ids).toEqual([tagged as JobId]);
  });
});

describe("GET /jobs", () => {
  let stack: Stack;
  beforeAll(async () => {
    stack = await startStack({ operations: { other: { url: "http://127.0.0.1:1" } } });
  }, 30_000);
  afterAll(() => stack?.stop());

  test("lists what a client submitted, follows next and Link, and shows no payload", async () => {
    const ids = [];
    for (let i = 0; i < 5; i++) ids.push(await stack.submit({ secret: "s3cr3t", i }));
    for (const id of ids) await stack.ended(id);
    const bad = await stack.submit({ status: 400, detail: "wrong" }, "/work?tags=x,y");
    await stack.ended(bad);
    const response = await fetch(`${stack.url}/jobs?limit=4`);
    const first = await response.json();
    expect(first.jobs.length).toBe(4);
    expect(first.jobs[0]).toMatchObject({ job_id: bad, status: "failed", tags: ["x", "y"], service: "work" });
    expect(first.jobs[0].error.message).toContain("wrong");
    expect(JSON.stringify(first)).not.toContain("s3cr3t");
    const link = /^<(.+)>; rel="next"$/.exec(response.headers.get("link") ?? "")?.[1];
    const second = await stack.get(link as string);
    expect(second.next).toBeNull();
    expect([...first.jobs, ...second.jobs].map((job) => job.job_id).sort()).toEqual([...ids, bad].sort());
    expect((await stack.get("/jobs?tag=y")).jobs.map((job: { job_id: string }) => job.job_id)).toEqual([bad]);
    expect((await stack.get("/jobs?state=failed,canceled&service=work")).jobs.length).toBe(1);
    expect((await stack.get("/jobs?service=other")).jobs).toEqual([]);
  });

  test("hostile queries are refused as problems", async () => {
    const forged = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const queries: [string, number][] = [
      ["limit=0", 422],
      ["limit=201", 422],
      ["limit=1e9", 422],
      ["state=gone", 422],
      ["state=", 422],
      ["colour=red", 422],
      ["service=nope", 404],
      ["service=..%2f", 422],
      ["service=a}:x", 422],
      ["q=", 422],
      [`q=${"x".repeat(300)}`, 422],
      ["cursor=%00", 422],
      ["cursor=AAAA", 422],
      [`cursor=${forged({ at: "1", id: "", n: {} })}`, 422],
      [`cursor=${forged({ at: 1e300, id: "", n: {} })}`, 422],
      [`cursor=${forged({ at: 1, id: "", n: { "x} y": 1 } })}`, 422],
      [`cursor=${forged({ at: 1, id: "", n: { __proto__x: 1 } })}`, 422],
      [`cursor=${forged({ at: 1, id: "\u0000; drop", n: {} })}`, 200],
      [`cursor=${forged({ at: 1, id: "", n: { work: 9007199254740991 } })}`, 200],
      [`cursor=${"A".repeat(9_000)}`, 422],
    ];
    for (const [query, status] of queries) {
      const response = await fetch(`${stack.url}/jobs?${query}`);
      expect([query.slice(0, 40), response.status]).toEqual([query.slice(0, 40), status]);
      await response.text();
    }
  });
});

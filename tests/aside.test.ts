/** Jobs whose operation a worker does not know: that worker is not given them, they wait, and nothing else notices. */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import type { JobId } from "../shared/jobs.ts";
import { MORE } from "../shared/store/consume.ts";
import { Lister } from "../shared/store/list.ts";
import { Operator } from "../shared/store/operate.ts";
import {
  ASK,
  DAY,
  job,
  KEYS,
  SERVICE,
  settle,
  startStore,
  type TestStore,
  type TestWorker,
  wish,
} from "./support/store.ts";

let s: TestStore;
/** knows `a` alone */
let narrow: TestWorker;
/** knows `a` and `b` */
let wide: TestWorker;
let operator: Operator;
const A = { limits: "a=1000" };
const AB = { limits: "a=1000 b=2000" };
beforeAll(async () => {
  s = await startStore();
  operator = new Operator(s.connection, 7 * DAY);
});
afterAll(() => s?.stop());
beforeEach(async () => {
  await s.clear();
  narrow = s.worker("narrow");
  wide = s.worker("wide");
});

/** Submits a job an operation, in this order. "b9" = operation b, priority 9. */
async function submit(...words: string[]): Promise<JobId[]> {
  const ids: JobId[] = [];
  for (const word of words)
    ids.push(await s.submit({ operation: word[0] as string, ...(word[1] ? { priority: Number(word[1]) } : {}) }));
  return ids;
}
const place = (ids: JobId[], ...at: number[]) => at.map((i) => ids[i] as JobId);
const asideOf = (op: string) => s.redis.client.zrange(KEYS.aside(op), "0", "-1");
/** Everything that the workers may leave: nothing stands aside, and the counters agree. */
async function expectNoneAside() {
  expect(await s.redis.client.exists(KEYS.asides, KEYS.aside("b"))).toBe(0);
  expect(Number((await s.redis.client.hget(KEYS.counts, "aside")) ?? 0)).toBe(0);
}

test("a job whose operation the worker does not name waits, and spends nothing", async () => {
  const ids = await submit("b", "a", "b", "a");
  expect(await narrow.takeIds(10, A)).toEqual(place(ids, 1, 3));
  for (const id of place(ids, 0, 2)) {
    expect(await s.inspector.record(id)).toMatchObject({
      state: "queued",
      attempt: 0,
      redeliveries: 0,
      worker: undefined,
    });
  }
  expect(await narrow.takeIds(10, A)).toEqual([]);
  expect(await s.counts()).toMatchObject({ queued: 2, started: 2 });
  expect((await s.counts()).aside.get("b")).toMatchObject({ jobs: 2 });
});

test("a worker that names the operation takes what stands aside before younger jobs, in order", async () => {
  const ids = await submit("b", "b", "a", "b");
  await narrow.takeIds(1, A);
  const younger = await submit("a", "b");
  expect(await wide.takeIds(10, AB)).toEqual([...place(ids, 0, 1), ...place(ids, 3), ...younger]);
  await expectNoneAside();
});

test("what stands aside goes by priority, then by age, beside the queue's own", async () => {
  const ids = await submit("b", "b9", "b1", "a", "b5", "b9");
  await narrow.takeIds(10, A); // sets all b aside
  const later = await submit("a9", "a", "a1");
  expect(await wide.takeIds(20, AB)).toEqual([
    ...place(ids, 1, 5),
    ...place(later, 0),
    ...place(ids, 0, 4),
    ...place(later, 1),
    ...place(ids, 2),
    ...place(later, 2),
  ]);
  await expectNoneAside();
});

test("a job of a worker that handed it back goes before younger ones that stand aside", async () => {
  const [old] = await submit("b");
  const [taken] = await wide.take(1, AB);
  const [young] = await submit("b");
  await narrow.takeIds(1, A);
  await wide.settle(settle(taken as NonNullable<typeof taken>, "return"));
  expect(await wide.takeIds(2, AB)).toEqual([old, young] as JobId[]);
});

test("`more` is not said of jobs that the worker cannot run, and is said of those that it can", async () => {
  await submit("b", "b", "b");
  const turn = (worker: TestWorker, ask: object, slots: number) => worker.turn(SERVICE, [], { ...ASK, ...ask, slots });
  expect((await turn(narrow, A, 5)).more).toBe(MORE.empty);
  expect((await turn(narrow, A, 5)).more).toBe(MORE.empty);
  expect((await turn(wide, AB, 2)).more).toBe(MORE.jobs);
  expect((await turn(wide, AB, 3)).more).toBe(MORE.empty);
});

test("what BLMOVE brought to a worker that does not know it is set aside too", async () => {
  const [id] = await submit("b");
  await s.redis.client.lmove(KEYS.ready, KEYS.wake(narrow.worker), "RIGHT", "LEFT");
  expect(await narrow.takeIds(5, A)).toEqual([]);
  expect(await asideOf("b")).toEqual([id as JobId]);
  expect(await wide.takeIds(5, AB)).toEqual([id as JobId]);
});

test("a job with options of its own, its own time limit among them, is not given either", async () => {
  const id = await s.submit({ operation: "b", timeoutMs: 500, options: { tags: ["x"] } });
  expect(await narrow.takeIds(5, A)).toEqual([]);
  const [taken] = await wide.take(5, AB);
  expect(taken).toMatchObject({ id, operation: "b", attempt: 1, options: '{"tags":["x"]}' });
});

test("a thousand jobs of an unknown operation before a known one: it is found within a few calls", async () => {
  for (let i = 0; i < 4; i++)
    await s.producer.send(
      SERVICE,
      Array.from({ length: 250 }, () => job({ operation: "b" })),
    );
  const [known] = await submit("a");
  const found: JobId[] = [];
  for (let i = 0; i < 4; i++) found.push(...(await narrow.takeIds(1, A)));
  expect(found).toEqual([known as JobId]);
  expect((await s.counts()).queued).toBe(1_000);
});

test("while paused nothing is taken from aside; after the resume it is", async () => {
  const [id] = await submit("b");
  await narrow.takeIds(1, A);
  await operator.pause(SERVICE);
  const reply = await wide.turn(SERVICE, [], { ...ASK, ...AB, slots: 5 });
  expect([reply.jobs.length, reply.more]).toEqual([0, MORE.paused]);
  expect(await operator.resume(SERVICE)).toBe(1);
  expect(await wide.takeIds(5, AB)).toEqual([id as JobId]);
});

test("cancel of a job that stands aside leaves no entry; requeued it is queued once", async () => {
  const [id] = (await submit("b", "b")) as [JobId, JobId];
  await narrow.takeIds(1, A);
  expect(await s.producer.cancel(id)).toBe("canceled");
  expect(await asideOf("b")).toHaveLength(1);
  expect(await s.ttl(id)).toBeGreaterThan(0);
  expect(await s.counts()).toMatchObject({ queued: 1, canceled: 1 });
  expect(await s.producer.requeue(id, (await s.inspector.glance(id))?.rev ?? 0)).toBe("ok");
  expect(await wide.takeIds(5, AB)).toHaveLength(2);
  await expectNoneAside();
});

test("empty cancels what stands aside, and says how many", async () => {
  const ids = await submit("b", "b9", "a");
  await narrow.takeIds(1, A);
  expect(await operator.empty(SERVICE, "n1")).toBe(2);
  await operator.carryOut(SERVICE, 1_000);
  for (const id of ids.slice(0, 2)) expect(await s.state(id)).toBe("canceled");
  await expectNoneAside();
  expect(await s.counts()).toMatchObject({ queued: 0, started: 1 });
});

test("a job that was emptied away while aside can be canceled at once", async () => {
  const [id] = (await submit("b")) as [JobId];
  await narrow.takeIds(1, A);
  await operator.empty(SERVICE, "n2");
  expect(await s.producer.cancel(id)).toBe("canceled");
  expect((await s.counts()).queued).toBe(0);
  await operator.carryOut(SERVICE, 1_000);
  expect((await s.counts()).canceled).toBe(1);
});

test("bulk cancel of the queue reaches what stands aside, of every operation", async () => {
  const ids = await submit("b", "c", "b9", "d", "a", "a9");
  await narrow.takeIds(1, A); // the 9 of a; it meets the others only as far as it must
  await narrow.takeIds(2, A);
  await operator.startBulk(SERVICE, wish("cancel", { state: "queued" }));
  await operator.carryOut(SERVICE, 1_000);
  for (const id of place(ids, 0, 1, 2, 3)) expect(await s.state(id)).toBe("canceled");
  expect((await s.counts()).queued).toBe(0);
  await expectNoneAside();
});

test("lists show what stands aside in its place, page by page", async () => {
  const ids = await submit("b", "b", "a", "b1", "b");
  await narrow.takeIds(1, A);
  const younger = await submit("b", "a");
  const lister = new Lister(s.connection);
  const query = { services: [SERVICE], states: ["queued" as const], tag: undefined, q: undefined };
  const seen: JobId[] = [];
  for (let cursor: Parameters<typeof lister.page>[0]["cursor"]; ; ) {
    const page = await lister.page({ ...query, limit: 2, cursor });
    seen.push(...page.cards.map((card) => card.id));
    cursor = page.next;
    if (!cursor) break;
  }
  expect(seen).toEqual([...younger.toReversed(), ...place(ids, 4, 3, 1, 0)]);
});

test("maxQueued counts what stands aside, for submits and for batches", async () => {
  await submit("b", "b");
  await narrow.takeIds(1, A);
  expect(await s.producerOf({ maxQueued: 2 }).send(SERVICE, [job()])).toEqual(["full"]);
});

test("the oldest wait is that of a job that stands aside, also below newer ones of a higher priority", async () => {
  const ids = await submit("b");
  await Bun.sleep(5);
  await submit("b9", "b9");
  await narrow.takeIds(5, A);
  expect((await s.counts()).oldest).toBe((await s.inspector.record(ids[0] as JobId))?.created as number);
  expect((await s.counts()).aside.get("b")).toMatchObject({ jobs: 3, since: (await s.counts()).oldest });
  const before = (await s.counts()).oldest;
  await Bun.sleep(5);
  await submit("a");
  expect((await s.counts()).oldest).toBe(before as number);
});

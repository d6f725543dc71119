/** What jobs of one call share is said once, in both directions: here they differ, and each keeps its own. */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { newBatchId, newJobId } from "../shared/jobs.ts";
import { Batches } from "../shared/store/batches.ts";
import type { Taken } from "../shared/store/consume.ts";
import type { NewJob } from "../shared/store/produce.ts";
import {
  ASK,
  DAY,
  job,
  LIMITS,
  SERVICE,
  settle,
  startStore,
  type TestStore,
  type TestWorker,
} from "./support/store.ts";

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

const LIMIT_TEXT = { limits: "alpha=1000 beta=2000 gamma=9000" };
/** alike and unlike neighbours: operation, options, life, and none of them */
const mixed = (): NewJob[] => [
  job({ operation: "alpha", payload: '{"n":0}' }),
  job({ operation: "alpha", payload: '{"n":1}' }),
  job({ operation: "beta", payload: '{"n":2}' }),
  job({ operation: "beta", payload: '{"n":3}', options: { tags: ["x"] } }),
  job({ operation: "beta", payload: '{"n":4}', options: { tags: ["x"] } }),
  job({ operation: "alpha", payload: '{"n":5}', ttlMs: 5_000 }),
  job({ operation: "alpha", payload: '{"n":6}' }),
  job({ operation: "gamma", payload: '{"n":7}' }),
];

test("each has its own operation, payload, options and time limit, though they came in one call", async () => {
  const jobs = mixed();
  expect(await s.producer.send(SERVICE, jobs)).toEqual(jobs.map(() => "ok"));
  const { jobs: taken } = await w.turn(SERVICE, [], { ...ASK, ...LIMIT_TEXT });
  expect(taken.map(({ id, operation, payload }) => ({ id, operation, payload }))).toEqual(
    jobs.map(({ id, operation, payload }) => ({ id, operation, payload })),
  );
  expect(taken.map(({ options }) => options)).toEqual(
    jobs.map(({ options }) => (options ? JSON.stringify(options) : "")),
  );
  const limits = { alpha: 1_000, beta: 2_000, gamma: 9_000 };
  for (const { started, deadline, operation } of taken) {
    expect(deadline - started).toBe(limits[operation as keyof typeof limits]);
  }
  for (const [i, { id, token }] of taken.entries()) {
    const record = await s.inspector.record(id);
    expect([record?.state, record?.operation, record?.payload]).toEqual([
      "started",
      jobs[i]?.operation,
      jobs[i]?.payload,
    ]);
    expect(record?.options).toEqual(jobs[i]?.options ?? {});
    expect(token).toStartWith("1.w1.");
  }
});

test("what no longer fits in is told of the jobs that it is, behind those that did", async () => {
  const full = s.producerOf({ maxQueued: 5 });
  expect(await full.send(SERVICE, mixed())).toEqual(["ok", "ok", "ok", "ok", "ok", "full", "full", "full"]);
});

test("turn gives its verdicts in the order of the settles", async () => {
  await s.submit();
  await s.submit();
  const [taken, other] = (await w.take(2)) as [Taken, Taken];
  const gone = { ...taken, id: newJobId(SERVICE) };
  const forged = { ...taken, token: "1.w1.x" };
  const settles = [taken, gone, gone, forged, other].map((one) => settle(one, "finish"));
  expect(await w.settle(...settles)).toEqual(["ok", "gone", "gone", "lost", "ok"]);
});

test("jobs of another call, taken in the same turn, keep their own time and number", async () => {
  const first = await s.submit({ operation: "alpha" });
  await Bun.sleep(5);
  const second = await s.submit({ operation: "alpha" });
  const taken = await w.take(2, LIMIT_TEXT);
  const records = await Promise.all([first, second].map((id) => s.inspector.record(id)));
  expect(taken.map(({ created }) => created)).toEqual(records.map((record) => record?.created as number));
  expect(records.map((record) => record?.sequence)).toEqual([1, 2]);
  expect((records[1]?.created ?? 0) - (records[0]?.created ?? 0)).toBeGreaterThanOrEqual(5);
});

test("a run that is not its first is told its own attempt, beside those that are", async () => {
  const id = await s.submit({ operation: "alpha" });
  const [again] = await w.take(1, LIMIT_TEXT);
  await w.settle(settle(again as never, "retry", { delayMs: 0 }));
  const other = await s.submit({ operation: "alpha" });
  const taken = await w.take(2, LIMIT_TEXT);
  expect(new Map(taken.map((one) => [one.id, [one.attempt, one.token[0]]]))).toEqual(
    new Map([
      [id, [2, "2"]],
      [other, [1, "1"]],
    ]),
  );
});

test("settled in one call, each has its own result, life, type and count", async () => {
  await s.producer.send(SERVICE, mixed());
  const taken = await w.take(8, LIMIT_TEXT);
  const settles = taken.map((one, i) =>
    settle(one, "finish", {
      result: `{"n":${i}}`,
      timing: `${i},${i}`,
      ttlMs: i < 4 ? DAY : 2 * DAY,
      ...(i === 6 ? { type: "text/plain" } : {}),
    }),
  );
  expect(await w.settle(...settles)).toEqual(taken.map(() => "ok"));
  for (const [i, { id }] of taken.entries()) {
    const record = await s.inspector.record(id);
    expect([record?.state, String(record?.result), record?.timing]).toEqual([
      "finished",
      `{"n":${i}}`,
      { firstByte: i, lastByte: i },
    ]);
    expect(record?.resultType).toBe(i === 6 ? "text/plain" : "application/json");
    const life = i === 5 ? 5_000 : i < 4 ? DAY : 2 * DAY;
    expect(Math.abs((await s.ttl(id)) - life)).toBeLessThan(2_000);
  }
  const { totals, finished, started } = await s.counts();
  expect([totals.get("finished"), finished, started]).toEqual([8, 8, 0]);
  expect(["alpha", "beta", "gamma"].map((op) => totals.has(`mean:${op}`))).toEqual([true, true, true]);
  expect([...totals].filter(([field]) => /^r\d/.test(field)).reduce((sum, [, n]) => sum + n, 0)).toBe(8);
  expect([...totals].filter(([field]) => /^w\d/.test(field)).reduce((sum, [, n]) => sum + n, 0)).toBe(8);
});

test("members of a batch that is sent again in part keep their own", async () => {
  const batches = new Batches(s.connection, { ...LIMITS, batchTimeoutMs: 60_000 } as never);
  const [id, jobs] = [newBatchId(), mixed()];
  await batches.stage(SERVICE, id, jobs.slice(3, 4), jobs.length, DAY);
  await batches.stage(SERVICE, id, jobs, jobs.length, DAY);
  for (const { id, operation, payload, options } of jobs) {
    const record = await s.inspector.record(id);
    expect([record?.state, record?.operation, record?.payload]).toEqual(["deferred", operation, payload]);
    expect(record?.options).toEqual(options ?? {});
  }
});

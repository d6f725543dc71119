/** What a lane takes before a slot is free for it: how much, when not at all, and what becomes of it. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import type { JobId } from "../shared/jobs.ts";
import type { Lane } from "../shared/lane.ts";
import type { Operation } from "../shared/services.ts";
import type { Settle, Taken } from "../shared/store/consume.ts";
import { Lanes } from "./support/lane.ts";
import { type FakeService, startService } from "./support/service.ts";
import { until } from "./support/stack.ts";
import { ASK, KEYS, SERVICE, settle, startStore, type TestStore } from "./support/store.ts";

const SLOTS = 4;
let s: TestStore;
let service: FakeService;
let lanes: Lanes;
beforeAll(async () => {
  s = await startStore();
});
afterAll(() => s?.stop());
beforeEach(async () => {
  await s.clear();
  service = await startService();
  lanes = new Lanes(s, service);
});
afterEach(async () => {
  await lanes.stop();
  await service.stop();
});

const submit = (count: number, sleep: number): Promise<JobId[]> =>
  Promise.all(Array.from({ length: count }, () => s.submit({ payload: `{"sleep":${sleep}}` })));

const finished = (ids: JobId[]) => until(async () => (await s.counts()).finished === ids.length);

/** A lane whose turns are looked at: the most that it asked to hold, and what it handed back. */
function watched(concurrency = 0, also: Partial<Operation> = {}, slots = SLOTS) {
  const { lane, worker } = lanes.start("w1", { slots, concurrency }, undefined, also);
  const seen = { most: 0, last: 0, returned: [] as JobId[] };
  const turn = worker.turn.bind(worker);
  worker.turn = (name, settles: Settle[], ask) => {
    seen.most = Math.max(seen.most, ask.slots);
    seen.last = ask.slots;
    for (const { id, kind } of settles) if (kind === "return") seen.returned.push(id);
    return turn(name, settles, ask);
  };
  return { lane, worker, seen };
}

/** A lane that learned from short calls, then took long ones: its slots are full, and more wait in it. */
async function overtaken() {
  await submit(400, 1);
  const long = await submit(40, 60_000);
  const view = watched();
  const held = () => s.redis.client.scard(KEYS.held(view.worker.worker));
  return { long, held, ...view };
}
/** Until the lane holds long jobs alone, those that are called first: a short one may be done and not yet settled. */
const full = (lane: Lane, long: JobId[]) =>
  until(() => {
    const ids = [...lane.running.keys()];
    return ids.length > SLOTS && ids.every((id) => long.includes(id)) && calls(long).length === SLOTS;
  });
const calls = (ids: JobId[]) => ids.filter((id) => service.byJob(id).length > 0);

test("short calls: jobs are taken ahead, at most four a slot; no more calls at once than slots, each job once", async () => {
  const ids = await submit(1_500, 1);
  const { seen } = watched();
  await finished(ids);
  expect(seen.most).toBeGreaterThan(SLOTS);
  expect(seen.most).toBeLessThanOrEqual(5 * SLOTS);
  expect(service.peak).toBe(SLOTS);
  expect(new Set(service.calls.map((call) => call.headers.get("x-job-id"))).size).toBe(ids.length);
  expect(service.calls).toHaveLength(ids.length);
});

test("calls that are not short: nothing is taken ahead, though many end at once", async () => {
  const slots = 40;
  const ids = await submit(400, 90);
  const { seen } = watched(0, {}, slots);
  await finished(ids);
  expect([seen.most, service.peak]).toEqual([slots, slots]);
});

test("a limit that workers share, and operations that a worker's death would end: nothing is taken ahead", async () => {
  const kinds: [number, Partial<Operation>][] = [
    [3, {}],
    [0, { onOrphan: "fail" }],
  ];
  for (const [concurrency, also] of kinds) {
    const ids = await submit(600, 1);
    const { seen } = watched(concurrency, also);
    await finished(ids);
    expect(seen.most).toBe(SLOTS);
    await lanes.stop();
    await s.clear();
  }
});

test("what waits behind calls that became long goes back to the front, with no attempt and no redelivery spent, and no more is taken", async () => {
  const { long, held, seen } = await overtaken();
  await until(() => seen.returned.length > 0 && seen.last === SLOTS);
  await until(async () => (await held()) === SLOTS);
  expect(calls(long)).toEqual(long.slice(0, SLOTS));
  expect(new Set(seen.returned).size).toBe(seen.returned.length); // each once: it is not taken again at once
  for (const id of seen.returned) {
    expect(await s.inspector.record(id)).toMatchObject({ state: "queued", attempt: 0, redeliveries: 0 });
  }
  const other = s.worker("w2");
  const next = await other.take(1);
  expect(next.map(({ id }) => id)).toEqual([long[SLOTS] as JobId]);
});

test("after a job that came back from another worker nothing is taken ahead, until calls have proved short anew", async () => {
  const [back] = (await submit(1, 1)) as [JobId];
  const other = s.worker("w0");
  const [taken] = await other.take(1);
  await submit(3_000, 1);
  const { worker, seen } = watched();
  const turn = worker.turn;
  const after: number[] = [];
  let came = false;
  worker.turn = async (name, settles, ask) => {
    if (came) after.push(ask.slots);
    const reply = await turn(name, settles, ask);
    came ||= reply.jobs.some(({ id }) => id === back);
    return reply;
  };
  await until(() => seen.most > SLOTS);
  await other.turn(SERVICE, [settle(taken as Taken, "redeliver")], { ...ASK, slots: 0 });
  await until(() => after.some((slots) => slots > SLOTS));
  expect(after[0]).toBe(SLOTS);
});

test("a lane that stops hands back at once what waits in it, uncalled", async () => {
  const { lane, long, seen } = await overtaken();
  (lane as unknown as { prefetch: { look(): void } }).prefetch.look = () => {}; // not because they waited for too long
  await full(lane, long);
  expect(lane.prefetch.busy).toBe(SLOTS);
  const waiting = [...lane.running.keys()].slice(SLOTS);
  expect(seen.returned).toEqual([]);
  lane.stop(false);
  await until(() => seen.returned.length === waiting.length);
  expect(seen.returned.sort()).toEqual(waiting.sort());
  expect(calls(waiting)).toEqual([]);
});

test("a job that is canceled while it waits in a lane is never called", async () => {
  const { lane, long } = await overtaken();
  await full(lane, long);
  const id = [...lane.running.keys()][SLOTS] as JobId;
  lane.cancel(id);
  expect(["asked", "canceled"]).toContain(await s.producer.cancel(id));
  await until(async () => (await s.state(id)) === "canceled");
  expect(calls([id])).toEqual([]);
});

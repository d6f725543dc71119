/** One lane over a real Redis and a fake microservice: what a process-level test cannot bring about on purpose. */
import { expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type JobId, resultDir } from "../shared/jobs.ts";
import { type Lanes, laneStage, type Stage } from "./support/lane.ts";
import { until } from "./support/stack.ts";
import { DAY, KEYS, SERVICE, settle } from "./support/store.ts";

let { s, service, lanes } = {} as Stage;
laneStage((stage) => {
  ({ s, service, lanes } = stage);
});
const start: Lanes["start"] = (...args) => lanes.start(...args);

const started = (id: JobId) => until(async () => (await s.state(id)) === "started");
const finished = (id: JobId) => until(async () => (await s.state(id)) === "finished");
const rules = () => ({ leaseMs: 30_000, ttlMs: DAY, once: [], seen: Date.now() });

test("a job that was reaped from a lane and taken again by the same lane runs once more, and only its new call counts", async () => {
  const { lane, worker, lines } = start("w1");
  const id = await s.submit({ payload: '{"sleep":700}' });
  await started(id);
  await s.age(worker, 31_000);
  expect((await s.maintainer.reap(SERVICE, worker.worker, rules()))[0]).toBe(1);
  await until(() => service.byJob(id).length === 2); // the lane's idle turns take it again
  for (let i = 0; i < 4; i++) {
    lane.sweep();
    await Bun.sleep(100);
  }
  await finished(id);
  expect(service.byJob(id).map((call) => call.aborted)).toEqual([true, false]);
  expect((await s.inspector.record(id))?.attempts.map((a) => a.outcome)).toEqual(["orphaned", "finished"]);
  expect(lines.join()).not.toContain("handed back");
});

test("a lane that takes nothing hands back what BLMOVE brought, so that another worker has it", async () => {
  const { lane, worker } = start("w1");
  lane.held = true;
  const id = await s.submit();
  await s.redis.client.lmove(KEYS.ready, KEYS.wake(worker.worker), "RIGHT", "LEFT");
  lane.sweep();
  start("w2");
  await finished(id);
});

test("a lane whose BLMOVE lost its reply starts what it brought, though BLMOVE seems to wait", async () => {
  const { lane, worker } = start("w1", {}, () => new Promise(() => {}));
  lanes.forget(); // it waits for ever; nothing of it outlives this file
  await Bun.sleep(100);
  const id = await s.submit();
  await s.redis.client.lmove(KEYS.ready, KEYS.wake(worker.worker), "RIGHT", "LEFT");
  lane.sweep();
  await finished(id);
});

test("a lane of one slot whose BLMOVE lost its reply starts what it brought, without asking Redis in a loop", async () => {
  const { lane, worker } = start("w1", { slots: 1 }, () => new Promise(() => {}));
  lanes.forget();
  await Bun.sleep(100);
  const turns = worker.turn.bind(worker);
  let count = 0;
  worker.turn = (...args) => {
    count++;
    return turns(...args);
  };
  const id = await s.submit();
  await s.redis.client.lmove(KEYS.ready, KEYS.wake(worker.worker), "RIGHT", "LEFT");
  lane.sweep();
  await finished(id);
  await Bun.sleep(200);
  expect(count).toBeLessThan(6);
});

test("a worker that comes back too late does not overwrite the result's file (I4)", async () => {
  const resultsDir = mkdtempSync(join(tmpdir(), "longhaul-lane-"));
  const { worker, lines } = start("w1", { resultsDir, resultInlineBytes: 10 });
  const id = await s.submit({ payload: '{"sleep":600,"answer":"from the first call of this job"}' });
  await started(id);
  await s.age(worker, 31_000);
  await s.maintainer.reap(SERVICE, worker.worker, rules());
  const other = s.worker("w2");
  const [taken] = await other.take(1);
  mkdirSync(resultDir(resultsDir, id), { recursive: true });
  const mine = join(resultDir(resultsDir, id), taken!.token);
  writeFileSync(mine, '"the one that counts"');
  await other.settle(settle(taken!, "finish", { result: "", sizeBytes: 21 }));
  await until(() => lines.join().includes("came too late"));
  await until(() => readdirSync(resultDir(resultsDir, id)).length === 1); // the late one's is gone again
  expect((await s.inspector.result(id))?.token).toBe(taken!.token);
  expect(readFileSync(mine, "utf8")).toBe('"the one that counts"');
  rmSync(resultsDir, { recursive: true });
});

test("a note of a worker that died while parked does not make a later short outage look long", async () => {
  await s.redis.client.hset(KEYS.counts, "parked", Date.now() - 10 * DAY);
  start("w1");
  await finished(await s.submit());
  await until(async () => (await s.redis.client.hexists(KEYS.counts, "parked")) === 0);
});

test("a lane hands back a job whose take lost its reply", async () => {
  const { lane, worker, lines } = start("w1");
  lane.held = true;
  const id = await s.submit();
  await worker.take(1); // as if this turn's reply never came
  lane.sweep();
  await Bun.sleep(50);
  expect(await s.state(id)).toBe("started"); // at first sight it may be a take on its way
  lane.sweep();
  await until(async () => (await s.state(id)) === "queued");
  expect(lines.join()).toContain("its reply was lost");
  expect(await s.inspector.record(id)).toMatchObject({ attempt: 0, redeliveries: 0 });
});

test("a step of the wall clock does not stop a lane that waits for the service's concurrency", async () => {
  const real = Date.now;
  start("w1", { concurrency: 1 });
  const first = await s.submit({ payload: '{"sleep":500}' });
  await started(first);
  const second = await s.submit();
  await Bun.sleep(100);
  Date.now = () => real() - 3_600_000;
  try {
    await finished(second);
  } finally {
    Date.now = real;
  }
});

test("a lane takes and settles although each reconcile takes until the next one is due", async () => {
  const { lane, worker } = start("w1");
  const holding = worker.holding.bind(worker);
  worker.holding = async (service) => {
    await Bun.sleep(150);
    lane.sweep(); // the next second is over before this one is done
    return holding(service);
  };
  lane.sweep();
  await Bun.sleep(100);
  await finished(await s.submit());
});

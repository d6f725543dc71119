/** A lane whose take goes right behind BLMOVE: what becomes of it when its answer is late, lost, or comes to a worker that was frozen. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import type { JobId } from "../shared/jobs.ts";
import type { Wait } from "../shared/lane.ts";
import type { Ask, Turned } from "../shared/store/consume.ts";
import { Lanes } from "./support/lane.ts";
import { type FakeService, startService } from "./support/service.ts";
import { until } from "./support/stack.ts";
import { DAY, SERVICE, startStore, type TestStore } from "./support/store.ts";

let s: TestStore;
let service: FakeService;
let lanes: Lanes;
beforeAll(async () => {
  [s, service] = await Promise.all([startStore(), startService()]);
  lanes = new Lanes(s, service);
});
afterAll(async () => {
  await service?.stop();
  await s?.stop();
});
beforeEach(() => s.clear());
afterEach(() => lanes.stop());

const state = (id: JobId, what: string) => until(async () => (await s.state(id)) === what, 5_000);

/**
 * A wait as Consumer.block: it takes a job in Redis when `take` is called, and its answer comes when `answer` or `lose` is.
 * Only the first one: after it nothing ever arrives.
 */
function slow() {
  let asked: (asked: [Ask | undefined, string]) => void;
  const sent = new Promise<[Ask | undefined, string]>((done) => {
    asked = done;
  });
  let answered: { done(turned: Turned): void; failed(error: Error): void };
  const answer = new Promise<Turned>((done, failed) => {
    answered = { done, failed };
  });
  let first = true;
  const wait: Wait = (ask, nonce) => {
    if (!first) return Bun.sleep(50).then(() => undefined);
    first = false;
    asked([ask, nonce]);
    return answer;
  };
  const other = s.worker("w1"); // the same worker's connection
  return {
    wait,
    async take(): Promise<Turned> {
      const [ask, nonce] = await sent;
      return other.turn(SERVICE, [], ask as Ask, nonce);
    },
    sent,
    answer: (turned: Turned) => answered.done(turned),
    lose: () => answered.failed(new Error("the connection is gone")),
  };
}

async function sweeps(lane: { sweep(): void }, count: number) {
  for (let i = 0; i < count; i++) {
    lane.sweep();
    await Bun.sleep(60);
  }
}

test("a job that the take started is no stranger while its answer is on the way, and is called once", async () => {
  const by = slow();
  const { lane, lines } = lanes.start("w1", {}, by.wait);
  await by.sent;
  const id = await s.submit();
  const turned = await by.take();
  await sweeps(lane, 4);
  expect(await s.state(id)).toBe("started");
  by.answer(turned);
  await state(id, "finished");
  expect(service.byJob(id).length).toBe(1);
  expect(lines).toEqual([]);
});

test("a job whose take was lost with its connection goes back, no attempt and no redelivery spent, and runs", async () => {
  const by = slow();
  const { lane, lines } = lanes.start("w1", {}, by.wait);
  await by.sent;
  const id = await s.submit();
  await by.take();
  by.lose();
  await until(async () => {
    lane.sweep();
    return (await s.state(id)) === "finished";
  }, 5_000);
  expect(lines.join()).toContain("its reply was lost");
  expect(service.byJob(id).length).toBe(1);
  expect((await s.inspector.record(id))?.redeliveries).toBe(0);
});

test("an answer that is read after the lease is over calls nothing: another worker may have the job", async () => {
  const by = slow();
  const { lane } = lanes.start("w1", { leaseMs: 200 }, by.wait);
  await by.sent;
  const id = await s.submit();
  const turned = await by.take();
  await Bun.sleep(300); // frozen
  by.answer(turned);
  await Bun.sleep(100);
  expect(service.byJob(id)).toEqual([]);
  await sweeps(lane, 2); // what nobody else has taken goes back
  await state(id, "finished");
  expect(service.byJob(id).length).toBe(1);
});

test("a beat keeps the lease: a late answer of a worker that lives is called", async () => {
  const by = slow();
  const { lane } = lanes.start("w1", { leaseMs: 200 }, by.wait);
  await by.sent;
  const id = await s.submit();
  const turned = await by.take();
  await Bun.sleep(300);
  await lane.beat();
  by.answer(turned);
  await until(async () => service.byJob(id).length === 1, 5_000);
  await state(id, "finished");
});

test("what the take brings to a lane that takes nothing any more goes back and is not called", async () => {
  const by = slow();
  const { lane } = lanes.start("w1", {}, by.wait);
  await by.sent;
  const id = await s.submit();
  const turned = await by.take();
  lane.hush();
  by.answer(turned);
  await state(id, "queued");
  expect(service.byJob(id)).toEqual([]);
  expect(await s.inspector.record(id)).toMatchObject({ attempt: 0, redeliveries: 0 });
});

test("a lane that stops while its take is on the way hands back what it brings", async () => {
  const by = slow();
  const { lane } = lanes.start("w1", { slots: 600 }, by.wait);
  await by.sent;
  const ids = await Promise.all(Array.from({ length: 600 }, () => s.submit())); // more than one turn settles
  const turned = await by.take();
  expect(turned.jobs.length).toBe(600);
  lane.stop(false);
  await Bun.sleep(100); // its own loop has ended
  by.answer(turned);
  await lanes.stop();
  expect(new Set(await Promise.all(ids.map((id) => s.state(id))))).toEqual(new Set(["queued"]));
  expect(ids.filter((id) => service.byJob(id).length > 0)).toEqual([]);
});

test("nothing is taken behind BLMOVE where a worker's death would end a job that was never called", async () => {
  const by = slow();
  lanes.start("w1", {}, by.wait, { onOrphan: "fail" });
  expect((await by.sent)[0]).toBeUndefined();
  by.answer({ verdicts: [], jobs: [], more: 0 });
});

test("a lane asks for a turn behind BLMOVE with its own slots, concurrency and limits", async () => {
  const by = slow();
  lanes.start("w1", { slots: 7, concurrency: 3, resultTtlMs: DAY }, by.wait, { timeoutMs: 9_000 });
  expect((await by.sent)[0]).toEqual({ slots: 7, concurrency: 3, limitMs: 3_600_000, limits: "work=9000" });
  by.answer({ verdicts: [], jobs: [], more: 0 });
});

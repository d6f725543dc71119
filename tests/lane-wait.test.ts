/** A lane whose take goes right behind BLMOVE: what becomes of it when its answer is late, lost, or comes to a worker that was frozen. */
import { expect, test } from "bun:test";
import type { JobId } from "../shared/jobs.ts";
import type { LaneSettings, Wait } from "../shared/lane.ts";
import type { Ask, Turned } from "../shared/store/consume.ts";
import { laneStage, type Stage } from "./support/lane.ts";
import { until } from "./support/stack.ts";
import { DAY, SERVICE } from "./support/store.ts";

const NOTHING: Turned = { verdicts: [], jobs: [], more: 0 };
const unanswered: ((turned: Turned) => void)[] = [];
let { s, service, lanes } = {} as Stage;
laneStage(
  (stage) => {
    ({ s, service, lanes } = stage);
  },
  () => {
    for (const answer of unanswered.splice(0)) answer(NOTHING); // a test that failed must not wait for ever
  },
);

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
  unanswered.push(answered!.done);
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
    async take(more: Partial<Ask> = {}): Promise<Turned> {
      const [ask, nonce] = await sent;
      return other.turn(SERVICE, [], { ...(ask as Ask), ...more }, nonce);
    },
    sent,
    answer: (turned: Turned) => answered.done(turned),
    lose: () => answered.failed(new Error("the connection is gone")),
  };
}

/** An idle lane whose take has started a job, and whose answer has not come. */
async function taken(more: Partial<LaneSettings> = {}) {
  const by = slow();
  const started = lanes.start("w1", more, by.wait);
  await by.sent;
  const id = await s.submit();
  return { ...started, by, id, turned: await by.take() };
}

async function sweeps(lane: { sweep(): void }, count: number) {
  for (let i = 0; i < count; i++) {
    lane.sweep();
    await Bun.sleep(60);
  }
}

test("a job that the take started is no stranger while its answer is on the way, and is called once", async () => {
  const { lane, lines, by, id, turned } = await taken();
  await sweeps(lane, 4);
  expect(await s.state(id)).toBe("started");
  by.answer(turned);
  await state(id, "finished");
  expect(service.byJob(id).length).toBe(1);
  expect(lines).toEqual([]);
});

test("a job whose take was lost with its connection goes back, no attempt and no redelivery spent, and runs", async () => {
  const { lane, lines, by, id } = await taken();
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
  const { lane, by, id, turned } = await taken({ leaseMs: 200 });
  await Bun.sleep(300); // frozen
  by.answer(turned);
  await Bun.sleep(100);
  expect(service.byJob(id)).toEqual([]);
  await sweeps(lane, 2); // what nobody else has taken goes back
  await state(id, "finished");
  expect(service.byJob(id).length).toBe(1);
});

test("a beat keeps the lease: a late answer of a worker that lives is called", async () => {
  const { lane, by, id, turned } = await taken({ leaseMs: 200 });
  for (let i = 0; i < 4; i++) {
    await Bun.sleep(100);
    await lane.beat();
  }
  by.answer(turned);
  await until(async () => service.byJob(id).length === 1, 5_000);
  await state(id, "finished");
});

test("an answer of before a gap in the lease calls nothing, though the lease was renewed since", async () => {
  const { lane, worker, by, id, turned } = await taken({ leaseMs: 200 });
  await Bun.sleep(300); // frozen; another has it now
  await s.age(worker, 31_000);
  expect((await worker.reapOf(worker))[0]).toBe(1);
  const [again] = await s.worker("w2").take();
  expect(again?.id).toBe(id);
  await lane.beat(); // on a connection whose answer comes first
  by.answer(turned);
  await Bun.sleep(150);
  expect(service.byJob(id)).toEqual([]);
});

test("an answer that does not come for seconds counts as lost; when it comes after all, it is not believed", async () => {
  const { lane, lines, by, id, turned } = await taken();
  await sweeps(lane, 5);
  await state(id, "finished"); // taken again
  expect(lines.join()).toContain("its reply was lost");
  by.answer(turned);
  await Bun.sleep(150);
  expect(service.byJob(id).length).toBe(1);
});

test("a job that is settled and comes back before the settle's answer takes no other settle with it", async () => {
  const ids = [
    await s.submit({ payload: '{"fail":1,"sleep":60}' }),
    await s.submit({ payload: '{"sleep":300}' }),
  ] as const;
  const by = slow();
  const { lane, worker } = lanes.start("w1", { slots: 4 }, by.wait, { retries: 3, backoffMs: 0 });
  const turn = worker.turn.bind(worker);
  let release = () => {};
  const released = new Promise<void>((done) => {
    release = done;
  });
  worker.turn = async (...args) => {
    const turned = await turn(...args);
    if (args[1].some((settle) => settle.id === ids[0])) await released; // what it did is done, its answer is late
    return turned;
  };
  await until(() => service.byJob(ids[1]).length === 1, 5_000);
  lane.held = true; // as a parked one: it settles, and takes nothing
  await state(ids[0], "queued"); // it was refused, and waits again
  const turned = await by.take({ slots: 4 });
  expect(turned.jobs.map((job) => job.id)).toEqual([ids[0]]);
  await Bun.sleep(400); // the other has ended, and waits to be settled
  by.answer(turned);
  await Bun.sleep(50);
  release();
  await state(ids[1], "finished");
  lane.held = false;
  lane.sweep();
  for (const id of ids) await state(id, "finished");
});

test("while strangers fill its slots and jobs wait, a lane does not ask in a loop", async () => {
  const { worker } = lanes.start("w1", { slots: 1 });
  await s.submit();
  await s.worker("w1").take(1); // as if this turn's reply never came
  const turn = worker.turn.bind(worker);
  let count = 0;
  worker.turn = (...args) => {
    count++;
    return turn(...args);
  };
  await s.submit();
  await Bun.sleep(400);
  expect(count).toBeGreaterThan(3);
  expect(count).toBeLessThan(100);
});

test("what the take brings to a lane that takes nothing any more goes back and is not called", async () => {
  const { lane, by, id, turned } = await taken();
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
  const turned = await by.take({ slots: 600 });
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
  by.answer(NOTHING);
});

test("a lane asks for one job behind BLMOVE, with its own concurrency and limits", async () => {
  const by = slow();
  lanes.start("w1", { slots: 7, concurrency: 3, resultTtlMs: DAY }, by.wait, { timeoutMs: 9_000 });
  expect((await by.sent)[0]).toEqual({ slots: 1, concurrency: 3, limits: "work=9000" });
  by.answer(NOTHING);
});

test("what another worker set aside is taken at the next sweep, while this one waits in BLMOVE", async () => {
  const by = slow();
  const { lane } = await lanes.start("w1", {}, by.wait);
  await by.sent;
  const id = await s.submit();
  expect(await s.worker("narrow").takeIds(1, { limits: "other=1000" })).toEqual([]);
  expect((await s.counts()).aside.get("work")?.jobs).toBe(1);
  await sweeps(lane, 2);
  await state(id, "finished");
});

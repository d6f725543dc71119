/** When the next submits go to Redis: at once while there is little to do, with those who ask again while there is much. */
import { afterAll, beforeEach, describe, expect, spyOn, test } from "bun:test";
import { setImmediate } from "node:timers/promises";
import { newJobId, type ServiceName } from "../shared/jobs.ts";
import type { Connection } from "../shared/script.ts";
import { Gathering } from "../shared/store/gathering.ts";
import { BATCH_BYTES, BATCH_JOBS, Producer } from "../shared/store/produce.ts";
import { until } from "./support/stack.ts";

/** ms of CPU of each wait: more than its own time, part of it, or none. */
let at: (waitedMs: number) => number;
const work = () => 1e9;
let [asked, cpu, since] = [0, 0, 0];
const used = () => {
  if (asked++ % 2 === 0) since = performance.now();
  else cpu += at(performance.now() - since);
  return cpu;
};
let gathering: Gathering;
beforeEach(() => {
  [at, asked, cpu] = [work, 0, 0];
  gathering = new Gathering(256, 60_000, used);
});

/** Whether the next call waits for more; `came` ends it. */
async function waits(answered: number, waiting: number) {
  let gone = false;
  const next = gathering.next(answered, waiting).then(() => {
    gone = true;
  });
  for (let ticks = 0; ticks < 5; ticks++) await setImmediate();
  return { waits: !gone, gone: () => gone, next };
}

test("a call of few jobs is followed by the next at once, one of eight is not", async () => {
  expect((await waits(7, 0)).waits).toBe(false);
  const eight = await waits(8, 0);
  expect(eight.waits).toBe(true);
  gathering.came(6);
  await eight.next;
});

test("it goes when three quarters as many more have come as were answered, and not before", async () => {
  const { next, gone } = await waits(25, 20);
  for (const waiting of [21, 30, 38]) {
    gathering.came(waiting);
    await setImmediate();
    expect([waiting, gone()]).toEqual([waiting, false]);
  }
  gathering.came(39);
  await next;
});

test("nobody waits for more than one call carries", async () => {
  expect((await waits(256, 256)).waits).toBe(false);
  expect((await waits(256, 300)).waits).toBe(false);
  const { waits: held, next } = await waits(256, 250);
  expect(held).toBe(true);
  gathering.came(256);
  await next;
});

test("when nobody comes it goes after its time", async () => {
  gathering = new Gathering(256, 300, used);
  const since = performance.now();
  await gathering.next(20, 0);
  expect(performance.now() - since).toBeGreaterThan(290);
});

/** How many calls in a row are not waited for, and how many are, out of `calls`. */
async function pattern(calls: number) {
  let text = "";
  for (let i = 0; i < calls; i++) {
    const { waits: held, next } = await waits(20, 0);
    text += held ? "w" : ".";
    await Bun.sleep(2); // long against what it takes to look at the clock
    gathering.came(15);
    await next;
  }
  return text;
}

test("a process that rests while it waits stops waiting, and tries again after eight calls", async () => {
  at = () => 0;
  expect(await pattern(20)).toBe("w........w........w.");
});

test("at work for three quarters of the time is too little, for nine tenths it is not", async () => {
  at = (ms) => 0.75 * ms;
  expect(await pattern(3)).toBe("w..");
  gathering = new Gathering(256, 60_000, used);
  at = (ms) => 0.9 * ms;
  expect(await pattern(20)).toBe("wwwwwwwwwwwwwwwwwwww");
});

test("who works again after a rest is waited for after the first try", async () => {
  at = () => 0;
  expect(await pattern(9)).toBe("w........");
  at = work;
  expect(await pattern(20)).toBe("wwwwwwwwwwwwwwwwwwww");
});

test("one wait at rest among many at work is no reason, and however much work was told once does not last", async () => {
  expect(await pattern(30)).not.toContain(".");
  // the next one begins at work, and ends at rest
  const { next } = await waits(20, 0);
  at = () => 0;
  gathering.came(15);
  await next;
  const text = await pattern(40);
  expect([text.startsWith("w"), text.includes(".")]).toEqual([true, true]);
});

describe("in the producer", () => {
  const LIMITS = { maxQueued: 0, idempotencyTtlMs: 1_000, failureTtlMs: 1_000 };
  /** Redis, as far as a submit needs it; a call is answered when the test says so. */
  const calls: { jobs: number; answer: () => void }[] = [];
  const redis = {
    lh_submit: (_root: string, _max: number, _ttl: number, ...values: string[]) =>
      new Promise((done) => calls.push({ jobs: (values.length - 1) / 2, answer: () => done(0) })), // one run of them
  } as unknown as Connection;
  let producer: Producer;
  const submit = (count: number, payload = "{}") =>
    Array.from({ length: count }, () =>
      producer.submit({ id: newJobId("noop" as ServiceName), operation: "noop", payload }),
    );
  const sent = async (count: number) => {
    await until(async () => calls.length === count);
    return calls[count - 1] as (typeof calls)[number];
  };
  const next = spyOn(Gathering.prototype, "next");
  const came = spyOn(Gathering.prototype, "came");
  beforeEach(() => {
    calls.length = 0;
    next.mockClear();
    came.mockClear();
    producer = new Producer(redis, LIMITS);
  });
  afterAll(() => {
    next.mockRestore();
    came.mockRestore();
  });

  test("it is told of each job that comes, and of each call that was answered", async () => {
    const first = submit(20);
    const call = await sent(1);
    const second = submit(3);
    expect(came.mock.calls.slice(-3)).toEqual([[1], [2], [3]]);
    call.answer();
    await Promise.all(first);
    await until(async () => next.mock.calls.length === 1);
    expect(next.mock.calls).toEqual([[20, 3]]);
    const more = submit(7);
    const { jobs, answer } = await sent(2);
    expect(jobs).toBeGreaterThan(2); // those that waited, with those that came in time
    answer();
    if (jobs < 10) (await sent(3)).answer();
    await Promise.all([...second, ...more]);
  });

  test("a call that left jobs behind, for their number or their bytes, is not waited after", async () => {
    const many = submit(BATCH_JOBS + 30);
    (await sent(1)).answer();
    (await sent(2)).answer();
    await Promise.all(many);
    const large = submit(20, "x".repeat(BATCH_BYTES / 10));
    (await sent(3)).answer();
    (await sent(4)).answer();
    await Promise.all(large);
    await until(async () => next.mock.calls.length === 4);
    expect(next.mock.calls.map(([answered]) => answered)).toEqual([0, 30, 0, 10]);
  });
});

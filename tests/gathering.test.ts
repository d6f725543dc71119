/** When the next submits go to Redis: at once while there is little to do, with those who ask again while there is much. */
import { beforeEach, expect, test } from "bun:test";
import { setImmediate } from "node:timers/promises";
import { Gathering } from "../shared/store/gathering.ts";

/** The process's CPU time, as the test has it: of each wait all, or nothing. */
let at: "work" | "rest";
let asked = 0;
const used = () => {
  const end = asked++ % 2 === 1;
  return end && at === "work" ? 1e9 : 0;
};
let gathering: Gathering;
beforeEach(() => {
  [at, asked] = ["work", 0];
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
  gathering.came(4);
  await eight.next;
});

test("it goes when half as many more have come as were answered, and not before", async () => {
  const { next, gone } = await waits(25, 20);
  for (const waiting of [21, 30, 32]) {
    gathering.came(waiting);
    await setImmediate();
    expect([waiting, gone()]).toEqual([waiting, false]);
  }
  gathering.came(33);
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

test("when nobody comes it goes after its time, and who comes later does not disturb the next", async () => {
  gathering = new Gathering(256, 30, used);
  const since = performance.now();
  await gathering.next(20, 0);
  expect(performance.now() - since).toBeGreaterThan(28);
  gathering.came(500);
  expect((await waits(20, 0)).waits).toBe(true);
});

test("a process that rests while it waits stops waiting, and tries again after sixteen calls", async () => {
  at = "rest";
  let waited = 0;
  for (; waited < 20; waited++) {
    const { waits: held, next } = await waits(20, 0);
    if (!held) break;
    gathering.came(10);
    await next;
  }
  expect([waited > 0, waited < 20]).toEqual([true, true]); // one wait at rest is no reason yet
  let atOnce = 1;
  for (; atOnce < 20; atOnce++) {
    const { waits: held, next } = await waits(20, 0);
    if (!held) continue;
    gathering.came(10);
    await next;
    break;
  }
  expect(atOnce).toBe(16);
});

test("a process that works while it waits goes on waiting", async () => {
  for (let calls = 0; calls < 40; calls++) {
    const { waits: held, next } = await waits(20, 0);
    expect([calls, held]).toEqual([calls, true]);
    gathering.came(10);
    await next;
  }
});

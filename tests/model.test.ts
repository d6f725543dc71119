/**
 * Every verb in any order against a real Redis, with replies that are lost and scripts that are sent twice, workers
 * that die and clocks that jump; the invariants are looked at after each step. Reproduce a failure with its seed:
 *
 *   MODEL_SEED=123 MODEL_RUNS=500 bun test tests/model.test.ts
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import fc from "fast-check";
import { COMMANDS } from "./model/commands.ts";
import { World } from "./model/world.ts";
import { startStore, type TestStore } from "./support/store.ts";

const seed = Number(process.env.MODEL_SEED ?? Math.floor(Math.random() * 2 ** 31));
const numRuns = Number(process.env.MODEL_RUNS ?? 500);

let s: TestStore;
beforeAll(async () => {
  s = await startStore({ appendonly: "no", dir: "/tmp" });
});
afterAll(() => s?.stop());

test("the model: nothing is lost, nothing ends twice, nothing is left, whatever comes in whatever order", async () => {
  console.log(`model: ${numRuns} runs of up to 60 commands, MODEL_SEED=${seed}`);
  let steps = 0;
  const property = fc.asyncProperty(fc.commands(COMMANDS, { maxCommands: 60, size: "max" }), async (commands) => {
    await s.clear();
    const world = new World(s);
    await fc.asyncModelRun(() => ({ model: {}, real: world }), commands);
    steps += [...commands].length;
    await world.settleAll();
  });
  await fc.assert(property, { seed, numRuns, interruptAfterTimeLimit: 240_000 });
  console.log(`model: ${steps} steps`);
  expect(steps).toBeGreaterThan(numRuns);
}, 300_000);

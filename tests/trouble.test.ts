/** Redis in trouble: what clients are told, and that jobs outlive it. */
import { afterEach, expect, test } from "bun:test";
import { type Stack, type StackOptions, startStack, until } from "./support/stack.ts";

let stack: Stack;
afterEach(() => stack?.stop());
const start = async (options: StackOptions = {}) => {
  stack = await startStack(options);
  return stack;
};
/** Submits until it is accepted. @returns the id */
async function submitted(payload: unknown, ms = 10_000): Promise<string> {
  let id = "";
  await until(async () => {
    const response = await stack.post("/work", payload);
    const body = (await response.json()) as { job_id: string };
    if (response.status === 202) id = body.job_id;
    return response.status === 202;
  }, ms);
  return id;
}

test("an idle lane takes again after Redis was away", async () => {
  await start();
  await stack.ended(await submitted({}));
  for (let i = 0; i < 2; i++) {
    await Bun.sleep(500); // the lane waits in BLMOVE
    await stack.redis.kill9();
    await Bun.sleep(300);
    await stack.redis.restart();
    expect((await stack.ended(await submitted({}), 8_000)).status).toBe("finished");
  }
}, 40_000);

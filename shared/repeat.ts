import type { Log } from "./log.ts";
import { logText } from "./store/redis.ts";

/** Runs `step` until `over`, `everyMs` apart with jitter, whatever happens to it. */
export async function repeat(
  name: string,
  everyMs: number,
  step: () => Promise<void>,
  log: Log,
  over: () => boolean,
): Promise<void> {
  let failing = false;
  while (!over()) {
    try {
      await step();
      failing = false;
    } catch (error) {
      if (!failing) log.warn("task failed; trying on", { task: name, error: logText(error) });
      failing = true;
    }
    await new Promise<void>((next) => setTimeout(next, everyMs * (0.75 + Math.random() / 2)));
  }
}

/** What every clock is given. A clock keeps no job in memory: each step may run on any process, or on two at once. */
import type { History } from "../board/history.ts";
import type { Config } from "../config.ts";
import type { Connection } from "../script.ts";
import type { Snapshots } from "../snapshot.ts";
import type { Maintainer } from "../store/maintain.ts";
import type { Watch } from "../watch.ts";

/** What gateways have, too. */
export type EveryContext = {
  redis: Connection;
  snapshots: Snapshots;
  history: History;
  config: Config;
  log(line: string): void;
};

export type ClockContext = {
  maintainer: Maintainer;
  config: Config;
  /** whether this process may judge others dead */
  watch: Pick<Watch, "look">;
  log(line: string): void;
};

export type Clock<C = ClockContext> = {
  name: string;
  everyMs: (config: Config) => number;
  step(context: C): Promise<void>;
};

/** Runs `step` until `over`, `everyMs` apart with jitter, whatever happens to it. */
export async function repeat(
  name: string,
  everyMs: number,
  step: () => Promise<void>,
  log: (line: string) => void,
  over: () => boolean,
): Promise<void> {
  let failing = false;
  while (!over()) {
    try {
      await step();
      failing = false;
    } catch (error) {
      if (!failing) log(`${name}: ${(error as Error).message}; trying on`);
      failing = true;
    }
    await new Promise<void>((next) => setTimeout(next, everyMs * (0.75 + Math.random() / 2)));
  }
}

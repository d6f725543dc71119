/** What every clock is given. A clock keeps no job in memory: each step may run on any worker, or on two at once. */
import type { Config } from "../config.ts";
import type { Maintainer } from "../store/maintain.ts";
import type { Watch } from "../watch.ts";

export type ClockContext = {
  maintainer: Maintainer;
  config: Config;
  /** whether this process may judge others dead */
  watch: Pick<Watch, "look">;
  log(line: string): void;
};

export type Clock = { name: string; everyMs: (config: Config) => number; step(context: ClockContext): Promise<void> };

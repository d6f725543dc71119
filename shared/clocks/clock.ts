/** What every clock is given. A clock keeps no job in memory: each step may run on any worker, or on two at once. */
import type { Config } from "../config.ts";
import type { Consumer } from "../store/consume.ts";

export type ClockContext = {
  consumer: Consumer;
  config: Config;
  /**
   * Whether this process may judge others dead: a full lease of its own unbroken beats has passed (rule 4),
   * so neither an outage of Redis nor one of ours looks like everybody's death.
   */
  mayReap(): boolean;
  log(line: string): void;
};

export type Clock = { name: string; everyMs: number; step(context: ClockContext): Promise<void> };

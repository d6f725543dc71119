/** What every clock is given. A clock keeps no job in memory: each step may run on any process, or on two at once. */
import type { History } from "../board/history.ts";
import type { Config } from "../config.ts";
import type { Log } from "../log.ts";
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
  log: Log;
};

export type ClockContext = {
  maintainer: Maintainer;
  config: Config;
  /** whether this process may judge others dead */
  watch: Pick<Watch, "look">;
  log: Log;
};

export type Clock<C = ClockContext> = {
  name: string;
  everyMs: (config: Config) => number;
  step(context: C): Promise<void>;
};

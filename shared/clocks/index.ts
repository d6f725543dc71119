/** The clocks that every worker runs, for all services; and those that gateways run, too. There is no leader to lose. */
import { alerts } from "./alerts.ts";
import { batches } from "./batches.ts";
import { bulk } from "./bulk.ts";
import type { Clock, EveryContext } from "./clock.ts";
import { outbox } from "./outbox.ts";
import { promote } from "./promote.ts";
import { reap } from "./reap.ts";
import { strays } from "./strays.ts";
import { sweep } from "./sweep.ts";

export const clocks: Clock[] = [promote, reap, sweep, strays, bulk, batches, outbox];
export const everywhere: Clock<EveryContext>[] = [alerts];

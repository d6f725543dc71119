/** The clocks that every worker runs, for all services. There is no leader to lose. */
import { batches } from "./batches.ts";
import { bulk } from "./bulk.ts";
import type { Clock } from "./clock.ts";
import { outbox } from "./outbox.ts";
import { promote } from "./promote.ts";
import { reap } from "./reap.ts";
import { sweep } from "./sweep.ts";

export const clocks: Clock[] = [promote, reap, sweep, bulk, batches, outbox];

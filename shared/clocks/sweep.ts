import { rm } from "node:fs/promises";
import { resultDir, TERMINAL } from "../jobs.ts";
import type { Clock } from "./clock.ts";

const SLICE = 500;
/** Where each walk stands, by service and index. Losing it costs a walk from the start, nothing else. */
const offsets = new Map<string, number>();

/**
 * Strikes expired jobs from the ended indexes with their result files, and lets go of canceled jobs that are still
 * listed. Each step looks at one slice at the old end, where most expire, and at one further on, since records
 * may have lives of their own.
 */
export const sweep: Clock = {
  name: "sweep",
  everyMs: () => 5_000,
  async step({ maintainer, config }) {
    for (const service of await maintainer.services()) {
      for (const state of TERMINAL) {
        const place = `${service} ${state}`;
        const slice = async (offset: number) => {
          const { seen, gone } = await maintainer.expired(service, state, offset);
          // Files first: a crash in between leaves an entry to be swept again, and never an orphaned file.
          if (state === "finished") {
            await Promise.all(gone.map((id) => rm(resultDir(config.resultsDir, id), { force: true, recursive: true })));
          }
          if (gone.length > 0) await maintainer.strike(service, state, gone);
          return { seen, gone: gone.length };
        };
        let rounds = 0;
        while ((await slice(0)).gone === SLICE && ++rounds < 100);
        const offset = offsets.get(place) ?? SLICE;
        const { seen, gone } = await slice(offset);
        offsets.set(place, seen < SLICE ? SLICE : offset + seen - gone);
      }
      if ((await maintainer.ghosts(service)) <= 0) continue;
      for (const list of ["ready", "shelf"] as const) {
        const place = `${service} ${list}`;
        const offset = offsets.get(place) ?? 0;
        const { seen } = await maintainer.sweepGhosts(service, list, offset);
        offsets.set(place, seen < SLICE ? 0 : offset + seen);
      }
    }
  },
};

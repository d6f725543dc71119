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
          const { looked, jobs, gone, entries } = await maintainer.expired(service, state, offset);
          // Files first: a crash in between leaves an entry to be swept again, and never an orphaned file.
          if (state === "finished") {
            await Promise.all(gone.map((id) => rm(resultDir(config.resultsDir, id), { force: true, recursive: true })));
          }
          const { went } = entries.length ? await maintainer.strike(service, state, entries) : { went: 0 };
          return { jobs, gone: gone.length, stayed: looked - went, went };
        };
        let old = await slice(0);
        let went = old.went;
        for (let rounds = 0; old.gone >= SLICE && rounds < 100; rounds++) {
          old = await slice(0);
          went += old.went;
        }
        // Goes on behind the first slice where it was, or begins anew there when it has come to the newest. What others
        // strike meanwhile lets it pass over as many, until it comes again.
        const offset = Math.max((offsets.get(place) ?? 0) - went, old.stayed);
        const far = await slice(offset);
        offsets.set(place, far.jobs < SLICE ? 0 : offset + far.stayed);
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

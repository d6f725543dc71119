import { rm } from "node:fs/promises";
import { type JobId, resultDir, TERMINAL } from "../jobs.ts";
import { whyNotWritten } from "../result-file.ts";
import type { Clock } from "./clock.ts";

const SLICE = 500;
/** Slices of one step at most, as long as they have expired; and of the second walk while it finds nothing: 0.3 ms of Redis each. */
const ROUNDS = 100;
const FAR_LOOKS = 4;
/** Where each walk stands, by service and index. Losing it costs a walk from the start, nothing else. */
const offsets = new Map<string, number>();

/**
 * Strikes expired jobs from the ended indexes with their result files, and lets go of canceled jobs that are still
 * listed. Each step looks at one slice at the old end, where most expire, and at some further on, since records
 * may have lives of their own; and at more of them where it finds what has expired.
 */
export const sweep: Clock = {
  name: "sweep",
  everyMs: () => 5_000,
  async step({ maintainer, config, log }) {
    for (const service of await maintainer.services()) {
      for (const state of TERMINAL) {
        const place = `${service} ${state}`;
        const slice = async (offset: number) => {
          const { looked, jobs, gone, entries } = await maintainer.expired(service, state, offset);
          // Files first: a crash in between leaves an entry to be swept again, and never an orphaned file. Whatever its end was, a
          // job may have files: an unreadable answer, or the result of an attempt that was canceled or lost its lease.
          const kept = new Set<string>();
          const remove = (id: JobId) =>
            rm(resultDir(config.resultsDir, id), { force: true, recursive: true }).catch((error) => {
              if (kept.size === 0)
                log.warn("result files cannot be removed; tried again", { error: whyNotWritten(error) });
              kept.add(id);
            });
          await Promise.all(gone.map(remove));
          const clean =
            kept.size > 0 ? entries.filter((entry) => !entry.split(" ").some((id) => kept.has(id))) : entries;
          const { went } = clean.length ? await maintainer.strike(service, state, clean) : { went: 0 };
          return { jobs, gone: gone.length, stayed: looked - went, went };
        };
        let old = await slice(0);
        let went = old.went;
        for (let rounds = 0; old.gone >= SLICE && rounds < ROUNDS; rounds++) {
          old = await slice(0);
          went += old.went;
        }
        // Goes on behind the first slice where it was, or begins anew there when it has come to the newest. What others
        // strike meanwhile lets it pass over as many, until it comes again.
        let offset = Math.max((offsets.get(place) ?? 0) - went, old.stayed);
        let far = old;
        for (let looks = 0; looks < (far.gone > 0 ? ROUNDS : FAR_LOOKS) && far.jobs >= SLICE; looks++) {
          far = await slice(offset);
          offset += far.stayed;
        }
        offsets.set(place, far.jobs < SLICE ? 0 : offset);
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

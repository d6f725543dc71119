import { serviceName } from "../jobs.ts";
import { sweepStrays } from "../result-file.ts";
import { MAX_DURATION_MS } from "../units.ts";
import type { Clock } from "./clock.ts";

/** Older than the longest life that a record may have (RESULT_TTL, FAILURE_TTL and `result_ttl` end at 30 d), and a day more. */
export const STRAY_AGE_MS = MAX_DURATION_MS + 86_400_000;

/** Removes result files whose job nobody knows any more: of a worker that was killed, of an emptied Redis (docs/operating.md). */
export const strays: Clock = {
  name: "strays",
  everyMs: () => 3_600_000,
  async step({ maintainer, config, log }) {
    const known = (service: string, ids: string[]) => maintainer.known(serviceName(service), ids);
    const removed = await sweepStrays(config.resultsDir, known, STRAY_AGE_MS);
    if (removed > 0) log.info("result files without a job removed from RESULTS_DIR", { files: removed });
  },
};

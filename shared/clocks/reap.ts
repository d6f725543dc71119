import type { Clock } from "./clock.ts";

/** Takes back what dead workers hold, and overrules jobs that overran their deadline (rules 4, 5 and 7). */
export const reap: Clock = {
  name: "reap",
  everyMs: ({ leaseMs }) => Math.min(2_000, leaseMs / 5), // the watch takes a longer pause for an outage
  async step({ maintainer, config, watch, log }) {
    for (const service of await maintainer.services()) {
      const ops = config.registry.services.get(service);
      if (!ops) continue; // whether its operations may run twice is known only where they are configured
      const { now, workers } = await maintainer.leased(service);
      if (!watch.look(service, now, performance.now())) continue;
      const once = ops.filter((op) => op.onOrphan === "fail").map((op) => op.name);
      const rules = { leaseMs: config.leaseMs, ttlMs: config.failureTtlMs, once, seen: now };
      for (const worker of workers) {
        // Bounded: a hundred jobs a call, and as long as it brings something.
        for (let round = 0; round < 1_000; round++) {
          const [back, failed, left, ended] = await maintainer.reap(service, worker, rules);
          for (let i = 0; i < ended.length; i += 4) {
            const [job, operation, attempt, outcome] = ended.slice(i, i + 4);
            const fields = { job, operation, service, attempt: Number(attempt), lost_worker: worker };
            if (outcome === "redelivered") log.warn("job is redelivered: its worker is gone", fields);
            else if (outcome === "canceled") log.info("job canceled: its worker is gone", fields);
            else log.warn("job failed: its worker is gone or late", { ...fields, code: outcome });
          }
          if (left <= 0 || back + failed === 0) break;
        }
      }
    }
  },
};

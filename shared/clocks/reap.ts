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
          const [back, failed, left] = await maintainer.reap(service, worker, rules);
          if (back + failed > 0)
            log(`${service}: worker ${worker} is gone or late; ${back} handed on, ${failed} failed`);
          if (left <= 0 || back + failed === 0) break;
        }
      }
    }
  },
};

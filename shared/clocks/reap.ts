import type { Clock } from "./clock.ts";

/** Takes back what dead workers hold, and overrules jobs that overran their deadline (rules 4, 5 and 7). */
export const reap: Clock = {
  name: "reap",
  everyMs: 2_000,
  async step({ consumer, config, mayReap, log }) {
    if (!mayReap()) return;
    for (const service of await consumer.services()) {
      const ops = config.registry.services.get(service);
      if (!ops) continue; // whether its operations may run twice is known only where they are configured
      const once = ops.filter((op) => op.onOrphan === "fail").map((op) => op.name);
      for (const worker of await consumer.leased(service)) {
        // Bounded: a hundred jobs a call, and as long as it brings something.
        for (let round = 0; round < 1_000; round++) {
          const [back, failed, left] = await consumer.reap(service, worker, config.leaseMs, config.failureTtlMs, once);
          if (back + failed > 0)
            log(`${service}: worker ${worker} is gone or late; ${back} handed on, ${failed} failed`);
          if (left <= 0 || back + failed === 0) break;
        }
      }
    }
  },
};

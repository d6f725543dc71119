import { Operator } from "../store/operate.ts";
import type { Clock } from "./clock.ts";

/** Carries out what operators asked for on many jobs: emptied queues and bulk actions (rule 11). */
export const bulk: Clock = {
  name: "bulk",
  everyMs: () => 1_000,
  async step({ maintainer, config }) {
    const operator = new Operator(maintainer.redis, config.failureTtlMs);
    // each service gets its share of every round, however much another one has to do
    const services = await maintainer.services();
    for (const service of services) await operator.carryOut(service, 500);
    await operator.closeAudit(services);
  },
};

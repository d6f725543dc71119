import { Batches } from "../store/batches.ts";
import type { Clock } from "./clock.ts";

/** Releases accepted batches and erases given up ones, where the gateway that staged them could not (protocol.md §6). */
export const batches: Clock = {
  name: "batches",
  everyMs: () => 2_000,
  async step({ maintainer, config }) {
    const all = new Batches(maintainer.redis, config);
    for (const service of await maintainer.services()) await all.tidy(service);
  },
};

import type { Clock } from "./clock.ts";

/** Queues scheduled jobs that are due. Looks again when the next one is due, within a second at the latest. */
export const promote: Clock = {
  name: "promote",
  everyMs: () => 500,
  async step({ maintainer }) {
    for (const service of await maintainer.services()) {
      let promoted = 0;
      do [promoted] = await maintainer.promote(service);
      while (promoted === 100);
    }
  },
};

import type { Clock } from "./clock.ts";

/** Queues scheduled jobs that are due. Looks again when the next one is due, within a second at the latest. */
export const promote: Clock = {
  name: "promote",
  everyMs: () => 500,
  async step({ consumer }) {
    for (const service of await consumer.services()) {
      let promoted = 0;
      do [promoted] = await consumer.promote(service);
      while (promoted === 100);
    }
  },
};

import type { BatchId, ServiceName } from "../jobs.ts";
import { Batches } from "../store/batches.ts";
import { type Effect, Outbox } from "../store/outbox.ts";
import type { Clock, ClockContext } from "./clock.ts";

/** ms that a clock has for one effect before another clock may do it. Longer than any delivery takes. */
const LEASE_MS = 60_000;
const MOST = 100;

/** Delivers the effects of ended jobs: news for a batch's record. */
export const outbox: Clock = {
  name: "outbox",
  everyMs: () => 500,
  async step(context) {
    const box = new Outbox(context.consumer.redis);
    for (const service of await context.consumer.services()) {
      const effects = await box.lease(service, LEASE_MS, MOST);
      await Promise.all(effects.map((effect) => deliver(context, box, service, effect)));
    }
  },
};

async function deliver({ consumer, config }: ClockContext, box: Outbox, service: ServiceName, effect: Effect) {
  const [kind, id = ""] = effect.entry.split(" ");
  if (kind !== "b") return;
  await new Batches(consumer.redis, config).note(service, id as BatchId);
  await box.done(service, effect);
}

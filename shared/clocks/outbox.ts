import { callbackBackoffMs, sendCallback } from "../callback.ts";
import { type BatchId, isTerminal, type JobId, type ServiceName } from "../jobs.ts";
import { NO_ESTIMATES, recordText } from "../show.ts";
import { Batches } from "../store/batches.ts";
import { Inspector } from "../store/inspect.ts";
import { type Effect, Outbox } from "../store/outbox.ts";
import { logText } from "../store/redis.ts";
import type { Clock, ClockContext } from "./clock.ts";

/** Effects that one process has in hand at once. */
const MOST = 64;
/** ms that a process without WEBHOOK_SECRET leaves a callback to another. */
const NOT_MINE_MS = 5_000;
let inHand = 0;
let told = false;

/**
 * Delivers the effects of ended jobs: callbacks, and news for a batch's record. A step does not wait for deliveries,
 * so that a receiver that hangs keeps nobody else waiting. A process that dies leaves its leases to run out.
 */
export const outbox: Clock = {
  name: "outbox",
  everyMs: () => 500,
  async step(context) {
    const { maintainer, config, log } = context;
    const box = new Outbox(maintainer.redis);
    // longer than any delivery takes, so that nobody else sends it while it is under way
    const leaseMs = 60_000 + 2 * config.callbackTimeoutMs;
    for (const service of await maintainer.services()) {
      const room = MOST - inHand;
      if (room <= 0) return;
      for (const effect of await box.lease(service, leaseMs, room)) {
        inHand++;
        deliver(context, box, service, effect)
          .catch((error) =>
            log.warn("outbox entry failed; tried again in a minute", {
              service,
              entry: effect.entry,
              error: logText(error),
            }),
          )
          .finally(() => inHand--);
      }
    }
  },
};

async function deliver(context: ClockContext, box: Outbox, service: ServiceName, effect: Effect): Promise<void> {
  const [kind, id = ""] = effect.entry.split(" ");
  if (kind === "c") return callBack(context, box, service, effect, id as JobId);
  if (kind === "b") {
    await new Batches(context.maintainer.redis, context.config).note(service, id as BatchId);
    await box.done(service, effect);
    return;
  }
  // A newer version wrote it: it is owed, and left to a process that knows its kind.
  await box.again(service, effect, NOT_MINE_MS);
}

async function callBack(
  { maintainer, config, log }: ClockContext,
  box: Outbox,
  service: ServiceName,
  effect: Effect,
  id: JobId,
) {
  if (config.webhookSecrets.length === 0) {
    if (!told) log.warn("callbacks wait: this worker has no WEBHOOK_SECRET");
    told = true;
    await box.again(service, effect, NOT_MINE_MS);
    return;
  }
  const record = await new Inspector(maintainer.redis).record(id);
  const url = record?.options.callback;
  if (!record || !url || !isTerminal(record.state) || record.ended === undefined) {
    await box.done(service, effect); // expired, or it runs anew: its next end is told
    return;
  }
  const earlier = (await box.deliveries(id)).find((line) => line.rev === record.rev);
  const tries = (earlier?.try ?? 0) + 1;
  const text = recordText(record, NO_ESTIMATES, config.basePath);
  const sent = await sendCallback(url, `${id}.${record.rev}`, text, effect.now(), config);
  const delayMs = Math.max(callbackBackoffMs(tries), sent.retryAfterMs ?? 0);
  const over = sent.ok || sent.final || effect.now() + delayMs > record.ended + config.callbackRetryMs;
  const { status, error, ms } = sent;
  const line = {
    at: effect.now(),
    rev: record.rev,
    try: tries,
    ok: sent.ok,
    ms,
    ...(status ? { status } : {}),
    ...(error ? { error } : {}),
  };
  await box.tried(id, effect, over ? -1 : delayMs, over && !sent.ok ? { ...line, gaveUp: true } : line);
  if (!sent.ok || log.on("debug")) {
    const fields = { job: id, try: tries, status, ms, error, ...(over ? {} : { delay_ms: Math.round(delayMs) }) };
    if (sent.ok) log.debug("callback delivered", fields);
    else if (over) log.warn("callback given up", fields);
    else log.info("callback failed; tried again", fields);
  }
}

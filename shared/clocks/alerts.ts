import { type AlertEvent, conditions, judge, nameOf } from "../alerts.ts";
import { sendCallback } from "../callback.ts";
import type { Config } from "../config.ts";
import { AlertStore, type AlertTry } from "../store/alerts.ts";
import { logText } from "../store/redis.ts";
import type { Clock, EveryContext } from "./clock.ts";

/** ms between two looks at the rules, by whichever process it is: several within ALERT_HOLD, where that is short. */
const lookMs = ({ alerts }: Config) => Math.min(2_000, Math.max(250, alerts.holdMs / 4));
/** Deliveries that one process has in hand at once. */
const MOST = 8;
/** ms beyond the longest try after which another process tries. */
const SLACK_MS = 10_000;
const FIRST_MS = 5_000;
const LONGEST_MS = 5 * 60_000;
let inHand = 0;

/**
 * Looks at the alert rules and tells ALERT_WEBHOOK what flipped. Workers and gateways run it, since a rule is for the
 * case that there is no worker. Without ALERT_WEBHOOK it does nothing; GET /alerts looks for itself.
 */
export const alerts: Clock<EveryContext> = {
  name: "alerts",
  everyMs: (config) => lookMs(config) / 2,
  async step(context) {
    const url = context.config.alertWebhook;
    if (url === undefined) return;
    const store = new AlertStore(context.redis);
    await tell(context, store, url);
    await look(context, store);
  },
};

async function look({ config, snapshots, history }: EveryContext, store: AlertStore): Promise<void> {
  const turn = await store.turn(lookMs(config));
  if (!turn) return;
  const [snapshot, hours] = await Promise.all([snapshots.get(), history.lastHour()]);
  const changes = conditions(snapshot, hours, config.alerts).flatMap((condition) => {
    const seen = turn.states.get(nameOf(condition)) ?? "";
    return judge(condition, seen, turn.now, config.alerts.holdMs) ?? [];
  });
  await store.change(changes);
}

/** A step does not wait for its deliveries. A process that dies leaves its leases to run out. */
async function tell(context: EveryContext, store: AlertStore, url: string): Promise<void> {
  if (inHand >= MOST) return;
  const leaseMs = context.config.callbackTimeoutMs + SLACK_MS;
  for (const leased of await store.lease(leaseMs, MOST - inHand)) {
    inHand++;
    deliver(context, store, url, leased)
      .catch((error) => context.log.warn("alert not sent; tried again", { rule: leased.rule, error: logText(error) }))
      .finally(() => inHand--);
  }
}

type Leased = Awaited<ReturnType<AlertStore["lease"]>>[number];

async function deliver({ config, log }: EveryContext, store: AlertStore, url: string, { rule, due, now }: Leased) {
  const text = await store.oldest(rule);
  if (text === "") {
    await store.settle(rule, due, -1, "");
    return;
  }
  const event = JSON.parse(text) as AlertEvent;
  // The operator's own URL, so it may be private. A redirect is not followed all the same.
  const sent = await sendCallback(url, event.id, text, now(), { ...config, callbackAllow: () => true });
  const ageMs = now() - Date.parse(event.timestamp);
  // as long again as it has waited: that doubles, and needs no counter
  const nextMs = Math.min(Math.max(FIRST_MS, ageMs), LONGEST_MS) * (0.9 + Math.random() / 5);
  const delayMs = Math.max(nextMs, Math.min(sent.retryAfterMs ?? 0, 12 * LONGEST_MS));
  const over = sent.ok || sent.final || ageMs + delayMs > config.callbackRetryMs;
  const line: AlertTry = {
    ...{ at: now(), ok: sent.ok, id: event.id, text: event.data.text },
    ...(sent.status ? { status: sent.status } : {}),
    ...(sent.error ? { error: sent.error } : {}),
    ...(over && !sent.ok ? { gaveUp: true } : {}),
  };
  if (line.gaveUp) log.warn("alert given up", { rule, alert: event.data.text, status: sent.status, error: sent.error });
  await store.settle(rule, due, over ? -1 : delayMs, text, line);
}

/** GET /alerts: the rules as they stand, and what was told of them. */
import { type Condition, conditions, firesNow, nameOf, stateOf } from "../alerts.ts";
import { allow, type Gateway, jsonText, newApp } from "../app.ts";
import { iso } from "../show.ts";
import { AlertStore, type AlertTry } from "../store/alerts.ts";

export function alerts(gateway: Gateway) {
  const { config, inspector, snapshots, history } = gateway;
  const store = new AlertStore(inspector.redis);
  const sends = config.alertWebhook !== undefined;
  const app = newApp();
  app.get("/alerts", async (c) => {
    allow(gateway, c, "read");
    const [snapshot, hours, { states, tries }] = await Promise.all([
      snapshots.get(),
      history.lastHour(),
      inspector.ask(() => store.known()),
    ]);
    const rules = conditions(snapshot, hours, config.alerts)
      .filter(({ off }) => !off)
      .map((condition) => ({ condition, ...standing(condition, states, snapshot.at) }))
      .filter(({ condition, firing }) => firing || !condition.idle)
      .sort((a, b) => Number(b.firing) - Number(a.firing));
    const body = {
      sends,
      rules: rules.map(({ condition, firing, since }) => ({
        ...{ rule: condition.rule, service: condition.service ?? null, firing, since: iso(since) },
        text: condition.text(since === undefined ? 0 : Math.max(0, snapshot.at - since)),
        value: condition.value ?? null,
        threshold: condition.threshold,
      })),
      deliveries: tries.map(told),
    };
    return jsonText(JSON.stringify(body), 200, { "cache-control": "private, no-cache" });
  });

  /** As the clocks have it; where they keep nothing, because nobody is told, as the figures are at this moment. */
  function standing(condition: Condition, states: Map<string, string>, now: number) {
    if (!sends) {
      const firing = firesNow(condition, now);
      return { firing, since: firing ? condition.since : undefined };
    }
    const { firing, since } = stateOf(states.get(nameOf(condition)));
    return { firing, since: since || undefined };
  }
  return app;
}

const told = ({ at, ok, id, text, status, error, gaveUp }: AlertTry) => ({
  ...{ at: iso(at), ok, webhook_id: id, status: status ?? null },
  text: ok ? text : `${text} — not taken: ${error}${gaveUp ? "; given up" : "; tried again"}`,
});

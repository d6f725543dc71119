/** States of the alert rules, and flips that wait for delivery. One slot, so that a flip and its news are one step. */
import { alertKeys, alertsRoot } from "../keys.ts";
import { type Connection, script } from "../script.ts";
import { type Effect, leasedOf, leaseScript } from "./outbox.ts";

const turnScript = script<{ every: "int" }, [] | [now: number, flat: string[]]>("alert-turn", { every: "int" });
const flipScript = script<{ most: "int" }, number>("alert-flip", { most: "int" }, ["rule", "seen", "state", "event"]);
const settleScript = script<{ rule: "text"; due: "int"; delay: "int"; event: "text"; line: "text" }, "ok" | "lost">(
  "alert-settle",
  { rule: "text", due: "int", delay: "int", event: "text", line: "text" },
);

/** Flips of one rule that wait for a receiver which is down. */
const MOST_FLIPS = 20;

/** One try of a delivery. */
export type AlertTry = {
  /** ms since 1970, by Redis */
  at: number;
  ok: boolean;
  /** the event's */
  id: string;
  text: string;
  status?: number;
  error?: string;
  gaveUp?: boolean;
};

export class AlertStore {
  constructor(private readonly redis: Connection) {}

  /** Takes the turn to look at the rules. @returns undefined when another process has it for this `everyMs` */
  async turn(everyMs: number): Promise<{ now: number; states: Map<string, string> } | undefined> {
    const [now, flat = []] = await turnScript(this.redis, alertsRoot(), { every: everyMs });
    if (now === undefined) return undefined;
    const states = new Map<string, string>();
    for (let i = 0; i < flat.length; i += 2) states.set(flat[i] as string, flat[i + 1] as string);
    return { now, states };
  }

  /** @returns how many of the changes were made; the others' states had changed meanwhile */
  async change(changes: { name: string; seen: string; state: string; event: string }[]): Promise<number> {
    if (changes.length === 0) return 0;
    const groups = changes.flatMap(({ name, seen, state, event }) => [name, seen, state, event]);
    return flipScript(this.redis, alertsRoot(), { most: MOST_FLIPS }, groups);
  }

  /** Takes rules whose oldest flip is to be told now; nobody else gets them for `leaseMs`. */
  async lease(leaseMs: number, most: number): Promise<(Effect & { rule: string })[]> {
    const effects = leasedOf(await leaseScript(this.redis, alertsRoot(), { lease: leaseMs, most }), leaseMs);
    return effects.map((effect) => ({ ...effect, rule: effect.entry.slice(2) }));
  }

  /** A rule's oldest flip; "" when none waits. */
  async oldest(rule: string): Promise<string> {
    return (await this.redis.lindex(alertKeys.flips(rule), 0)) ?? "";
  }

  /** @param delayMs until the next try; -1 = the flip is over. @returns see lua/alert-settle.lua */
  settle(rule: string, due: Effect["due"], delayMs: number, event: string, line?: AlertTry) {
    const text = line ? JSON.stringify(line) : "";
    return settleScript(this.redis, alertsRoot(), { rule, due, delay: Math.round(delayMs), event, line: text });
  }

  /** States by rule, and the last tries, the newest first. */
  async known(): Promise<{ states: Map<string, string>; tries: AlertTry[] }> {
    const [states, lines] = await Promise.all([
      this.redis.hgetall(alertKeys.states()),
      this.redis.lrange(alertKeys.log(), "0", "-1"),
    ]);
    return { states: new Map(Object.entries(states)), tries: lines.map((line) => JSON.parse(line) as AlertTry) };
  }
}

/**
 * The alert rules: figures in, conditions out, and what becomes of a condition that holds on. Pure.
 *
 *            holds for `forMs`              gone for `holdMs`
 *   quiet ───────────────────────▶ firing ───────────────────▶ quiet
 *     "alert.firing" is queued      │  "alert.resolved" is queued
 *                                   └─ goes on while the value is above nine tenths of its threshold
 *
 * A condition that changes its mind before that time is forgotten, so nothing flaps. Who writes the states, and how
 * two processes do not both flip one, is lua/alert-flip.lua's.
 */
import type { LastHour } from "./board/history.ts";
import type { Config } from "./config.ts";
import { blockedText, type ServiceState, type Snapshot } from "./snapshot.ts";
import { ago, jobs, percent, wait } from "./words.ts";

export const RULES = ["oldest_wait", "no_worker", "parked", "failure_rate", "memory", "results_dir"] as const;
export type Rule = (typeof RULES)[number];
export type AlertSettings = Config["alerts"];

/** Share of its threshold above which a firing alert goes on. */
const LINGER = 0.9;

/** How a rule stands for one service at one moment. */
export type Condition = {
  rule: Rule;
  /** undefined = the whole deployment */
  service: string | undefined;
  /** its threshold is 0 */
  off: boolean;
  holds: boolean;
  /** whether a firing alert would go on */
  lingers: boolean;
  /** ms that it must hold before it fires */
  forMs: number;
  /** ms since 1970, when it began as far as the figures tell it */
  since: number | undefined;
  /** seconds or a share; undefined = the seconds that it has held */
  value: number | undefined;
  /** in the same unit */
  threshold: number;
  /** a service that is not deployed is not worth a line while all is quiet */
  idle: boolean;
  /** how it stands, as a sentence. @param heldMs how long it has held */
  text(heldMs: number): string;
};

export const nameOf = ({ rule, service }: Pick<Condition, "rule" | "service">) => `${rule} ${service ?? ""}`.trimEnd();

function ofService(state: ServiceState, hour: LastHour | undefined, settings: AlertSettings): Condition[] {
  const { service, standing, counts } = state;
  const { queued, oldest, now } = counts;
  const base = { service, idle: standing.word === "not deployed" };
  const waitedMs = oldest === undefined ? 0 : Math.max(0, now - oldest);
  const waiting = `${counts.paused ? "paused, " : ""}${jobs(queued)} ${wait(queued)}`;
  const ended = (hour?.finished ?? 0) + (hour?.failed ?? 0);
  const failed = hour?.failed ?? 0;
  const share = ended === 0 ? 0 : failed / ended;
  const enough = ended >= settings.failureJobs;
  const level = (value: number, threshold: number) => ({
    ...{ value, threshold, off: threshold === 0, forMs: settings.holdMs },
    holds: threshold > 0 && value >= threshold,
    lingers: threshold > 0 && value >= LINGER * threshold,
  });
  const lasting = (holds: boolean, ms: number) => ({
    ...{ value: undefined, threshold: ms / 1_000, off: ms === 0, forMs: ms },
    ...{ holds: ms > 0 && holds, lingers: ms > 0 && holds },
  });
  const blocked = standing.word === "blocked";
  const parked = standing.word === "parked";
  return [
    {
      ...{ ...base, rule: "oldest_wait", ...level(waitedMs / 1_000, settings.oldestWaitMs / 1_000) },
      since: oldest === undefined ? undefined : oldest + settings.oldestWaitMs,
      text: () =>
        `${service}: ${oldest === undefined ? "no job waits" : `${waiting}, the oldest for ${ago(waitedMs)}`}.`,
    },
    {
      ...{ ...base, rule: "no_worker", ...lasting(blocked, settings.noWorkerMs) },
      since: blocked && standing.since !== undefined ? standing.since : oldest,
      text: (heldMs) => {
        if (!blocked) return `${service}: ${standing.text}.`;
        const { waiting, cure } = blockedText(state);
        return `${service}: ${waiting}, no worker has taken one for ${ago(heldMs)}${cure}.`;
      },
    },
    {
      ...{ ...base, rule: "parked", ...lasting(parked, settings.parkedMs), since: standing.since },
      text: () => `${service}: ${parked ? unreachable(standing.text) : standing.text}.`,
    },
    {
      ...{ ...base, rule: "failure_rate", ...level(enough ? share : 0, settings.failureRate), since: undefined },
      ...{ value: share, text: () => `${service}: ${failedOf(failed, ended)}.` },
    },
  ];
}

export const failedOf = (failed: number, ended: number) => `${failed} of ${jobs(ended)} failed in the last hour`;
/** @param text of a parked service's standing: "parked (<service> cannot be reached at <origin>: why; so many wait)" */
export const unreachable = (text: string) => {
  const [, at = "", why = text] = /^parked \((?:\S+ cannot be reached( at \S+)?: )?(.*)\)$/s.exec(text) ?? [];
  return `the microservice cannot be reached${at}${at ? ":" : "."} ${why}`;
};

function ofMemory(memory: Snapshot["memory"], { memory: threshold, holdMs }: AlertSettings): Condition {
  const value = memory && memory.limit > 0 ? memory.used / memory.limit : 0;
  return {
    ...{ rule: "memory", service: undefined, value, threshold, off: threshold === 0, idle: false, since: undefined },
    ...{
      forMs: holdMs,
      holds: threshold > 0 && value >= threshold,
      lingers: threshold > 0 && value >= LINGER * threshold,
    },
    text: () =>
      memory && memory.limit > 0
        ? `Redis has used ${percent(value)} of its memory; new jobs are refused from 80 % on.`
        : "Redis has no memory limit that could be read.",
  };
}

/** The workers that cannot write large results, in one sentence; undefined = all can. */
export function unwritable(workers: Snapshot["workers"]): string | undefined {
  const [first, ...more] = workers.flatMap(({ host, results }) => (results ? [{ host, results }] : []));
  if (!first) return undefined;
  return `${first.results} (worker on ${first.host}${more.length > 0 ? `, and ${more.length} more` : ""})`;
}

function ofResults(workers: Snapshot["workers"], { resultsDirMs }: AlertSettings): Condition {
  const text = unwritable(workers);
  const holds = resultsDirMs > 0 && text !== undefined;
  return {
    rule: "results_dir",
    service: undefined,
    value: undefined,
    threshold: resultsDirMs / 1_000,
    off: resultsDirMs === 0,
    holds,
    lingers: holds,
    forMs: resultsDirMs,
    since: undefined,
    idle: false,
    text: () => `${text ?? "Every worker can write to RESULTS_DIR"}.`,
  };
}

/** All rules for all services of this deployment; what is switched off, too. */
export const conditions = (
  snapshot: Snapshot,
  hours: Record<string, LastHour>,
  settings: AlertSettings,
): Condition[] => [
  ...snapshot.services.flatMap((state) => ofService(state, hours[state.service], settings)),
  ofResults(snapshot.workers, settings),
  ofMemory(snapshot.memory, settings),
];

/** What is remembered of a rule. Times in ms since 1970. */
export type RuleState = {
  firing: boolean;
  /** when the condition began (firing) or ended (quiet); 0 = never */
  since: number;
  /** since when the condition has been the opposite; 0 = it is not */
  turning: number;
};
const QUIET: RuleState = { firing: false, since: 0, turning: 0 };

/** As it lies in Redis: "firing 1700000000000 0". Anything else was written by nobody we know, and reads quiet. */
export function stateOf(text: string | undefined): RuleState {
  const m = /^(firing|quiet) (\d+) (\d+)$/.exec(text ?? "");
  return m ? { firing: m[1] === "firing", since: Number(m[2]), turning: Number(m[3]) } : QUIET;
}
const textOf = ({ firing, since, turning }: RuleState) => `${firing ? "firing" : "quiet"} ${since} ${turning}`;

/** What is to be written of a rule; `event` is "" unless it flips. */
export type Change = { name: string; seen: string; state: string; event: string };

/**
 * One look at a rule.
 * @param seen    what is known of it; "" = nothing yet
 * @param now     by Redis, ms
 * @param holdMs  how long a condition must be gone before the alert is over
 * @returns undefined when there is nothing to write
 */
export function judge(condition: Condition, seen: string, now: number, holdMs: number): Change | undefined {
  const before = stateOf(seen);
  const opposite = before.firing ? !condition.lingers : condition.holds;
  if (!opposite && before.turning === 0) return undefined;
  const name = nameOf(condition);
  if (!opposite) return { name, seen, state: textOf({ ...before, turning: 0 }), event: "" };
  const turning = before.turning || now;
  if (now - turning < (before.firing ? holdMs : condition.forMs)) {
    if (before.turning !== 0) return undefined;
    return { name, seen, state: textOf({ ...before, turning }), event: "" };
  }
  const after = { firing: !before.firing, since: turning, turning: 0 };
  return { name, seen, state: textOf(after), event: eventOf(condition, before, after, now) };
}

/** The body of what is sent, and what waits for delivery; docs/operating.md tells it to the receiver. */
export type AlertEvent = {
  /** the same on every try */
  id: string;
  type: "alert.firing" | "alert.resolved";
  timestamp: string;
  data: {
    rule: Rule;
    service: string | null;
    text: string;
    since: string;
    until: string | null;
    value: number;
    threshold: number;
  };
};

const iso = (ms: number) => new Date(ms).toISOString();

function eventOf(condition: Condition, before: RuleState, { firing, since }: RuleState, now: number): string {
  const { rule, service, value, threshold } = condition;
  const began = firing ? since : before.since;
  const heldMs = (firing ? now : since) - began;
  const event: AlertEvent = {
    id: `${rule}.${service ?? "all"}.${began}.${firing ? "firing" : "resolved"}`,
    type: firing ? "alert.firing" : "alert.resolved",
    timestamp: iso(now),
    data: {
      ...{ rule, service: service ?? null },
      text: firing ? condition.text(heldMs) : `Over after ${ago(heldMs)}. ${condition.text(0)}`,
      ...{ since: iso(began), until: firing ? null : iso(since) },
      ...{ value: Math.round(1_000 * (value ?? heldMs / 1_000)) / 1_000, threshold },
    },
  };
  return JSON.stringify(event);
}

/** Whether a condition counts as firing where nobody keeps states, because nobody is told. */
export const firesNow = ({ holds, value, since, forMs }: Condition, now: number) =>
  holds && (value !== undefined || since === undefined || now - since >= forMs);

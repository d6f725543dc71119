/** What needs an operator's eye, in words, the worst first. Pure: figures in, sentences out. */
import { type AlertSettings, conditions, failedOf, nameOf, type Rule, unreachable } from "../alerts.ts";
import { blockedText, type ServiceState, type Snapshot } from "../snapshot.ts";
import type { Persistence } from "../store/view.ts";
import { ago, jobs, percent, wait } from "../words.ts";
import type { LastHour } from "./history.ts";

/**
 * `rank`: 2 = work stands still or is in danger, 1 = look at it soon.
 * `jobs`: the state of the jobs that it is about. `paused`: resuming the queue puts it right.
 */
export type Attention = {
  rank: 1 | 2;
  service?: string;
  worker?: string;
  text: string;
  jobs?: "queued" | "failed";
  paused?: true;
};

const MINUTE = 60_000;
/** ms that a job may wait while all slots are busy before somebody should know. */
const LONG_WAIT_MS = 10 * MINUTE;
/** Ends in the last hour below which a share of failures says nothing. */
const FEW_ENDS = 5;
const MANY_FAILED = 0.2;

/** Whether the alert rule's condition holds: what an alert tells is urgent here, too. */
type Held = (rule: Rule) => boolean;

function ofService(state: ServiceState, hour: LastHour | undefined, held: Held): Attention[] {
  const { service, standing, counts, slots, busy } = state;
  const { queued, oldest, now } = counts;
  const since = oldest === undefined ? "" : `, the oldest for ${ago(now - oldest)}`;
  const found: Attention[] = [];
  const say = (rank: 1 | 2, text: string, more: Partial<Attention> = { jobs: "queued" }) =>
    found.push({ rank, service, text: `${service}: ${text}`, ...more });
  if (standing.word === "blocked") {
    const waited = standing.since === undefined ? since : `, the oldest for ${ago(now - standing.since)}`;
    const { waiting, cure } = blockedText(state);
    say(2, `${waiting} and no worker serves ${standing.operations ? "them" : "this queue"}${waited}${cure}.`);
  } else if (standing.word === "parked") {
    say(2, `${unreachable(standing.text)}.`);
  } else if (standing.word === "paused" && queued > 0) {
    say(held("oldest_wait") ? 2 : 1, `paused while ${jobs(queued)} ${wait(queued)}${since}.`, {
      ...{ jobs: "queued", paused: true },
    });
  } else if (oldest !== undefined && slots > 0 && (now - oldest > LONG_WAIT_MS || held("oldest_wait"))) {
    say(
      held("oldest_wait") ? 2 : 1,
      busy >= slots
        ? `all ${slots} slots are busy and ${jobs(queued)} ${wait(queued)}${since}.`
        : `${jobs(queued)} ${wait(queued)}${since}, though ${slots - busy} of ${slots} slots are free.`,
    );
  }
  const ended = (hour?.finished ?? 0) + (hour?.failed ?? 0);
  const failing = held("failure_rate");
  if (hour && (failing || (ended >= FEW_ENDS && hour.failed / ended >= MANY_FAILED))) {
    say(failing || hour.failed / ended >= 0.5 ? 2 : 1, `${failedOf(hour.failed, ended)}.`, { jobs: "failed" });
  }
  return found;
}

export function attention(
  snapshot: Snapshot,
  hours: Record<string, LastHour>,
  persistence: Persistence | undefined,
  leaseMs: number,
  settings: AlertSettings,
): Attention[] {
  const { at, memory, services, workers } = snapshot;
  const holding = new Set(
    conditions(snapshot, hours, settings)
      .filter(({ holds }) => holds)
      .map(nameOf),
  );
  const held = (service?: string) => (rule: Rule) => holding.has(nameOf({ rule, service }));
  const found = services.flatMap((state) => ofService(state, hours[state.service], held(state.service)));
  if (memory && memory.limit > 0 && (memory.used > 0.8 * memory.limit || held()("memory"))) {
    const used = percent(memory.used / memory.limit);
    found.push({ rank: 2, text: `Redis has used ${used} of its memory; new jobs are refused from 80 % on.` });
  }
  if (persistence && !persistence.appendOnly) {
    found.push({ rank: 1, text: "Redis is not append-only: a crash of its host loses jobs." });
  }
  if (persistence && !(persistence.writesWell && persistence.savesWell)) {
    found.push({ rank: 2, text: "Redis could not write to its disk; look at its log and at the free space." });
  }
  for (const { id, host, beatAt, state, results } of workers) {
    if (results) found.push({ rank: 2, worker: id, text: `Worker ${id} on ${host}: ${results}.` });
    if (at - beatAt > leaseMs / 2) {
      found.push({ rank: 1, worker: id, text: `Worker ${id} on ${host} has been silent for ${ago(at - beatAt)}.` });
    } else if (state !== "running") {
      found.push({ rank: 1, worker: id, text: `Worker ${id} on ${host} is ${state}: it takes no new jobs.` });
    }
  }
  return found.sort((a, b) => b.rank - a.rank);
}

/** What needs an operator's eye, in words, the worst first. Pure: figures in, sentences out. */
import type { ServiceState, Snapshot } from "../snapshot.ts";
import type { Persistence } from "../store/view.ts";
import type { LastHour } from "./history.ts";

/** `rank`: 2 = work stands still or is in danger, 1 = look at it soon. */
export type Attention = { rank: 1 | 2; service?: string; worker?: string; text: string };

const MINUTE = 60_000;
/** ms that a job may wait while all slots are busy before somebody should know. */
const LONG_WAIT_MS = 10 * MINUTE;
/** Ends in the last hour below which a share of failures says nothing. */
const FEW_ENDS = 5;
const MANY_FAILED = 0.2;

export const ago = (ms: number): string => {
  if (ms < 90_000) return `${Math.max(0, Math.round(ms / 1_000))} s`;
  if (ms < 90 * MINUTE) return `${Math.round(ms / MINUTE)} min`;
  if (ms < 36 * 60 * MINUTE) return `${Math.round(ms / (60 * MINUTE))} h`;
  return `${Math.round(ms / (24 * 60 * MINUTE))} d`;
};
const jobs = (n: number) => `${n} ${n === 1 ? "job" : "jobs"}`;
const wait = (n: number) => (n === 1 ? "waits" : "wait");

function ofService(state: ServiceState, hour: LastHour | undefined, now: number): Attention[] {
  const { service, standing, counts, slots, busy } = state;
  const { queued, oldest } = counts;
  const since = oldest === undefined ? "" : `, the oldest for ${ago(now - oldest)}`;
  const found: Attention[] = [];
  const say = (rank: 1 | 2, text: string) => found.push({ rank, service, text: `${service}: ${text}` });
  if (standing.word === "blocked") {
    say(2, `${jobs(queued)} ${wait(queued)} and no worker serves this queue${since}.`);
  } else if (standing.word === "parked") {
    say(2, `the microservice cannot be reached. ${standing.text.replace(/^parked \((.*)\)$/s, "$1")}.`);
  } else if (standing.word === "paused" && queued > 0) {
    say(1, `paused while ${jobs(queued)} ${wait(queued)}${since}.`);
  } else if (oldest !== undefined && slots > 0 && now - oldest > LONG_WAIT_MS) {
    say(
      1,
      busy >= slots
        ? `all ${slots} slots are busy and ${jobs(queued)} ${wait(queued)}${since}.`
        : `${jobs(queued)} ${wait(queued)}${since}, though ${slots - busy} of ${slots} slots are free.`,
    );
  }
  const ended = (hour?.finished ?? 0) + (hour?.failed ?? 0);
  if (hour && ended >= FEW_ENDS && hour.failed / ended >= MANY_FAILED) {
    say(hour.failed / ended >= 0.5 ? 2 : 1, `${hour.failed} of ${ended} jobs failed in the last hour.`);
  }
  return found;
}

export function attention(
  snapshot: Snapshot,
  hours: Record<string, LastHour>,
  persistence: Persistence | undefined,
  leaseMs: number,
): Attention[] {
  const { at, memory, services, workers } = snapshot;
  const found = services.flatMap((state) => ofService(state, hours[state.service], at));
  if (memory && memory.limit > 0 && memory.used > 0.8 * memory.limit) {
    const share = Math.round((100 * memory.used) / memory.limit);
    found.push({ rank: 2, text: `Redis has used ${share} % of its memory; new jobs are refused from 80 % on.` });
  }
  if (persistence && !persistence.appendOnly) {
    found.push({ rank: 1, text: "Redis is not append-only: a crash of its host loses jobs." });
  }
  if (persistence && !(persistence.writesWell && persistence.savesWell)) {
    found.push({ rank: 2, text: "Redis could not write to its disk; look at its log and at the free space." });
  }
  for (const { id, host, beatAt, state } of workers) {
    if (at - beatAt > leaseMs / 2) {
      found.push({ rank: 1, worker: id, text: `Worker ${id} on ${host} has been silent for ${ago(at - beatAt)}.` });
    } else if (state !== "running") {
      found.push({ rank: 1, worker: id, text: `Worker ${id} on ${host} is ${state}: it takes no new jobs.` });
    }
  }
  return found.sort((a, b) => b.rank - a.rank);
}

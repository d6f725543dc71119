/**
 * Clocks under chaos: those of the first gateway and the first worker are set by ±2 min, ±2 h and ±25 h while all else goes on.
 * What the dashboard of that gateway says must be true throughout: by Redis's clock, and with that worker in it.
 */
import { type FakeClock, fakeClock, HOUR, MINUTE } from "../support/clock.ts";
import type { Checker } from "./checker.ts";
import type { Fault } from "./faults.ts";
import type { World } from "./world.ts";

const STEPS = [2 * MINUTE, -2 * MINUTE, 2 * HOUR, -2 * HOUR, 25 * HOUR, -25 * HOUR];
/** ms that a living worker may be missing from the dashboard: a half open connection is found after 12 s */
const MISSING_MS = 25_000;
/** ms by which a state may be old: a snapshot, a tick, and a machine that is busy */
const OLD_MS = 10_000;

const clocks: FakeClock[] = [];

/** The environment of a process whose clock is to be set. */
export function clockEnv(): Record<string, string> {
  const clock = fakeClock();
  clocks.push(clock);
  return clock.env;
}

export const removeClocks = () => {
  for (const clock of clocks) clock.remove();
};

export const CLOCK_FAULT: Fault = {
  name: "clock step",
  /** never chosen where clocks cannot be set */
  get weight() {
    return clocks.length > 0 ? 2 : 0;
  },
  async run(_, random) {
    const clock = clocks[Math.floor(random() * clocks.length)];
    clock?.set(STEPS[Math.floor(random() * STEPS.length)] as number);
    await Bun.sleep(2_000 + 3_000 * random()); // the next step of either, from wherever it is then
  },
};

type State = { at: number; workers: { id: string; beatAt: number; startedAt: number }[] };

/** Looks at the dashboard every half second. @returns ends it */
export function watchClocks(world: World, boardUrl: string, checker: Checker): () => number {
  let looks = 0;
  let seenAt = performance.now();
  const judge = ({ at, workers }: State) => {
    looks++;
    const tell = (what: string, ms: number) =>
      checker.tell("a clock that was set shows", `${what} ${Math.round(ms)} ms`);
    if (Math.abs(Date.now() - at) > OLD_MS) tell("a state of", Date.now() - at);
    for (const { id, beatAt, startedAt } of workers) {
      if (beatAt - at > OLD_MS) tell(`${id}: a beat ahead by`, beatAt - at);
      if (startedAt - at > OLD_MS || at - startedAt > HOUR) tell(`${id}: a start before`, at - startedAt);
    }
    const [first] = world.workers;
    const id = /worker ready .*worker=(\w+)/.exec(first?.process.output() ?? "")?.[1];
    if (first?.stopped || id === undefined || workers.some((worker) => worker.id === id)) seenAt = performance.now();
    else if (performance.now() - seenAt > MISSING_MS) {
      tell(`no worker ${id}, which lives, for`, performance.now() - seenAt);
      seenAt = performance.now();
    }
  };
  let over = false;
  void (async () => {
    for (; !over; await Bun.sleep(500)) {
      const [asked, turns] = [performance.now(), world.gateways[0]?.turns];
      const response = await fetch(`${boardUrl}/state.json`, { signal: AbortSignal.timeout(5_000) }).catch(
        () => undefined,
      );
      const state = response?.ok ? ((await response.json().catch(() => undefined)) as State | undefined) : undefined;
      // an answer that a frozen gateway gave late was true when it was made
      const isLate = performance.now() - asked > 2_000 || world.gateways[0]?.turns !== turns;
      if (state && !isLate) judge(state);
      else seenAt = performance.now();
    }
  })();
  return () => {
    over = true;
    return looks;
  };
}

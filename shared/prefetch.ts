/**
 * Jobs that a lane has taken before a slot was free for them. Without them a slot whose call ended stands idle until the
 * next turn's answer is here: with calls of a millisecond, for a third of the time.
 *
 * Only what the slots free within AHEAD_MS is taken so, judging by the calls that ended last, and only while those were
 * short: a job must not wait behind long calls while another worker is idle. What waits for HAND_BACK_MS nevertheless goes
 * back to the queue. No more calls are made at once than there are slots.
 */
import type { Run } from "./settle.ts";

const AHEAD_MS = 8;
/** jobs a slot that may wait. Measured with 1, 3 and 4: the more may, the more share what a turn costs Redis. */
const AHEAD_JOBS = 4;
const SHORT_MS = 50;
const HAND_BACK_MS = 100;
const WINDOW_MS = 10;
/** Taken for the mean while too few calls are known: some 50 short ones lead from here to SHORT_MS. */
const UNKNOWN_MS = 1_000;

export class Prefetch {
  private readonly waiting: { run: Run; since: number }[] = [];
  private meanMs = UNKNOWN_MS;
  private perMs = 0;
  private ends = 0;
  private since = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  /** calls that are being made: at most `slots` */
  busy = 0;

  /**
   * @param slots     calls that may be made at once
   * @param allowed   else none waits ever
   * @param begin     makes the call of a job; then ended() is to be called
   * @param handBack  gets the jobs that waited for too long
   */
  constructor(
    private readonly slots: number,
    private readonly allowed: boolean,
    private readonly begin: (run: Run) => void,
    private readonly handBack: (runs: Run[]) => void,
  ) {}

  /** A call has ended. @param ms  how long it took */
  ended(ms: number): void {
    this.busy--;
    this.ends++;
    this.meanMs += (ms - this.meanMs) / 16;
  }

  /** Jobs that may wait now. */
  room(): number {
    const now = performance.now();
    if (now - this.since >= WINDOW_MS) {
      this.perMs = this.ends / (now - this.since);
      this.ends = 0;
      this.since = now;
    }
    if (!this.allowed || this.meanMs > SHORT_MS) return 0;
    return Math.min(AHEAD_JOBS * this.slots, Math.floor(AHEAD_MS * this.perMs));
  }

  /** Has nothing taken ahead until some fifty short calls more have ended. */
  forget(): void {
    this.meanMs = UNKNOWN_MS;
  }

  add(run: Run): void {
    this.waiting.push({ run, since: performance.now() });
    this.timer ??= setTimeout(() => this.look(), HAND_BACK_MS);
  }

  /** Begins the calls of what waits, as far as there are slots. @param taking  else it goes back */
  fill(taking: boolean): void {
    if (!taking) this.clear();
    while (this.busy < this.slots) {
      const run = this.waiting.shift()?.run;
      if (!run) return;
      this.busy++;
      this.begin(run);
    }
  }

  /** All that waits goes back, the newest first: so the oldest is the next to be taken. */
  clear(): void {
    const runs = this.waiting.splice(0).map(({ run }) => run);
    if (runs.length === 0) return;
    // What ended before says nothing any more: without this the turn that hands back would take one of them again.
    this.since = performance.now();
    this.ends = this.perMs = 0;
    this.handBack(runs.reverse());
  }

  private look(): void {
    this.timer = undefined;
    const [first] = this.waiting;
    if (!first) return;
    const now = performance.now();
    if (now - first.since >= HAND_BACK_MS) this.clear();
    else this.timer = setTimeout(() => this.look(), HAND_BACK_MS - (now - first.since));
  }
}

/**
 * When the next submits go to Redis. A call costs Redis as much again as ten to seventeen jobs do, and who was answered a moment ago
 * mostly asks again at once: so a busy gateway waits for some of them, as PostgreSQL does by commit_delay and commit_siblings. One
 * that rests while it waits soon stops waiting, but for a try now and then: clients from afar would only get fewer answers.
 */
import process from "node:process";
import { setImmediate } from "node:timers";

/** Fewer jobs than this in a call: there is little load, and nobody is to wait. */
const LEAST_JOBS = 8;
/** So many more, as a part of those that were answered. All of them: a tenth less for Redis, but it stands idle until the last has come. */
const SHARE = 0.75;
/** ms of a wait at most, as far as a timer of the runtime keeps them */
const MOST_MS = 2;
/** Part of the waits that the process must have been at work. Measured: 1.0 where clients ask again at once, 0.7 after 1 ms, 0.4 after 6. */
const BUSY = 0.8;
/** What a wait keeps of its weight with each that follows. */
const KEPT = 0.875;
/** Calls that go at once when it was not. */
const PAUSE_CALLS = 8;

/** ms of CPU that the process has used so far */
const cpuMs = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
};

export class Gathering {
  private wanted = 0;
  private enough: (() => void) | undefined;
  /** ms of the waits so far, and of them at work; the last ones weigh most */
  private readonly spent = { waiting: 0, working: 0 };
  private pause = 0;

  /**
   * @param mostJobs  that one call carries
   * @param mostMs    see MOST_MS; a test has time
   * @param used      ms of CPU so far
   */
  constructor(
    private readonly mostJobs: number,
    private readonly mostMs = MOST_MS,
    private readonly used = cpuMs,
  ) {}

  /** A job has come. @param waiting  how many wait by now */
  came(waiting: number): void {
    if (waiting >= this.wanted) this.enough?.();
  }

  /**
   * A call has ended, and its answers go out.
   * @param answered  jobs that it carried; 0 = it left some behind, for their number or their bytes
   * @param waiting   how many wait by now
   * @returns when the next is to go: enough have come, or mostMs are over
   */
  async next(answered: number, waiting: number): Promise<void> {
    this.wanted = Math.min(this.mostJobs, waiting + Math.ceil(answered * SHARE));
    if (answered < LEAST_JOBS || waiting >= this.wanted || this.pause-- > 0) {
      return new Promise((done) => setImmediate(done));
    }
    const [since, used] = [performance.now(), this.used()];
    await new Promise<void>((done) => {
      const timer = setTimeout(done, this.mostMs);
      this.enough = () => {
        clearTimeout(timer);
        done();
      };
    });
    this.enough = undefined;
    const waited = performance.now() - since;
    this.spent.waiting = KEPT * this.spent.waiting + waited;
    // other threads' time is told late, and then at once
    this.spent.working = KEPT * this.spent.working + Math.min(waited, this.used() - used);
    if (this.spent.working >= BUSY * this.spent.waiting) return;
    this.pause = PAUSE_CALLS;
    this.spent.waiting = this.spent.working = 0; // the next try is judged by itself
  }
}

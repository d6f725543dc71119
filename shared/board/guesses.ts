/**
 * How often an address may send a wrong key to the dashboard. A gateway counts for itself. An IPv6 customer counts by its /64: it has
 * more addresses than could ever be counted.
 */
import { subnetOf } from "../addresses.ts";
import { Fault } from "../faults.ts";

/** Wrong keys that one address may send in a minute. */
const MOST_WRONG = 10;
const WINDOW_MS = 60_000;
const MOST_ADDRESSES = 10_000;

export class Guesses {
  /** by address, oldest first */
  private readonly wrong = new Map<string, { n: number; until: number }>();

  /**
   * Asked in the same step in which a key is compared: between the two, others could pass.
   * @throws Fault rate_limited
   */
  check(ip: string): void {
    const now = performance.now();
    const tries = this.wrong.get(subnetOf(ip));
    if (!tries || tries.until <= now || tries.n < MOST_WRONG) return;
    const detail = "Too many wrong keys came from your address; wait a minute.";
    throw new Fault("rate_limited", detail, { retryAfterS: Math.ceil((tries.until - now) / 1_000) });
  }

  count(ip: string): void {
    const now = performance.now();
    const of = subnetOf(ip);
    const tries = this.wrong.get(of);
    if (tries && tries.until > now) tries.n++;
    else {
      this.wrong.delete(of); // its place is by its new window
      this.wrong.set(of, { n: 1, until: now + WINDOW_MS });
    }
    // who begins anew with ever other addresses makes room of the oldest, never of all
    if (this.wrong.size > MOST_ADDRESSES) this.wrong.delete(this.wrong.keys().next().value as string);
  }
}

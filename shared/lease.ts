/**
 * What a worker knows of its own lease by its own clock (performance.now(): a step of the wall clock says nothing).
 * It errs to one side only: what it says is held, Redis holds.
 */
export class Lease {
  private renewedAt = performance.now();
  /** since then it was never over */
  private heldFrom = this.renewedAt;

  /** @param ms  as Redis counts it */
  constructor(private readonly ms: number) {}

  /** A beat was answered. @param sent  when it was sent: Redis renewed the lease then or later */
  renewed(sent: number): void {
    if (performance.now() - this.renewedAt >= this.ms) this.heldFrom = performance.now();
    this.renewedAt = sent;
  }

  /** Whether it was held without a gap from the beat that was sent then until now. */
  heldSince(sent: number): boolean {
    return sent >= this.heldFrom && performance.now() - Math.max(sent, this.renewedAt) < this.ms;
  }
}

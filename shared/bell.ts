/** Wakes all who wait for it; nothing is remembered for who comes later. */
export class Bell {
  private waiters: (() => void)[] = [];

  /** Until it rings next. */
  rung(): Promise<void> {
    return new Promise((done) => this.waiters.push(done));
  }

  ring(): void {
    for (const waiter of this.waiters.splice(0)) waiter();
  }
}

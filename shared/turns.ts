/** One at a time, a few waiting, and nobody beyond: for work of which each piece takes much memory. */
export class Turns {
  private inHand = 0;
  private last: Promise<void> = Promise.resolve();

  /** @param most  in hand at once, the one whose turn it is counted */
  constructor(private readonly most: number) {}

  /** A place among those in hand; undefined when there is none. Whoever has one must leave it. */
  enter(): Place | undefined {
    if (this.inHand >= this.most) return undefined;
    this.inHand++;
    const over = Promise.withResolvers<void>();
    return {
      turn: () => {
        const before = this.last;
        this.last = before.then(() => over.promise);
        return before;
      },
      leave: () => {
        this.inHand--;
        over.resolve();
      },
    };
  }
}

export type Place = {
  /** Waits for all who asked before to leave. To be asked once. */
  turn(): Promise<void>;
  /** To be called once, whether it was its turn or not. */
  leave(): void;
};

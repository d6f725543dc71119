/**
 * Whether this process may judge the workers of a service dead (rule 4). It may after a full lease in which it saw the
 * service's Redis answer without a gap: then every living worker has had the time to beat, and neither an outage of
 * Redis, nor one of ours, nor a step of a clock looks like everybody's death.
 */
export class Watch {
  private readonly seen = new Map<string, { since: number; redisMs: number; steadyMs: number }>();

  constructor(private readonly leaseMs: number) {}

  /**
   * Notes that Redis answered.
   * @param redisMs   what Redis says the time is
   * @param steadyMs  a clock of ours that nobody sets: performance.now()
   * @returns whether a full lease without a gap has passed
   */
  look(service: string, redisMs: number, steadyMs: number): boolean {
    const last = this.seen.get(service);
    const gap = this.leaseMs / 2;
    const passed = last ? steadyMs - last.steadyMs : Number.POSITIVE_INFINITY;
    const stepped = last ? Math.abs(redisMs - last.redisMs - passed) : 0;
    const since = last && passed <= gap && stepped <= gap ? last.since : steadyMs;
    this.seen.set(service, { since, redisMs, steadyMs });
    return steadyMs - since > this.leaseMs;
  }
}

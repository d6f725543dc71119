/**
 * Ends a call before its time: a flag, a reason and one listener. An AbortController says no more, and costs a
 * worker a seventh of its CPU where calls are short (docs/performance.md).
 */
export class Abort {
  aborted = false;
  reason: unknown;
  /** called once, at once; the one who makes the call sets it */
  onabort: (() => void) | undefined;

  /** The first reason counts. */
  abort(reason?: unknown): void {
    if (this.aborted) return;
    this.aborted = true;
    this.reason = reason;
    this.onabort?.();
  }
}

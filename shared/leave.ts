/**
 * The end of a gateway, so that no client meets a reset:
 *
 *   signal         /readyz is 503, and each answer says `Connection: close`; everything is served as before
 *   SHUTDOWN_DELAY a balancer has seen /readyz, and clients have closed the connections that they kept
 *   quiet          nobody has been answered for a moment: who keeps a connection busy has been told to close it
 *   stop           the ports are closed; long polls and streams end with what there is; requests in hand are answered
 */
import { after } from "./call.ts";
import type { Server } from "./runtime.ts";

/** ms without an answer after which connections count as told; and how long that is waited for at most. */
const QUIET_MS = 100;
const MAX_QUIET_MS = 1_000;
/** ms that requests in hand have for their answers once the ports are closed. */
export const IN_HAND_MS = 10_000;

const sleep = (ms: number) => new Promise<void>((done) => setTimeout(done, ms));

export class Leave {
  private readonly begun = new AbortController();
  private answeredAt = 0;
  /** aborted at the first signal */
  readonly signal = this.begun.signal;

  /** What becomes of each answer on its way out. */
  readonly told = (response: Response): Response => {
    if (!this.signal.aborted) return response;
    this.answeredAt = performance.now();
    try {
      response.headers.set("connection", "close");
      return response;
    } catch {
      const { status, headers } = response; // those of a redirect cannot be changed
      return this.told(new Response(response.body, { status, headers }));
    }
  };

  /**
   * @param ending  aborted when waits are to end
   * @returns when all is answered, or IN_HAND_MS after the ports were closed
   */
  async begin(servers: Server[], delayMs: number, ending: AbortController): Promise<void> {
    this.begun.abort();
    await new Promise<void>((over) => after(delayMs, over)); // a timer of its own ends at 24.8 days
    const end = performance.now() + MAX_QUIET_MS;
    this.answeredAt = Math.max(this.answeredAt, performance.now() - QUIET_MS / 2);
    for (let now = performance.now(); now < end && now - this.answeredAt < QUIET_MS; now = performance.now()) {
      await sleep(QUIET_MS / 5);
    }
    ending.abort();
    await Promise.race([Promise.all(servers.map((server) => server.stop(false))), sleep(IN_HAND_MS)]);
  }
}

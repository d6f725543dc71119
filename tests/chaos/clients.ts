/**
 * Clients that submit over HTTP, and the ledger of what they were promised.
 * A third sends an Idempotency-Key and tries again until it is told; the others look up what they were not told.
 */
import { RARE, SERVICE } from "./world.ts";

export type Promise_ = {
  n: number;
  /** ids that a 202 named; more than one is a broken promise (I9) */
  ids: Set<string>;
  key: string | undefined;
  /** answers that left it open: a 503 after sending, a broken connection, silence */
  unknown: number;
  /** the answer said that nothing was accepted, or nothing was sent */
  refused: number;
  canceled: boolean;
  /** its end is to be sent to the receiver */
  callback: boolean;
  /** somebody asked to erase it, whatever the answer was */
  erased: boolean;
};

export type Ledger = {
  promises: Promise_[];
  /** id → n of every 202 */
  accepted: Map<string, number>;
  /** id → performance.now() of its first 202 */
  toldAt: Map<string, number>;
  slowestMs: number;
  answers: Map<string, number>;
};

export const newLedger = (): Ledger => ({
  promises: [],
  accepted: new Map(),
  toldAt: new Map(),
  slowestMs: 0,
  answers: new Map(),
});

export class Clients {
  stopped = false;
  private next = 0;
  constructor(
    private readonly ledger: Ledger,
    private readonly urls: string[],
    private readonly random: () => number,
    private readonly jobs: number,
    /** jobs a second; and how many may be open before the clients hold back */
    private readonly rate: number,
    private readonly open: () => number,
    /** how often the gateway at this place was frozen or thawed; odd = frozen now, and its silence is not the queue's */
    private readonly frozen: (gateway: number) => number,
    /** where callbacks go */
    private readonly receiverUrl: string,
  ) {}

  get done(): boolean {
    return this.next >= this.jobs;
  }

  /** @param limitMs  a slow machine submits fewer jobs in the end, but the run ends */
  async run(concurrency: number, limitMs: number): Promise<void> {
    const began = performance.now();
    const end = setTimeout(() => {
      this.stopped = true;
    }, limitMs);
    const client = async () => {
      while (!this.stopped && !this.done) {
        const due = ((performance.now() - began) / 1_000) * this.rate;
        if (this.next > due || this.open() > 4_000) {
          await Bun.sleep(5);
          continue;
        }
        await this.submit(this.next++);
      }
    };
    await Promise.all(Array.from({ length: concurrency }, client));
    clearTimeout(end);
  }

  private async submit(n: number): Promise<void> {
    const keyed = this.random() < 0.34;
    const promise: Promise_ = {
      n,
      ids: new Set(),
      key: keyed ? `key-${n}` : undefined,
      unknown: 0,
      refused: 0,
      canceled: false,
      callback: this.random() < 0.05,
      erased: false,
    };
    this.ledger.promises[n] = promise;
    const dice = this.random();
    const options = [dice < 0.05 ? "delay=1" : dice < 0.1 ? "priority=9" : dice < 0.15 ? "priority=1" : ""];
    if (promise.callback) options.push(`callback_url=${encodeURIComponent(`${this.receiverUrl}/${n}`)}`);
    // Some workers know the first operation alone.
    const operation = this.random() < 0.1 ? RARE : SERVICE;
    const target = `/${operation}?${options.filter(Boolean).join("&")}`.replace(/\?$/, "");
    // Some keyed clients ask twice although they were told: the answer must name the same job (I9).
    let again = keyed && this.random() < 0.1 ? 1 : 0;
    const patience = performance.now() + 20_000;
    while (performance.now() < patience && !this.stopped) {
      const told = await this.post(promise, target);
      if (told && again-- <= 0) return;
      if (!told && !keyed && promise.unknown > 0) return; // looked up at the end
      if (!told) await Bun.sleep(100 + 300 * this.random());
    }
  }

  private async post(promise: Promise_, target: string): Promise<boolean> {
    const { ledger } = this;
    const count = (what: string) => ledger.answers.set(what, (ledger.answers.get(what) ?? 0) + 1);
    const gateway = Math.floor(this.random() * this.urls.length);
    const url = this.urls[gateway] as string;
    const began = performance.now();
    const frozen = this.frozen(gateway);
    try {
      const response = await fetch(url + target, {
        method: "POST",
        headers: { "content-type": "application/json", ...(promise.key ? { "idempotency-key": promise.key } : {}) },
        body: JSON.stringify({ n: promise.n }),
        signal: AbortSignal.timeout(8_000),
      });
      const body = (await response.json()) as { job_id?: string; accepted?: string };
      if (frozen % 2 === 0 && this.frozen(gateway) === frozen)
        ledger.slowestMs = Math.max(ledger.slowestMs, performance.now() - began);
      count(String(response.status));
      if (response.status === 202) {
        promise.ids.add(body.job_id as string);
        ledger.accepted.set(body.job_id as string, promise.n);
        if (!ledger.toldAt.has(body.job_id as string)) ledger.toldAt.set(body.job_id as string, performance.now());
        if (!promise.key && this.random() < 0.01) await this.cancel(url, promise, body.job_id as string);
        return true;
      }
      if (body.accepted === "unknown") promise.unknown++;
      else promise.refused++;
      if (response.status !== 503 && response.status !== 429) count(`${response.status} ${JSON.stringify(body)}`);
      return false;
    } catch (error) {
      const { code, name } = error as { code?: string; name?: string };
      count(name === "TimeoutError" ? "silence" : "no connection");
      if (code === "ConnectionRefused" || code === "ECONNREFUSED") promise.refused++;
      else promise.unknown++;
      return false;
    }
  }

  /** Starts a failed job anew. The answer may be lost: the record's run tells. */
  async requeue(id: string): Promise<void> {
    const url = this.urls[Math.floor(this.random() * this.urls.length)] as string;
    await fetch(`${url}/jobs/${id}/requeue`, { method: "POST", signal: AbortSignal.timeout(3_000) }).catch(() => {});
  }

  /** Erases a job that has ended. The answer may be lost, so from here on it may be there or not. */
  async erase(id: string): Promise<void> {
    const promise = this.ledger.promises[this.ledger.accepted.get(id) ?? -1];
    if (!promise || promise.callback || promise.key) return; // a key of an erased job starts a new one
    promise.erased = true;
    const url = this.urls[Math.floor(this.random() * this.urls.length)] as string;
    await fetch(`${url}/jobs/${id}`, { method: "DELETE", signal: AbortSignal.timeout(3_000) }).catch(() => {});
  }

  private async cancel(url: string, promise: Promise_, id: string): Promise<void> {
    promise.canceled = true; // even if the answer is lost
    await fetch(`${url}/jobs/${id}/cancel`, { method: "POST", signal: AbortSignal.timeout(3_000) }).catch(() => {});
  }
}

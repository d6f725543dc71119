/**
 * A client in one file: no package, Bun, Deno, Node and browsers. Types come from the gateway's own registry, so a
 * payload that lacks a field does not compile. `bun examples/client.ts http://localhost:8000 /examples/house.ifc [key]`
 * converts a file that the services see: a path in the volumes, not one of this machine. Without a slash it is in /uploads,
 * where POST /upload/ifc puts it.
 *
 *   const longhaul = new Longhaul("http://localhost:8000", process.env.API_KEY);
 *   const id = await longhaul.submit("ifc2json", { filename: "model.ifc", output_filename: "model.json" });
 *   const result = await longhaul.wait(id);
 *
 * Operations of your own (SERVICES): `new Longhaul<Payloads & { thumbnail: { file: string } }>(…)`.
 */
import type { Payloads } from "../shared/services.ts";

export type Options = {
  priority?: number;
  delay?: string | number;
  timeout?: string | number;
  retries?: number;
  result_ttl?: string | number;
  tags?: string[];
  callback_url?: string;
};
export type Status = { job_id: string; status: string; result: unknown; error: string | null; progress: number | null };

/** What the gateway refused (RFC 9457), or a job that failed: then `status` is 0 and `problem` its status. */
export class LonghaulError extends Error {
  constructor(
    readonly status: number,
    readonly problem: { detail?: string; code?: string; errors?: { path: string; message: string }[] },
    message = problem.detail ?? `HTTP ${status}`,
  ) {
    super(message);
  }
}

export class Longhaul<Operations extends { [name: string]: object } = Payloads> {
  private reached = false;

  constructor(
    readonly url: string,
    private readonly key?: string,
    /** for how long a gateway that does not answer is asked again */
    private readonly patienceS = 300,
  ) {}

  /** @returns the job's id. A lost answer is asked for again under one Idempotency-Key: it never makes two jobs. */
  async submit<Name extends keyof Operations & string>(operation: Name, payload: Operations[Name], options?: Options) {
    const body = JSON.stringify({ operation, payload, ...options });
    const headers = { "content-type": "application/json", "idempotency-key": crypto.randomUUID() };
    const response = await this.ask("/jobs", { method: "POST", body, headers }, 0);
    return ((await response.json()) as { job_id: string }).job_id;
  }

  async status(id: string, waitS = 0): Promise<Status> {
    return (await this.ask(`/jobs/${id}/status?wait=${waitS}`, {}, waitS)).json();
  }

  /**
   * Waits for the end, hours if need be, through restarts of the gateway. JavaScript rounds integers of 16 digits and more:
   * `result` has them as the service wrote them.
   * @returns the result as JSON @throws LonghaulError when the job failed
   */
  async wait(id: string): Promise<unknown> {
    for (;;) {
      const status = await this.status(id, 30);
      if (status.status === "finished") return status.result;
      if (status.status === "failed") throw new LonghaulError(0, {}, status.error ?? "failed");
      await new Promise((next) => setTimeout(next, 500)); // a gateway with too many waits answers at once
    }
  }

  /** The service's answer as it was: its type and its bytes. */
  result = (id: string): Promise<Response> => this.ask(`/jobs/${id}/result`);

  async cancel(id: string): Promise<void> {
    await this.ask(`/jobs/${id}/cancel`, { method: "POST" }, 0);
  }

  /**
   * Asks again where nothing answers, where a proxy says that the gateway does not, and where the gateway says when to come again.
   * @param waitS  how long the answer may take by itself; undefined = without limit
   */
  private async ask(path: string, init: RequestInit = {}, waitS?: number): Promise<Response> {
    const headers = new Headers(init.headers);
    if (this.key) headers.set("x-api-key", this.key);
    // one that never answered has another address, most likely
    const until = performance.now() + (this.reached ? this.patienceS : Math.min(this.patienceS, 10)) * 1_000;
    for (let pauseS = 1; ; pauseS = Math.min(pauseS * 2, 15)) {
      // a connection that is dead without a word would be waited for for ever
      const signal = waitS === undefined ? null : AbortSignal.timeout((waitS + 60) * 1_000);
      const answer = await fetch(this.url.replace(/\/+$/, "") + path, { ...init, headers, signal }).catch(
        (error: Error) => error,
      );
      this.reached ||= answer instanceof Response && answer.status < 500;
      if (answer instanceof Response && answer.ok) return answer;
      const again = answer instanceof Error || [429, 502, 503, 504].includes(answer.status);
      const waitMs = 1_000 * (answer instanceof Error ? pauseS : (retryAfterS(answer.headers) ?? pauseS));
      if (!again || performance.now() + waitMs > until) {
        if (answer instanceof Error) throw answer;
        throw new LonghaulError(answer.status, await problemOf(answer));
      }
      if (answer instanceof Response) await answer.body?.cancel();
      await new Promise((next) => setTimeout(next, waitMs));
    }
  }
}

/** Seconds, at least 1; proxies write a date. undefined where it cannot be read. */
function retryAfterS(headers: Headers): number | undefined {
  const text = headers.get("retry-after") ?? "";
  const seconds = /^\d+$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1_000;
  return Number.isNaN(seconds) || text === "" ? undefined : Math.max(1, seconds);
}

const problemOf = (response: Response) => response.json().catch(() => ({}));

if (import.meta.main) {
  const { default: process } = await import("node:process");
  const [url = "http://localhost:8000", filename = "/examples/house.ifc", key] = process.argv.slice(2);
  const longhaul = new Longhaul(url, key);
  try {
    const id = await longhaul.submit("ifc2json", { filename, output_filename: "house.json" });
    console.log(id, await longhaul.wait(id));
  } catch (error) {
    console.error(`It did not work: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}

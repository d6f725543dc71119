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
  constructor(
    readonly url: string,
    private readonly key?: string,
  ) {}

  /** @returns the job's id. A lost answer is asked for again under one Idempotency-Key: it never makes two jobs. */
  async submit<Name extends keyof Operations & string>(operation: Name, payload: Operations[Name], options?: Options) {
    const body = JSON.stringify({ operation, payload, ...options });
    const headers = { "content-type": "application/json", "idempotency-key": crypto.randomUUID() };
    const response = await this.ask("/jobs", { method: "POST", body, headers });
    return ((await response.json()) as { job_id: string }).job_id;
  }

  async status(id: string, waitS = 0): Promise<Status> {
    return (await this.ask(`/jobs/${id}/status?wait=${waitS}`)).json();
  }

  /** Waits for the end, hours if need be. @returns the result as JSON @throws LonghaulError when the job failed */
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
    await this.ask(`/jobs/${id}/cancel`, { method: "POST" });
  }

  /** Asks up to four times where nothing answers, or where the gateway says when to come again. */
  private async ask(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    if (this.key) headers.set("x-api-key", this.key);
    for (let left = 3; ; left--) {
      const response = await fetch(this.url + path, { ...init, headers }).catch((error) => {
        if (left === 0) throw error;
        return undefined;
      });
      if (response?.ok) return response;
      const again = response === undefined || response.status === 429 || response.status === 503;
      if (!again || left === 0) throw new LonghaulError(response?.status ?? 0, await problemOf(response));
      const waitS = Number(response?.headers.get("retry-after") ?? 1);
      await response?.body?.cancel();
      await new Promise((next) => setTimeout(next, waitS * 1_000));
    }
  }
}

const problemOf = (response?: Response) => response?.json().catch(() => ({})) ?? {};

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

/**
 * A microservice that does what the payload says, on a real socket: the only thing that tests fake.
 * `{sleep: ms}` waits first · `{status: n, detail}` answers an error · `{answer: any}` answers that ·
 * `{raw: text, type}` answers bytes · `{size: n}` answers so many letters · `{fail: n}` answers 503 to the first n calls of the job · nothing: {"ok":true}
 */
import type { Server } from "bun";

export type SeenCall = { path: string; headers: Headers; body: string; aborted: boolean; at: number };
export type FakeService = {
  url: string;
  port: number;
  calls: SeenCall[];
  /** most calls that were in hand at once */
  readonly peak: number;
  stop(): Promise<void>;
  byJob(id: string): SeenCall[];
};

export async function startService(port = 0): Promise<FakeService> {
  const calls: SeenCall[] = [];
  let inHand = 0;
  let peak = 0;
  const server: Server<undefined> = Bun.serve({
    port,
    hostname: "127.0.0.1",
    idleTimeout: 0,
    async fetch(request) {
      const path = new URL(request.url).pathname;
      if (path === "/health") return Response.json({ status: "healthy" });
      const body = await request.text();
      const call: SeenCall = { path, headers: request.headers, body, aborted: false, at: Date.now() };
      calls.push(call);
      request.signal.addEventListener("abort", () => {
        call.aborted = true;
      });
      const wish = JSON.parse(body) as Record<string, unknown>;
      peak = Math.max(peak, ++inHand);
      if (typeof wish.sleep === "number") await Bun.sleep(wish.sleep);
      inHand--;
      const id = request.headers.get("x-job-id");
      const earlier = calls.filter((c) => c.headers.get("x-job-id") === id).length - 1;
      const headers = (wish.headers ?? {}) as Record<string, string>;
      if (typeof wish.fail === "number" && earlier < wish.fail) {
        return Response.json({ detail: "busy, come again" }, { status: 503, headers });
      }
      if (typeof wish.status === "number") {
        return Response.json({ detail: wish.detail ?? "no" }, { status: wish.status, headers });
      }
      if (typeof wish.raw === "string") {
        return new Response(wish.raw, {
          headers: { "content-type": String(wish.type ?? "application/json"), ...headers },
        });
      }
      if (typeof wish.size === "number") return Response.json("x".repeat(wish.size), { headers });
      return Response.json(wish.answer ?? { ok: true }, { headers });
    },
  });
  return {
    url: `http://127.0.0.1:${server.port}`,
    port: server.port as number,
    calls,
    get peak() {
      return peak;
    },
    byJob: (id) => calls.filter((call) => call.headers.get("x-job-id") === id),
    stop: () => server.stop(true),
  };
}

/** The microservice under chaos: it fails, hangs and resets, and keeps its own ledger of calls. */
import { createServer } from "node:http";

export type Call = { attempt: number; said: "ok" | "500" | "hang" | "reset" };
export type ChaosService = {
  port: number;
  /** what it was asked and what it said, by job id */
  calls: Map<string, Call[]>;
  readonly total: number;
  stop(): void;
};

/** 5 % answer 500, 0.5 % never answer, 1 % close the connection without an answer; the rest take 1–20 ms, 3 % up to 2.5 s. */
export async function startChaosService(random: () => number): Promise<ChaosService> {
  const calls = new Map<string, Call[]>();
  let total = 0;
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on("error", () => {});
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", async () => {
      const answer = (status: number, body: unknown) => {
        response.writeHead(status, { "content-type": "application/json" });
        response.end(JSON.stringify(body));
      };
      if (request.method === "GET") return answer(200, { status: "healthy" });
      const body = JSON.parse(Buffer.concat(parts).toString()) as { n: number; sleep?: number };
      const id = String(request.headers["x-job-id"]);
      const dice = body.sleep ? 1 : random();
      const said = dice < 0.05 ? "500" : dice < 0.055 ? "hang" : dice < 0.065 ? "reset" : "ok";
      const list = calls.get(id) ?? [];
      calls.set(id, list);
      list.push({ attempt: Number(request.headers["x-job-attempt"]), said });
      const call = ++total;
      const token = /[?&]t=([^&]+)/.exec(String(request.headers["x-progress-url"]))?.[1];
      if (said === "hang") return;
      if (said === "reset") return void request.socket.destroy();
      if (body.sleep) await Bun.sleep(body.sleep);
      else await Bun.sleep(random() < 0.03 ? 2_500 * random() : 1 + 19 * random());
      if (said === "500") answer(500, { detail: `no luck with ${body.n}` });
      else answer(200, { n: body.n, id, call, token });
    });
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return {
    port: (server.address() as { port: number }).port,
    calls,
    get total() {
      return total;
    },
    stop() {
      server.close();
      server.closeAllConnections();
    },
  };
}

/** The microservice under chaos: it fails, hangs, resets and talks out of turn, and keeps its own ledger of calls. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";

export type Call = { attempt: number; said: "ok" | "500" | "hang" | "reset" };
export type ChaosService = {
  port: number;
  /** what it was asked and what it said, by job id */
  calls: Map<string, Call[]>;
  readonly total: number;
  /** how often it sent what nobody had asked for, or answered before it had read the request */
  readonly outOfTurn: { surplus: number; early: number; late: number };
  stop(): void;
};

/** ms from an answer to a second one that belongs to no request: a client that reuses the connection may take it for the next job's. */
const SURPLUS_MS = [0, 1, 3, 10, 40];
/** Bytes that make a result large enough for a file (RESULT_INLINE_BYTES of world.ts). */
export const LARGE_BYTES = 8_192;

const json = (body: unknown, headers: Record<string, string>) => {
  const text = JSON.stringify(body);
  const head = { "content-type": "application/json", "content-length": String(Buffer.byteLength(text)), ...headers };
  return { text, head };
};

/** An answer as it goes over a socket, for what node:http would not send. */
const raw = (line: string, body: unknown, headers: Record<string, string>) => {
  const { text, head } = json(body, headers);
  const lines = Object.entries(head).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${line}\r\n${lines.join("")}\r\n${text}`;
};

/**
 * 5 % answer 500, 0.5 % answer only when nobody waits any more, 1 % close the connection without an answer; the rest take 1–20 ms, 3 % up
 * to 2.5 s. Nine of ten answers name their job (`X-Job-Id`), so that their connections are used again. 2 % are followed by a surplus
 * answer, 1 % come before the request's body was read; 3 % of the results are large.
 */
export async function startChaosService(random: () => number): Promise<ChaosService> {
  const calls = new Map<string, Call[]>();
  const outOfTurn = { surplus: 0, early: 0, late: 0 };
  let total = 0;

  /** Notes a call. @returns what every answer of it holds */
  const note = (request: IncomingMessage, said: Call["said"]) => {
    const id = String(request.headers["x-job-id"]);
    const list = calls.get(id) ?? [];
    calls.set(id, list);
    list.push({ attempt: Number(request.headers["x-job-attempt"]), said });
    const token = /[?&]t=([^&]+)/.exec(String(request.headers["x-progress-url"]))?.[1];
    return { id, call: ++total, token };
  };

  /** Sends bytes that no request is waiting for, when the connection is idle or already serves another job. */
  const sendSurplus = (request: IncomingMessage, bytes: string) => {
    outOfTurn.surplus++;
    const delayMs = SURPLUS_MS[Math.floor(random() * SURPLUS_MS.length)] as number;
    setTimeout(() => request.socket.writable && request.socket.write(bytes), delayMs);
  };

  const answer = (request: IncomingMessage, response: ServerResponse, status: number, body: unknown) => {
    const named: Record<string, string> =
      random() < 0.9 && request.headers["x-job-id"] ? { "x-job-id": String(request.headers["x-job-id"]) } : {};
    const { text, head } = json(body, named);
    response.writeHead(status, head);
    response.end(text);
    if (request.method === "POST" && random() < 0.02) sendSurplus(request, raw(`${status} Again`, body, named));
  };

  /** As Python's http.server does whose handler does not read the body: it answers, then reads the body as the next request. */
  const answerEarly = (request: IncomingMessage, response: ServerResponse) => {
    outOfTurn.early++;
    answer(request, response, 200, { ...note(request, "ok"), early: true });
    if (random() < 0.5) sendSurplus(request, raw("501 Unsupported method", { detail: "Unsupported method" }, {}));
  };

  const serve = async (request: IncomingMessage, response: ServerResponse, text: string) => {
    const body = JSON.parse(text) as { n: number; sleep?: number };
    const dice = body.sleep ? 1 : random();
    const said = dice < 0.05 ? "500" : dice < 0.055 ? "hang" : dice < 0.065 ? "reset" : "ok";
    const noted = note(request, said);
    if (said === "reset") return void request.socket.destroy();
    if (said === "hang") {
      await Bun.sleep(5_000); // longer than the operation's limit: it answers a job that has ended
      outOfTurn.late++;
    } else if (body.sleep) await Bun.sleep(body.sleep);
    else await Bun.sleep(random() < 0.03 ? 2_500 * random() : 1 + 19 * random());
    if (response.destroyed) return;
    if (said === "500") return answer(request, response, 500, { detail: `no luck with ${body.n}` });
    const large = random() < 0.03 ? { large: "x".repeat(LARGE_BYTES) } : {};
    answer(request, response, 200, { n: body.n, ...noted, ...large });
  };

  const server = createServer((request, response) => {
    request.on("error", () => {});
    response.on("error", () => {});
    if (request.method === "GET") return answer(request, response, 200, { status: "healthy" });
    // the probe's jobs are for every worker's slots at once: they are served in order
    if (random() < 0.01 && Number(request.headers["content-length"]) < 20) {
      request.resume();
      return answerEarly(request, response);
    }
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => void serve(request, response, Buffer.concat(parts).toString()));
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return {
    port: (server.address() as { port: number }).port,
    calls,
    outOfTurn,
    get total() {
      return total;
    },
    stop() {
      server.close();
      server.closeAllConnections();
    },
  };
}

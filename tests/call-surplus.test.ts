/**
 * Answers that nobody asked for, and answers to another job: none is ever kept as a job's result, whatever carries the call.
 * HTTP/1.1 pairs answers with requests by order alone, so that one answer too many would shift all that follow.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { Socket } from "node:net";
import type { Outcome } from "../shared/call.ts";
import {
  type Asked,
  type Client,
  errorOf,
  type Rows,
  serve,
  sleep,
  underBoth,
  withUser,
} from "./fixtures/call-harness.ts";
import { http, JSON_TYPE, type RawRequest } from "./fixtures/raw-server.ts";
import { TLS, trusting } from "./fixtures/tls.ts";

const JOBS = 300;
const SURPLUS_AT = 20;
const SERVICE_MS = 4;
const idOf = ({ headers }: RawRequest) => headers.get("x-job-id") ?? "";
/** An answer that says in its body whose it is. @param named  whether it sends X-Job-Id back */
const answerTo = (id: string, named: boolean) =>
  http(200, JSON.stringify(id), JSON_TYPE, ...(named ? [`X-Job-Id: ${id}`] : []));

/** As a worker does: what is refused is sent again. @returns the job's outcome, and how many calls it took */
async function run(client: Client, asked: Asked, id: string): Promise<{ outcome: Outcome; calls: number }> {
  for (let calls = 1; ; calls++) {
    const outcome = await client.call({ ...asked, headers: { "x-job-id": id } });
    if (outcome.kind !== "reset" || calls === 4) return { outcome, calls };
  }
}

type Drained = { wrong: string[]; again: number; lines: string[] };
/** Runs the jobs of one service in so many slots. */
async function drain(client: Client, asked: Asked, slots: number, jobs = JOBS): Promise<Drained> {
  const wrong: string[] = [];
  let again = 0;
  let next = 0;
  const slot = async () => {
    while (next < jobs) {
      const id = `job_${++next}`;
      const { outcome, calls } = await run(client, asked, id);
      again += calls - 1;
      if (outcome.kind !== "finished" || outcome.result !== JSON.stringify(id))
        wrong.push(`${id}: ${JSON.stringify(outcome)}`);
    }
  };
  await Promise.all(Array.from({ length: slots }, slot));
  return { wrong, again, lines: await client.logged() };
}

underBoth(({ runtime, start, client }: Rows) => {
  const ways: Record<string, { at: (url: string) => string; tls?: typeof TLS }> = {
    sockets: { at: (url) => url },
    "fetch, http": { at: withUser },
    "fetch, https": { at: (url) => url, tls: TLS },
  };
  for (const [way, { at, tls }] of Object.entries(ways)) {
    describe(`by ${way}`, () => {
      let client: Client;
      beforeAll(async () => {
        client = start(trusting());
        await client.rss(); // it is up
      });
      afterAll(() => client.stop());

      for (const slots of [1, 4]) {
        test(`one surplus answer after 0 to 40 ms, ${slots} slots, X-Job-Id sent back or not: no wrong result`, async () => {
          const kinds = [true, false].flatMap((named) => [0, 1, 3, 10, 40].map((lateMs) => ({ named, lateMs })));
          const services = await Promise.all(
            kinds.map(({ named, lateMs }) =>
              serve(async (socket, request) => {
                const answer = answerTo(idOf(request), named);
                await sleep(SERVICE_MS);
                socket.write(answer);
                if (idOf(request) !== `job_${SURPLUS_AT}`) return;
                setTimeout(() => socket.destroyed || socket.write(answer), lateMs);
              }, tls),
            ),
          );
          const drained = await Promise.all(services.map(({ url }) => drain(client, { url: at(url) }, slots)));
          expect(drained.flatMap(({ wrong }) => wrong)).toEqual([]);
          const reused = services.map(({ requests }) => requests.some(({ nth }) => nth > 1));
          expect(reused).toEqual(kinds.map(({ named }) => named && way === "sockets")); // else it proves nothing
          for (const { again } of drained) expect(again).toBeLessThanOrEqual(slots);
        });
      }

      test("a connection a call, also where the service would keep it", async () => {
        const service = await serve((socket, request) => socket.write(answerTo(idOf(request), false)), tls);
        const { wrong } = await drain(client, { url: at(service.url) }, 1, 5);
        expect([wrong, service.connections >= 5, service.requests.map(({ nth }) => nth)]).toEqual([
          [],
          true,
          [1, 1, 1, 1, 1],
        ]);
      });

      test("an answer that names another job is refused with a line in the log, the first of a connection too", async () => {
        const service = await serve((socket) => socket.write(answerTo("job_x", true)), tls);
        const outcome = await client.call({ url: at(service.url), headers: { "x-job-id": "job_1" } });
        expect(outcome).toMatchObject({ kind: "reset", error: { code: "wrong_job", retryable: true } });
        expect(errorOf(outcome)?.message).toContain("answered for another job (its X-Job-Id is job_x)");
        expect((await client.logged()).join()).toContain("answered job job_1, but its X-Job-Id is job_x");
      });

      test("after an answer that names another job keep_alive counts no more for that address", async () => {
        const service = await serve((socket, request) => {
          const id = idOf(request);
          socket.write(answerTo(id === "job_3" ? "job_x" : id, true));
        }, tls);
        const kinds: string[] = [];
        for (let i = 1; i <= 6; i++) {
          const asked = { url: at(service.url), headers: { "x-job-id": `job_${i}` }, keepAlive: true };
          kinds.push((await client.call(asked)).kind);
        }
        expect(kinds).toEqual(["finished", "finished", "reset", "finished", "finished", "finished"]);
        const nths = service.requests.map(({ nth }) => nth);
        if (way === "sockets" || runtime === "bun") expect(nths.slice(0, 3)).toEqual([1, 2, 3]); // else it proves nothing
        expect(nths.slice(3)).toEqual([1, 1, 1]);
      });

      test("an X-Job-Id that came twice alike counts once", async () => {
        const twice = await serve(
          (socket, request) =>
            socket.write(http(200, "{}", JSON_TYPE, `X-Job-Id: ${idOf(request)}`, `x-job-id: ${idOf(request)}`)),
          tls,
        );
        expect((await client.call({ url: at(twice.url), headers: { "x-job-id": "job_1" } })).kind).toBe("finished");
      });
    });
  }

  const call = (url: string, id: string, more: Partial<Asked> = {}) =>
    client().call({ url, headers: { "x-job-id": id }, ...more });

  test("a service that names its jobs keeps its connection; on_orphan fail never gets one that was used", async () => {
    const service = await serve((socket, request) => socket.write(answerTo(idOf(request), true)));
    for (let i = 0; i < 5; i++) expect((await call(service.url, `job_${i}`)).kind).toBe("finished");
    expect([service.connections, service.requests[4]?.headers.get("connection")]).toEqual([1, undefined]);
    for (let i = 0; i < 3; i++) await call(service.url, `job_${i}`, { freshConnection: true });
    expect(service.connections).toBe(4);
    expect(service.requests.at(-1)?.headers.get("connection")).toBe("close");
  });

  test("keep_alive: the operator's word keeps the connection of a service that names nothing", async () => {
    const service = await serve((socket, request) => socket.write(answerTo(idOf(request), false)));
    for (let i = 0; i < 5; i++) await call(service.url, `job_${i}`, { keepAlive: true });
    expect(service.connections).toBe(1);
    for (let i = 0; i < 3; i++) await call(service.url, `job_${i}`, { keepAlive: true, freshConnection: true });
    expect(service.connections).toBe(4);
  });

  test("keep_alive does not make up for surplus bytes: the origin gets a connection a call", async () => {
    const service = await serve((socket, request) => {
      const answer = answerTo(idOf(request), false);
      socket.write(request.nth === 3 ? Buffer.concat([answer, answer]) : answer);
    });
    for (let i = 0; i < 8; i++) await call(service.url, `job_${i}`, { keepAlive: true });
    expect(service.requests.map(({ nth }) => nth)).toEqual([1, 2, 3, 1, 1, 1, 1, 1]);
  });

  test("bytes that nobody asked for are logged and end reuse, idle and in the same read, at any age", async () => {
    await client().logged();
    const late = (socket: Socket, more: string | Uint8Array, ms: number) => setTimeout(() => socket.write(more), ms);
    for (const [more, ms] of [
      [answerTo("job_forged", true), 0],
      ["HTTP/1.1 2", 0],
      ["no HTTP", 0],
      [answerTo("job_forged", true), 20],
      ["x", 20],
      ["x", 300],
    ] as const) {
      const service = await serve((socket, request) => {
        const answer = answerTo(idOf(request), true);
        const isLast = idOf(request) === "job_3";
        socket.write(isLast && ms === 0 ? Buffer.concat([answer, Buffer.from(more)]) : answer);
        if (isLast && ms > 0) late(socket, more, ms);
      });
      for (let i = 1; i <= 3; i++) expect((await call(service.url, `job_${i}`)).kind).toBe("finished");
      await sleep(2 * ms);
      for (let i = 4; i <= 6; i++) expect((await call(service.url, `job_${i}`)).kind).toBe("finished");
      expect([more, ms, service.requests.map(({ nth }) => nth)]).toEqual([more, ms, [1, 2, 3, 1, 1, 1]]);
      const lines = await client().logged();
      expect(lines).toHaveLength(1);
      expect(lines[0]).toContain(
        `origin=${new URL(service.url).origin} why="sent more than was asked for (after the answer of job_3`,
      );
    }
  });

  test("on a connection that was used, an answer without X-Job-Id is refused; the next call has its own", async () => {
    const service = await serve((socket, request) =>
      socket.write(request.nth === 1 ? answerTo(idOf(request), true) : http(501, "no such method")),
    );
    expect((await call(service.url, "job_1")).kind).toBe("finished");
    expect(errorOf(await call(service.url, "job_2"))?.code).toBe("wrong_job");
    expect(await call(service.url, "job_2")).toMatchObject({ kind: "finished", result: '"job_2"' });
    expect(service.connections).toBe(2);
    expect((await client().logged()).join()).toContain("its X-Job-Id is missing, unlike before");
  });

  test("an answer on a used connection that is not HTTP is refused, and the job sent again", async () => {
    for (const keepAlive of [false, true]) {
      const service = await serve((socket, request) =>
        socket.write(request.nth === 1 ? answerTo(idOf(request), true) : "left over\r\n\r\n"),
      );
      expect((await call(service.url, "job_1", { keepAlive })).kind).toBe("finished");
      const outcome = await call(service.url, "job_2", { keepAlive });
      expect([outcome.kind, errorOf(outcome)?.code]).toEqual(["reset", "wrong_job"]);
      expect(await call(service.url, "job_2", { keepAlive })).toMatchObject({ kind: "finished", result: '"job_2"' });
    }
  });

  test("a further attempt of the same job never goes out on its own last connection", async () => {
    const service = await serve((socket, request) => socket.write(answerTo(idOf(request), true)));
    for (let i = 0; i < 3; i++) await call(service.url, "job_1");
    expect(service.connections).toBe(3);
  });

  test("HTTP/1.0 keeps a connection only where it says so", async () => {
    const old = (...more: string[]) =>
      serve((socket, request) =>
        socket.write(
          answerTo(idOf(request), true)
            .toString()
            .replace("HTTP/1.1 200 Said", ["HTTP/1.0 200 Said", ...more].join("\r\n")),
        ),
      );
    const [plain, kept] = [await old(), await old("Connection: keep-alive")];
    for (let i = 0; i < 3; i++)
      for (const { url } of [plain, kept]) expect((await call(url, `job_${i}`)).kind).toBe("finished");
    expect([plain.connections, kept.connections]).toEqual([3, 1]);
  });

  const python = Bun.which("python3");
  test.skipIf(!python)(
    "Python's http.server that answers without reading the body: every job has its own result",
    async () => {
      for (const named of [true, false]) {
        const server = Bun.spawn([python as string, "-u", "-c", UNREAD], {
          env: { ...process.env, NAMED: named ? "1" : "" },
          stdout: "pipe",
          stderr: "ignore",
        });
        const port = Number(new TextDecoder().decode((await server.stdout.getReader().read()).value));
        for (const slots of [1, 4]) {
          const { wrong } = await drain(client(), { url: `http://127.0.0.1:${port}/run`, body: '{"n":0}' }, slots, 40);
          expect(wrong).toEqual([]);
        }
        server.kill();
      }
    },
  );
});

const UNREAD = `
import json, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        job = self.headers.get("X-Job-Id", "")
        body = json.dumps(job).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if os.environ.get("NAMED"): self.send_header("X-Job-Id", job)
        self.end_headers()
        self.wfile.write(body)
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1])
server.serve_forever()
`;

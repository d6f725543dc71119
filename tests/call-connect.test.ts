/** How a call's connection comes about: which addresses are tried, for how long, and how long it is used. */
import { afterAll, beforeAll, describe, expect, spyOn, test } from "bun:test";
import { createServer } from "node:net";
import { Abort } from "../shared/abort.ts";
import { call as callHere } from "../shared/call.ts";
import { dial, type Lookup, type Unreachable } from "../shared/dial.ts";
import { noLog } from "../shared/log.ts";
import { errorOf, messageOf, type Rows, serve, underBoth } from "./fixtures/call-harness.ts";
import { http, JSON_TYPE } from "./fixtures/raw-server.ts";
import { silentHost } from "./fixtures/silent-host.ts";

let silent: Awaited<ReturnType<typeof silentHost>>;
beforeAll(async () => {
  silent = await silentHost();
});
afterAll(() => silent.stop());

/** @returns a server on ::1 alone, under the name localhost */
async function onSixAlone() {
  const server = createServer((socket) => {
    socket.on("error", () => {}).on("data", () => socket.write(http(200, '"six"', JSON_TYPE)));
  });
  await new Promise<void>((ready) => server.listen(0, "::1", ready));
  const { port } = server.address() as { port: number };
  return { url: `http://localhost:${port}/run`, port, close: () => server.close() };
}

underBoth(({ runtime, call }: Rows) => {
  for (const user of ["", "me:pw@"]) {
    const by = user ? "fetch" : "sockets";
    test(`a host that drops what is sent to it refuses the call, with a limit of any length: ${by}`, async () => {
      const url = silent.url.replace("://", `://${user}`);
      for (const [timeoutMs, connectTimeoutMs, limitMs] of [
        [1_500, 10_000, 500],
        [60_000, 700, 700],
      ] as const) {
        const began = performance.now();
        const outcome = await call({ url, timeoutMs, connectTimeoutMs });
        expect(outcome).toMatchObject({ kind: "refused", error: { code: "service_unreachable", retryable: true } });
        expect(messageOf(outcome)).toEndWith(`: no connection within ${limitMs} ms (CONNECT_TIMEOUT)`);
        expect(performance.now() - began).toBeWithin(limitMs - 20, limitMs + 800);
      }
    });

    test(`a service that took the connection and stays silent is a timeout, not a refusal: ${by}`, async () => {
      const server = await serve(() => {});
      const outcome = await call({
        url: server.url.replace("://", `://${user}`),
        timeoutMs: 600,
        connectTimeoutMs: 100,
      });
      expect([outcome.kind, errorOf(outcome)?.code]).toEqual(["failed", "timeout"]);
    });

    // Deno's fetch asks the system alone what localhost is.
    test.skipIf(runtime === "deno" && by === "fetch")(`localhost reaches a service on ::1 alone: ${by}`, async () => {
      const six = await onSixAlone();
      expect(await call({ url: six.url.replace("://", `://${user}`) })).toMatchObject({
        kind: "finished",
        result: '"six"',
      });
      six.close();
    });

    test(`a call that is taken back while it connects is aborted at once: ${by}`, async () => {
      const began = performance.now();
      const outcome = await call({ url: silent.url.replace("://", `://${user}`), abortAfterMs: 100 });
      expect([outcome.kind, performance.now() - began < 1_500]).toEqual(["aborted", true]);
    });
  }
});

describe("dial", () => {
  const to = (found: string[]): Lookup =>
    ((_, done) =>
      done(
        null,
        found.map((address) => ({ address, family: address.includes(":") ? 6 : 4 })),
      )) as Lookup;
  const dialed = (port: number, lookup: Lookup, limitMs = 2_000) =>
    new Promise<{ error?: Unreachable; address?: string }>((done) =>
      dial(
        "a.name",
        port,
        limitMs,
        (error, socket) => {
          done({ ...(error ? { error } : {}), ...(socket ? { address: socket.remoteAddress as string } : {}) });
          socket?.destroy();
        },
        lookup,
      ),
    );

  test("tries every address of a name, the families by turns, until one connects", async () => {
    const six = await onSixAlone();
    expect((await dialed(six.port, to(["127.0.0.1", "127.0.0.2", "::1"]))).address).toBe("::1");
    expect((await dialed(six.port, to(["::1"]))).address).toBe("::1");
    const { error } = await dialed(six.port, to(["127.0.0.1", "127.0.0.2"]));
    expect([error?.unsent, error?.code]).toEqual([true, "ECONNREFUSED"]);
    six.close();
  });

  test("an address that stays silent does not keep the next from being tried", async () => {
    const port = Number(new URL(silent.url).port);
    const server = createServer((socket) => void socket.on("error", () => {}));
    await new Promise<void>((ready) => server.listen(port, "127.0.0.2", ready));
    expect((await dialed(port, to(["127.0.0.1", "127.0.0.2"]))).address).toBe("127.0.0.2");
    server.close();
  });

  test("a name server that does not answer, and a name without address, are refusals within the limit", async () => {
    const hung = await dialed(1, () => {}, 200);
    expect([hung.error?.unsent, hung.error?.message]).toEqual([true, "no connection within 200 ms (CONNECT_TIMEOUT)"]);
    expect((await dialed(1, to([]))).error?.message).toBe("a.name has no address");
  });
});

test("a busy connection is replaced after some 30 s, so that a new replica gets its share", async () => {
  const real = performance.now.bind(performance);
  let ahead = 0;
  const clock = spyOn(performance, "now").mockImplementation(() => real() + ahead);
  const server = await serve((socket, request) => {
    if (request.body === "old") ahead += 38_000;
    if (request.body === "young") ahead += 22_000;
    socket.write(http(200, "{}", JSON_TYPE, `X-Job-Id: ${request.headers.get("x-job-id")}`));
  });
  const say = (body: string, id: string) =>
    callHere({
      service: "s",
      url: server.url,
      body,
      headers: { "x-job-id": id },
      timeoutMs: 3_600_000,
      abort: new Abort(),
      accepts: [],
      maxResultBytes: 1_000,
      retry500: false,
      freshConnection: false,
      keepAlive: false,
      connectTimeoutMs: 10_000,
      log: noLog,
    });
  try {
    for (const [i, body] of ["", "young", "", "old", ""].entries())
      expect((await say(body, `job_${i}`)).kind).toBe("finished");
    expect(server.requests.map(({ nth }) => nth)).toEqual([1, 2, 3, 4, 1]);
  } finally {
    clock.mockRestore();
    server.close();
  }
});

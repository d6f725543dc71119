/** contract.md §4, row by row, against real sockets, under Bun and under Deno: what goes wrong on the way. */

import { describe, expect, spyOn, test } from "bun:test";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { gzipSync } from "node:zlib";
import { after, backoffMs } from "../shared/call.ts";
import {
  CHUNKED,
  Client,
  chunk,
  errorOf,
  HEAD,
  messageOf,
  type Rows,
  says,
  serve,
  sleep,
  underBoth,
  until,
} from "./fixtures/call-harness.ts";
import { http, JSON_TYPE, rawServer } from "./fixtures/raw-server.ts";

describe("backoffMs", () => {
  test("doubles its ceiling with each attempt and jitters over all of it", () => {
    for (const [attempt, ceiling] of [
      [1, 2_000],
      [2, 4_000],
      [5, 32_000],
    ] as const) {
      const draws = Array.from({ length: 2_000 }, () => backoffMs(attempt, 2_000));
      expect(Math.max(...draws)).toBeLessThan(ceiling);
      expect(Math.max(...draws)).toBeGreaterThan(ceiling * 0.95);
      expect(Math.min(...draws)).toBeLessThan(ceiling * 0.05);
      expect(draws.every(Number.isInteger)).toBe(true);
    }
  });

  test("is capped at ten minutes, or at what is asked, for any attempt", () => {
    const draws = (cap?: number) => Array.from({ length: 500 }, () => backoffMs(5_000, 2_000, cap));
    expect(Math.max(...draws())).toBeWithin(500_000, 600_000);
    expect(Math.max(...draws(100))).toBeWithin(50, 100);
  });
});

describe("after", () => {
  test("does not fire at once beyond 2^31-1 ms", async () => {
    let fired = 0;
    const cancels = [2 ** 31, 30 * 86_400_000].map((ms) => after(ms, () => fired++));
    await sleep(50);
    for (const cancel of cancels) cancel();
    expect(fired).toBe(0);
  });

  test("of ten seconds and more: fires once, not before its time and hardly after it, and not when canceled", async () => {
    const real = performance.now.bind(performance);
    let ahead = 0;
    const clock = spyOn(performance, "now").mockImplementation(() => real() + ahead);
    try {
      let [fired, later] = [0, 0];
      after(10_000, () => fired++);
      after(10_000, () => fired++)();
      after(60_000, () => later++);
      ahead = 9_000;
      await sleep(400);
      expect(fired).toBe(0);
      ahead = 10_000;
      await sleep(400);
      expect([fired, later]).toEqual([1, 0]);
      ahead = 60_000;
      await sleep(400);
      expect([fired, later]).toEqual([1, 1]);
    } finally {
      clock.mockRestore();
    }
  });

  test("fires once when its time has come, and not when canceled", async () => {
    let fired = 0;
    after(20, () => fired++);
    after(20, () => fired++)();
    await sleep(60);
    expect(fired).toBe(1);
  });
});

underBoth(({ runtime, client, call }: Rows) => {
  describe("cut_short", () => {
    const cuts: Record<string, (socket: Socket) => void> = {
      "RST within the body": (socket) => {
        socket.write(`${HEAD}Content-Length: 100\r\n\r\n{"a": 1}`);
        setTimeout(() => socket.resetAndDestroy(), 50);
      },
      "RST right after the headers": (socket) =>
        void socket.write(`${HEAD}Content-Length: 100\r\n\r\n`, () => setTimeout(() => socket.resetAndDestroy(), 20)),
      "closed before its Content-Length": (socket) => socket.end(`${HEAD}Content-Length: 100\r\n\r\n{"a": 1}`),
      "chunks without the last one": (socket) => socket.end(CHUNKED + chunk('{"a": 1}')),
      "within a chunk": (socket) => socket.end(`${CHUNKED}88\r\n{"a": 1}`),
      "half a gzip": (socket) =>
        socket.write(http(200, gzipSync("1".repeat(50_000)).subarray(0, 40), JSON_TYPE, "Content-Encoding: gzip")),
    };
    for (const [how, answer] of Object.entries(cuts)) {
      test(`${how} is retried, even where the part is JSON`, async () => {
        const server = await serve(answer);
        expect(await call({ url: server.url })).toMatchObject({
          kind: "retry",
          error: { code: "cut_short", http_status: 200, retryable: true },
        });
        expect(server.requests).toHaveLength(1);
      });
    }

    test("so is an answer of bytes", async () => {
      const { url } = await serve((socket) =>
        socket.end("HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\nPNG"),
      );
      expect(errorOf(await call({ url, accepts: ["image/*"] }))?.code).toBe("cut_short");
    });
  });

  describe("reset", () => {
    const resets: Record<string, (socket: Socket) => void> = {
      RST: (socket) => socket.resetAndDestroy(),
      close: (socket) => socket.end(),
      "close within the headers": (socket) => socket.end("HTTP/1.1 200 OK\r\nConte"),
      "RST within the headers": (socket) =>
        void socket.write("HTTP/1.1 200 OK\r\nConte", () => socket.resetAndDestroy()),
    };
    for (const [how, answer] of Object.entries(resets)) {
      test(`${how} before the answer, and the POST arrived once`, async () => {
        for (const freshConnection of [false, true]) {
          const server = await serve(answer);
          const outcome = await call({ url: server.url, freshConnection });
          expect(outcome).toMatchObject({ kind: "reset", error: { code: "reset", retryable: true } });
          await sleep(50);
          expect(server.requests).toHaveLength(1);
        }
      });
    }

    test("stale keep-alive: a POST on a socket that closes under it arrives exactly once", async () => {
      const server = await serve((socket, { nth }) =>
        nth === 1 ? socket.write(http(200, "{}", JSON_TYPE)) : socket.destroy(),
      );
      for (let i = 1; i <= 6; i++) {
        const outcome = await call({ url: server.url, body: `${i}` });
        expect(["finished", "reset"]).toContain(outcome.kind);
        expect(server.requests.filter(({ body }) => body === `${i}`)).toHaveLength(1);
      }
      expect(server.requests).toHaveLength(6);
    });

    test("stale keep-alive: a socket closed while idle costs nothing", async () => {
      const server = await serve((socket) => {
        socket.write(http(200, "{}", JSON_TYPE));
        setTimeout(() => socket.end(), 30);
      });
      for (let i = 1; i <= 3; i++) {
        expect((await call({ url: server.url })).kind).toBe("finished");
        await sleep(80);
      }
      expect(server.requests).toHaveLength(3);
    });

    test("freshConnection never takes a pooled socket and leaves none", async () => {
      const server = await says(http(200, "{}", JSON_TYPE));
      for (let i = 0; i < 3; i++) await call({ url: server.url, keepAlive: true });
      if (runtime === "bun") expect(server.requests[2]?.nth).toBe(3); // else this test proves nothing
      for (let i = 0; i < 3; i++) await call({ url: server.url, keepAlive: true, freshConnection: true });
      expect(server.requests.slice(3).map(({ nth }) => nth)).toEqual([1, 1, 1]);
      expect(await until(() => server.open.size <= 1)).toBe(true);
    });
  });

  describe("refused", () => {
    test("a closed port", async () => {
      const { url, close } = await rawServer(() => {});
      close();
      await sleep(20);
      const outcome = await call({ url });
      expect(outcome).toMatchObject({ kind: "refused", error: { code: "service_unreachable" } });
      expect(messageOf(outcome)).toMatch(/^ifcconvert cannot be reached at http:\/\/127\.0\.0\.1:\d+: .*refused/i);
      const secret = await call({ url: `${url.replace("://", "://me:hush-hush@")}?key=hush-hush` });
      expect(messageOf(secret)).toStartWith(`ifcconvert cannot be reached at ${new URL(url).origin}: `);
      expect(messageOf(secret)).not.toContain("hush");
    });

    test("a name that does not exist", async () => {
      expect((await call({ url: "http://no-such-host.invalid/run" })).kind).toBe("refused");
    });

    test("a certificate that is not trusted", async () => {
      const tls = Bun.serve({ port: 0, hostname: "127.0.0.1", tls: SELF_SIGNED, fetch: () => Response.json({}) });
      expect((await call({ url: `https://127.0.0.1:${tls.port}/run` })).kind).toBe("refused");
      tls.stop(true);
    });

    test("https to a port that speaks plain HTTP", async () => {
      const plain = createServer((socket) => {
        socket.on("error", () => {}).once("data", () => socket.end(http(400, "no TLS here")));
      });
      await new Promise<void>((ready) => plain.listen(0, "127.0.0.1", ready));
      const outcome = await call({ url: `https://127.0.0.1:${(plain.address() as AddressInfo).port}/run` });
      expect(outcome).toMatchObject({ kind: "refused", error: { code: "service_unreachable" } });
      plain.close();
    });

    test("a request that cannot be made is the job's fault and parks no lane", async () => {
      for (const asked of [{ url: "http://exa mple/" }, { url: "http://127.0.0.1:1/", headers: { "x-a": "a\nb" } }]) {
        expect(await call(asked)).toMatchObject({ kind: "failed", error: { code: "bad_job", retryable: false } });
      }
    });
  });

  describe("timeout", () => {
    const late = {
      kind: "failed",
      error: {
        code: "timeout",
        message:
          "ifcconvert did not finish within 300 ms, its time limit; the job or its operation in SERVICES sets it",
        retryable: false,
      },
    };

    test("silence, before and after the headers, and the service sees the connection close", async () => {
      for (const start of ["", CHUNKED, `${HEAD}Content-Length: 100\r\n\r\n`]) {
        const server = await serve((socket) => void (start && socket.write(start)));
        expect(await call({ url: server.url, timeoutMs: 300 })).toMatchObject(late);
        expect(await until(() => server.open.size === 0)).toBe(true);
      }
    });

    test("a trickle that never pauses", async () => {
      for (const start of [CHUNKED, `${HEAD}Content-Length: 5000\r\n\r\n`]) {
        const server = await serve((socket) => {
          socket.write(start);
          const drip = setInterval(
            () => (socket.destroyed ? clearInterval(drip) : socket.write(start === CHUNKED ? chunk(" ") : " ")),
            20,
          );
        });
        const began = Date.now();
        expect(await call({ url: server.url, timeoutMs: 300 })).toMatchObject(late);
        expect(Date.now() - began).toBeWithin(290, 1_500);
        expect(await until(() => server.open.size === 0)).toBe(true);
      }
    });

    test("a limit of 30 days does not fire at once", async () => {
      const { url } = await serve((socket) => setTimeout(() => socket.write(http(200, "{}", JSON_TYPE)), 100));
      expect((await call({ url, timeoutMs: 30 * 86_400_000 })).kind).toBe("finished");
    });
  });

  describe("aborted", () => {
    test("before the call nothing is sent", async () => {
      const server = await says(http(200, "{}", JSON_TYPE));
      expect(await call({ url: server.url, abortAfterMs: 0 })).toEqual({ kind: "aborted" });
      expect(server.connections).toBe(0);
    });

    test("in silence, in the body and in an error's body; the service sees the connection close", async () => {
      const starts = [
        "",
        CHUNKED + chunk("[1,"),
        `${HEAD}Content-Length: 100\r\n\r\n[`,
        "HTTP/1.1 500 X\r\nContent-Length: 100\r\n\r\nx",
      ];
      for (const start of starts) {
        for (const freshConnection of [false, true]) {
          const server = await serve((socket) => void (start && socket.write(start)));
          expect(await call({ url: server.url, freshConnection, abortAfterMs: 150 })).toEqual({ kind: "aborted" });
          expect(await until(() => server.open.size === 0)).toBe(true);
          expect(server.requests).toHaveLength(1);
        }
      }
    });
  });

  test("300 calls are in flight at once", async () => {
    const many = runtime === "bun" ? new Client([process.execPath], { BUN_CONFIG_MAX_HTTP_REQUESTS: "400" }) : client();
    const waiting: Socket[] = [];
    const { url } = await serve((socket) => {
      if (waiting.push(socket) === 300) for (const each of waiting) each.write(http(200, "{}", JSON_TYPE));
    });
    const outcomes = await Promise.all(Array.from({ length: 300 }, () => many.call({ url, timeoutMs: 10_000 })));
    expect(outcomes.filter(({ kind }) => kind === "finished")).toHaveLength(300);
    if (many !== client()) many.stop();
  });

  test("no outcome leaves a socket behind", async () => {
    const server = await serve((socket, { body }) => {
      const type = body === "201" ? JSON_TYPE : "Content-Type: text/html";
      socket.write(`HTTP/1.1 ${body} Said\r\n${type}\r\nContent-Length: 9000000\r\n\r\n${"x".repeat(300_000)}`);
    });
    const statuses = [200, 201, 307, 404, 500, 503].flatMap((status) => Array(20).fill(`${status}`));
    await Promise.all(statuses.map((body) => call({ url: server.url, body })));
    expect(server.requests).toHaveLength(120);
    expect(await until(() => server.open.size === 0)).toBe(true);
  });
}, true);

/** Made for this test: openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj /CN=test */
const SELF_SIGNED = {
  key: `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgWYQ+rm8Okv/ahcom
9wO9DbNkK0ZVISyBa1xgXiVGpqKhRANCAATVTpaiMm1eNsbctFTyanXFQdc06DC9
QMYlMHepinYKrsrQucwmf/kn9nTcEqR61mYG2CAeiB/G9jjxV62/pMnP
-----END PRIVATE KEY-----
`,
  cert: `-----BEGIN CERTIFICATE-----
MIIBdTCCARugAwIBAgIUQQighNBWubY7BSmFMbs4QEYl3I8wCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjQwODI1NDhaGA8yMTI2MTAzMTA4MjU0
OFowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNVO
lqIybV42xty0VPJqdcVB1zToML1AxiUwd6mKdgquytC5zCZ/+Sf2dNwSpHrWZgbY
IB6IH8b2OPFXrb+kyc+jUzBRMB0GA1UdDgQWBBSAYbAeXlFotWR/BtQzX+wU3vqM
XDAfBgNVHSMEGDAWgBSAYbAeXlFotWR/BtQzX+wU3vqMXDAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0gAMEUCIGMQwRgl5a+5ICPGqv8kny0jcrA0mc2nv3Oq
qmRrfV6eAiEAtHtxZGOYwkerGk+FNN2E26nz+Ug9JBQqoOgIRPhnuDI=
-----END CERTIFICATE-----
`,
};

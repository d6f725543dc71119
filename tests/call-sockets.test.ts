/** What is left to a call by the connections of its own (shared/http1.ts, transport.ts), under Bun and under Deno. */
import { describe, expect, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import {
  CHUNKED,
  chunk,
  errorOf,
  HEAD,
  messageOf,
  pour,
  type Rows,
  says,
  serve,
  sleep,
  underBoth,
  until,
} from "./fixtures/call-harness.ts";
import { http, JSON_TYPE } from "./fixtures/raw-server.ts";

underBoth(({ start, client, call: one }: Rows) => {
  /** of a service that the operator vouches for: what else lets a connection serve on is in call-surplus.test.ts */
  const call: Rows["call"] = (asked) => one({ keepAlive: true, ...asked });

  describe("a connection", () => {
    test("serves one call after another, and is closed when it was idle for a second", async () => {
      const server = await says(http(200, "{}", JSON_TYPE));
      for (let i = 0; i < 5; i++) expect((await call({ url: server.url })).kind).toBe("finished");
      expect([server.connections, server.open.size]).toEqual([1, 1]);
      expect(await until(() => server.open.size === 0, 4_000)).toBe(true);
      expect((await call({ url: server.url })).kind).toBe("finished");
      expect(server.connections).toBe(2);
    });

    test("is asked by the kernel whether the other side still lives", async () => {
      if (!existsSync("/proc/net/tcp")) return;
      const server = await serve(() => {});
      void call({ url: server.url, timeoutMs: 2_000 });
      expect(await until(() => server.requests.length === 1)).toBe(true);
      const port = `:${server.port.toString(16).toUpperCase().padStart(4, "0")}`;
      const lines = readFileSync("/proc/net/tcp", "utf8").split("\n");
      const [ours] = lines.map((line) => line.trim().split(/\s+/)).filter((fields) => fields[2]?.endsWith(port));
      expect(ours?.[5]?.slice(0, 2)).toBe("02"); // the timer that runs: keepalive
    });

    test("on which more came than was asked for serves no other call", async () => {
      const answer = http(200, '"mine"', JSON_TYPE);
      const forged = http(200, '"forged"', JSON_TYPE);
      const late = (socket: Socket, more: string | Uint8Array, ms: number) => setTimeout(() => socket.write(more), ms);
      for (const [more, ms] of [
        [forged, 0],
        ["HTTP/1.1 2", 0],
        ["no HTTP", 0],
        [forged, 20],
        ["HTTP/1.1 2", 20],
      ] as const) {
        const server = await serve((socket) => {
          socket.write(ms === 0 ? Buffer.concat([answer, Buffer.from(more)]) : answer);
          if (ms > 0) late(socket, more, ms);
        });
        for (let i = 1; i <= 3; i++) {
          expect(await call({ url: server.url })).toMatchObject({ kind: "finished", result: '"mine"' });
          await sleep(2 * ms);
          expect(server.connections).toBe(i);
        }
        expect(await until(() => server.open.size === 0)).toBe(true);
      }
    });

    test("serves on after an answer that had to be decoded", async () => {
      const value = `"${randomBytes(300_000).toString("hex")}"`; // does not shrink to a part that fits one read
      const server = await says(http(200, gzipSync(value), JSON_TYPE, "Content-Encoding: gzip"));
      for (let i = 0; i < 4; i++) {
        const outcome = await call({ url: server.url, maxResultBytes: 1_000_000, timeoutMs: 5_000 });
        expect([outcome.kind, outcome.kind === "finished" && outcome.result === value]).toEqual(["finished", true]);
      }
      expect(server.connections).toBe(1);
    });

    test("whose service closes after each answer, and does not say so, is hardly used again", async () => {
      const answer = http(200, "{}", JSON_TYPE);
      const ways: ((socket: Socket) => void)[] = [
        (socket) => socket.end(answer),
        (socket) => void socket.write(answer, () => socket.resetAndDestroy()),
        (socket) => {
          socket.write(answer);
          setTimeout(() => socket.end(), 2);
        },
      ];
      for (const way of ways) {
        const server = await serve(way);
        const kinds: string[] = [];
        for (let i = 0; i < 60; i++) kinds.push((await call({ url: server.url })).kind);
        expect(kinds.filter((kind) => kind !== "finished" && kind !== "reset")).toEqual([]);
        expect(kinds.filter((kind) => kind === "reset").length).toBeLessThanOrEqual(1);
        expect(server.requests.length).toBeLessThanOrEqual(60);
      }
      // One that closes a little later serves several calls until then; once it is known, no connection serves a second one.
      const late = await serve((socket) => {
        socket.write(answer);
        setTimeout(() => socket.end(), 20);
      });
      await call({ url: late.url });
      expect(await until(() => late.open.size === 0)).toBe(true);
      for (let i = 0; i < 20; i++) expect((await call({ url: late.url })).kind).toBe("finished");
      expect(late.requests.map(({ nth }) => nth)).toEqual(Array(21).fill(1));
    });

    test("that breaks after some time, as when its service is restarted, is replaced by one that serves on", async () => {
      const server = await serve((socket, { body }) => {
        socket.write(http(200, "{}", JSON_TYPE));
        if (body === "last") socket.end();
      });
      for (const body of ["a", "b", "c", "last"]) {
        expect((await call({ url: server.url, body })).kind).toBe("finished");
        await sleep(50);
      }
      for (let i = 0; i < 5; i++) expect((await call({ url: server.url })).kind).toBe("finished");
      expect(server.connections).toBe(2);
    });

    test("that is refused a long body gives the answer, and is not used again", async () => {
      const body = JSON.stringify("x".repeat(8 << 20));
      const sockets: Socket[] = [];
      const listener = createServer((socket) => {
        sockets.push(socket);
        socket
          .on("error", () => {})
          .once("data", () => {
            socket.pause();
            socket.write(http(413, "no", "Content-Type: text/plain"));
          });
      });
      await new Promise<void>((ready) => listener.listen(0, "127.0.0.1", ready));
      const url = `http://127.0.0.1:${(listener.address() as AddressInfo).port}/`;
      for (let i = 1; i <= 2; i++) {
        expect(await call({ url, body })).toMatchObject({ kind: "failed", error: { http_status: 413 } });
        expect(sockets).toHaveLength(i);
      }
      for (const socket of sockets) socket.destroy();
      listener.close();
    });
  });

  describe("an answer", () => {
    test("of any length, in any pieces, beside fifty others, is the one that was sent", async () => {
      const of = (seed: string) => {
        const digest = createHash("sha512").update(seed).digest();
        const size = digest.readUInt32LE(0) % 300_000;
        return `"${digest
          .toString("hex")
          .repeat(Math.ceil(size / 128))
          .slice(0, size)}${seed}"`;
      };
      const { url } = await serve(async (socket, { body }) => {
        const value = of(body);
        const whole = body.endsWith("1")
          ? http(200, value, JSON_TYPE)
          : Buffer.from(`${CHUNKED}${value.replace(/.{1,7001}/g, chunk)}0\r\n\r\n`);
        const step = 1 + (whole.length % 50_000);
        for (let at = 0; at < whole.length; at += step) {
          socket.write(whole.subarray(at, at + step));
          if (at % 3 === 0) await sleep(0);
        }
      });
      const wrong: string[] = [];
      await Promise.all(
        Array.from({ length: 50 }, async (_, slot) => {
          for (let i = 0; i < 12; i++) {
            const body = `${slot * 100 + i}`;
            const outcome = await call({ url, body, maxResultBytes: 400_000 });
            if (outcome.kind !== "finished" || outcome.result !== of(body)) wrong.push(body);
          }
        }),
      );
      expect(wrong).toEqual([]);
    });

    test("may have many headers, also after its body, where nobody looks for them", async () => {
      const many = Array.from({ length: 90 }, (_, i) => `X-Filler-${i}: ${"v".repeat(i)}`);
      const { url } = await says(
        ["HTTP/1.1 503 Said", ...many, "X-Job-Retry: no", "Transfer-Encoding: chunked", "Trailer: x", "", ""].join(
          "\r\n",
        ),
        chunk("why"),
        "0\r\nX-Job-Retry: yes\r\n\r\n",
      );
      expect(await call({ url })).toMatchObject({ kind: "failed", error: { message: "ifcconvert answered 503: why" } });
    });

    test("with a head without end is refused with the limit", async () => {
      const server = await serve((socket) => {
        socket.write("HTTP/1.1 200 OK\r\n");
        pour(socket, `X: ${"y".repeat(8_000)}\r\n`);
      });
      const outcome = await call({ url: server.url, timeoutMs: 5_000 });
      expect(errorOf(outcome)?.code).toBe("bad_answer");
      expect(messageOf(outcome)).toContain("with more than 256 KiB of headers");
      expect(await until(() => server.open.size === 0)).toBe(true);
    });

    test("to a request of HTTP/1.1 that keeps a header's letters beyond ASCII", async () => {
      const server = await serve((socket) => socket.write(http(200, "{}", JSON_TYPE)));
      expect((await call({ url: server.url, headers: { tracestate: "a=é" }, body: '"é"' })).kind).toBe("finished");
      const { headers, body } = server.requests[0]!;
      expect([headers.get("tracestate"), body]).toEqual([Buffer.from("a=é", "latin1").toString(), '"é"']);
      const beyond = await call({ url: server.url, headers: { tracestate: "a=𝄞" } });
      expect(errorOf(beyond)?.code).toBe("bad_job");
      expect(server.requests).toHaveLength(1);
    });
  });

  test("a call that is taken back before it went out sends nothing", async () => {
    const server = await says(http(200, "{}", JSON_TYPE));
    expect((await call({ url: server.url, abortAfterMs: -1 })).kind).toBe("aborted");
    await sleep(50);
    expect(server.requests).toHaveLength(0);
  });

  test.each(["HTTP_PROXY", "ALL_PROXY"])("a proxy in the environment gets the call: %s", async (name) => {
    const proxy = await says(http(200, '"by proxy"', JSON_TYPE));
    const behind = start({ [name]: new URL(proxy.url).origin });
    expect(await behind.call({ url: "http://ifcconvert.invalid/run" })).toMatchObject({ result: '"by proxy"' });
    behind.stop();
  });

  test("a proxy in the environment does not get calls to this machine, nor to what NO_PROXY names", async () => {
    const proxy = await says(http(502, "by proxy"));
    const server = await says(http(200, '"direct"', JSON_TYPE));
    const at = new URL(proxy.url).origin;
    const behind = start({ HTTP_PROXY: at, http_proxy: at, HTTPS_PROXY: at, NO_PROXY: "other.invalid" });
    for (const host of ["127.0.0.1", "localhost"]) {
      const outcome = await behind.call({ url: `http://${host}:${server.port}/run` });
      expect([host, outcome]).toMatchObject([host, { kind: "finished", result: '"direct"' }]);
    }
    expect((await behind.call({ url: "http://other.invalid/run" })).kind).toBe("refused");
    expect(proxy.requests).toHaveLength(0);
    behind.stop();
  });

  test("NODE_EXTRA_CA_CERTS names authorities of one's own for https", async () => {
    const dir = mkdtempSync(join(tmpdir(), "longhaul-ca-"));
    const file = (name: string) => join(dir, name);
    const openssl = (...command: string[]) => expect(Bun.spawnSync(["openssl", ...command]).exitCode).toBe(0);
    const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout"];
    openssl("req", "-x509", ...newKey, file("ca.key"), "-subj", "/CN=own", "-days", "2", "-out", file("ca.pem"));
    openssl("req", ...newKey, file("key.pem"), "-subj", "/CN=localhost", "-out", file("request.pem"));
    writeFileSync(file("names"), "subjectAltName=DNS:localhost");
    const signed = ["-CA", file("ca.pem"), "-CAkey", file("ca.key"), "-CAcreateserial", "-extfile", file("names")];
    openssl("x509", "-req", "-in", file("request.pem"), ...signed, "-days", "2", "-out", file("cert.pem"));
    const tls = { key: readFileSync(file("key.pem"), "utf8"), cert: readFileSync(file("cert.pem"), "utf8") };
    const server = Bun.serve({ port: 0, hostname: "127.0.0.1", tls, fetch: () => Response.json("trusted") });
    const url = `https://localhost:${server.port}/run`;
    const trusting = start({ NODE_EXTRA_CA_CERTS: file("ca.pem") });
    expect(await trusting.call({ url })).toMatchObject({ kind: "finished", result: '"trusted"' });
    expect((await client().call({ url })).kind).toBe("refused");
    trusting.stop();
    await server.stop(true);
    rmSync(dir, { recursive: true });
  });

  test("thousands of connections leave no memory behind", async () => {
    const { url } = await serve((socket) => socket.write(`${HEAD}Content-Length: 2\r\n\r\n{}`));
    const rounds = async (n: number) => {
      for (let i = 0; i < n; i++)
        await Promise.all(Array.from({ length: 50 }, () => call({ url, freshConnection: true })));
    };
    await rounds(20);
    const before = await client().rss();
    await rounds(80);
    expect((await client().rss()) - before).toBeLessThan(48 << 20); // 4,000 parsers, sockets and their buffers
  });
});

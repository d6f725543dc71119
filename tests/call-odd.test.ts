/** Answers that no service should give, and some do: they may cost their own call, never another one or the worker. */
import { describe, expect, test } from "bun:test";
import { brotliCompressSync, deflateSync, gzipSync } from "node:zlib";
import {
  CHUNKED,
  chunk,
  chunked,
  errorOf,
  HEAD,
  messageOf,
  type Rows,
  says,
  serve,
  sleep,
  underBoth,
} from "./fixtures/call-harness.ts";
import { http, JSON_TYPE } from "./fixtures/raw-server.ts";

underBoth(({ client, call }: Rows) => {
  describe("encodings", () => {
    test("a body that is decoded before its message has ended takes no other call along", async () => {
      const encoded = (type: string) => `${HEAD}Transfer-Encoding: chunked\r\nContent-Encoding: ${type}\r\n\r\n`;
      for (const [type, body] of [
        ["deflate", deflateSync('"first"')],
        ["gzip", Buffer.concat([gzipSync('"first"'), Buffer.alloc(9)])],
      ] as const) {
        const server = await serve((socket, { nth, body: asked }) => {
          if (asked === "2" || nth > 1) return void socket.write(http(200, '"second"', JSON_TYPE));
          socket.write(
            Buffer.concat([Buffer.from(encoded(type)), chunked(Buffer.concat([body, Buffer.from("tail")]))]),
          );
          setTimeout(() => socket.write(`${chunk("more")}0\r\n\r\n`), 200);
        });
        const first = await call({ url: server.url, body: "1" });
        const second = await call({ url: server.url, body: "2" });
        expect(["finished", "retry"]).toContain(first.kind);
        expect(second).toMatchObject({ kind: "finished", result: '"second"' });
        await sleep(250);
        expect(await call({ url: server.url, body: "2" })).toMatchObject({ kind: "finished", result: '"second"' });
      }
    });

    test("none that nobody knows is kept as a result, and none ends the worker", async () => {
      for (const name of ["constructor", "__proto__", "toString", "br", "zstd", "gzip, identity", "x".repeat(5_000)]) {
        const { url } = await says(
          http(200, brotliCompressSync("{}"), "Content-Type: image/png", `Content-Encoding: ${name}`),
        );
        const outcome = await call({ url, accepts: ["image/*"] });
        expect([name, errorOf(outcome)?.code]).toEqual([name, "bad_answer"]);
        expect(messageOf(outcome)).toContain(
          `ifcconvert answered 200 with Content-Encoding ${name.toLowerCase().slice(0, 40)}`,
        );
      }
      const busy = await says(http(503, "busy", "Content-Encoding: zstd"));
      expect(await call({ url: busy.url })).toMatchObject({
        kind: "retry",
        error: { http_status: 503, message: "ifcconvert answered 503" },
      });
      const plain = await says(http(200, "{}", JSON_TYPE, "Content-Encoding: Identity"));
      expect(await call({ url: plain.url })).toMatchObject({ kind: "finished", result: "{}" });
    });

    test("nothing at all is no encoded body", async () => {
      const made = [
        "HTTP/1.1 204 No Content\r\nContent-Encoding: gzip\r\n\r\n",
        http(200, "", "Content-Encoding: gzip"),
      ];
      for (const answer of made) {
        const { url } = await says(answer);
        expect(await call({ url, accepts: ["*/*"] })).toMatchObject({ kind: "finished" });
      }
    });

    test("an answer that is there counts, whatever becomes of its connection", async () => {
      const value = `"${"v".repeat(200_000)}"`;
      const { url } = await serve((socket) => {
        const answer = http(200, gzipSync(value), JSON_TYPE, "Content-Encoding: gzip");
        socket.write(answer, () => socket.resetAndDestroy());
      });
      for (let i = 0; i < 10; i++) {
        const outcome = await call({ url, freshConnection: true, maxResultBytes: 1_000_000 });
        expect([outcome.kind, outcome.kind === "finished" && outcome.result === value]).toEqual(["finished", true]);
      }
    });
  });

  test("a length beside chunks, bare line feeds and a 100 that closes are understood, and the connection is given up", async () => {
    const both = `HTTP/1.1 200 OK\r\n${JSON_TYPE}\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n${chunk("{}")}0\r\n\r\n`;
    const bare = http(200, "{}", JSON_TYPE).toString().replaceAll("\r\n", "\n");
    const hundred = `HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\n${http(200, "{}", JSON_TYPE)}`;
    for (const answer of [both, bare, hundred]) {
      const { url } = await says(answer);
      for (let i = 0; i < 2; i++) expect(await call({ url })).toMatchObject({ kind: "finished", result: "{}" });
    }
    const twice = await says(both);
    for (let i = 0; i < 2; i++) await call({ url: twice.url });
    expect(twice.connections).toBe(2);
  });

  test("a status below 100 is told", async () => {
    for (const status of ["000", "099"]) {
      const { url } = await says(`HTTP/1.1 ${status} Odd\r\nContent-Length: 0\r\n\r\n`);
      expect(errorOf(await call({ url, timeoutMs: 3_000 }))?.code).toBe("bad_answer");
    }
  });

  test("a million chunks of a byte are no million objects", async () => {
    const ones = Buffer.from(chunk("1").repeat(50_000));
    const { url } = await serve(async (socket) => {
      socket.write(CHUNKED);
      for (let i = 0; i < 20; i++) socket.write(ones);
      socket.write("0\r\n\r\n");
    });
    await call({ url, maxResultBytes: 2_000_000 });
    const before = await client().rss();
    expect(await call({ url, maxResultBytes: 2_000_000 })).toMatchObject({ kind: "finished" });
    expect((await client().rss()) - before).toBeLessThan(160 << 20);
  });
});

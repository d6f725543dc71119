/** Answers that no service should give, and some do: they may cost their own call, never another one or the worker. */
import { describe, expect, test } from "bun:test";
import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync } from "node:zlib";
import {
  CHUNKED,
  chunk,
  chunked,
  errorOf,
  HEAD,
  keptOf,
  messageOf,
  type Rows,
  says,
  serve,
  sleep,
  underBoth,
} from "./fixtures/call-harness.ts";
import { http, JSON_TYPE } from "./fixtures/raw-server.ts";

underBoth(({ client, call: one }: Rows) => {
  /** of a service that the operator vouches for, so that connections are used again */
  const call: Rows["call"] = (asked) => one({ keepAlive: true, ...asked });

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
        expect(["finished", "retry", "failed"]).toContain(first.kind);
        expect(second).toMatchObject({ kind: "finished", result: '"second"' });
        await sleep(250);
        expect(await call({ url: server.url, body: "2" })).toMatchObject({ kind: "finished", result: '"second"' });
      }
    });

    test("one that nobody knows fails the job, which keeps the bytes as they came", async () => {
      const bytes = brotliCompressSync("{}");
      for (const name of ["constructor", "__proto__", "toString", "zstd", "gzip, identity", "x".repeat(5_000)]) {
        for (const type of ["image/png", "text/html"]) {
          const { url } = await says(http(200, bytes, `Content-Type: ${type}`, `Content-Encoding: ${name}`));
          const outcome = await call({ url, accepts: ["image/*"] });
          expect([name, errorOf(outcome)?.code]).toEqual([name, "bad_answer"]);
          expect(messageOf(outcome)).toContain(
            `ifcconvert answered 200 with Content-Encoding ${name.toLowerCase().slice(0, 40)}`,
          );
          expect(keptOf(outcome)).toEqual({ bytes, type });
        }
      }
      const busy = await says(http(503, "busy", "Content-Encoding: zstd"));
      expect(await call({ url: busy.url })).toMatchObject({
        kind: "retry",
        error: { http_status: 503, message: "ifcconvert answered 503" },
      });
      const plain = await says(http(200, "{}", JSON_TYPE, "Content-Encoding: Identity"));
      expect(await call({ url: plain.url })).toMatchObject({ kind: "finished", result: "{}" });
    });

    test("zlib's deflate, raw deflate and brotli are decoded, also of a type kept as bytes", async () => {
      const value = JSON.stringify(Array.from({ length: 2_000 }, (_, i) => `${i}`));
      for (const [name, body] of [
        ["gzip", gzipSync(value)],
        ["x-gzip", gzipSync(value)],
        ["deflate", deflateSync(value)],
        ["deflate", deflateRawSync(value)],
        ["br", brotliCompressSync(value)],
      ] as const) {
        for (const type of ["application/json", "text/csv"]) {
          const head = `HTTP/1.1 200 OK\r\nContent-Type: ${type}\r\nTransfer-Encoding: chunked\r\n`;
          const parts = [body.subarray(0, 1), body.subarray(1)].map((part) => chunked(part));
          const { url } = await says(head, `Content-Encoding: ${name}\r\n\r\n`, ...parts, "0\r\n\r\n");
          const outcome = await call({ url, accepts: ["text/csv"] });
          expect([name, type, outcome.kind]).toEqual([name, type, "finished"]);
          expect(outcome.kind === "finished" && outcome.result.toString()).toBe(value);
        }
      }
    });

    test("a body that is encoded wrongly fails at once, and its bytes are kept as they came", async () => {
      const broken = gzipSync("1".repeat(50_000));
      broken.fill(0xff, 20, 40);
      for (const [name, body] of [
        ["gzip", Buffer.from('{"plain": true}')],
        ["gzip", broken],
        ["deflate", Buffer.from([0x78, 0x9c, 0xff, 0xff, 0xff, 0xff])],
        ["br", Buffer.from("not brotli at all")],
      ] as const) {
        const server = await says(http(200, body, JSON_TYPE, `Content-Encoding: ${name}`));
        const outcome = await call({ url: server.url });
        expect(outcome).toMatchObject({ kind: "failed", error: { code: "bad_answer", retryable: false } });
        expect(messageOf(outcome)).toContain("a body that cannot be decoded");
        expect(keptOf(outcome)).toEqual({ bytes: body, type: "application/json" });
        expect(await call({ url: server.url })).toMatchObject({ kind: "failed" }); // its connection harms no other call
      }
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

  test("two equal lengths or types count once, two that differ are an error", async () => {
    const equal = [
      http(200, "{}", JSON_TYPE, "Content-Length: 2"),
      http(200, "{}", JSON_TYPE, JSON_TYPE),
      http(200, "{}", JSON_TYPE, "content-type: application/json; charset=utf-8"),
      `${HEAD}Content-Length: 2, 2\r\n\r\n{}`,
      `HTTP/1.1 100 Continue\r\n\r\n${http(200, "{}", JSON_TYPE, "content-length:2 ")}`,
    ];
    for (const answer of equal) {
      const text = answer.toString();
      for (const cut of [0, text.indexOf("ength: ") + 4, text.length - 3]) {
        const { url } = await serve(async (socket) => {
          if (cut > 0) socket.write(text.slice(0, cut));
          if (cut > 0) await sleep(20);
          socket.write(text.slice(cut));
        });
        for (let i = 0; i < 2; i++) {
          expect([text, cut, await call({ url })]).toMatchObject([text, cut, { kind: "finished", result: "{}" }]);
        }
      }
    }
    const lengths = await says(http(200, "{}1", JSON_TYPE, "Content-Length: 2"));
    expect(messageOf(await call({ url: lengths.url }))).toContain("answered with two lengths that differ");
    const types = await says(http(200, "{}", JSON_TYPE, "Content-Type: text/html"));
    const outcome = await call({ url: types.url });
    expect(messageOf(outcome)).toContain("answered 200 with application/json, text/html instead of application/json");
    expect(keptOf(outcome)?.bytes.toString()).toBe("{}");
  });

  test("a byte order mark is read over, and text/json and +json are JSON", async () => {
    for (const type of [
      "application/json",
      "text/json",
      "application/problem+json",
      "model/gltf+json; charset=utf-8",
    ]) {
      const { url } = await says(http(200, '\ufeff{"a": 1}', `Content-Type: ${type}`));
      expect(await call({ url })).toMatchObject({ kind: "finished", result: '{"a": 1}' });
    }
  });

  test("a 2xx that is no result: final, and its bytes are kept with their type", async () => {
    for (const [body, type] of [
      ['{"a": NaN}', "application/json"],
      ['{"a": 1}', "text/plain"],
      ["<h1>done</h1>", "text/html; charset=utf-8"],
      ['{"half":', "application/json"],
    ] as const) {
      const { url } = await says(http(200, body, `Content-Type: ${type}`));
      const outcome = await call({ url });
      expect(outcome).toMatchObject({ kind: "failed", error: { code: "bad_answer", retryable: false } });
      expect(keptOf(outcome)).toEqual({ bytes: Buffer.from(body), type });
    }
    const chunk12 = `${CHUNKED}${chunk('{"a": 1,')}zz\r\n{}\r\n0\r\n\r\n`;
    const broken = await call({ url: (await says(chunk12)).url });
    expect(errorOf(broken)).toMatchObject({ code: "bad_answer", retryable: false });
    expect(keptOf(broken)?.bytes.toString()).toBe('{"a": 1,');
    const cut = await call({ url: (await serve((socket) => socket.end(`${CHUNKED}${chunk('{"a": 1,')}`))).url });
    expect(cut).toMatchObject({ kind: "retry", error: { code: "cut_short" } });
    expect(keptOf(cut)?.bytes.toString()).toBe('{"a": 1,');
  });

  test("a 2xx beyond MAX_RESULT_BYTES is not kept, whatever its type", async () => {
    for (const type of ["application/json", "text/html"]) {
      const { url } = await says(http(200, "x".repeat(5_000), `Content-Type: ${type}`));
      const outcome = await call({ url, maxResultBytes: 4_999 });
      expect([type, outcome.kind, keptOf(outcome)]).toEqual([type, "failed", undefined]);
      expect(messageOf(outcome)).toContain(type === "text/html" ? "instead of" : "MAX_RESULT_BYTES");
    }
  });

  test("an unknown transfer coding is refused at once, however long the connection stays", async () => {
    for (const coding of ["xchunked", "gzip, chunked", "chunked, chunked"]) {
      const { url } = await says(`${HEAD}Transfer-Encoding: ${coding}\r\n\r\n{}`);
      const outcome = await call({ url, timeoutMs: 5_000 });
      expect(errorOf(outcome)).toMatchObject({ code: "bad_answer", retryable: false });
      expect(messageOf(outcome)).toMatch(/Transfer-Encoding|HPE_/);
    }
    const busy = await says("HTTP/1.1 503 Busy\r\nTransfer-Encoding: xchunked\r\n\r\nbusy");
    expect(await call({ url: busy.url, timeoutMs: 5_000 })).toMatchObject({ kind: "retry" });
  });

  test("a head of 70 KB and of 250 KB is read, one beyond 256 KiB is final", async () => {
    for (const [length, kind] of [
      [70_000, "finished"],
      [250_000, "finished"],
      [263_000, "failed"],
    ] as const) {
      const { url } = await says(http(200, "{}", JSON_TYPE, `X-Trace: ${"t".repeat(length)}`));
      const outcome = await call({ url });
      expect([length, outcome.kind]).toEqual([length, kind]);
      if (kind === "failed") expect(messageOf(outcome)).toContain("with more than 256 KiB of headers");
    }
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

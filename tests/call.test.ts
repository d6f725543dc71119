/** contract.md §4, row by row, against real sockets, under Bun and under Deno: what it answers. */

import { describe, expect, test } from "bun:test";
import type { Socket } from "node:net";
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
  underBoth,
  until,
} from "./fixtures/call-harness.ts";
import { http, JSON_TYPE, type RawServer } from "./fixtures/raw-server.ts";

underBoth(({ client, call }: Rows) => {
  describe("2xx", () => {
    test("keeps JSON exactly as received: digits, spaces, __proto__, escapes", async () => {
      const body =
        ' {"n": 9007199254740993, "x":1.0,\n"__proto__": {"a":1}, "a":1, "a":2, "é\\u00e9": "𝄞", "e": 1E400}\r\n';
      const { url } = await says(http(200, body, "Content-Type: Application/JSON; charset=utf-8"));
      expect(await call({ url })).toMatchObject({ kind: "finished", result: body, type: "" });
    });

    test.each(["null", "0", '""', "[]", "{}"])("keeps the value %s", async (body) => {
      const { url } = await says(http(201, body, JSON_TYPE));
      expect(await call({ url })).toMatchObject({ kind: "finished", result: body, type: "" });
    });

    test("keeps another JSON type by its name, and reads an answer without a type as JSON", async () => {
      const geo = await says(http(200, '{"a": 1}', "Content-Type: application/geo+json"));
      expect(await call({ url: geo.url })).toMatchObject({ result: '{"a": 1}', type: "application/geo+json" });
      const bare = await says(http(200, '{"a": 1}'));
      expect(await call({ url: bare.url })).toMatchObject({ result: '{"a": 1}', type: "" });
    });

    test("keeps a type that accepts names as bytes, with the type", async () => {
      const bytes = Buffer.from([0, 0xff, 0xfe, 0x0d, 0x0a, 0x80]);
      for (const [type, accepts] of [
        ["image/png", ["image/png"]],
        ["image/png", ["text/csv", "Image/*"]],
        ["text/csv; charset=latin1", ["text/csv"]],
        ["model/gltf-binary", ["*/*"]],
      ] as const) {
        const { url } = await says(http(200, bytes, `Content-Type: ${type}`));
        expect(await call({ url, accepts: [...accepts] })).toMatchObject({ kind: "finished", result: bytes, type });
      }
    });

    test("an empty body is the result null, of a type that accepts names it is no bytes", async () => {
      const csv = await says(http(200, "", "Content-Type: text/csv"));
      const outcome = await call({ url: csv.url, accepts: ["text/csv"] });
      expect(outcome).toMatchObject({ kind: "finished", type: "text/csv" });
      expect(outcome.kind === "finished" && outcome.result.length).toBe(0);
      const empty = [
        "HTTP/1.1 204 No Content\r\n\r\n",
        http(200, ""),
        http(202, "", JSON_TYPE),
        http(200, "", "Content-Type: text/html; charset=utf-8"), // Flask's `return "", 200`
        `HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
      ];
      for (const answer of empty) {
        for (const accepts of [["application/json"], ["application/json", "image/png"]]) {
          const { url } = await says(answer);
          expect(await call({ url, accepts })).toMatchObject({ kind: "finished", result: "null", type: "" });
        }
      }
      const none = await says("HTTP/1.1 204 No Content\r\n\r\n");
      expect(await call({ url: none.url, accepts: ["*/*"] })).toMatchObject({ kind: "finished", result: "null" });
    });

    test("takes chunks, gzip, an answer that ends with its connection, and early hints before it", async () => {
      const body = '{"a": 1}';
      const chunks = await says(CHUNKED, chunk('{"a"'), chunk(": 1}"), "0\r\n\r\n");
      expect(await call({ url: chunks.url })).toMatchObject({ kind: "finished", result: body });
      const gzip = await says(http(200, gzipSync(body), JSON_TYPE, "Content-Encoding: gzip"));
      expect(await call({ url: gzip.url })).toMatchObject({ kind: "finished", result: body });
      const closing = await serve((socket) => socket.end(`${HEAD}Connection: close\r\n\r\n${body}`));
      expect(await call({ url: closing.url })).toMatchObject({ kind: "finished", result: body });
      const hints = await says("HTTP/1.1 103 Early Hints\r\n\r\n", http(200, body, JSON_TYPE));
      expect(await call({ url: hints.url })).toMatchObject({ kind: "finished", result: body });
    });

    test("tells when the first and the last byte came", async () => {
      const { url } = await serve((socket) => {
        setTimeout(() => socket.write(CHUNKED + chunk("[")), 100);
        setTimeout(() => socket.write(`${chunk("]")}0\r\n\r\n`), 300);
      });
      const outcome = await call({ url });
      if (outcome.kind !== "finished") throw new Error(JSON.stringify(outcome));
      expect(outcome.timing.firstByteMs).toBeWithin(90, 280);
      expect(outcome.timing.lastByteMs).toBeWithin(290, 1_000);
    });

    test("sends one POST with the payload as it is and the given headers", async () => {
      const server = await says(http(200, "{}", JSON_TYPE));
      const body = '{ "n": 9007199254740993, "t": "é𝄞" }';
      await call({ url: server.url, body, headers: { "X-Job-Id": "ifcconvert_1" }, accepts: ["image/*"] });
      expect(server.requests).toHaveLength(1);
      const { method, headers, body: got } = server.requests[0]!;
      expect([method, got, headers.get("x-job-id")]).toEqual(["POST", body, "ifcconvert_1"]);
      expect(headers.get("content-type")).toBe("application/json");
      expect(headers.get("accept")).toBe("application/json, image/*");
    });
  });

  describe("bad_answer", () => {
    const bad = async (says: RawServer, part: string | RegExp, accepts: string[] = []) => {
      const outcome = await call({ url: says.url, accepts });
      expect(outcome).toMatchObject({ kind: "failed", error: { code: "bad_answer", retryable: false } });
      expect(messageOf(outcome)).toMatch(part);
      expect(messageOf(outcome).length).toBeLessThan(500);
    };

    test("broken JSON, also behind accepts */*", async () => {
      for (const body of ['{"a": [1, 2', "{'a': 1}", "NaN", "{} {}", "\ufeff", "{} <html>", " "]) {
        await bad(await says(http(200, body, JSON_TYPE)), "with broken JSON");
        await bad(await says(http(200, body, JSON_TYPE)), "with broken JSON", ["*/*"]);
      }
    });

    test("bytes that are not UTF-8, which no decoder may mend", async () => {
      await bad(await says(http(200, Buffer.from([0x22, 0xc3, 0x28, 0x22]), JSON_TYPE)), "with broken JSON");
    });

    test("JSON nested a million deep does not harm the worker", async () => {
      const { url } = await says(http(200, "[".repeat(1_000_000), JSON_TYPE));
      expect(errorOf(await call({ url, maxResultBytes: 2_000_000 }))?.code).toBe("bad_answer");
    });

    test("a page of HTML and other types, with a short excerpt", async () => {
      const page = `<!DOCTYPE html><script>evil()</script><h1>Sign in</h1>${"<p>x</p>".repeat(10_000)}`;
      const told =
        /answered 200 with text\/html instead of application\/json \(accepts\): \(a page of HTML\) Sign in x x.*…$/;
      await bad(await says(http(200, page, "Content-Type: text/html")), told);
      await bad(
        await says(http(200, '{"a": 1}', "Content-Type: text/plain")),
        'text/plain instead of application/json, image/* (accepts): {"a": 1}',
        ["image/*"],
      );
      await bad(await says(http(200, "x", "Content-Type: images/png")), "images/png", ["image/*"]);
    });

    test("what is not HTTP", async () => {
      await bad(await serve((socket) => socket.end("hello, this is no HTTP\r\n\r\n")), "something that is not HTTP");
      await bad(
        await says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}1"),
        /two lengths that differ|not HTTP/,
      );
      await bad(
        await says("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        "ifcconvert answered",
      );
    });
  });

  describe("error status", () => {
    const detail = (status: number, ...headers: string[]) =>
      says(http(status, '{"detail": "why"}', JSON_TYPE, ...headers));

    test.each([400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 500, 501, 505, 599, 600])(
      "%d fails at once",
      async (status) => {
        const { url } = await detail(status);
        const error = {
          code: "http_error",
          message: `ifcconvert answered ${status}: why`,
          http_status: status,
          retryable: false,
        } as const;
        expect(await call({ url })).toEqual({ kind: "failed", error });
      },
    );

    test.each([408, 425, 429, 502, 503, 504])("%d is retried", async (status) => {
      const { url } = await detail(status);
      const error = {
        code: "http_error",
        message: `ifcconvert answered ${status}: why`,
        http_status: status,
        retryable: true,
      } as const;
      expect(await call({ url })).toEqual({ kind: "retry", error });
    });

    test("500 is retried only where the operation says so", async () => {
      const { url } = await detail(500);
      expect((await call({ url, retry500: true })).kind).toBe("retry");
      expect((await call({ url, retry500: false })).kind).toBe("failed");
    });

    test("X-Job-Retry overrules the table either way", async () => {
      for (const [status, header, kind] of [
        [503, "no", "failed"],
        [429, "NO", "failed"],
        [404, "yes", "retry"],
        [500, "yes", "retry"],
        [307, "yes", "retry"],
        [503, "perhaps", "retry"],
        [404, "perhaps", "failed"],
      ] as const) {
        const { url } = await detail(status, `X-Job-Retry: ${header}`);
        const outcome = await call({ url });
        expect([status, header, outcome.kind, errorOf(outcome)?.retryable]).toEqual([
          status,
          header,
          kind,
          kind === "retry",
        ]);
      }
      const { url } = await detail(500, "X-Job-Retry: no");
      expect((await call({ url, retry500: true })).kind).toBe("failed");
    });

    test("Retry-After is honoured up to a day, and the error says when more was asked for", async () => {
      let message = "";
      const wait = async (header: string) => {
        const { url } = await detail(503, `Retry-After: ${header}`);
        const outcome = await call({ url });
        message = messageOf(outcome);
        return outcome.kind === "retry" ? outcome.retryAfterMs : Number.NaN;
      };
      expect(await wait("3")).toBe(3_000);
      expect(await wait("0")).toBe(0);
      expect(await wait("7200")).toBe(7_200_000);
      expect(await wait("86400")).toBe(86_400_000);
      expect(message).toBe("ifcconvert answered 503: why");
      expect(await wait("172800")).toBe(86_400_000);
      expect(message).toBe("ifcconvert answered 503: why (Retry-After of 172800 s, cut to 24 h)");
      expect(await wait(new Date(Date.now() + 60_000).toUTCString())).toBeWithin(50_000, 61_000);
      expect(await wait(new Date(Date.now() + 3 * 86_400_000).toUTCString())).toBe(86_400_000);
      expect(await wait("Wed, 21 Oct 2015 07:28:00 GMT")).toBe(0);
      for (const odd of ["soon", "-5", "1.5", ""]) expect(await wait(odd)).toBeUndefined();
    });

    test("a redirect is told and never followed", async () => {
      const other = await says(http(200, "{}", JSON_TYPE));
      for (const status of [301, 302, 303, 307, 308]) {
        const { url } = await says(http(status, "", `Location: ${other.url}`));
        const message = `ifcconvert answered ${status}: a redirect to ${other.url}`;
        expect(await call({ url })).toEqual({
          kind: "failed",
          error: { code: "redirect", message, http_status: status, retryable: false },
        });
      }
      expect(other.requests).toHaveLength(0);
    });

    test("the service's own words stand in the error", async () => {
      const lists = [
        { loc: ["body", "bounds"], msg: "Field required", type: "missing" },
        { loc: ["body", "clash_sets", 0], msg: "not a list" },
      ];
      for (const [body, type, words] of [
        [
          JSON.stringify({ detail: "File /uploads/x.ifc not found" }),
          "application/json",
          "File /uploads/x.ifc not found",
        ],
        [
          JSON.stringify({ detail: lists }),
          "application/json",
          "body.bounds: Field required; body.clash_sets.0: not a list",
        ],
        [JSON.stringify({ detail: { message: "inside" } }), "application/json", "inside"],
        ['{"error": "e"}', "application/json", "e"],
        ['{"message": "m"}', "application/json", "m"],
        ['{"error": {"message": "em"}}', "application/json", "em"],
        ['{"title": "t", "detail": "d"}', "application/problem+json", "d"],
        ['{"title": "t"}', "application/problem+json", "t"],
        ['{"odd": 1}', "application/json", '{"odd": 1}'],
        ["  plain\ntext\u0000\u001b[31m ", "text/plain", "plain\ntext[31m"],
        ["<html><style>b{}</style><body><b>Bad</b> Gateway", "text/html", "(a page of HTML) Bad Gateway"],
        ["<html><p>Bad</p>", "", "(a page of HTML) Bad"],
      ] as const) {
        const { url } = await says(http(404, body, type ? `Content-Type: ${type}` : "X-No: type"));
        expect(messageOf(await call({ url }))).toBe(`ifcconvert answered 404: ${words}`);
      }
      const { url } = await says(http(400));
      expect(messageOf(await call({ url }))).toBe("ifcconvert answered 400");
    });

    test("a 404 or 405 in a framework's words names where the call went, without user, password and query", async () => {
      for (const [status, body, words] of [
        [404, "404 Not Found", ": 404 Not Found"], // Hono
        [404, '{"detail": "Not Found"}', ": Not Found"], // FastAPI
        [405, '{"detail": "Method Not Allowed"}', ": Method Not Allowed"],
        [404, "<html><pre>Cannot POST /run</pre></html>", ": (a page of HTML) Cannot POST /run"], // Express
        [404, "<html><h1>404 Not Found</h1>nginx", ": (a page of HTML) 404 Not Found nginx"],
        [404, "404 page not found\n", ": 404 page not found"], // Go
        [404, "", ""],
      ] as const) {
        const { url } = await says(http(status, body, "Content-Type: text/plain"));
        const asked = `${url.replace("://", "://me:hush-hush@")}?key=hush-hush`;
        expect(messageOf(await call({ url: asked }))).toBe(`ifcconvert answered ${status} to POST ${url}${words}`);
      }
    });

    test("a long reason is capped, also one without end, and a reason cut short still counts", async () => {
      const long = await says(http(500, `${"𝄞".repeat(40_000)}`, "Content-Type: text/plain"));
      expect(messageOf(await call({ url: long.url })).length).toBeWithin(4_096, 4_300);
      let written = 0;
      const endless = await serve((socket) => {
        socket.write("HTTP/1.1 500 Said\r\nTransfer-Encoding: chunked\r\n\r\n");
        const more = () => {
          while (!socket.destroyed && socket.write(chunk("x".repeat(16_384)))) written += 16_384;
        };
        socket.on("drain", more);
        more();
      });
      expect(messageOf(await call({ url: endless.url }))).toStartWith("ifcconvert answered 500: xxx");
      expect(await until(() => endless.open.size === 0)).toBe(true);
      expect(written).toBeLessThan(32 << 20);
      const cut = await serve((socket) => {
        socket.write("HTTP/1.1 422 Said\r\nContent-Length: 500\r\n\r\nno such unit");
        setTimeout(() => socket.end(), 50);
      });
      expect(messageOf(await call({ url: cut.url }))).toBe("ifcconvert answered 422: no such unit");
    });
  });

  describe("MAX_RESULT_BYTES", () => {
    const value = (bytes: number) => `"${"x".repeat(bytes - 2)}"`;
    const cap = 50_000;
    const ways = {
      "with a length": (body: string) => [http(200, body, JSON_TYPE)],
      "in chunks": (body: string) => [CHUNKED, chunk(body.slice(0, 30_000)), chunk(body.slice(30_000)), "0\r\n\r\n"],
      "in gzip, counted as decoded": (body: string) => [http(200, gzipSync(body), JSON_TYPE, "Content-Encoding: gzip")],
    };
    for (const [way, made] of Object.entries(ways)) {
      test(`exactly the cap passes, one byte more fails: ${way}`, async () => {
        const fits = await says(...made(value(cap)));
        expect(await call({ url: fits.url, maxResultBytes: cap })).toMatchObject({
          kind: "finished",
          result: value(cap),
        });
        const larger = await says(...made(value(cap + 1)));
        expect(await call({ url: larger.url, maxResultBytes: cap })).toMatchObject({
          kind: "failed",
          error: { code: "result_too_large", retryable: false, http_status: 200 },
        });
      });
    }

    test("a promise of too much fails before its first byte", async () => {
      const { url } = await says(`${HEAD}Content-Length: 9000000000\r\n\r\n`);
      expect(errorOf(await call({ url, maxResultBytes: cap, timeoutMs: 5_000 }))?.code).toBe("result_too_large");
    });

    test("counts a chunked answer whose Content-Length lies", async () => {
      const { url } = await says(
        `${HEAD}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n`,
        chunk(value(cap + 1)),
        "0\r\n\r\n",
      );
      const outcome = await call({ url, maxResultBytes: cap });
      expect(["result_too_large", "bad_answer"]).toContain(errorOf(outcome)?.code ?? outcome.kind);
    });

    test("too large closes the connection and leaves no memory behind", async () => {
      const zeros = gzipSync(Buffer.alloc(16 << 20));
      const endless = (socket: Socket) => {
        socket.write(CHUNKED);
        pour(socket, chunk("1".repeat(65_536)));
      };
      const bomb = await says(http(200, zeros, JSON_TYPE, "Content-Encoding: gzip"));
      const stream = await serve(endless);
      const round = async () => {
        for (const { url } of [bomb, stream]) {
          expect(errorOf(await call({ url, maxResultBytes: 100_000 }))?.code).toBe("result_too_large");
        }
      };
      for (let i = 0; i < 2; i++) await round();
      const before = await client().rss();
      for (let i = 0; i < 8; i++) await round();
      expect(await until(() => stream.open.size === 0)).toBe(true);
      expect((await client().rss()) - before).toBeLessThan(64 << 20); // kept whole, the bombs alone are 134 MB
    });
  });
}, true);

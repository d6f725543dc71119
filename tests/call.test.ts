/**
 * contract.md §4, row by row, against real sockets, under Bun and under Deno.
 * Both run call() in a process of their own (fixtures/call-client.ts); the services are in this one.
 */
import { afterAll, afterEach, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import type { Socket } from "node:net";
import { gzipSync } from "node:zlib";
import { after, backoffMs, type CallRequest, type Outcome } from "../shared/call.ts";
import { http, JSON_TYPE, type RawRequest, type RawServer, rawServer } from "./fixtures/raw-server.ts";

const CLIENT = new URL("./fixtures/call-client.ts", import.meta.url).pathname;
const LOCAL_DENO = new URL("../node_modules/.bin/deno", import.meta.url).pathname;
const deno = existsSync(LOCAL_DENO) ? LOCAL_DENO : Bun.which("deno");

type Asked = Partial<Omit<CallRequest, "signal">> & { url: string; abortAfterMs?: number };

/** One process that makes calls. */
class Client {
  private readonly waiting = new Map<number, (value: unknown) => void>();
  private readonly process: Bun.Subprocess<"pipe", "pipe", "inherit">;
  private last = 0;

  constructor(command: string[], env: Record<string, string> = {}) {
    this.process = Bun.spawn([...command, CLIENT], {
      env: { ...process.env, ...env },
      stdin: "pipe",
      stdout: "pipe",
      stderr: "inherit",
    });
    this.listen();
  }

  private async listen() {
    let seen = "";
    const decoder = new TextDecoder();
    for await (const part of this.process.stdout) {
      const lines = (seen + decoder.decode(part, { stream: true })).split("\n");
      seen = lines.pop() as string;
      for (const line of lines) {
        const { id, value } = JSON.parse(line);
        this.waiting.get(id)?.(value);
        this.waiting.delete(id);
      }
    }
  }

  private ask(question: object): Promise<unknown> {
    const id = ++this.last;
    this.process.stdin.write(`${JSON.stringify({ id, ...question })}\n`);
    this.process.stdin.flush();
    return new Promise((resolve) => this.waiting.set(id, resolve));
  }

  async call({ abortAfterMs, ...asked }: Asked): Promise<Outcome> {
    const request = {
      service: "ifcconvert",
      body: "{}",
      headers: {},
      timeoutMs: 20_000,
      accepts: ["application/json"],
      maxResultBytes: 65_536,
      retry500: false,
      freshConnection: false,
      ...asked,
    };
    const outcome = (await this.ask({ request, abortAfterMs })) as Outcome;
    if (outcome.kind === "finished" && typeof outcome.result === "object") {
      outcome.result = Buffer.from((outcome.result as unknown as { base64: string }).base64, "base64");
    }
    return outcome;
  }

  rss = () => this.ask({}) as Promise<number>;
  stop = () => this.process.kill();
}

const servers: RawServer[] = [];
const serve = async (answer: (socket: Socket, request: RawRequest) => void) => {
  const server = await rawServer(answer);
  servers.push(server);
  return server;
};
/** A service that always says the same. */
const says = (...parts: (string | Uint8Array)[]) =>
  serve((socket) => socket.write(Buffer.concat(parts.map((part) => Buffer.from(part as string)))));
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const until = async (holds: () => boolean, withinMs = 2_000) => {
  for (const end = Date.now() + withinMs; !holds() && Date.now() < end; ) await sleep(5);
  return holds();
};
const errorOf = (outcome: Outcome) => ("error" in outcome ? outcome.error : undefined);
const messageOf = (outcome: Outcome) => errorOf(outcome)?.message ?? "";
const HEAD = `HTTP/1.1 200 OK\r\n${JSON_TYPE}\r\n`;
const CHUNKED = `${HEAD}Transfer-Encoding: chunked\r\n\r\n`;
const chunk = (body: string) => `${Buffer.byteLength(body).toString(16)}\r\n${body}\r\n`;

setDefaultTimeout(30_000);

afterEach(() => {
  for (const server of servers.splice(0)) server.close();
});

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

  test("fires once when its time has come, and not when canceled", async () => {
    let fired = 0;
    after(20, () => fired++);
    after(20, () => fired++)();
    await sleep(60);
    expect(fired).toBe(1);
  });
});

describe("call under Bun", () => rows("bun", () => new Client([process.execPath])));
if (deno) describe("call under Deno", () => rows("deno", () => new Client([deno, "run", "-A"])));
else test.skip("call under Deno: SKIPPED, there is no deno on PATH", () => {});

function rows(runtime: "bun" | "deno", start: () => Client) {
  let client: Client;
  const call = (asked: Asked) => client.call(asked);
  beforeAll(async () => {
    client = start();
    await client.rss(); // it is up
  });
  afterAll(() => client.stop());

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

    test("keeps an empty answer only of a type that accepts names", async () => {
      const csv = await says(http(200, "", "Content-Type: text/csv"));
      const outcome = await call({ url: csv.url, accepts: ["text/csv"] });
      expect(outcome).toMatchObject({ kind: "finished", type: "text/csv" });
      expect(outcome.kind === "finished" && outcome.result.length).toBe(0);
      const none = await says("HTTP/1.1 204 No Content\r\n\r\n");
      expect(await call({ url: none.url, accepts: ["*/*"] })).toMatchObject({
        kind: "finished",
        type: "application/octet-stream",
      });
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

    test("an empty body, and 204", async () => {
      await bad(await says(http(200, "", JSON_TYPE)), "ifcconvert answered 200 with an empty body");
      await bad(await says("HTTP/1.1 204 No Content\r\n\r\n"), "ifcconvert answered 204 with an empty body");
    });

    test("broken JSON, also behind accepts */*", async () => {
      for (const body of ['{"a": [1, 2', "{'a': 1}", "NaN", "{} {}", "\ufeff{}", "{} <html>", " "]) {
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
      const told = /answered 200 with text\/html instead of application\/json: \(a page of HTML\) Sign in x x.*…$/;
      await bad(await says(http(200, page, "Content-Type: text/html")), told);
      await bad(
        await says(http(200, '{"a": 1}', "Content-Type: text/plain")),
        'text/plain instead of application/json, image/*: {"a": 1}',
        ["image/*"],
      );
      await bad(await says(http(200, "x", "Content-Type: images/png")), "images/png", ["image/*"]);
    });

    test("what is not HTTP", async () => {
      await bad(await serve((socket) => socket.end("hello, this is no HTTP\r\n\r\n")), "something that is not HTTP");
      await bad(
        await says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}1"),
        "something that is not HTTP",
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

    test("Retry-After is honoured in seconds and as a date, up to an hour", async () => {
      const wait = async (header: string) => {
        const { url } = await detail(503, `Retry-After: ${header}`);
        const outcome = await call({ url });
        return outcome.kind === "retry" ? outcome.retryAfterMs : Number.NaN;
      };
      expect(await wait("3")).toBe(3_000);
      expect(await wait("0")).toBe(0);
      expect(await wait("86400")).toBe(3_600_000);
      expect(await wait(new Date(Date.now() + 60_000).toUTCString())).toBeWithin(50_000, 61_000);
      expect(await wait(new Date(Date.now() + 86_400_000).toUTCString())).toBe(3_600_000);
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
      const { url } = await says(http(404));
      expect(messageOf(await call({ url }))).toBe("ifcconvert answered 404");
    });

    test("a long reason is capped, also one without end, and a reason cut short still counts", async () => {
      const long = await says(http(500, `${"𝄞".repeat(40_000)}`, "Content-Type: text/plain"));
      expect(messageOf(await call({ url: long.url })).length).toBeWithin(1_900, 2_100);
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
        const more = () => {
          while (!socket.destroyed && socket.write(chunk("1".repeat(65_536))));
        };
        socket.on("drain", more);
        more();
      };
      const bomb = await says(http(200, zeros, JSON_TYPE, "Content-Encoding: gzip"));
      const stream = await serve(endless);
      const round = async () => {
        for (const { url } of [bomb, stream]) {
          expect(errorOf(await call({ url, maxResultBytes: 100_000 }))?.code).toBe("result_too_large");
        }
      };
      for (let i = 0; i < 2; i++) await round();
      const before = await client.rss();
      for (let i = 0; i < 8; i++) await round();
      expect(await until(() => stream.open.size === 0)).toBe(true);
      expect((await client.rss()) - before).toBeLessThan(64 << 20); // kept whole, the bombs alone are 134 MB
    });
  });

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
      "a chunk that cannot be read": (socket) => socket.end(`${CHUNKED}zz\r\n{}\r\n0\r\n\r\n`),
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
      for (let i = 0; i < 3; i++) await call({ url: server.url });
      const pooled = server.connections;
      if (runtime === "bun") expect(pooled).toBe(1); // else this test proves nothing
      for (let i = 0; i < 3; i++) await call({ url: server.url, freshConnection: true });
      expect(server.connections).toBe(pooled + 3);
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
      expect(messageOf(outcome)).toMatch(/^ifcconvert cannot be reached: .*refused/i);
    });

    test("a name that does not exist", async () => {
      expect((await call({ url: "http://no-such-host.invalid/run" })).kind).toBe("refused");
    });

    test("a certificate that is not trusted", async () => {
      const tls = Bun.serve({ port: 0, hostname: "127.0.0.1", tls: SELF_SIGNED, fetch: () => Response.json({}) });
      expect((await call({ url: `https://127.0.0.1:${tls.port}/run` })).kind).toBe("refused");
      tls.stop(true);
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
      error: { code: "timeout", message: "ifcconvert did not finish within 300 ms", retryable: false },
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
    const many = runtime === "bun" ? new Client([process.execPath], { BUN_CONFIG_MAX_HTTP_REQUESTS: "400" }) : client;
    const waiting: Socket[] = [];
    const { url } = await serve((socket) => {
      if (waiting.push(socket) === 300) for (const each of waiting) each.write(http(200, "{}", JSON_TYPE));
    });
    const outcomes = await Promise.all(Array.from({ length: 300 }, () => many.call({ url, timeoutMs: 10_000 })));
    expect(outcomes.filter(({ kind }) => kind === "finished")).toHaveLength(300);
    if (many !== client) many.stop();
  });

  test("no outcome leaves a socket behind", async () => {
    const server = await serve((socket, { body }) => {
      const type = body === "201" ? JSON_TYPE : "Content-Type: text/html";
      socket.write(`HTTP/1.1 ${body} Said\r\n${type}\r\nContent-Length: 9000000\r\n\r\n${"x".repeat(100_000)}`);
    });
    const statuses = [200, 201, 307, 404, 500, 503].flatMap((status) => Array(20).fill(`${status}`));
    await Promise.all(statuses.map((body) => call({ url: server.url, body })));
    expect(server.connections).toBe(120);
    expect(await until(() => server.open.size === 0)).toBe(true);
  });
}

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

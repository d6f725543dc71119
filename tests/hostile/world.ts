/**
 * The deployment that is attacked, and what the attacks share: two gateways with keys, a third with narrow limits, a
 * worker, a microservice that does as it is told, and one that answers raw bytes.
 */
import { Buffer } from "node:buffer";
import { connect } from "node:net";
import { http, type RawServer, rawServer } from "../fixtures/raw-server.ts";
import { freePort } from "../support/redis.ts";
import { type Process, type Stack, startStack, until } from "../support/stack.ts";

/** What a client sends, what it should hear by docs/api.md, and how it is sent. `run` returns what was heard. */
export type Case = readonly [input: string, answer: string, run: (world: World) => Promise<string>];
export type Group = { title: string; cases: Case[] };

export const KEYS = { admin: "hostile-admin-key", submit: "hostile-submit-key", read: "hostile-read-key" };
export const WRONG = "hostile-wrong-key";

type Init = { key?: string | null; headers?: Record<string, string>; body?: unknown; base?: string };
export type World = {
  stack: Stack;
  /** the second gateway, and the one with narrow limits */
  other: string;
  tight: string;
  gateways: Process[];
  raws: RawServer;
  /** a server that DOWNLOAD_ALLOW lists */
  source: string;
  /** every answer that was heard, to be searched for what must not be told */
  heard: string[];
  /** ids of jobs that were accepted */
  accepted: Set<string>;
  /** one request. @returns "422 invalid": the status and a problem's code */
  ask(method: string, path: string, init?: Init): Promise<string>;
  /** the same, with the whole answer */
  whole(method: string, path: string, init?: Init): Promise<{ status: number; headers: Headers; text: string }>;
  /** bytes as they are on a socket. @returns "400, closed", or "silence" after `ms` */
  raw(bytes: string, options?: { port?: number; ms?: number }): Promise<string>;
  /** submits to the told service and waits for the end. @returns "failed: work answered 400: …" */
  run(payload: Record<string, unknown>, operation?: string): Promise<string>;
  stop(): Promise<void>;
};

/** 200 MiB of spaces */
const BOMB = Bun.gzipSync(Buffer.alloc(200 << 20, 32));

/** What the raw service answers, by the payload's `say`. */
const SAYS: Record<string, (socket: import("node:net").Socket) => unknown> = {
  garbage: (socket) => socket.end("\x16\x03\x01 no HTTP at all\r\n\r\n"),
  close: (socket) => socket.destroy(),
  "half a header": (socket) => socket.end("HTTP/1.1 200 OK\r\nContent-Le"),
  "a header of 2 MB": (socket) => socket.end(`HTTP/1.1 200 OK\r\nX-A: ${"a".repeat(2_000_000)}\r\n\r\n{}`),
  "10,000 headers": (socket) => socket.end(`HTTP/1.1 200 OK\r\n${"X-A: a\r\n".repeat(10_000)}\r\n{}`),
  "length lies": (socket) =>
    socket.end("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{}"),
  "bad chunk": (socket) =>
    socket.end("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"),
  "endless chunks": (socket) => {
    socket.write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
    const piece = `10000\r\n${" ".repeat(0x10000)}\r\n`;
    const more = () => {
      while (!socket.destroyed && socket.write(piece));
    };
    socket.on("drain", more);
    more();
  },
  "gzip bomb": (socket) => socket.end(http(200, BOMB, "Content-Type: application/json", "Content-Encoding: gzip")),
  "not gzip": (socket) => socket.end(http(200, "{}", "Content-Type: application/json", "Content-Encoding: gzip")),
  "100 Continue for ever": (socket) => {
    const timer = setInterval(() => socket.write("HTTP/1.1 100 Continue\r\n\r\n"), 50);
    socket.on("close", () => clearInterval(timer));
  },
};

/** What the other server sends, by path. */
const SENDS: Record<string, (request: Request) => Response> = {
  "/to": (request) => Response.redirect(new URL(request.url).searchParams.get("at") ?? "/to"),
  "/bomb.ifc": () => new Response(BOMB, { headers: { "content-encoding": "gzip" } }),
  "/packed.ifc": () => new Response("not gzip", { headers: { "content-encoding": "gzip" } }),
  "/climb.ifc": () =>
    new Response("x", { headers: { "content-disposition": 'attachment; filename="../../climb.ifc"' } }),
  "/large.ifc": () => new Response("x".repeat(1_048_577)),
  "/endless.ifc": () =>
    new Response(new ReadableStream({ pull: (out) => out.enqueue(new Uint8Array(65_536)) }, { highWaterMark: 0 })),
};

export async function startWorld(): Promise<World> {
  const raws = await rawServer((socket, { body, headers }) => {
    if (headers.get("x-fetch")) return;
    const { say = "close" } = body ? JSON.parse(body) : {};
    SAYS[say]?.(socket);
  });
  // another server, which the gateway may fetch from
  const source = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: (request) => SENDS[new URL(request.url).pathname]?.(request) ?? new Response("no", { status: 404 }),
  });
  const secret = `whsec_${Buffer.from("a secret of the tests, 24+").toString("base64")}`;
  const stack = await startStack({
    env: {
      API_KEYS: `${KEYS.admin},${KEYS.submit}:submit,${KEYS.read}:read`,
      WEBHOOK_SECRET: secret,
      DOWNLOAD_ALLOW: `127.0.0.1:${source.port}`,
      MAX_UPLOAD_BYTES: "1MiB",
      MAX_RESULT_BYTES: "4MiB",
    },
    operation: { accepts: ["text/*", "image/*"], schema: { properties: { tolerance: { type: "number" } } } },
    operations: {
      raw: { url: raws.url.replace(/\/run$/, ""), timeout: "2s", retries: 0 },
      away: { url: "http://127.0.0.1:9" },
    },
  });
  const start = async (more: Record<string, string>) => {
    const port = String(await freePort());
    const gateway = await stack.startGateway({ PORT: port, DASHBOARD_PORT: "0", ...more });
    return { gateway, url: `http://127.0.0.1:${port}` };
  };
  const second = await start({});
  const third = await start({ RATE_LIMIT: "20/h", MAX_QUEUED: "3", MAX_WAITS: "2" });

  const heard: string[] = [];
  const accepted = new Set<string>();
  const note = (text: string) => {
    heard.push(text);
    for (const [id] of text.matchAll(/\b(?:work|raw|away)_[0-9A-Za-z]{22}\b/g))
      if (!id.includes("aaaa")) accepted.add(id);
  };
  const told = (status: number | string, text: string) => {
    const code = /"code":"(\w+)"/.exec(text.slice(0, 40_000))?.[1];
    return text.includes('"type":"urn:longhaul:') && code ? `${status} ${code}` : String(status);
  };

  const world: World = {
    stack,
    other: second.url,
    tight: third.url,
    gateways: [stack.gateway, second.gateway, third.gateway],
    raws,
    source: `http://127.0.0.1:${source.port}`,
    heard,
    accepted,
    async whole(method, path, { key = KEYS.admin, headers = {}, body, base = stack.url } = {}) {
      const response = await fetch(base + path, {
        method,
        redirect: "manual",
        headers: {
          ...(key === null ? {} : { "x-api-key": key }),
          ...(body === undefined ? {} : { "content-type": "application/json" }),
          ...headers,
        },
        ...(body === undefined ? {} : { body: body as BodyInit }),
        signal: AbortSignal.timeout(15_000),
      });
      const text = await response.text();
      note(text);
      return { status: response.status, headers: response.headers, text };
    },
    async ask(method, path, init) {
      const { status, text } = await world.whole(method, path, init);
      return told(status, text);
    },
    raw: (bytes, { port = Number(new URL(stack.url).port), ms = 1_000 } = {}) =>
      new Promise((done) => {
        const socket = connect(port, "127.0.0.1");
        let text = "";
        const end = (how: string) => {
          socket.destroy();
          note(text);
          const status = /^HTTP\/1\.1 (\d+)/.exec(text)?.[1];
          const length = Number(/\r\ncontent-length: (\d+)/i.exec(text)?.[1] ?? Number.NaN);
          const whole = text.length >= text.indexOf("\r\n\r\n") + 4 + length;
          done(status ? `${told(status, text)}${whole || how === "silence" ? "" : `, ${how}`}` : how);
        };
        socket.on("data", (part) => {
          text += part.toString("latin1");
        });
        socket.on("close", () => end("closed"));
        socket.on("error", () => {});
        setTimeout(() => end("silence"), ms);
        socket.write(Buffer.from(bytes, "latin1"));
      }),
    async run(payload, operation = "work") {
      const { status, text } = await world.whole("POST", "/jobs", { body: JSON.stringify({ operation, payload }) });
      if (status !== 202) return told(status, text);
      const { job_id: id } = JSON.parse(text) as { job_id: string };
      let record = "";
      await until(
        async () => {
          record = (await world.whole("GET", `/jobs/${id}`)).text;
          return /"status":"(finished|failed|scheduled)"/.test(record.slice(0, 2_000));
        },
        20_000,
        () => record.slice(0, 500),
      );
      const { status: state, error, attempts } = JSON.parse(record);
      return state === "scheduled"
        ? `tried again (${attempts?.[0]?.outcome ?? error?.code})`
        : state === "failed"
          ? `failed ${error.code}`
          : state;
    },
    async stop() {
      raws.close();
      await source.stop(true);
      await stack.stop();
    },
  };
  return world;
}

/** Sends several inputs of one line, one after the other. @returns their answer, or all of them when they differ */
export const all =
  (...runs: ((w: World) => Promise<string>)[]) =>
  async (w: World) => {
    const heard = new Set<string>();
    for (const run of runs) heard.add(await run(w));
    return [...heard].join(" / ");
  };

/** A request's head with an admin's key; `lines` without their ends. */
export const head = (first: string, ...lines: string[]) =>
  `${[first, "Host: localhost", `X-API-Key: ${KEYS.admin}`, ...lines].join("\r\n")}\r\n\r\n`;

/** What tests/slow/hostile.ts found, one test each. */
import { afterAll, beforeAll, expect, spyOn, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gatewayApp, submits } from "../gateway.ts";
import { served } from "../shared/app.ts";
import { oneFile } from "../shared/form.ts";
import { rangeOf } from "../shared/range.ts";
import { dashboard } from "../shared/routes/index.ts";
import { type Server, serve } from "../shared/runtime.ts";
import { startGatewayApp, type TestGateway } from "./support/gateway.ts";
import { logged } from "./support/log.ts";
import { limit } from "./support/patience.ts";
import { startRedis, type TestRedis } from "./support/redis.ts";

let redis: TestRedis;
let gateway: TestGateway;
let server: Server;
let dir: string;
beforeAll(async () => {
  redis = await startRedis();
  dir = mkdtempSync(join(tmpdir(), "longhaul-hostile-"));
  const own = { url: "http://127.0.0.1:9", schema: { properties: { tolerance: { type: "number" } } } };
  writeFileSync(join(dir, "services.json"), JSON.stringify({ operations: { own } }));
  gateway = await startGatewayApp(redis.url, {
    SERVICES: join(dir, "services.json"),
    MAX_WAITS: "2",
    WEBHOOK_SECRET: `whsec_${Buffer.from("a secret of the tests, 24+").toString("base64")}`,
  });
  const app = gatewayApp(gateway.gateway);
  server = serve(served(app, submits(gateway.gateway, app)), 0, "127.0.0.1");
}, 60_000);
afterAll(async () => {
  await server?.stop(true);
  gateway?.close();
  await redis?.stop();
  rmSync(dir, { recursive: true, force: true });
});

const JOB = { operation: "ifc2json", payload: { filename: "a.ifc", output_filename: "a.json" } };
/** Bytes on a socket; what came back within 300 ms. */
const raw = (text: string) =>
  new Promise<string>((done) => {
    let heard = "";
    const socket = connect(server.port, "127.0.0.1", () => socket.write(Buffer.from(text, "latin1")));
    socket.on("data", (part) => {
      heard += part;
    });
    socket.on("error", () => {});
    setTimeout(() => done(heard) ?? socket.destroy(), 300);
  });

test("a request without Host is served, one whose Host is none is 400, on any route", async () => {
  for (const text of ["GET /livez HTTP/1.0\r\n\r\n", "GET /livez HTTP/1.1\r\nHost: \r\n\r\n"]) {
    expect([text, (await raw(text)).slice(0, 15)]).toEqual([text, "HTTP/1.1 200 OK"]);
  }
  const body = '{"filename":"a.ifc","output_filename":"a.json"}';
  const head = `POST /ifc2json HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`;
  expect(await raw(head + body)).toStartWith("HTTP/1.1 202");
  for (const host of ["a b<>", "u:p@localhost", "localhost/x", "\xff", "[", "localhost:b"]) {
    const heard = await raw(`GET /jobs HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
    expect([host, heard.slice(0, 12)]).toEqual([host, "HTTP/1.1 400"]);
    expect(heard).toContain('"code":"bad_request"');
  }
});

test("POST /jobs refuses a query before anything is accepted", async () => {
  const before = await redis.client.dbsize();
  for (const query of ["?wait=abc", "?priority=9"]) {
    for (const body of [JOB, [JOB]]) {
      const answer = await gateway.post(`/jobs${query}`, body);
      expect([query, answer.status]).toEqual([query, 422]);
    }
  }
  expect(await redis.client.dbsize()).toBe(before);
});

test("a key __proto__ is refused however it is spelled", async () => {
  for (const key of ["__proto__", "\\u005F\\u005fproto__", "__pr\\u006fto__", "__\\u0070\\u0072o\\u0074o__"]) {
    const answer = await gateway.post("/ifc2json", `{"filename":"a","output_filename":"b","x":{"${key}":1}}`);
    expect([key, answer.status]).toEqual([key, 400]);
  }
});

test("a number with more digits than it needs fits where the schema has a number, and passes as written", async () => {
  const send = (tolerance: string) => gateway.post("/own", `{"tolerance":${tolerance},"x":${tolerance}}`);
  const files = `"clash_sets":[{"name":"a","a":[{"file":"a.ifc"}]}],"output_filename":"c.json"`;
  const recordOf = async (answer: Response) => {
    const { job_id: id } = (await answer.json()) as { job_id: string };
    return (await gateway.ask("GET", `/jobs/${id}`)).text();
  };
  for (const [text, value] of [
    ["0.10000000000000001", 0.1],
    ["1.2345678901234500e-07", 1.23456789012345e-7],
    ["0.01000000000000000", 0.01],
  ] as const) {
    const answer = await send(text);
    expect([text, answer.status]).toEqual([text, 202]);
    expect(await recordOf(answer)).toContain(`"tolerance":${text},"x":${text}`);
    // a built-in operation fills in defaults, and so it gives its own fields as the numbers that they are
    const clash = await gateway.post("/ifcclash", `{${files},"tolerance":${text},"x":${text}}`);
    expect([text, clash.status]).toEqual([text, 202]);
    const record = await recordOf(clash);
    expect(record).toContain(`"tolerance":${value}`);
    expect(record).toContain(`"x":${text}`);
  }
  const options = `{"operation":"own","payload":{},"priority":9.0000000000000000}`;
  expect((await gateway.post("/jobs", options)).status).toBe(202);
  const answer = await send("1e400");
  expect(answer.status).toBe(422);
  expect(((await answer.json()) as { detail: string }).detail).toContain(
    "tolerance: must be of type number, not Infinity",
  );
});

test("HEAD of a stream holds no place among those who wait", async () => {
  const id = await gateway.submit("/ifc2json?delay=1h", JOB.payload);
  for (let i = 0; i < 3; i++) expect((await gateway.ask("HEAD", `/jobs/${id}/events`)).status).toBe(200);
  const answer = await gateway.ask("GET", `/jobs/${id}/events`);
  expect(answer.status).toBe(200);
  await answer.body?.cancel();
});

test("HEAD of the dashboard's stream is no viewer", async () => {
  const board = dashboard(gateway.gateway, gatewayApp(gateway.gateway));
  const ask = (method: string) =>
    board.fetch(new Request("http://localhost/state/events", { method }), { ip: "127.0.0.1" });
  for (let i = 0; i < 1_000; i++) expect((await ask("HEAD")).status).toBe(200);
  const answer = await ask("GET");
  expect(answer.status).toBe(200);
  await answer.body?.cancel();
});

test("a search takes little of Redis's time at once, and ends after half a second with what it has", async () => {
  for (let i = 0; i < 60; i++) await gateway.submit("/ifc2json", { ...JOB.payload, i });
  const { client } = redis;
  await client.config("SET", "slowlog-log-slower-than", "0", "slowlog-max-len", "1000");
  await client.slowlog("RESET");
  const search = (q: string) => gateway.json(`/jobs?service=ifc2json&state=queued&q=${q}`);
  const found = await Promise.all(["a.json", "nothing"].map(search));
  expect(found.map(({ jobs, next }) => [jobs.length, next !== null])).toEqual([
    [50, true],
    [0, false],
  ]);
  const calls = ((await client.slowlog("GET", 1_000)) as [number, number, number, string[]][]).map(
    ([, , , args]) => args,
  );
  const searches = calls.filter((args) => /^evalsha/i.test(args[0] ?? "") && /^(a\.json|nothing)$/.test(args[4] ?? ""));
  expect(searches.length).toBeGreaterThan(4);
  // beyond 32 arguments Redis writes "... (n more arguments)"
  for (const args of searches) expect(args.at(-1)).toMatch(/^ifc2json_\w+$/);

  let now = performance.now();
  const clock = spyOn(performance, "now").mockImplementation(() => {
    now += 600;
    return now;
  });
  const cut = await search("nothing");
  clock.mockRestore();
  expect(cut.scanned).toBeGreaterThan(0);
  expect(cut.scanned).toBeLessThan(60);
  expect(cut.next).not.toBeNull();
});

test("a Range full of spaces costs nothing", () => {
  const began = performance.now();
  expect(rangeOf(`bytes=${" ".repeat(100_000)}x`, 10)).toBeUndefined();
  expect(performance.now() - began).toBeLessThan(limit(100));
  expect(rangeOf(" bytes = 1 - 2 ", 10)).toEqual({ start: 1, end: 3 });
});

test("a form without end is given up at its limit, also where it holds no file", async () => {
  for (const begin of ["nothing", '--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n']) {
    let sent = 0;
    const body = new ReadableStream({
      pull(out) {
        out.enqueue(sent === 0 ? Buffer.from(begin) : new Uint8Array(10_000));
        sent += 10_000;
        if (sent > 1e6) out.close();
      },
    });
    const headers = { "content-type": "multipart/form-data; boundary=b" };
    const request = new Request("http://localhost/", { method: "POST", headers, body });
    const answer = oneFile(
      request,
      "file",
      async () => 1,
      async () => {},
      undefined,
      100_000,
    );
    expect(await answer.catch((error) => error)).toMatchObject({ code: "too_large" });
    expect(sent).toBeLessThan(200_000);
  }
});

test("a sender that goes in the middle of its body is no fault of ours, and is not logged as one", async () => {
  const head = "POST /ifc2json HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
  const lines = await logged(async () => {
    await raw(`${head}Content-Length: 9\r\n\r\n{`);
    await raw(`${head}Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n`);
    await Bun.sleep(200);
  });
  expect(lines).toEqual([]);
});

test("progress is read up to 8 KiB, whatever the token: it is looked at after the body", async () => {
  const id = await gateway.submit("/ifc2json?delay=1h", JOB.payload);
  const headers = { "content-type": "application/json" };
  const path = `/jobs/${id}/progress?t=x`;
  const most = JSON.stringify({ progress: 0.5, message: "\u00e9".repeat(500) }).replaceAll("\u00e9", "\\u00e9");
  expect((await gateway.post(path, most)).status).toBe(409);
  const large = await gateway.post(path, `{"progress":0.5}${" ".repeat(8_192)}`);
  expect(large.status).toBe(413);
  expect(((await large.json()) as { detail: string }).detail).toBe("The body is larger than 8 KiB.");
  let sent = 0;
  const endless = new ReadableStream({
    pull(out) {
      sent += 4_096;
      if (sent > 1e6) out.close();
      else out.enqueue(new Uint8Array(4_096));
    },
  });
  expect((await gateway.ask("POST", path, { headers, body: endless })).status).toBe(413);
  expect(sent).toBeLessThan(50_000);
});

test("an Idempotency-Key that is none is refused by operators' routes too", async () => {
  for (const key of ["", "x".repeat(256)]) {
    const headers = { "idempotency-key": key };
    const bulk = { filter: { state: "failed" }, action: "delete", dry_run: true };
    expect((await gateway.post("/queues/ifc2json/empty", undefined, headers)).status).toBe(400);
    expect((await gateway.post("/jobs/bulk", bulk, headers)).status).toBe(400);
  }
});

test("what is wrong is said so that it can be put right", async () => {
  const detail = async (answer: Response) => ((await answer.json()) as { detail: string }).detail;
  const get = async (path: string) => detail(await gateway.ask("GET", path));
  expect(await get("/jobs?limit=abc")).toBe("The query: limit: must be of type number, not NaN.");
  expect(await get("/jobs?q=")).toBe("The query: q: must not be empty.");
  expect(await get(`/jobs?q=${"x".repeat(201)}`)).toBe("The query: q: may have 200 characters at most.");
  expect(await detail(await gateway.post("/create_download_link", { file_path: "a%00" }))).toContain("encoded NUL");
  const callback = async (url: string) => detail(await gateway.post("/jobs", { ...JOB, callback_url: url }));
  expect(await callback("x")).toBe('callback_url: "x" is not a URL.');
  expect(await callback("http://10.0.0.1/")).toContain("an operator may list it in CALLBACK_ALLOW");
  const headers = { "content-type": "application/json", "content-encoding": "gzip" };
  const gzip = await gateway.ask("POST", "/ifc2json", { headers, body: Bun.gzipSync("{}") });
  expect(await detail(gzip)).toBe("The body is not UTF-8 text. It is gzip; send it without Content-Encoding.");
});

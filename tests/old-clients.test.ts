/** What clients of the FastAPI + RQ gateway send and read: slashes, methods, numbers for texts, the words of final errors. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { startBoard } from "./support/board.ts";
import { startGatewayApp, stored, type TestGateway } from "./support/gateway.ts";
import { startRedis, type TestRedis } from "./support/redis.ts";
import { ASK, settle } from "./support/store.ts";

let redis: TestRedis;
let g: TestGateway;
beforeAll(async () => {
  redis = await startRedis();
  g = await startGatewayApp(redis.url);
});
afterAll(async () => {
  g?.close();
  await redis?.stop();
});

const CONVERT = { input_filename: "house.ifc", output_filename: "house.glb" };

test("a slash at the end of any route does not count", async () => {
  for (const path of ["/ifcconvert/", "/ifcconvert/?priority=9", "/ifcconvert?priority=9"]) {
    expect([path, (await g.post(path, CONVERT)).status]).toEqual([path, 202]);
  }
  expect((await g.post("/jobs/", { operation: "ifcconvert", payload: CONVERT })).status).toBe(202);
  const id = await g.submit("/ifcconvert", CONVERT);
  for (const path of ["/jobs/", `/jobs/${id}/`, `/jobs/${id}/status/`, "/health/", "/list_directories/", "/docs/"]) {
    expect([path, (await g.ask("GET", path)).status]).toEqual([path, 200]);
  }
  expect((await g.ask("DELETE", `/jobs/${id}/`)).status).toBe(202);
});

test("a wrong method on any route is 405 with Allow, an unknown path 404", async () => {
  const { paths } = (await g.json("/openapi.json")) as { paths: Record<string, Record<string, unknown>> };
  let asked = 0;
  for (const [template, of] of Object.entries(paths)) {
    const path = template.replace("{kind}", "ifc").replace(/\{\w+\}/g, "x");
    const known = Object.keys(of).filter((name) => /^(get|post|put|delete)$/.test(name));
    for (const method of ["get", "post", "put", "patch", "delete"].filter((name) => !known.includes(name))) {
      const answer = await g.ask(method.toUpperCase(), path);
      if (path === "/ifc2json/x" || path === "/jobs/bulk") continue; // each is another route's parameter too
      const { code, detail } = (await answer.json()) as { code: string; detail: string };
      const allow = (answer.headers.get("allow") ?? "").toLowerCase().split(", ");
      expect([method, path, answer.status, code]).toEqual([method, path, 405, "wrong_method"]);
      for (const name of known) expect([path, allow]).toEqual([path, expect.arrayContaining([name])]);
      expect(allow).not.toContain(method);
      expect(detail).toStartWith(`There is no ${method.toUpperCase()} ${path}; use `);
      asked++;
    }
  }
  expect(asked).toBeGreaterThan(60);
  const wrong = await g.ask("GET", "/ifcconvert/");
  expect([wrong.status, wrong.headers.get("allow")]).toEqual([405, "POST"]);
  expect((await g.ask("GET", "/ifcconvrt")).status).toBe(404);
  const layered = await startGatewayApp(redis.url, { RATE_LIMIT: "1000/s", CORS_ORIGINS: "https://a.example" });
  expect((await layered.ask("GET", "/ifcconvert")).status).toBe(405);
  expect((await layered.ask("GET", "/ifcconvrt")).status).toBe(404);
  layered.close();
});

test("the dashboard's port: a wrong method is 405 with Allow, an unknown path 404", async () => {
  const board = await startBoard();
  for (const [method, path, status, allow] of [
    ["POST", "/state.json", 405, "GET, HEAD"],
    ["GET", "/signin", 405, "POST"],
    ["DELETE", "/submit", 405, "POST"],
    ["POST", "/nothing", 404, null],
    ["GET", "/nothing", 404, null],
  ] as const) {
    const answer = await board.ask(path, { method });
    expect([method, path, answer.status, answer.headers.get("allow")]).toEqual([method, path, status, allow]);
    expect(answer.headers.get("content-type")).toBe("application/problem+json");
  }
  await board.stop();
});

test("a number where a text is meant becomes that text, digits kept", async () => {
  const clash = await g.submit("/ifcclash", {
    clash_sets: [{ name: 7, a: [{ file: "a.ifc", selector: 1.5, mode: 2 }] }],
    output_filename: "clashes.json",
  });
  expect(JSON.parse(await stored(g.redis, clash)).clash_sets).toEqual([
    { name: "7", a: [{ file: "a.ifc", selector: "1.5", mode: "2" }], b: [] },
  ]);
  const long = '{"filename":"a.ifc","output_filename":"a.csv","null":0,"query":12345678901234567890}';
  expect(JSON.parse(await stored(g.redis, await g.submit("/ifccsv", long)))).toMatchObject({
    null: "0",
    query: "12345678901234567890",
  });
  for (const name of [true, null, {}, ["x"]]) {
    const body = { clash_sets: [{ name, a: [{ file: "a.ifc" }] }], output_filename: "c.json" };
    expect([name, (await g.post("/ifcclash", body)).status]).toEqual([name, 422]);
  }
});

test("Content-Type that stands twice, or is text/json, is JSON; beside another type it is not", async () => {
  const send = async (type: string) => (await g.post("/ifcconvert", CONVERT, { "content-type": type })).status;
  for (const type of [
    "application/json, application/json",
    "application/json; charset=utf-8,application/json",
    "text/json",
  ])
    expect([type, await send(type)]).toEqual([type, 202]);
  for (const type of ["application/json, text/plain", "text/plain, application/json", ",", "text/jsonx"])
    expect([type, await send(type)]).toEqual([type, 415]);
});

test("import with output_filename null: as if it were left out", async () => {
  const body = { ifc_filename: "a.ifc", csv_filename: "a.csv" };
  for (const given of [body, { ...body, output_filename: null }]) {
    expect(JSON.parse(await stored(g.redis, await g.submit("/ifccsv/import", given)))).toEqual(body);
  }
  expect((await g.post("/ifccsv/import", { ...body, output_filename: "" })).status).toBe(422);
  expect((await g.post("/ifccsv/import", { ...body, output_filename: 7 })).status).toBe(422);
});

// The published n8n workflow "IfcPipeline Wait for jobs": first the words that it tries again, then those it takes for final.
const TRIED = /Work-horse terminated|waitpid returned|signal \d+|timeout|timed out|ConnectionError|MemoryError|ENOMEM/i;
const TRIED_TOO = /Temporary failure|isolation strategies exhausted|kernel failure|Broken pipe|child.*exit/i;
const FINAL = /VisitError|SyntaxError|JSONDecodeError|Invalid.*selector|KeyError|ValueError|FileNotFoundError/i;
const FINAL_TOO = /No such file|Recipe.*not found|Invalid JSON/i;
const isTriedAgain = (text: string) =>
  TRIED.test(text) || TRIED_TOO.test(text) || !(FINAL.test(text) || FINAL_TOO.test(text));

test("n8n's wait workflow takes final errors for final, and tries again what may pass", async () => {
  const worker = g.worker("w1");
  const cases: [Record<string, unknown>, string, boolean][] = [
    [
      { code: "http_error", message: "ifcconvert answered 404: File /uploads/x.ifc not found", http_status: 404 },
      "ifcconvert answered 404: File /uploads/x.ifc not found (final: FileNotFoundError)",
      false,
    ],
    [
      { code: "http_error", message: "ifcconvert answered 500: no such format", http_status: 500 },
      "ifcconvert answered 500: no such format (final: ValueError)",
      false,
    ],
    [
      { code: "http_error", message: "ifcconvert answered 500: KeyError: 'x'", http_status: 500 },
      "ifcconvert answered 500: KeyError: 'x'",
      false,
    ],
    [
      {
        code: "http_error",
        message: "ifcconvert answered 404 to POST http://c/ifcconvert: Not Found",
        http_status: 404,
      },
      "ifcconvert answered 404 to POST http://c/ifcconvert: Not Found (final: ValueError)",
      false,
    ],
    [{ code: "orphaned", message: "The worker died" }, "The worker died (final: ValueError)", false],
    [
      { code: "service_unreachable", message: "ifcconvert could not be reached" },
      "ifcconvert could not be reached",
      true,
    ],
    [{ code: "http_error", message: "ifcconvert answered 503", retryable: true }, "ifcconvert answered 503", true],
  ];
  for (const [error, text, again] of cases) {
    const id = await g.submit("/ifc2json", { filename: "a.ifc", output_filename: "a.json" });
    const { jobs } = await worker.turn("ifc2json" as never, [], { ...ASK, slots: 1, limits: "ifc2json=3600000" });
    const told = settle(jobs[0] as never, "fail", { error: JSON.stringify({ retryable: false, ...error }) });
    await worker.turn("ifc2json" as never, [told], { ...ASK, slots: 0 });
    const status = await g.json(`/jobs/${id}/status`);
    expect([status.status, status.error, isTriedAgain(status.error)]).toEqual(["failed", text, again]);
    expect((await g.json(`/jobs/${id}`)).error.message).toBe(error.message); // the record has the plain words
  }
  const id = await g.submit("/ifcconvert", CONVERT);
  await g.ask("POST", `/jobs/${id}/cancel`);
  const { status, error } = await g.json(`/jobs/${id}/status`);
  expect([status, error, isTriedAgain(error)]).toEqual(["failed", "canceled by request (final: ValueError)", false]);
});

/** Operations that reply with their result: the POST answers as the service itself would, or with the job when it takes longer. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ConfigError, readConfig } from "../shared/config.ts";
import { limit } from "./support/patience.ts";
import { type Stack, startStack } from "./support/stack.ts";

let stack: Stack;
beforeAll(async () => {
  stack = await startStack({
    operation: { reply: "result", wait: "20s", accepts: ["text/*", "model/gltf-binary"] },
    operations: { quick: { url: "http://127.0.0.1:9", reply: "result", wait: "300ms" } },
    env: { RESULT_INLINE_BYTES: "2000" },
  });
}, 60_000);
afterAll(() => stack?.stop(), 60_000);
const work = (payload: unknown, headers: Record<string, string> = {}) => stack.post("/work", payload, headers);
const record = async (answer: Response) => stack.get(answer.headers.get("location") as string);

test("reply result: the POST answers with the service's own status, type and body", async () => {
  const json = await work({ raw: '{"n": 12345678901234567890, "a":1.0}' });
  expect([json.status, await json.text()]).toEqual([200, '{"n": 12345678901234567890, "a":1.0}']);
  expect(json.headers.get("content-type")).toBe("application/json");
  expect(await record(json)).toMatchObject({ operation: "work", status: "finished" });
  const page = await work({ raw: "<p>hé</p>", type: "text/html; charset=utf-8" });
  expect([page.status, await page.text()]).toEqual([200, "<p>hé</p>"]);
  expect(page.headers.get("content-type")).toBe("text/html; charset=utf-8");
  expect(page.headers.get("content-security-policy")).toContain("sandbox");
  const made = await work({ status: 201, detail: "made" });
  expect([made.status, await made.json()]).toEqual([201, { detail: "made" }]);
  const large = await work({ answer: "x".repeat(5_000) });
  expect([large.status, ((await large.json()) as string).length]).toEqual([200, 5_000]);
}, 60_000);

test("reply result: a failed job answers with the service's own error status and body", async () => {
  const answer = await work({ status: 404, detail: "File x.ifc not found" });
  expect([answer.status, await answer.json()]).toEqual([404, { detail: "File x.ifc not found" }]);
  expect(answer.headers.get("content-type")).toContain("application/json");
  const { status, error } = await record(answer);
  expect([status, error.http_status, error.message]).toEqual([
    "failed",
    404,
    "work answered 404: File x.ifc not found",
  ]);
  expect(error.answer).toBeUndefined();
  const denied = await work({ status: 401, detail: "who are you" });
  expect([denied.status, denied.headers.get("www-authenticate")]).toEqual([401, null]);
}, 60_000);

test("reply result: a failure without a body that can be kept is a problem with the service's status", async () => {
  const long = await work({ status: 418, detail: "x".repeat(9_000) });
  const body = await long.json();
  expect(long.headers.get("content-type")).toBe("application/problem+json");
  expect([long.status, body.status, body.code, body.error]).toEqual([418, 418, "job_failed", "http_error"]);
  expect(body.detail).toStartWith("work answered 418: xxx");
  const unread = await work({ raw: "oops", type: "application/json" });
  expect([unread.status, (await unread.json()).error]).toEqual([502, "bad_answer"]);
  const late = await stack.post("/work?timeout=1", { sleep: 3_000 });
  expect([late.status, (await late.json()).error]).toEqual([504, "timeout"]);
  expect(late.headers.get("location")).toMatch(/^\/jobs\/work_/);
}, 60_000);

test("reply result: what takes longer than the wait answers 202 with the job", async () => {
  const began = performance.now();
  const answer = await stack.post("/quick", {});
  expect([answer.status, (await answer.json()).status]).toEqual([202, "queued"]);
  expect(answer.headers.get("location")).toMatch(/^\/jobs\/quick_/);
  expect(performance.now() - began).toBeGreaterThan(250);
}, 60_000);

test("reply result: Prefer comes before the operation's wait, both ways", async () => {
  for (const prefer of ["wait=0", "respond-async", "return=minimal; x=1, respond-async"]) {
    const began = performance.now();
    const answer = await work({ sleep: 1_500 }, { prefer });
    expect([prefer, answer.status, performance.now() - began < 1_400]).toEqual([prefer, 202, true]);
  }
  const answer = await stack.post("/quick", {}, { prefer: "wait=2" });
  expect([answer.status, answer.headers.get("preference-applied")]).toEqual([202, "wait=2"]);
  const both = await work({ sleep: 300 }, { prefer: "respond-async, wait=20" });
  expect([both.status, await both.json()]).toEqual([200, { ok: true }]);
}, 60_000);

test("reply result: a job that is to run later answers 202 at once", async () => {
  const began = performance.now();
  const answer = await stack.post("/work?delay=8s", {});
  expect([answer.status, (await answer.json()).status]).toEqual([202, "scheduled"]);
  expect(performance.now() - began).toBeLessThan(limit(4_000));
}, 60_000);

test("reply result: an Idempotency-Key replays the same answer, of a failure too", async () => {
  for (const payload of [{ answer: { n: 1 } }, { status: 409, detail: "taken" }]) {
    const key = { "idempotency-key": crypto.randomUUID() };
    const [first, second] = [await work(payload, key), await work(payload, key)];
    expect(second.headers.get("idempotent-replayed")).toBe("true");
    expect(second.headers.get("location")).toBe(first.headers.get("location"));
    expect([second.status, await second.text()]).toEqual([first.status, await first.text()]);
    expect(stack.service.byJob((first.headers.get("location") ?? "").split("/").pop() as string)).toHaveLength(1);
  }
}, 60_000);

test("reply result: POST /jobs and the dashboard's form answer with the job all the same", async () => {
  const one = await stack.post("/jobs", { operation: "work", payload: {} });
  expect([one.status, (await one.json()).status]).toEqual([202, "queued"]);
  const form = await fetch(`${stack.dashboardUrl}/submit`, {
    method: "POST",
    headers: { origin: stack.dashboardUrl, "content-type": "application/json" },
    body: JSON.stringify({ operation: "work", payload: { sleep: 100 } }),
  });
  expect([form.status, typeof (await form.json()).job_id]).toEqual([202, "string"]);
}, 60_000);

test("reply result: the OpenAPI document tells of the service's answers and of 202", async () => {
  const { responses } = (await stack.get("/openapi.json")).paths["/work"].post;
  expect(responses["200"].description).toContain("The service's own answer, if the job finished within 20 s");
  expect(Object.keys(responses["200"].content).sort()).toEqual(["application/json", "model/gltf-binary", "text/*"]);
  expect(responses["202"].content["application/json"].schema.$ref).toContain("Accepted");
  expect(responses.default.description).toContain("the service's own status and body");
});

test("wait is at most 60 s, and nothing without reply result", () => {
  const dir = mkdtempSync(join(tmpdir(), "longhaul-reply-"));
  const read = (keys: object) => {
    writeFileSync(join(dir, "s.json"), JSON.stringify({ operations: { a: { url: "http://a", ...keys } } }));
    try {
      return readConfig({ SERVICES: join(dir, "s.json") }).registry.byName.get("a")?.replyWaitMs;
    } catch (error) {
      if (error instanceof ConfigError) return error.mistakes.join();
      throw error;
    }
  };
  try {
    expect(read({})).toBeUndefined();
    expect(read({ reply: "job" })).toBeUndefined();
    expect(read({ reply: "result" })).toBe(30_000);
    expect(read({ reply: "result", wait: "60s" })).toBe(60_000);
    expect(read({ reply: "result", wait: 5 })).toBe(5_000);
    for (const wait of ["61s", "0s", 0, "soon"])
      expect([wait, read({ reply: "result", wait })]).toEqual([
        wait,
        expect.stringContaining("a.wait: must be a duration"),
      ]);
    expect(read({ wait: "5s" })).toContain('a.wait: is for "reply": "result" only');
    expect(read({ reply: "results" })).toContain('a.reply: must be one of "job", "result", not "results"');
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});

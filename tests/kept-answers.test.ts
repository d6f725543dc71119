/** The bytes of a 2xx that is no result: kept with the failed job, given as 422, gone with it. Over a real gateway and worker. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { type Stack, startStack, until } from "./support/stack.ts";

let stack: Stack;
beforeAll(async () => {
  stack = await startStack({ operation: { retries: 0 } });
}, 60_000);
afterAll(() => stack?.stop(), 60_000);

const HTML = "<script>alert(1)</script><h1>Report</h1>";
const failed = async (payload: unknown) => {
  const id = await stack.submit(payload);
  expect((await stack.ended(id)).status).toBe("failed");
  return id;
};
const resultOf = (id: string, init?: RequestInit) => fetch(`${stack.url}/jobs/${id}/result`, init);

test("an answer in HTML: 422 with its bytes and type, as an attachment that runs nothing", async () => {
  const id = await failed({ raw: HTML, type: "text/html; charset=utf-8" });
  const response = await resultOf(id);
  expect(response.status).toBe(422);
  expect(await response.text()).toBe(HTML);
  expect(Object.fromEntries(response.headers)).toMatchObject({
    "x-longhaul-unverified": "1",
    "content-type": "text/html; charset=utf-8",
    "content-disposition": "attachment",
    "content-security-policy": expect.stringContaining("sandbox"),
    "x-content-type-options": "nosniff",
  });
  const record = await stack.get(`/jobs/${id}`);
  expect(record.links.unverified_result).toBe(`/jobs/${id}/result`);
  expect(record).toMatchObject({ result: null, error: { code: "bad_answer" } });
  expect(record.error.message).toEndWith(`; its ${HTML.length} bytes are kept: GET /jobs/${id}/result`);
  const head = await resultOf(id, { method: "HEAD" });
  expect([head.status, head.headers.get("content-length"), await head.text()]).toEqual([422, `${HTML.length}`, ""]);
  const etag = response.headers.get("etag") as string;
  for (const headers of [{ range: "bytes=0-3" }, { "if-none-match": etag }]) {
    expect((await resultOf(id, { headers })).status).toBe(422); // never a 206 or 304, which read like success
  }
});

test("JSON with NaN: kept as it came, and the old status stays null", async () => {
  const id = await failed({ raw: '{"volume": NaN}' });
  expect(await (await resultOf(id)).text()).toBe('{"volume": NaN}');
  expect((await stack.get(`/jobs/${id}/status`)).result).toBeNull();
});

test("a large one lies in RESULTS_DIR and goes with the job", async () => {
  const large = "x".repeat(300_000);
  const id = await failed({ raw: large, type: "text/plain" });
  const dir = join(stack.dir, "data/results/work", id);
  expect(readdirSync(dir)).toHaveLength(1);
  expect(await (await resultOf(id)).text()).toBe(large);
  expect((await fetch(`${stack.url}/jobs/${id}`, { method: "DELETE" })).status).toBe(200);
  await until(() => !existsSync(dir), 20_000);
}, 30_000);

test("a requeue forgets it, and a job that failed otherwise has none: 409", async () => {
  const id = await failed({ raw: HTML, type: "text/html" });
  await stack.post("/queues/work/pause");
  await stack.post(`/jobs/${id}/requeue`);
  expect((await resultOf(id)).status).toBe(409);
  expect((await stack.get(`/jobs/${id}`)).links.unverified_result).toBeUndefined();
  await stack.post("/queues/work/resume");
  const other = await failed({ status: 500 });
  expect((await resultOf(other)).status).toBe(409);
});

test("an answer without a body finishes with null, in status, record and result", async () => {
  const id = await stack.submit({ raw: "", type: "text/html" });
  expect(await stack.ended(id)).toMatchObject({ status: "finished", result: null, error: null });
  const response = await resultOf(id);
  expect([response.status, await response.text(), response.headers.get("content-type")]).toEqual([
    200,
    "null",
    "application/json",
  ]);
});

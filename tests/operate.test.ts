/** The operators' routes on real processes: what they answer, who may ask, what another process goes on with. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type Stack, startStack, until } from "./support/stack.ts";

const ADMIN = { "x-api-key": "admin-key-1" };
const as = (key: string) => ({ "x-api-key": key });

setDefaultTimeout(60_000);
let stack: Stack;
beforeAll(async () => {
  stack = await startStack({
    env: { API_KEYS: "admin-key-1,reader-key-1:read,submit-key-1:submit" },
    operations: { other: { url: "http://127.0.0.1:9", slots: 1 } },
  });
});
afterAll(() => stack?.stop());

// biome-ignore lint/suspicious/noExplicitAny: answers of many shapes, read field by field
const get = async (path: string, headers = ADMIN): Promise<any> => (await fetch(stack.url + path, { headers })).json();
// biome-ignore lint/suspicious/noExplicitAny: as above
const post = async (path: string, body?: unknown, headers: Record<string, string> = ADMIN): Promise<any> => {
  const response = await stack.post(path, body, headers);
  return { ...((await response.json()) as object), code: response.status };
};
const submit = (payload: unknown, query = "") => stack.submit(payload, `/work${query}`, ADMIN);
const status = async (id: string) => (await get(`/jobs/${id}/status`)).status;
const bulk = async (body: object) => {
  let answer = await post("/jobs/bulk", body);
  await until(async () => {
    answer = await get(`/jobs/bulk/${answer.bulk_id}`);
    return answer.status === "done";
  });
  return answer;
};

test("pause stops the queue, /health says so, resume lets it run", async () => {
  expect(await post("/queues/work/pause")).toMatchObject({ code: 200, service: "work", paused: true });
  const id = await submit({});
  await Bun.sleep(400);
  expect(await status(id)).toBe("queued");
  expect((await get("/health")).services.work).toBe("paused (1 job waits)");
  expect(await post("/queues/work/resume")).toMatchObject({ code: 200, paused: false });
  await until(async () => (await status(id)) === "finished");
});

test("empty cancels what waits, and a killed gateway in the middle loses nothing: the clocks go on", async () => {
  await post("/queues/work/pause");
  const ids = await Promise.all(Array.from({ length: 3_000 }, () => submit({})));
  const answer = fetch(`${stack.url}/queues/work/empty`, { method: "POST", headers: ADMIN }).catch(() => undefined);
  // asked without a pause: a fast machine has canceled all of them within 20 ms
  for (const end = Date.now() + 5_000; (await stack.redis.client.zcard("lh:{work}:condemned")) === 0; )
    if (Date.now() > end) throw new Error("nothing was condemned within 5 s");
  stack.gateway.kill("SIGKILL");
  await answer;
  await stack.gateway.exited;
  stack.gateway = await stack.startGateway();
  await until(async () => (await stack.redis.client.zcard("lh:{work}:condemned")) === 0);
  expect(await status(ids[0] as string)).toBe("failed"); // as old clients read canceled
  expect((await get(`/jobs/${ids[2_999]}`)).error.message).toMatch(/^canceled: an operator emptied/);
  expect(await stack.redis.client.zcard("lh:{work}:ended:canceled")).toBe(3_000);
  expect(await post("/queues/work/empty")).toMatchObject({ code: 200, emptied: 0 });
  await post("/queues/work/resume");
});

test("an Idempotency-Key makes an empty one wish", async () => {
  await post("/queues/work/pause");
  await submit({});
  const once = { ...ADMIN, "idempotency-key": "empty-1" };
  expect(await post("/queues/work/empty", undefined, once)).toMatchObject({ emptied: 1 });
  const id = await submit({});
  expect(await post("/queues/work/empty", undefined, once)).toMatchObject({ emptied: 1 });
  await post("/queues/work/resume");
  await until(async () => (await status(id)) === "finished");
});

test("bulk: dry run, requeue by tag, progress and result under its id", async () => {
  const ids = await Promise.all(
    Array.from({ length: 12 }, (_, i) => submit({ status: 400, detail: "no" }, i % 2 ? "?tags=odd" : "")),
  );
  for (const id of ids) await until(async () => (await status(id)) === "failed");
  const filter = { service: "work", state: "failed", tag: "odd" };
  expect(await bulk({ filter, action: "requeue", dry_run: true })).toMatchObject({
    dry_run: true,
    matched: 6,
    done: 0,
    progress: 1,
  });
  const first = await post("/jobs/bulk", { filter, action: "requeue" });
  expect(first).toMatchObject({ code: 202, action: "requeue", filter, dry_run: false });
  await until(async () => (await get(`/jobs/bulk/${first.bulk_id}`)).status === "done");
  expect(await get(`/jobs/bulk/${first.bulk_id}`, as("reader-key-1"))).toMatchObject({
    matched: 6,
    done: 6,
    progress: 1,
  });
  const runs = await Promise.all(ids.map(async (id) => (await get(`/jobs/${id}`)).run));
  expect(runs).toEqual(ids.map((_, i) => i % 2));
  await until(async () => (await status(ids[11] as string)) === "failed");
  expect(await bulk({ filter: { ids: ids.slice(0, 3) }, action: "delete" })).toMatchObject({ done: 3 });
  expect((await get(`/jobs/${ids[0]}`)).status).toBe(404);
  const nobody = { filter: { ids: ["nobody_0123456789012345678901"] }, action: "delete" };
  expect(await post("/jobs/bulk", nobody)).toMatchObject({ code: 404, type: "urn:longhaul:unknown_service" });
});

test("bulk refuses what makes no sense, naming the field", async () => {
  const refused = async (body: object) => (await post("/jobs/bulk", body)).errors?.[0];
  expect(await refused({ filter: {}, action: "cancel" })).toMatchObject({ path: "filter.state" });
  expect(await refused({ filter: { state: "finished" }, action: "cancel" })).toEqual({
    path: "filter.state",
    message: "cancel is for scheduled, queued, started",
  });
  expect(await refused({ filter: { state: "failed", older_than: "soon" }, action: "requeue" })).toMatchObject({
    path: "filter.older_than",
  });
  expect(await refused({ filter: { ids: ["../x"] }, action: "delete" })).toMatchObject({ path: "filter.ids.0" });
  expect(await post("/jobs/bulk", { filter: { service: "nope", state: "failed" }, action: "requeue" })).toMatchObject({
    code: 404,
    type: "urn:longhaul:unknown_service",
  });
  expect(await post("/queues/nope/pause")).toMatchObject({ code: 404 });
  expect(await get("/jobs/bulk/bulk_0000000000000000000000")).toMatchObject({ status: 404, code: "unknown_bulk" });
});

test("only an admin's key may", async () => {
  for (const path of [
    "/queues/work/pause",
    "/queues/work/resume",
    "/queues/work/empty",
    "/jobs/bulk",
    "/workers/x/stop",
  ]) {
    expect((await stack.post(path, {}, as("submit-key-1"))).status).toBe(403);
    expect((await stack.post(path, {})).status).toBe(401);
  }
  expect((await fetch(`${stack.url}/audit`, { headers: as("reader-key-1") })).status).toBe(403);
  expect((await get("/health")).services.work).toBe("healthy");
});

test("GET /workers shows each worker with its services, operations and calls, to keys that may read", async () => {
  const id = await submit({ sleep: 3_000 });
  const shown = async () => (await get("/workers", as("reader-key-1"))).workers;
  await until(async () => (await shown())[0]?.services.work?.runs.some((run: { job_id: string }) => run.job_id === id));
  const [worker] = await shown();
  expect(worker).toMatchObject({
    state: "running",
    results_fault: null,
    services: { work: { slots: 8, operations: ["work"], parked: null } },
  });
  expect(worker.beat_at).toMatch(/^\d{4}-.*Z$/);
  expect((await fetch(`${stack.url}/workers`)).status).toBe(401);
});

test("quiet: the worker takes nothing more, ends what it has and says so within its beat", async () => {
  const worker = (await info())[0];
  const running = await submit({ sleep: 1_500 });
  await until(async () => (await status(running)) === "started");
  expect(await post(`/workers/${worker.id}/quiet`)).toMatchObject({ code: 202, order: "quiet", worker: worker.id });
  await until(async () => (await info())[0].state === "quiet", 5_000);
  const waits = await submit({});
  await until(async () => (await status(running)) === "finished");
  await Bun.sleep(1_500);
  expect(await status(waits)).toBe("queued");
  expect(await stack.redis.client.llen("lh:{work}:ready")).toBe(1); // not in the quiet worker's hands
  const second = await stack.startWorker();
  await until(async () => (await status(waits)) === "finished");
  expect(second.output()).toContain("ready");
});

test("stop: the worker drains and ends, without the message too: its beat reads the order", async () => {
  const first = stack.workers[0];
  const id = (await info()).find((worker) => worker.state === "quiet").id;
  await stack.redis.client.hset("lh:orders", id, "stop");
  expect(await first?.exited).toBe(0);
  expect(await stack.redis.client.hget("lh:orders", id)).toBeNull();
  const other = (await info())[0];
  expect(await post(`/workers/${other.id}/stop`)).toMatchObject({ code: 202, order: "stop" });
  expect(await stack.workers[1]?.exited).toBe(0);
  expect(await post(`/workers/${other.id}/stop`)).toMatchObject({ code: 404 });
});

test("the audit says who did what to how many, newest first, never the key", async () => {
  const { entries } = await get("/audit?limit=100");
  expect(entries[0]).toMatchObject({ action: "stop", who: expect.stringMatching(/^[0-9a-f]{16}$/) });
  expect(entries.find((entry: { action: string }) => entry.action === "bulk requeue")).toMatchObject({
    target: "work",
    jobs: 6,
    filter: { service: "work", state: "failed", tag: "odd" },
  });
  expect(JSON.stringify(entries)).not.toContain("admin-key-1");
  expect(stack.gateway.output()).toMatch(/INFO {2}audit who=[0-9a-f]{16} ip=127\.0\.0\.1 /);
  expect((await get("/audit?limit=2")).entries.length).toBe(2);
  expect((await get("/audit?limit=0")).status).toBe(422);
});

// biome-ignore lint/suspicious/noExplicitAny: as above
async function info(): Promise<any[]> {
  return Object.values(await stack.redis.client.hgetall("lh:workers")).map((text) => JSON.parse(text));
}

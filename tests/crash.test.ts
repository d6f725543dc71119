import { afterAll, beforeAll, expect, test } from "bun:test";
import { type Stack, startStack, until } from "./support/stack.ts";

let stack: Stack;
beforeAll(async () => {
  stack = await startStack();
});
afterAll(() => stack?.stop());

test("a job goes from HTTP to its result", async () => {
  const id = await stack.submit({ answer: { value: [1, 2] } });
  const status = await stack.ended(id);
  expect(status).toMatchObject({ job_id: id, status: "finished", result: { value: [1, 2] }, error: null });
});

test("kill -9 of the worker: the job finishes on another one, as the same attempt, in the record as orphaned", async () => {
  const id = await stack.submit({ sleep: 1_500 });
  // "started" stands in Redis before the call leaves: only the service knows that the call is under way
  await until(() => stack.service.byJob(id).length === 1);
  expect((await stack.get(`/jobs/${id}/status`)).status).toBe("started");
  stack.workers[0]?.kill("SIGKILL");
  await stack.startWorker();
  const status = await stack.ended(id, 20_000);
  expect(status.status).toBe("finished");
  const record = await stack.get(`/jobs/${id}`);
  expect(record.redeliveries).toBe(1);
  expect(record.attempt).toBe(1);
  expect(record.attempts.map((a: { outcome: string }) => a.outcome)).toEqual(["orphaned", "finished"]);
  expect(stack.service.byJob(id).map((call) => call.headers.get("idempotency-key"))).toEqual([id, id]);
}, 30_000);

test("kill -9 of Redis with jobs queued and running: all finish after its restart, none is called twice", async () => {
  const ids = await Promise.all(Array.from({ length: 40 }, (_, i) => stack.submit({ sleep: i < 8 ? 2_000 : 20 })));
  await until(() => stack.service.calls.length >= 8);
  await stack.redis.kill9();
  const refused = await stack.post("/work", {});
  expect(refused.status).toBe(503);
  expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
  expect((await stack.get(`/jobs/${ids[0]}/status`)).status).toBe(503);
  expect((await stack.get("/health")).status).toBe("unhealthy");
  await Bun.sleep(1_000);
  await stack.redis.restart();
  for (const id of ids) expect((await stack.ended(id, 20_000)).status).toBe("finished");
  for (const id of ids) expect(stack.service.byJob(id).length).toBe(1);
}, 40_000);

test("SIGTERM: what cannot end within DRAIN_TIMEOUT is handed back with no attempt spent", async () => {
  const id = await stack.submit({ sleep: 5_000 });
  await until(() => stack.service.byJob(id).length === 1);
  const worker = stack.workers.at(-1);
  worker?.kill("SIGTERM");
  expect(await worker?.exited).toBe(0);
  const record = await stack.get(`/jobs/${id}`);
  expect(record).toMatchObject({ status: "queued", attempt: 0, redeliveries: 0 });
  expect(stack.service.byJob(id)[0]?.aborted).toBe(true);
  await stack.startWorker();
  expect((await stack.ended(id, 20_000)).status).toBe("finished");
}, 40_000);

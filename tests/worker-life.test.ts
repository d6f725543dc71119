/** Cancel from anywhere, the two signals, the key that a microservice sees over attempts. */
import { afterEach, expect, test } from "bun:test";
import { ECHO_MS } from "../shared/signals.ts";
import { DENO } from "./support/deno.ts";
import { limit } from "./support/patience.ts";
import { freePort } from "./support/redis.ts";
import { type Stack, type StackOptions, startStack, until } from "./support/stack.ts";

let stack: Stack;
afterEach(async () => {
  await stack?.stop();
}, 60_000);
const start = async (options: StackOptions = {}) => {
  stack = await startStack(options);
  return stack;
};
const state = async (id: string) => (await stack.get(`/jobs/${id}`)).status as string;
const called = (id: string) => until(() => stack.service.byJob(id).length > 0, 20_000);

test("Idempotency-Key is the job's over its attempts, and another one after a requeue", async () => {
  await start({ env: { GATEWAY_URL: "" } });
  const id = await stack.submit({ fail: 1, status: 400 });
  expect((await stack.ended(id)).status).toBe("failed");
  expect((await stack.post(`/jobs/${id}/requeue`)).status).toBe(200);
  await until(() => stack.service.byJob(id).length === 3);
  const keys = stack.service.byJob(id).map((call) => call.headers.get("idempotency-key"));
  expect(keys).toEqual([id, id, `${id}.1`]);
  expect(stack.service.byJob(id)[0]?.headers.get("x-progress-url")).toBeNull(); // no GATEWAY_URL, no address
}, 60_000);

test("cancel of a running job by another gateway closes the call, and only then the job is canceled", async () => {
  await start({ workers: 2 });
  const port = await freePort();
  await stack.startGateway({ PORT: String(port), DASHBOARD_PORT: "0" });
  const id = await stack.submit({ sleep: 60_000 });
  await called(id);
  const answer = await fetch(`http://127.0.0.1:${port}/jobs/${id}/cancel`, { method: "POST" });
  expect([answer.status, await answer.json()]).toEqual([202, { job_id: id, status: "canceling" } as never]);
  const status = await stack.ended(id, 20_000);
  expect(status).toMatchObject({ status: "failed", result: null });
  expect(status.error).toStartWith("canceled");
  expect(await state(id)).toBe("canceled");
  await until(() => stack.service.byJob(id)[0]?.aborted, 20_000);
  expect(stack.service.byJob(id)).toHaveLength(1);
}, 60_000);

test("cancel of a queued job: it never runs", async () => {
  await start({ operation: { slots: 1 } });
  const running = await stack.submit({ sleep: 1_000 });
  await called(running);
  const waiting = await stack.submit({});
  expect((await stack.post(`/jobs/${waiting}/cancel`)).status).toBe(202);
  const last = await stack.submit({});
  await stack.ended(last, 30_000);
  expect(stack.service.byJob(waiting)).toHaveLength(0);
}, 60_000);

test("SIGTERM: calls that end within DRAIN_TIMEOUT end as usual, nothing more is taken, exit 0", async () => {
  await start({ operation: { slots: 1 }, env: { DRAIN_TIMEOUT: "20s" } });
  const id = await stack.submit({ sleep: 1_500 });
  await called(id);
  const waiting = await stack.submit({});
  const [worker] = stack.workers;
  worker?.kill("SIGTERM");
  await worker?.says(/draining calls=1 /);
  expect(await worker?.exited).toBe(0);
  expect([await state(id), await state(waiting)]).toEqual(["finished", "queued"]);
  expect(stack.service.byJob(id)[0]?.aborted).toBe(false);
}, 60_000);

test("a second signal hands everything back at once, with no attempt spent", async () => {
  await start({ env: { DRAIN_TIMEOUT: "1h" } });
  const ids = await Promise.all([stack.submit({ sleep: 60_000 }), stack.submit({ sleep: 60_000 })]);
  for (const id of ids) await called(id);
  const [worker] = stack.workers;
  worker?.kill("SIGTERM");
  await worker?.says(/draining/);
  await Bun.sleep(ECHO_MS + 100); // sooner it would be an echo of the first
  const began = performance.now();
  worker?.kill("SIGTERM");
  expect(await worker?.exited).toBe(0);
  expect(performance.now() - began).toBeLessThan(limit(10_000));
  for (const id of ids)
    expect(await stack.get(`/jobs/${id}`)).toMatchObject({ status: "queued", attempt: 0, redeliveries: 0 });
  for (const id of ids) await until(() => stack.service.byJob(id)[0]?.aborted);
}, 60_000);

/** What lies in Redis unread behind an idle worker's BLMOVE, in bytes. */
async function behindBlmove(): Promise<number> {
  let line: string | undefined;
  await until(async () => {
    const clients = String(await stack.redis.client.client("LIST")).split("\n");
    line = clients.find((one) => one.includes("name=longhaul-block-") && one.includes("cmd=blmove"));
    return line !== undefined;
  });
  return Number(/qbuf=(\d+)/.exec(line as string)?.[1]);
}

test("an idle worker's take waits in Redis behind its BLMOVE, so that a job is started as it comes", async () => {
  await start();
  expect(await behindBlmove()).toBeGreaterThan(100);
  expect((await stack.ended(await stack.submit({}))).status).toBe("finished");
}, 60_000);

test("no take waits there where a worker's death ends a job", async () => {
  await start({ operation: { on_orphan: "fail" } });
  expect(await behindBlmove()).toBe(0);
  expect((await stack.ended(await stack.submit({}))).status).toBe("finished");
}, 60_000);

test("an idle worker ends soon after SIGTERM: no BLMOVE holds it", async () => {
  await start({ env: { DRAIN_TIMEOUT: "1h" } });
  await Bun.sleep(500); // it waits in BLMOVE
  const [worker] = stack.workers;
  const began = performance.now();
  worker?.kill("SIGTERM");
  expect(await worker?.exited).toBe(0);
  expect(performance.now() - began).toBeLessThan(limit(3_500)); // BLMOVE alone would take up to 4 s
}, 60_000);

test.if(DENO !== null)(
  "under Deno: a body that is too large is a problem, and SIGTERM hands back",
  async () => {
    await start({ runtime: "deno" });
    const tooLarge = await stack.post("/work", "x".repeat(2_000_000));
    expect([tooLarge.status, tooLarge.headers.get("content-type")]).toEqual([413, "application/problem+json"]);
    const running = await stack.submit({ sleep: 60_000 });
    await called(running);
    stack.workers[0]?.kill("SIGTERM");
    expect(await stack.workers[0]?.exited).toBe(0);
    expect(await stack.get(`/jobs/${running}`)).toMatchObject({ status: "queued", attempt: 0 });
  },
  120_000,
);

/** Real workers over a fake microservice: how many calls at once, limits of time, and connections that break. */
import { afterEach, expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { http, JSON_TYPE, rawServer } from "./fixtures/raw-server.ts";
import { type Stack, type StackOptions, startStack, until } from "./support/stack.ts";

let stack: Stack;
const after: (() => unknown)[] = [];
afterEach(async () => {
  for (const step of after.splice(0)) await step();
  await stack?.stop();
}, 60_000);
const start = async (options: StackOptions = {}) => {
  stack = await startStack(options);
  return stack;
};
const many = (count: number, payload: unknown) =>
  Promise.all(Array.from({ length: count }, () => stack.submit(payload)));

test("concurrency: two workers of eight slots never call a service with concurrency 2 more than twice at once", async () => {
  await start({ workers: 2, operation: { concurrency: 2 } });
  const ids = await many(14, { sleep: 120 });
  for (const id of ids) expect((await stack.ended(id, 40_000)).status).toBe("finished");
  expect(stack.service.peak).toBe(2);
}, 90_000);

test("WORKER_SLOTS: so many calls at once, and no more", async () => {
  await start({ env: { WORKER_SLOTS: "work:3,*:1" } });
  const ids = await many(12, { sleep: 200 });
  for (const id of ids) await stack.ended(id, 40_000);
  expect(stack.service.peak).toBe(3);
}, 90_000);

test("PARK_LIMIT: what was refused for so long fails as service_unreachable", async () => {
  await start({ env: { PARK_LIMIT: "1s" } });
  await stack.service.stop();
  const id = await stack.submit({});
  const status = await stack.ended(id, 60_000);
  expect(status).toMatchObject({ status: "failed", attempt: 1 });
  expect(status.error).toContain("cannot be reached");
  expect((await stack.get(`/jobs/${id}`)).error.code).toBe("service_unreachable");
}, 120_000);

test("a parked service: /health names the address, and its jobs have a place, no forecast, and a time to ask again", async () => {
  await start();
  const { origin } = new URL(stack.service.url);
  await stack.service.stop();
  const id = await stack.submit({});
  const health = async () => (await stack.get("/health")).services.work as string;
  await until(async () => (await health()).startsWith(`parked (work cannot be reached at ${origin}: `));
  expect(await health()).toMatch(/; 1 job waits, for \d+ s\)$/);
  const response = await fetch(`${stack.url}/jobs/${id}/status`);
  expect(await response.json()).toMatchObject({ status: "queued", position: 1, eta_s: null });
  expect(Number(response.headers.get("retry-after"))).toBeGreaterThan(1);
  expect(stack.workers[0]?.output()).toContain(
    `lane parked: the service refuses connections reason="work cannot be reached at ${origin}: `,
  );
}, 60_000);

test("a call beyond its time limit is closed and fails as timeout; a job's own limit counts too", async () => {
  await start({ operation: { timeout: "1500ms" } });
  const [long, own] = [
    await stack.submit({ sleep: 20_000 }),
    await stack.submit({ sleep: 20_000 }, "/work?timeout=0.3s"),
  ];
  for (const id of [own, long]) {
    expect((await stack.ended(id, 20_000)).status).toBe("failed");
    expect((await stack.get(`/jobs/${id}`)).error.code).toBe("timeout");
    await until(() => stack.service.byJob(id)[0]?.aborted);
  }
  const record = await stack.get(`/jobs/${own}`);
  expect(Date.parse(record.ended_at) - Date.parse(record.started_at)).toBeLessThan(1_400);
}, 60_000);

test("retries of the job's own: none, and the first 503 is the end", async () => {
  await start();
  const once = await stack.submit({ fail: 9 }, "/work?retries=0");
  expect(await stack.ended(once)).toMatchObject({ status: "failed", attempt: 1 });
  expect(stack.service.byJob(once)).toHaveLength(1);
}, 60_000);

test("a large answer lies in RESULTS_DIR: whole in the status and the record, bytes at /result, gone with the job", async () => {
  await start({ env: { RESULT_INLINE_BYTES: "1KB" } });
  const answer = { text: "ü".repeat(3_000) };
  const body = JSON.stringify(answer);
  const id = await stack.submit({ answer });
  const href = `/jobs/${id}/result`;
  expect((await stack.ended(id)).result).toEqual(answer);
  expect((await stack.get(`/jobs/${id}`)).result).toEqual(answer);
  expect(await (await fetch(stack.url + href)).text()).toBe(body);
  const dir = join(stack.dir, "data/results/work", id);
  expect(readdirSync(dir)).toHaveLength(1);
  expect((await fetch(`${stack.url}/jobs/${id}`, { method: "DELETE" })).status).toBe(200);
  await until(() => !existsSync(dir), 30_000);
}, 60_000);

test("a connection closed before the first byte is a redelivery, no attempt; an operation that may not run twice fails", async () => {
  let seen = 0;
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("data", (data) => {
      if (!data.includes("POST")) return;
      if (++seen % 2 === 1) socket.resetAndDestroy();
      else
        socket.end(
          "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
        );
    });
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  after.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const url = `http://127.0.0.1:${(server.address() as { port: number }).port}`;
  await start({ operations: { twice: { url, backoff: "50ms" }, once: { url, on_orphan: "fail" } } });
  const id = await stack.submit({}, "/twice");
  expect(await stack.ended(id, 30_000)).toMatchObject({ status: "finished", attempt: 1 });
  expect((await stack.get(`/jobs/${id}`)).redeliveries).toBe(1);
  const once = await stack.submit({}, "/once");
  expect((await stack.ended(once, 30_000)).status).toBe("failed");
  expect((await stack.get(`/jobs/${once}`)).error.code).toBe("reset");
  expect(seen).toBe(3);
}, 60_000);

test("an answer for another job is never stored: a redelivery, no attempt; an operation that may not run twice fails", async () => {
  const server = await rawServer((socket, { headers }) => {
    const id = headers.get("x-job-id") ?? "";
    const isFirst = server.requests.filter((other) => other.headers.get("x-job-id") === id).length === 1;
    const named = isFirst ? "twice_of_somebody_else" : id;
    socket.write(http(200, JSON.stringify({ named }), JSON_TYPE, `X-Job-Id: ${named}`));
  });
  after.push(() => server.close());
  const url = new URL(server.url).origin;
  await start({ operations: { twice: { url, backoff: "50ms" }, once: { url, on_orphan: "fail" } } });
  const id = await stack.submit({}, "/twice");
  expect(await stack.ended(id, 30_000)).toMatchObject({ status: "finished", attempt: 1, result: { named: id } });
  const record = await stack.get(`/jobs/${id}`);
  expect([record.redeliveries, record.attempts[0].outcome]).toEqual([1, "wrong_job"]);
  const once = await stack.submit({}, "/once");
  expect(await stack.ended(once, 30_000)).toMatchObject({ status: "failed", result: null });
  expect((await stack.get(`/jobs/${once}`)).error.code).toBe("wrong_job");
  expect(stack.workers[0]?.output()).toContain(`answered job ${id}, but its X-Job-Id is twice_of_somebody_else`);
}, 60_000);

test("a job that is cut off in four calls fails with an error that says a job beside it may be the cause", async () => {
  const raw = await rawServer((socket) => socket.resetAndDestroy());
  after.push(() => raw.close());
  await start({ operations: { heavy: { url: raw.url, backoff: "20ms" } } });
  const id = await stack.submit({}, "/heavy");
  expect(await stack.ended(id, 30_000)).toMatchObject({ status: "failed", redeliveries: 4 });
  const { error, attempts } = await stack.get(`/jobs/${id}`);
  expect(error.message).toMatch(
    /closed the connection .*, as in 3 calls before; if other jobs' calls broke off then, too, one of them may be what ends heavy: requeue/,
  );
  expect(attempts).toHaveLength(4);
}, 60_000);

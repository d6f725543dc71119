/** What clients and microservices see of real workers, under Bun and under Deno. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { freePort } from "./support/redis.ts";
import { startService } from "./support/service.ts";
import { type Stack, startStack, until } from "./support/stack.ts";

const RUNTIMES = ["bun", "deno"] as const;

for (const runtime of RUNTIMES) {
  describe(`worker under ${runtime}`, () => {
    let stack: Stack;
    beforeAll(async () => {
      stack = await startStack({
        runtime,
        workers: 1,
        env: { RESULT_INLINE_BYTES: "1KiB", MAX_RESULT_BYTES: "100KiB" },
        operation: { timeout: "20s", accepts: ["application/json", "image/*"] },
        operations: {
          alone: { url: "http://127.0.0.1:1", concurrency: 1 },
          short: { url: "http://127.0.0.1:1", timeout: "1s" },
        },
      });
    });
    afterAll(() => stack?.stop());

    test("the microservice gets the payload and the headers of the contract", async () => {
      const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
      const id = await stack.submit({ n: 1 }, "/work", { traceparent: trace });
      expect((await stack.ended(id)).status).toBe("finished");
      const [call] = stack.service.byJob(id);
      expect(JSON.parse(call?.body ?? "")).toEqual({ n: 1 });
      expect(call?.headers.get("x-job-attempt")).toBe("1");
      expect(call?.headers.get("idempotency-key")).toBe(id);
      expect(call?.headers.get("traceparent")).toBe(trace);
      expect(Date.parse(call?.headers.get("x-job-deadline") ?? "")).toBeGreaterThan(Date.now());
      expect(call?.headers.get("x-progress-url")).toStartWith(`${stack.url}/jobs/${id}/progress?t=1.`);
    });

    test("503 is tried again with backoff, and the log of attempts tells of it", async () => {
      const id = await stack.submit({ fail: 2 });
      expect((await stack.ended(id)).status).toBe("finished");
      const record = await stack.get(`/jobs/${id}`);
      expect(record.attempt).toBe(3);
      expect(record.attempts.map((a: { http_status?: number }) => a.http_status)).toEqual([503, 503, undefined]);
    });

    test("attempts that are spent end as failed, with the service's own words", async () => {
      const id = await stack.submit({ fail: 9 });
      const status = await stack.ended(id);
      expect(status).toMatchObject({ status: "failed", error: "work answered 503: busy, come again" });
      expect(stack.service.byJob(id).length).toBe(3);
    });

    test.each([
      [{ status: 500, detail: "no such storey" }, "work answered 500: no such storey"],
      [{ status: 404, detail: "File x not found" }, "work answered 404: File x not found"],
      [{ raw: "<html><b>proxy</b></html>", type: "text/html" }, "text/html"],
      [{ raw: '{"a": [1, 2' }, "JSON"],
    ])("the answer %p fails the job at once, readably", async (payload, words) => {
      const id = await stack.submit(payload);
      const status = await stack.ended(id);
      expect(status.status).toBe("failed");
      expect(status.error).toContain(words);
      expect(stack.service.byJob(id).length).toBe(1);
    });

    test("a large result lies in RESULTS_DIR, and is given as it was; one over MAX_RESULT_BYTES fails", async () => {
      const raw = JSON.stringify({ list: Array.from({ length: 2_000 }, (_, i) => i) });
      const id = await stack.submit({ raw });
      await stack.ended(id);
      expect(readdirSync(join(stack.dir, "data/results/work"))).toContain(id);
      expect(await (await fetch(`${stack.url}/jobs/${id}/result`)).text()).toBe(raw);
      const big = await stack.submit({ raw: `"${"x".repeat(101 * 1024)}"` });
      expect((await stack.ended(big)).error).toContain("more than 100 KiB (MAX_RESULT_BYTES)");
      expect((await stack.get(`/jobs/${big}`)).error.code).toBe("result_too_large");
      expect(existsSync(join(stack.dir, "data/results/work", big))).toBe(false);
    });

    test("bytes of a type that the operation accepts are kept, and described in the status", async () => {
      const id = await stack.submit({ raw: "PNG…", type: "image/png" });
      expect((await stack.ended(id)).result).toEqual({
        content_type: "image/png",
        size: 6,
        href: `/jobs/${id}/result`,
      });
      const answer = await fetch(`${stack.url}/jobs/${id}/result`);
      expect([answer.headers.get("content-type"), await answer.text()]).toEqual(["image/png", "PNG…"]);
    });

    test("cancel closes the call of a running job, and the job reads canceled", async () => {
      const id = await stack.submit({ sleep: 15_000 });
      await until(() => stack.service.byJob(id).length === 1);
      expect((await stack.post(`/jobs/${id}/cancel`)).status).toBe(202);
      const status = await stack.ended(id);
      expect(status.status).toBe("failed");
      expect(status.error).toStartWith("canceled");
      expect((await stack.get(`/jobs/${id}`)).status).toBe("canceled");
      await until(() => stack.service.byJob(id)[0]?.aborted);
      expect((await stack.post(`/jobs/${id}/requeue`)).status).toBe(200);
      await until(() => stack.service.byJob(id).length === 2);
      expect(stack.service.byJob(id)[1]?.headers.get("idempotency-key")).toBe(`${id}.1`);
      await stack.post(`/jobs/${id}/cancel`);
      await stack.ended(id);
    });

    test("progress that the service posts is shown while the job runs; a stranger's token is refused", async () => {
      const id = await stack.submit({ sleep: 3_000 });
      await until(() => stack.service.byJob(id).length === 1);
      const url = stack.service.byJob(id)[0]?.headers.get("x-progress-url") ?? "";
      const say = (to: string) =>
        fetch(to, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: '{"progress":0.25,"message":"walls"}',
        });
      expect((await say(url)).status).toBe(200);
      expect(await stack.get(`/jobs/${id}/status`)).toMatchObject({ progress: 0.25, message: "walls" });
      expect((await say(`${url}x`)).status).toBe(409);
      expect((await stack.ended(id)).status).toBe("finished");
    });

    test("a service that refuses connections parks its lane: nothing is spent, /health says so, and it resumes", async () => {
      const port = await freePort(); // what listens on a port of the system's choice could get one that was just let go
      const other = await startStack({ runtime, workers: 1, operation: { url: `http://127.0.0.1:${port}` } });
      try {
        const id = await other.submit({ n: 1 });
        await until(async () => /^parked/.test((await other.get("/health")).services.work), 15_000);
        expect(await other.get(`/jobs/${id}`)).toMatchObject({ status: "queued", attempt: 0, redeliveries: 0 });
        const service = await startService(port);
        expect((await other.ended(id, 40_000)).status).toBe("finished");
        expect((await other.get(`/jobs/${id}`)).attempt).toBe(1);
        await until(async () => (await other.get("/health")).services.work === "healthy", 15_000);
        await service.stop();
      } finally {
        await other.stop();
      }
    }, 90_000);
  });
}

test("concurrency holds over two workers, WORKER_SLOTS and WORKER_SERVICES are obeyed", async () => {
  const service = await startService();
  const stack = await startStack({
    workers: 0,
    operations: {
      alone: { url: service.url, concurrency: 2 },
      other: { url: service.url },
    },
  });
  try {
    const worker = await stack.startWorker({ WORKER_SERVICES: "alone", WORKER_SLOTS: "alone:8" });
    await stack.startWorker({ WORKER_SERVICES: "alone" });
    expect(worker.output()).toContain("alone×8");
    const elsewhere = await stack.submit({}, "/other");
    const ids = await Promise.all(Array.from({ length: 8 }, () => stack.submit({ sleep: 300 }, "/alone")));
    for (const id of ids) expect((await stack.ended(id)).status).toBe("finished");
    expect(service.calls).toHaveLength(8);
    expect(service.peak).toBe(2); // counted where the calls arrive: states read one after another are of different moments
    expect((await stack.get(`/jobs/${elsewhere}/status`)).status).toBe("queued");
    expect((await stack.get("/health")).services.other).toBe("blocked (1 job, no worker)");
  } finally {
    await stack.stop();
    await service.stop();
  }
}, 60_000);

test("priorities: 9 goes first, within one in order", async () => {
  const stack = await startStack({ workers: 0, operation: { slots: 1, concurrency: 1 } });
  try {
    const at = (priority: number) => stack.submit({}, `/work?priority=${priority}`);
    const order = [await at(1), await at(5), await at(9), await at(5), await at(9)];
    await stack.startWorker();
    for (const id of order) await stack.ended(id);
    const called = stack.service.calls.map((call) => order.indexOf(call.headers.get("x-job-id") ?? ""));
    expect(called).toEqual([2, 4, 1, 3, 0]);
  } finally {
    await stack.stop();
  }
}, 60_000);

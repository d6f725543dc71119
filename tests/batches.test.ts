import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { limit } from "./support/patience.ts";
import { freePort } from "./support/redis.ts";
import { type Stack, startStack, until } from "./support/stack.ts";

describe("POST /jobs", () => {
  let stack: Stack;
  let other: string;
  beforeAll(async () => {
    stack = await startStack({
      env: { BATCH_TIMEOUT: "2s", MAX_BATCH_BYTES: "2MiB", MAX_BODY_BYTES: "64KiB", MAX_BATCH_JOBS: "5000" },
      operation: {
        slots: 64,
        files: ["file"],
        schema: { properties: { file: { type: "string" }, n: { type: "integer" } } },
      },
      operations: {
        second: { service: "two", url: "http://127.0.0.1:1", slots: 64 },
        away: { service: "three", route: "/away", url: "http://127.0.0.1:1" },
      },
    });
    const port = await freePort();
    await stack.startGateway({ PORT: String(port), DASHBOARD_PORT: "0" });
    other = `http://127.0.0.1:${port}`;
  }, 30_000);
  afterAll(() => stack?.stop());
  const job = (payload: unknown = {}, more: object = {}) => ({ operation: "work", payload, ...more });
  // biome-ignore lint/suspicious/noExplicitAny: answers of many shapes
  const send = async (body: unknown, headers: Record<string, string> = {}): Promise<[number, any, Headers]> => {
    const response = await stack.post("/jobs", body, headers);
    return [response.status, await response.json(), response.headers];
  };

  test("one job: as its operation's own route, options as fields", async () => {
    const [status, body, headers] = await send(job({ answer: 7 }, { priority: 9, tags: ["x"], result_ttl: "1h" }));
    expect(status).toBe(202);
    expect(headers.get("location")).toBe(`/jobs/${body.job_id}`);
    expect((await stack.ended(body.job_id)).result).toBe(7);
    expect(await stack.get(`/jobs/${body.job_id}`)).toMatchObject({
      priority: 9,
      tags: ["x"],
      options: { result_ttl: 3600 },
    });
    const [waited, ended] = await send(job({ answer: 8 }), { prefer: "wait=20" });
    expect([waited, ended.result]).toEqual([200, 8]);
  });

  test("a batch: ids in order, counts, wait until done on another gateway, failed ids", async () => {
    const items = Array.from({ length: 300 }, (_, i) => job(i % 100 === 7 ? { status: 400 } : { sleep: 5 }));
    const [status, body, headers] = await send(items);
    expect(status).toBe(202);
    expect(headers.get("location")).toBe(`/batches/${body.batch_id}`);
    expect(body.job_ids.length).toBe(300);
    const began = performance.now();
    const done = await (await fetch(`${other}/batches/${body.batch_id}?wait=30&ids`)).json();
    expect(performance.now() - began).toBeLessThan(limit(20_000));
    expect(done).toMatchObject({ status: "done", done: true, total: 300, progress: 1 });
    expect(done.counts).toEqual({
      scheduled: 0,
      deferred: 0,
      queued: 0,
      started: 0,
      finished: 297,
      failed: 3,
      canceled: 0,
    });
    expect(done.failed_ids.sort()).toEqual([7, 107, 207].map((i) => body.job_ids[i]).sort());
    expect(done.job_ids).toEqual(body.job_ids);
    expect((await stack.get(`/jobs/${body.job_ids[0]}`)).batch_id).toBe(body.batch_id);
    await until(async () => (await stack.redis.client.pttl(`lh:{batch:${body.batch_id}}`)) > 0);
  });

  test("the end of the last member wakes the wait, not the next look", async () => {
    const [, body] = await send([job({ sleep: 900 })]);
    const response = await fetch(`${other}/batches/${body.batch_id}`, { headers: { prefer: "wait=20" } });
    expect(response.headers.get("preference-applied")).toBe("wait=20");
    const { ended_at } = await response.json();
    expect(Date.now() - Date.parse(ended_at)).toBeLessThan(900);
  });

  test("one bad item refuses all of it, and every fault names its item", async () => {
    const count = async () => Number(await stack.redis.client.hget("lh:{work}:counts", "seq"));
    const before = await count();
    const [status, problem] = await send([
      job(),
      job({ file: "../../etc/passwd" }),
      job({ n: "x" }),
      job({}, { priority: 99 }),
      { operation: "nope", payload: {} },
      "text",
      job({}, { colour: "red" }),
      { operation: "work" },
      job({}, { after: ["x"] }),
    ]);
    expect(status).toBe(422);
    const paths = problem.errors.map((e: { path: string }) => e.path);
    expect(paths).toEqual([
      "1.payload.file",
      "2.payload.n",
      "3.priority",
      "4.operation",
      "5",
      "6.colour",
      "7.payload",
      "8.after",
    ]);
    expect(problem.detail).toStartWith("1.payload.file: ");
    expect(await count()).toBe(before);
    expect(await stack.redis.client.zcard("lh:{work}:staged")).toBe(0);
  });

  test("hostile bodies are refused and leave nothing", async () => {
    const before = (await stack.redis.client.keys("*job:*")).length;
    const deep = `${'{"a":'.repeat(100)}1${"}".repeat(100)}`;
    const bodies: [unknown, number][] = [
      ["[]", 422],
      ["[[]]", 422],
      ["[null]", 422],
      ["{}", 422],
      ["7", 422],
      ['"x"', 422],
      ["", 400],
      ["[", 400],
      [`[{"operation":"work","payload":${deep}}]`, 400],
      ['[{"operation":"work","payload":{"__proto__":{}}}]', 400],
      ['[{"operation":"__proto__","payload":{}}]', 422],
      ['[{"operation":["work"],"payload":{}}]', 422],
      [`[${'{"operation":"work","payload":{}},'.repeat(5_000)}{"operation":"work","payload":{}}]`, 422],
      [`[${`{"operation":"work","payload":{"x":"${"y".repeat(40_000)}"}},`.repeat(60)}{}]`, 413],
      [`[{"operation":"work","payload":{"x":"${"y".repeat(80_000)}"}}]`, 413],
      [job({ x: "y".repeat(80_000) }), 413],
    ];
    for (const [body, status] of bodies) {
      const response = await stack.post("/jobs", body);
      expect([String(body).slice(0, 60), response.status]).toEqual([String(body).slice(0, 60), status]);
      expect(response.headers.get("content-type")).toBe("application/problem+json");
      await response.text();
    }
    expect((await stack.redis.client.keys("*job:*")).length).toBe(before);
    for (const id of ["x", "batch_", `batch_${"0".repeat(22)}`, "batch_..%2f", "%00"]) {
      expect((await fetch(`${stack.url}/batches/${id}`)).status).toBe(404);
    }
  });

  test("Idempotency-Key of a batch: the same answer from another gateway, 422 for another body", async () => {
    const items = [job({ sleep: 10 }), job({ sleep: 11 })];
    const [, first] = await send(items, { "idempotency-key": "b1" });
    const again = await fetch(`${other}/jobs`, {
      method: "POST",
      headers: { "content-type": "application/json", "idempotency-key": "b1" },
      body: JSON.stringify(items),
    });
    expect(again.headers.get("idempotent-replayed")).toBe("true");
    expect(await again.json()).toEqual(first);
    expect((await send([job()], { "idempotency-key": "b1" }))[0]).toBe(422);
  });

  test("kill -9 of the gateway while it stages: all or nothing, whatever the moment", async () => {
    for (let round = 0; round < 4; round++) {
      const port = await freePort();
      const gateway = await stack.startGateway({ PORT: String(port), DASHBOARD_PORT: "0" });
      const tag = `round-${round}`;
      const items = Array.from({ length: 5_000 }, (_, i) => ({
        operation: i % 2 ? "work" : "second",
        payload: { i },
        tags: [tag],
        delay: "1h",
      }));
      const answer = fetch(`http://127.0.0.1:${port}/jobs`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(items),
      }).then(
        async (r) => ((await r.json()) as { batch_id?: string }).batch_id,
        () => undefined,
      );
      await until(
        async () =>
          (await stack.redis.client.zcard("lh:{two}:staged")) > 0 ||
          (await stack.redis.client.zcard("lh:{two}:scheduled")) > 0,
        10_000,
      );
      await Bun.sleep(round * 20);
      gateway.kill("SIGKILL");
      const told = await answer;
      await until(
        async () =>
          (await stack.redis.client.zcard("lh:{work}:staged")) + (await stack.redis.client.zcard("lh:{two}:staged")) ===
          0,
        20_000,
      );
      const there =
        (await stack.redis.client.zcard("lh:{work}:scheduled")) +
        (await stack.redis.client.zcard("lh:{two}:scheduled"));
      expect([0, 5_000]).toContain(there);
      if (told) expect(there).toBe(5_000);
      const records = (await stack.redis.client.keys("lh:{two}:job:*")).length;
      expect(records).toBe(there / 2);
      for (const s of ["work", "two"]) {
        await stack.redis.client.del(`lh:{${s}}:scheduled`);
        for (const key of await stack.redis.client.keys(`lh:{${s}}:job:*`)) await stack.redis.client.del(key);
      }
    }
  }, 120_000);
});

import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { Buffer } from "node:buffer";
import { Webhook } from "standardwebhooks";
import { callbackBackoffMs, signatureOf } from "../shared/callback.ts";
import { outbox } from "../shared/clocks/outbox.ts";
import { readConfig } from "../shared/config.ts";
import { newBatchId, newJobId, serviceName } from "../shared/jobs.ts";
import { keysOf } from "../shared/keys.ts";
import type { Connection } from "../shared/script.ts";
import { Maintainer } from "../shared/store/maintain.ts";
import { Outbox } from "../shared/store/outbox.ts";
import { register } from "../shared/store/presence.ts";
import { Producer } from "../shared/store/produce.ts";
import { connect, ready } from "../shared/store/redis.ts";
import { listLog } from "./support/log.ts";
import { freePort, startRedis, type TestRedis } from "./support/redis.ts";
import { type Stack, startStack, until } from "./support/stack.ts";

const secret = (fill: number) => `whsec_${Buffer.alloc(32, fill).toString("base64")}`;
const [NEW, OLD] = [secret(1), secret(2)];

test("a signature of ours is what the standardwebhooks library makes, for each secret", () => {
  const bytes = [NEW, OLD].map((text) => new Uint8Array(Buffer.from(text.slice(6), "base64")));
  const body = '{"ü": "\\u0000", "n": 12345678901234567890}';
  const at = new Date();
  const headers = signatureOf(bytes, "id.1", at.getTime(), body);
  for (const text of [NEW, OLD]) {
    const hook = new Webhook(text);
    expect(() => hook.verify(body, headers)).not.toThrow();
    expect(headers["webhook-signature"]?.split(" ")).toContain(hook.sign("id.1", at, body));
    expect(() => hook.verify(`${body} `, headers)).toThrow();
  }
  expect(() => new Webhook(secret(3)).verify(body, headers)).toThrow();
});

test("the waits between tries grow to four hours and never beyond", () => {
  for (let tries = 1; tries < 40; tries++) {
    const ms = callbackBackoffMs(tries);
    expect(ms).toBeGreaterThan(4_000);
    expect(ms).toBeLessThanOrEqual(1.1 * 4 * 3_600_000);
  }
  expect(callbackBackoffMs(1)).toBeLessThan(6_000);
});

describe("outbox", () => {
  const a = serviceName("a");
  let server: TestRedis;
  let redis: Connection;
  beforeAll(async () => {
    server = await startRedis();
    redis = connect(server.url, "work", "test");
    await ready(redis, 5_000);
  }, 60_000);
  afterAll(async () => {
    redis.disconnect();
    await server.stop();
  });
  beforeEach(async () => {
    await server.client.flushall();
  });
  const ended = async (ttlMs = 60_000) => {
    const producer = new Producer(redis, { maxQueued: 0, idempotencyTtlMs: 60_000, failureTtlMs: ttlMs });
    const id = newJobId(a);
    await producer.submit({ id, operation: "work", payload: "{}", effects: "c", due: Date.now() + 60_000 });
    await producer.cancel(id);
    return id;
  };
  const line = { at: 1, rev: 1, try: 1, ok: true, ms: 1 };

  test("two clocks at once never get the same effect", async () => {
    const ids = await Promise.all(Array.from({ length: 50 }, () => ended()));
    const box = new Outbox(redis);
    const leased = (await Promise.all(Array.from({ length: 10 }, () => box.lease(a, 60_000, 7)))).flat();
    expect(leased.map(({ entry }) => entry).sort()).toEqual(ids.map((id) => `c ${id}`).sort());
  });

  test("a lease that ran out goes to another, and the first one's word counts no more", async () => {
    const id = await ended();
    const box = new Outbox(redis);
    const [first] = await box.lease(a, 20, 5);
    await Bun.sleep(40);
    const [second] = await box.lease(a, 60_000, 5);
    if (!first || !second) throw new Error("no lease");
    expect(await box.tried(id, first, -1, line)).toBe("lost");
    expect(await box.deliveries(id)).toEqual([]);
    expect(await box.tried(id, second, -1, line)).toBe("ok");
    expect(await box.tried(id, second, -1, line)).toBe("lost"); // sent again: nothing more is written
    expect(await box.deliveries(id)).toEqual([line]);
    expect(await server.client.zcard(keysOf(a).outbox)).toBe(0);
  });

  test("news that come while an effect is in hand are not struck with it", async () => {
    const id = await ended();
    const box = new Outbox(redis);
    const [effect] = await box.lease(a, 60_000, 5);
    await server.client.zadd(keysOf(a).outbox, Date.now(), `c ${id}`); // it ended anew
    expect(effect && (await box.done(a, effect))).toBe("lost");
    expect((await box.lease(a, 60_000, 5)).length).toBe(1);
  });

  test("an entry of a kind that this version does not know stays, and others are delivered", async () => {
    await register(redis, ["a"]);
    const { outbox: key } = keysOf(a);
    await server.client.zadd(key, 1, "z something", 2, `b ${newBatchId()}`);
    const config = readConfig({});
    const context = { maintainer: new Maintainer(redis), config, log: listLog([], "warn"), watch: undefined } as never;
    await outbox.step(context);
    await until(async () => (await server.client.zcard(key)) === 1, 5_000);
    await until(async () => Number(await server.client.zscore(key, "z something")) > 2, 5_000);
    const due = Number(await server.client.zscore(key, "z something"));
    expect(due - Date.now()).toBeLessThan(10_000);
  });

  test("a record with a callback lives for an hour at least, and longer than its next try; the log is bounded", async () => {
    const id = await ended(1_000);
    expect(await server.client.pttl(keysOf(a).job(id))).toBeGreaterThan(3_500_000);
    const box = new Outbox(redis);
    for (let i = 1; i <= 30; i++) {
      const [effect] = await box.lease(a, 60_000, 5);
      if (!effect) throw new Error("no lease");
      await box.tried(id, effect, i === 30 ? 7_200_000 : 0, { ...line, try: i });
    }
    expect(await server.client.pttl(keysOf(a).job(id))).toBeGreaterThan(7_200_000);
    expect((await box.deliveries(id)).map((one) => one.try)).toEqual(Array.from({ length: 20 }, (_, i) => 30 - i));
    expect(await server.client.pttl(keysOf(a).deliveries(id))).toBeGreaterThan(0);
  });
});

describe("delivery", () => {
  type Got = { headers: Headers; body: string; at: number; path: string };
  let stack: Stack;
  const got: Got[] = [];
  /** answers by path: a status, or what makes a response */
  const answers = new Map<string, (n: number) => Response | Promise<Response>>();
  const receiver = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    async fetch(request) {
      const path = new URL(request.url).pathname;
      got.push({ headers: request.headers, body: await request.text(), at: Date.now(), path });
      return answers.get(path)?.(got.filter((one) => one.path === path).length) ?? new Response("ok");
    },
  });
  const at = (path: string) => got.filter((one) => one.path === path);
  const hook = (path: string) => `http://127.0.0.1:${receiver.port}${path}`;
  const send = (payload: unknown, path: string, more: object = {}) =>
    stack.post("/jobs", { operation: "work", payload, callback_url: hook(path), ...more });
  const idOf = async (response: Response) => ((await response.json()) as { job_id: string }).job_id;

  beforeAll(async () => {
    stack = await startStack({
      workers: 2,
      env: {
        WEBHOOK_SECRET: `${NEW},${OLD}`,
        CALLBACK_ALLOW: "127.0.0.1",
        CALLBACK_TIMEOUT: "1s",
        CALLBACK_RETRY_FOR: "12s",
      },
    });
  }, 60_000);
  afterAll(async () => {
    receiver.stop(true);
    await stack?.stop();
  });

  test("the full record arrives once, signed by every secret, and is in the log", async () => {
    const id = await idOf(await send({ answer: { big: "é".repeat(1_000) } }, "/plain", { tags: ["t"] }));
    await until(() => at("/plain").length > 0);
    const [call] = at("/plain") as [Got];
    const record = await (await fetch(`${stack.url}/jobs/${id}`)).text();
    for (const text of [NEW, OLD])
      expect(new Webhook(text).verify(call.body, Object.fromEntries(call.headers))).toBeTruthy();
    expect(call.body).toBe(record);
    expect(JSON.parse(call.body)).toMatchObject({ job_id: id, status: "finished", tags: ["t"] });
    expect(call.headers.get("webhook-id")).toBe(`${id}.${JSON.parse(record).rev}`);
    await until(async () => (await stack.get(`/jobs/${id}/deliveries`)).delivered);
    const log = await stack.get(`/jobs/${id}/deliveries`);
    expect(log).toMatchObject({
      callback_url: hook("/plain"),
      next_at: null,
      deliveries: [{ ok: true, status: 200, try: 1 }],
    });
    await Bun.sleep(1_500);
    expect(at("/plain").length).toBe(1); // two workers, one delivery
  });

  test("failed and canceled jobs call back too, and so does every job of a batch", async () => {
    await send({ status: 404, detail: "File x not found" }, "/failed");
    const later = await idOf(await send({}, "/canceled", { delay: "1h" }));
    await stack.post(`/jobs/${later}/cancel`);
    const items = Array.from({ length: 20 }, () => ({ operation: "work", payload: {}, callback_url: hook("/batch") }));
    const { batch_id } = (await (await stack.post("/jobs", items)).json()) as { batch_id: string };
    await until(() => at("/failed").length > 0 && at("/canceled").length > 0 && at("/batch").length === 20);
    expect(JSON.parse(at("/failed")[0]?.body ?? "").error.message).toContain("File x not found");
    expect(JSON.parse(at("/canceled")[0]?.body ?? "").status).toBe("canceled");
    expect(JSON.parse(at("/batch")[0]?.body ?? "").batch_id).toBe(batch_id);
    expect((await stack.get(`/batches/${batch_id}?wait=10`)).counts.finished).toBe(20);
  });

  test("an error is tried again with the same webhook-id until it is taken", async () => {
    answers.set("/flaky", (n) =>
      n === 1 ? new Response("later", { status: 503 }) : new Response(null, { status: 204 }),
    );
    const id = await idOf(await send({}, "/flaky"));
    await until(() => at("/flaky").length === 2, 15_000);
    const [one, two] = at("/flaky") as [Got, Got];
    expect(two.headers.get("webhook-id")).toBe(one.headers.get("webhook-id"));
    expect(two.at - one.at).toBeGreaterThan(4_000);
    await until(async () => (await stack.get(`/jobs/${id}/deliveries`)).delivered);
    const { deliveries } = await stack.get(`/jobs/${id}/deliveries`);
    expect(deliveries.map((line: { status: number; try: number }) => [line.status, line.try])).toEqual([
      [204, 2],
      [503, 1],
    ]);
    expect(JSON.stringify(deliveries)).not.toContain("later"); // nothing of the answer is shown
  }, 30_000);

  test("410 and a redirect: the one ends it, the other is not followed", async () => {
    answers.set("/gone", () => new Response("", { status: 410 }));
    answers.set("/moved", () => Response.redirect(hook("/target"), 302));
    const gone = await idOf(await send({}, "/gone"));
    const moved = await idOf(await send({}, "/moved"));
    await until(() => at("/gone").length > 0 && at("/moved").length > 0);
    await until(async () => (await stack.get(`/jobs/${gone}/deliveries`)).deliveries[0]?.gave_up);
    expect((await stack.get(`/jobs/${gone}/deliveries`)).next_at).toBeNull();
    await until(async () => (await stack.get(`/jobs/${moved}/deliveries`)).deliveries[0]);
    expect((await stack.get(`/jobs/${moved}/deliveries`)).deliveries[0].error).toContain("redirect");
    expect(at("/target").length).toBe(0);
  });

  test("a receiver that hangs holds up nobody, and is given up after CALLBACK_RETRY_FOR", async () => {
    answers.set("/hang", () => new Promise<Response>(() => {}));
    const many = () => Promise.all(Array.from({ length: 10 }, async () => idOf(await send({}, "/hang"))));
    const hanging = await many();
    await until(() => at("/hang").length >= 1);
    await many(); // both workers' clocks have some in hand
    await until(() => at("/hang").length >= 11);
    const began = Date.now();
    await send({}, "/quick");
    await until(() => at("/quick").length === 1);
    expect(Date.now() - began).toBeLessThan(3_000);
    await until(async () => (await stack.get(`/jobs/${hanging[0]}/deliveries`)).deliveries[0]?.gave_up, 30_000);
    expect((await stack.get(`/jobs/${hanging[0]}/deliveries`)).deliveries[0].error).toContain("longer than");
  }, 60_000);

  test("a requeued job calls back again, under another webhook-id", async () => {
    const id = await idOf(await send({ status: 400 }, "/again"));
    await until(() => at("/again").length === 1);
    await stack.post(`/jobs/${id}/requeue`);
    await until(() => at("/again").length === 2);
    expect(new Set(at("/again").map((one) => one.headers.get("webhook-id"))).size).toBe(2);
    await until(async () => (await stack.get(`/jobs/${id}/deliveries`)).deliveries.length === 2);
    const { deliveries } = await stack.get(`/jobs/${id}/deliveries`);
    expect(deliveries.map((line: { try: number }) => line.try)).toEqual([1, 1]);
  });

  test("kill -9 of the workers between the end and the callback: another worker sends it", async () => {
    answers.set("/killed", (n) => (n === 1 ? new Promise<Response>(() => {}) : new Response("ok")));
    const id = await idOf(await send({}, "/killed"));
    await until(() => at("/killed").length === 1);
    for (const worker of stack.workers) worker.kill("SIGKILL");
    // what the lease would do in a minute
    await stack.redis.client.zadd("lh:{work}:outbox", "XX", 0, `c ${id}`);
    await stack.startWorker();
    await until(async () => (await stack.get(`/jobs/${id}/deliveries`)).delivered, 15_000);
    expect(at("/killed")[1]?.headers.get("webhook-id")).toBe(at("/killed")[0]?.headers.get("webhook-id") as string);
  }, 30_000);

  test("hostile callback_urls are refused at submit, by name of the field", async () => {
    for (const url of [
      "ftp://example.com/x",
      "file:///etc/passwd",
      "javascript:alert(1)",
      "http://user:pass@example.com/",
      "http://10.0.0.1/",
      "http://169.254.169.254/latest/meta-data",
      "http://[::1]/",
      "http://0x7f.0.0.2/",
      "http://2130706434/",
      "http://[::ffff:10.0.0.1]/",
      "http://100.100.100.200/",
      "//example.com",
      "",
      "not a url",
      hook("/#/hooks/7"),
      `https://example.com/${"x".repeat(3_000)}`,
    ]) {
      const response = await stack.post("/jobs", { operation: "work", payload: {}, callback_url: url });
      expect([url.slice(0, 50), response.status]).toEqual([url.slice(0, 50), 422]);
      expect(((await response.json()) as { errors: { path: string }[] }).errors[0]?.path).toBe("callback_url");
    }
    const item = await stack.post("/jobs", [{ operation: "work", payload: {}, callback_url: "http://10.0.0.1/" }]);
    expect(((await item.json()) as { errors: { path: string }[] }).errors[0]?.path).toBe("0.callback_url");
    const ours = await stack.post(`/work?callback_url=${encodeURIComponent(hook("/query"))}`, {});
    expect(ours.status).toBe(202);
    await until(() => at("/query").length === 1);
  });
});

test("without WEBHOOK_SECRET a callback_url is refused, with what to do", async () => {
  const stack = await startStack({ workers: 0 });
  try {
    const response = await stack.post("/jobs", {
      operation: "work",
      payload: {},
      callback_url: "https://example.com/",
    });
    expect(response.status).toBe(422);
    expect(((await response.json()) as { detail: string }).detail).toContain("WEBHOOK_SECRET");
  } finally {
    await stack.stop();
  }
});

test("a name that leads to a private address by the time of its delivery is refused for good, and nothing is sent", async () => {
  let called = 0;
  const inner = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response(String(++called)) });
  const stack = await startStack({ env: { WEBHOOK_SECRET: NEW } });
  // a gateway that allows the name takes the job in; the worker, which does not, judges it anew
  const port = String(await freePort());
  await stack.startGateway({ CALLBACK_ALLOW: "localhost", PORT: port, DASHBOARD_PORT: "0" });
  try {
    const url = `http://localhost:${inner.port}/`;
    const response = await fetch(`http://127.0.0.1:${port}/jobs`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ operation: "work", payload: {}, callback_url: url }),
    });
    const { job_id } = (await response.json()) as { job_id: string };
    await until(async () => (await stack.get(`/jobs/${job_id}/deliveries`)).deliveries[0]?.gave_up);
    expect((await stack.get(`/jobs/${job_id}/deliveries`)).deliveries[0].error).toContain("no public address");
    expect(called).toBe(0);
  } finally {
    inner.stop(true);
    await stack.stop();
  }
});

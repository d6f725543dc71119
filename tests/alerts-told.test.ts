/** Alerts from real gateways and workers over a real Redis to a real receiver: told once, whatever breaks. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { Buffer } from "node:buffer";
import { Webhook } from "standardwebhooks";
import type { AlertEvent } from "../shared/alerts.ts";
import { ALERTS } from "../shared/keys.ts";
import { freePort } from "./support/redis.ts";
import { startService } from "./support/service.ts";
import { type Process, type Stack, startStack, until } from "./support/stack.ts";

const SECRET = `whsec_${Buffer.alloc(32, 7).toString("base64")}`;
type Got = { headers: Headers; body: string; event: AlertEvent; at: number };
type Receiver = {
  url: string;
  port: number;
  got: Got[];
  /** what it answers to the n-th call, from 1 */
  answer: (n: number) => Response | Promise<Response>;
  of(rule: string, service?: string | null): AlertEvent[];
  stop(): void;
};

function receive(port = 0, got: Got[] = []): Receiver {
  const self: Receiver = {
    ...{ url: "", port: 0, got, stop: () => server.stop(true) },
    answer: () => new Response("ok"),
    of: (rule, service = "work") =>
      got.map((one) => one.event).filter(({ data }) => data.rule === rule && data.service === service),
  };
  const server = Bun.serve({
    ...{ port, hostname: "127.0.0.1", idleTimeout: 0 },
    async fetch(request) {
      const body = await request.text();
      if (request.method === "POST")
        got.push({ headers: request.headers, body, event: JSON.parse(body), at: Date.now() });
      return self.answer(got.length);
    },
  });
  self.port = server.port as number;
  self.url = `http://127.0.0.1:${server.port}/hook`;
  return self;
}

/** Short times; waits and shares as they are. */
const env = (more: Record<string, string> = {}) => ({
  ALERT_NO_WORKER: "1s",
  ALERT_PARKED: "1s",
  ALERT_OLDEST_WAIT: "3s",
  ALERT_FAILURE_JOBS: "4",
  ALERT_HOLD: "1s",
  CALLBACK_TIMEOUT: "2s",
  WEBHOOK_SECRET: SECRET,
  ...more,
});
const types = (events: AlertEvent[]) => events.map(({ type }) => type.slice("alert.".length));
/** Long enough for every process to have looked again, several times. */
const aWhile = () => Bun.sleep(4_000);
// biome-ignore lint/suspicious/noExplicitAny: read field by field
const ruleOf = async (stack: Stack, name: string, service: string | null = "work"): Promise<any> =>
  (await stack.get("/alerts")).rules.find(
    (one: { rule: string; service: string | null }) => one.rule === name && one.service === service,
  );

let stack: Stack;
let receiver: Receiver;
const other = async (more: Record<string, string> = {}, runtime?: string): Promise<Process> =>
  stack.startGateway({ PORT: String(await freePort()), DASHBOARD_PORT: "0", ...more }, runtime);

describe("two gateways and two workers", () => {
  let dead: number;
  beforeAll(async () => {
    dead = await freePort();
    receiver = receive();
    stack = await startStack({
      workers: 0,
      env: env({ ALERT_WEBHOOK: receiver.url }),
      operations: { away: { url: `http://127.0.0.1:${dead}`, backoff: "100ms" } },
    });
    await other();
  }, 60_000);
  afterAll(async () => {
    receiver.stop();
    await stack?.stop();
  });

  test("no worker at all: the gateways notice, fire once, remember over a crash of Redis, and resolve once", async () => {
    const ids = [await stack.submit({}), await stack.submit({})];
    await until(() => receiver.of("no_worker").length > 0);
    const [call] = receiver.got.filter(({ event }) => event.data.rule === "no_worker") as [Got];
    expect(new Webhook(SECRET).verify(call.body, Object.fromEntries(call.headers))).toEqual(call.event);
    expect(call.headers.get("webhook-id")).toBe(call.event.id);
    expect(call.headers.get("content-type")).toBe("application/json");
    expect(call.event.data.text).toMatch(/^work: 2 jobs wait, no worker has taken one for \d+ s\.$/);
    expect(call.event.data.value).toBeGreaterThanOrEqual(1);
    expect(await ruleOf(stack, "no_worker")).toMatchObject({
      firing: true,
      since: call.event.data.since,
      threshold: 1,
    });
    await Bun.sleep(1_500); // appendfsync everysec
    await stack.redis.kill9();
    await stack.redis.restart();
    stack.gateway.kill("SIGKILL");
    stack.gateway = await stack.startGateway();
    await aWhile();
    expect(types(receiver.of("no_worker"))).toEqual(["firing"]);
    const [delivery] = (await stack.get("/alerts")).deliveries.filter(
      (one: { webhook_id: string }) => one.webhook_id === call.event.id,
    );
    expect(delivery).toMatchObject({ ok: true, status: 200, text: call.event.data.text });

    for (let i = 0; i < 2; i++) await stack.startWorker();
    for (const id of ids) await stack.ended(id);
    await until(() => receiver.of("no_worker").length > 1);
    await aWhile();
    const events = receiver.of("no_worker");
    expect(types(events)).toEqual(["firing", "resolved"]);
    expect(events[1]?.data.since).toBe(events[0]?.data.since as string);
    expect(Date.parse(events[1]?.data.until ?? "")).toBeGreaterThan(Date.parse(call.event.timestamp));
    expect(await ruleOf(stack, "no_worker")).toMatchObject({ firing: false });
  }, 90_000);

  test("oldest wait: a paused queue fires once, and resolves once after it is resumed", async () => {
    await until(() => receiver.of("oldest_wait").length % 2 === 0); // that of the test before is over
    const before = receiver.of("oldest_wait").length;
    await stack.post("/queues/work/pause");
    const id = await stack.submit({});
    await until(() => receiver.of("oldest_wait").length > before);
    expect(receiver.of("oldest_wait")[before]?.data.text).toMatch(
      /^work: paused, 1 job waits, the oldest for \d+ s\.$/,
    );
    await stack.post("/queues/work/resume");
    await stack.ended(id);
    await until(() => receiver.of("oldest_wait").length > before + 1);
    await aWhile();
    expect(types(receiver.of("oldest_wait").slice(before))).toEqual(["firing", "resolved"]);
  }, 60_000);

  test("parked: fires for the service that is away alone, and resolves when it is back", async () => {
    const id = await stack.submit({}, "/away");
    await until(() => receiver.of("parked", "away").length > 0);
    expect(receiver.of("parked", "away")[0]?.data.text).toContain("away: the microservice cannot be reached");
    const back = await startService(dead);
    await stack.ended(id);
    await until(() => receiver.of("parked", "away").length > 1);
    await aWhile();
    expect(types(receiver.of("parked", "away"))).toEqual(["firing", "resolved"]);
    expect(receiver.of("parked", "work")).toEqual([]);
    await back.stop();
  }, 60_000);

  test("failure rate: three failed jobs are too few, four fire, and good ones resolve it", async () => {
    const run = (payload: unknown, n: number) =>
      Promise.all(Array.from({ length: n }, async () => stack.ended(await stack.submit(payload, "/away"))));
    const back = await startService(dead);
    const ended = (await ruleOf(stack, "failure_rate", "away")).text as string;
    expect(ended).toBe("away: 0 of 1 job failed in the last hour.");
    await run({ status: 400 }, 2);
    await aWhile();
    expect(receiver.of("failure_rate", "away")).toEqual([]); // 2 of 3, but fewer than 4 have ended
    await run({ status: 400 }, 1);
    await until(() => receiver.of("failure_rate", "away").length > 0);
    expect(receiver.of("failure_rate", "away")[0]?.data).toMatchObject({ value: 0.75, threshold: 0.5 });
    await run({}, 6);
    await until(() => receiver.of("failure_rate", "away").length > 1);
    expect(types(receiver.of("failure_rate", "away"))).toEqual(["firing", "resolved"]);
    await back.stop();
  }, 60_000);

  test("memory: it is told although Redis takes no more writes, and resolves", async () => {
    const { client } = stack.redis;
    const used = Number(/used_memory:(\d+)/.exec(await client.info("memory"))?.[1]);
    await client.config("SET", "maxmemory", String(Math.floor(used / 1.5)));
    await expect(client.set("x", "y")).rejects.toThrow("OOM");
    await until(() => receiver.of("memory", null).length > 0);
    expect(receiver.of("memory", null)[0]?.data.text).toMatch(/^Redis has used \d{3} % of its memory/);
    await until(async () => (await stack.get("/alerts")).deliveries[0]?.text.startsWith("Redis has used")); // settled, too
    await client.config("SET", "maxmemory", String(used * 100));
    await until(() => receiver.of("memory", null).length > 1);
    await aWhile();
    expect(types(receiver.of("memory", null))).toEqual(["firing", "resolved"]);
  }, 60_000);

  test("in all, every event came once and is signed", () => {
    const ids = receiver.got.map(({ headers }) => headers.get("webhook-id"));
    expect(new Set(ids).size).toBe(ids.length);
    for (const { body, headers } of receiver.got) {
      expect(() => new Webhook(SECRET).verify(body, Object.fromEntries(headers))).not.toThrow();
    }
  });
});

describe("trouble", () => {
  const start = async (more: Record<string, string> = {}, runtime?: string) => {
    receiver = receive();
    stack = await startStack({
      workers: 0,
      ...(runtime ? { runtime } : {}),
      env: env({ ALERT_OLDEST_WAIT: "0s", ALERT_WEBHOOK: receiver.url, ...more }),
    });
  };
  afterEach(async () => {
    receiver.stop();
    await stack.stop();
  });

  test("a receiver that was down hears both flips when it is up again, in their order; a redirect is not followed", async () => {
    await start();
    const { port, got } = receiver;
    receiver.stop();
    await stack.submit({});
    await until(async () => (await stack.get("/alerts")).deliveries.length > 0);
    expect((await stack.get("/alerts")).deliveries[0]).toMatchObject({
      ok: false,
      text: expect.stringMatching(/^work: 1 job waits, no worker.*not taken: .*; tried again$/),
    });
    await stack.startWorker();
    await until(async () => (await ruleOf(stack, "no_worker")).firing === false);
    receiver = receive(port, got);
    receiver.answer = (n) =>
      n === 1 ? Response.redirect(`http://127.0.0.1:${port}/elsewhere`, 307) : new Response(null, { status: 204 });
    await until(() => got.length === 3, 40_000);
    await aWhile();
    expect(types(got.map(({ event }) => event))).toEqual(["firing", "firing", "resolved"]);
    expect(got[1]?.body).toBe(got[0]?.body as string);
    const { deliveries } = await stack.get("/alerts");
    expect(deliveries.slice(0, 3).map((one: { status: number }) => one.status)).toEqual([204, 204, 307]);
  }, 90_000);

  test("kill -9 of the process that has a delivery in hand: another one delivers, when the lease is over", async () => {
    await start();
    receiver.answer = (n) => (n === 1 ? new Promise<Response>(() => {}) : new Response("ok"));
    await stack.submit({});
    await until(() => receiver.got.length === 1);
    stack.gateway.kill("SIGKILL");
    stack.gateway = await stack.startGateway();
    await until(() => receiver.got.length === 2, 30_000);
    const [one, two] = receiver.got as [Got, Got];
    expect(two.at - one.at).toBeGreaterThan(9_000); // 2 s for the try, and 10 s
    expect(two.headers.get("webhook-id")).toBe(one.headers.get("webhook-id"));
    expect(two.body).toBe(one.body);
    await aWhile();
    expect(receiver.got.length).toBe(2);
  }, 60_000);

  test("a slow receiver is asked once by two gateways", async () => {
    await start();
    await other();
    receiver.answer = async () => {
      await Bun.sleep(1_800);
      return new Response("ok");
    };
    await stack.submit({});
    await until(() => receiver.got.length === 1);
    await aWhile();
    expect(receiver.got.length).toBe(1);
  }, 60_000);

  test("without WEBHOOK_SECRET it is told unsigned", async () => {
    await start({ WEBHOOK_SECRET: "" });
    await stack.submit({});
    await until(() => receiver.got.length === 1);
    const [{ headers, event }] = receiver.got as [Got];
    expect([headers.get("webhook-id"), headers.get("webhook-signature")]).toEqual([event.id, null]);
  }, 60_000);

  test("under Deno: gateway and worker fire and resolve as under Bun", async () => {
    await start({}, "deno");
    await stack.submit({});
    await until(() => receiver.got.length === 1);
    await stack.startWorker();
    await until(() => receiver.got.length === 2);
    stack.gateway.kill("SIGKILL"); // a worker alone sees to it as well
    await stack.gateway.exited;
    await stack.redis.client.hset(`${ALERTS}states`, "parked work", `firing ${Date.now() - 60_000} 0`);
    await until(() => receiver.got.length === 3);
    expect(types(receiver.got.map(({ event }) => event))).toEqual(["firing", "resolved", "resolved"]);
    for (const { body, headers } of receiver.got) new Webhook(SECRET).verify(body, Object.fromEntries(headers));
  }, 90_000);

  test("without ALERT_WEBHOOK the rules are shown all the same, and nothing is written or sent", async () => {
    await start({ ALERT_WEBHOOK: "" });
    await stack.submit({});
    await until(async () => (await ruleOf(stack, "no_worker")).firing);
    const body = await stack.get("/alerts");
    expect(body).toMatchObject({ sends: false, deliveries: [] });
    expect(body.rules[0]).toMatchObject({ rule: "no_worker", service: "work", firing: true, threshold: 1 });
    expect(body.rules.map((one: { rule: string }) => one.rule)).not.toContain("oldest_wait"); // 0 = off
    expect(body.rules.map((one: { service: string }) => one.service)).not.toContain("ifcclash"); // not deployed
    await aWhile();
    expect(await stack.redis.client.keys(`${ALERTS}*`)).toEqual([]);
    expect(receiver.got).toEqual([]);
  }, 60_000);
});

/**
 * Alerts from real gateways and workers over a real Redis to a real receiver: told once, whatever breaks.
 * Most of it is waiting, so the cases run side by side, each with a Redis and processes of its own.
 */
import { expect, test } from "bun:test";
import { Buffer } from "node:buffer";
import { Webhook } from "standardwebhooks";
import type { AlertEvent } from "../shared/alerts.ts";
import { alertsRoot } from "../shared/keys.ts";
import { freePort } from "./support/redis.ts";
import { startService } from "./support/service.ts";
import { type Stack, type StackOptions, startStack, until } from "./support/stack.ts";

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

/** Short times: with this ALERT_HOLD the rules are looked at every 250 ms. */
const env = (more: Record<string, string> = {}) => ({
  ALERT_NO_WORKER: "1s",
  ALERT_PARKED: "1s",
  ALERT_OLDEST_WAIT: "2s",
  ALERT_FAILURE_JOBS: "4",
  ALERT_HOLD: "1s",
  CALLBACK_TIMEOUT: "2s",
  WEBHOOK_SECRET: SECRET,
  ...more,
});
const types = (events: AlertEvent[]) => events.map(({ type }) => type.slice("alert.".length));
/** Twice ALERT_HOLD: what would be told again has been by then, as the rules are looked at several times in it. */
const aWhile = () => Bun.sleep(2_000);
// biome-ignore lint/suspicious/noExplicitAny: read field by field
const ruleOf = async (stack: Stack, name: string, service: string | null = "work"): Promise<any> =>
  (await stack.get("/alerts")).rules.find(
    (one: { rule: string; service: string | null }) => one.rule === name && one.service === service,
  );

/** What a case has of its own. */
type Case = { stack: Stack; receiver: Receiver };
/** A case with a gateway, and a receiver that it tells. @param options  no worker unless they ask for one */
function alone(name: string, options: StackOptions, run: (c: Case) => Promise<void>): void {
  const inOrder = async () => {
    const receiver = receive();
    const c: Case = { receiver, stack: undefined as never };
    try {
      c.stack = await startStack({
        ...{ workers: 0, ...options },
        env: env({ ALERT_OLDEST_WAIT: "0s", ALERT_WEBHOOK: receiver.url, ...options.env }),
      });
      await run(c);
    } finally {
      c.receiver.stop();
      await c.stack?.stop();
    }
  };
  test.concurrent(name, inOrder, 90_000);
}

const startSecond = async ({ stack }: Case) =>
  stack.startGateway({ PORT: String(await freePort()), DASHBOARD_PORT: "0" });

/** Several processes that look and tell: workers, or a second gateway. What they tell comes once and signed. */
function together(name: string, options: StackOptions, run: (c: Case) => Promise<void>): void {
  alone(name, options, async (c) => {
    if (!options.workers) await startSecond(c);
    await run(c);
    const { got } = c.receiver;
    const ids = got.map(({ headers }) => headers.get("webhook-id"));
    expect(ids.length).toBeGreaterThan(0);
    expect(new Set(ids).size).toBe(ids.length);
    for (const { body, headers } of got) {
      expect(() => new Webhook(SECRET).verify(body, Object.fromEntries(headers))).not.toThrow();
    }
  });
}
const dead = await freePort();

together(
  "no worker at all: the gateways notice, fire once, remember over a crash of Redis, and resolve once",
  {},
  async ({ stack, receiver }) => {
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
    const deliveries = async () =>
      (await stack.get("/alerts")).deliveries.filter((one: { webhook_id: string }) => one.webhook_id === call.event.id);
    await until(async () => (await deliveries()).length > 0);
    await stack.redis.kill9();
    await stack.redis.restart();
    stack.gateway.kill("SIGKILL");
    stack.gateway = await stack.startGateway();
    await aWhile();
    expect(types(receiver.of("no_worker"))).toEqual(["firing"]);
    const [delivery] = await deliveries();
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
  },
);

together(
  "oldest wait: a paused queue fires once, and resolves once after it is resumed",
  { workers: 1, env: { ALERT_OLDEST_WAIT: "2s" } },
  async ({ stack, receiver }) => {
    await stack.post("/queues/work/pause");
    const id = await stack.submit({});
    await until(() => receiver.of("oldest_wait").length > 0);
    expect(receiver.of("oldest_wait")[0]?.data.text).toMatch(/^work: paused, 1 job waits, the oldest for \d+ s\.$/);
    await stack.post("/queues/work/resume");
    await stack.ended(id);
    await until(() => receiver.of("oldest_wait").length > 1);
    await aWhile();
    expect(types(receiver.of("oldest_wait"))).toEqual(["firing", "resolved"]);
  },
);

together(
  "parked: fires for the service that is away alone, and resolves when it is back",
  { workers: 2, operations: { away: { url: `http://127.0.0.1:${dead}`, backoff: "100ms" } } },
  async ({ stack, receiver }) => {
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
  },
);

together(
  "failure rate: three ended jobs are too few, four fire, and good ones resolve it",
  { workers: 1 },
  async ({ stack, receiver }) => {
    const run = (payload: unknown, n: number) =>
      Promise.all(Array.from({ length: n }, async () => stack.ended(await stack.submit(payload))));
    const says = (text: string) => until(async () => (await ruleOf(stack, "failure_rate")).text === text);
    await run({ status: 400 }, 3);
    await says("work: 3 of 3 jobs failed in the last hour.");
    await aWhile();
    expect(receiver.of("failure_rate")).toEqual([]);
    await run({}, 1);
    await until(() => receiver.of("failure_rate").length > 0);
    expect(receiver.of("failure_rate")[0]?.data).toMatchObject({ value: 0.75, threshold: 0.5 });
    await run({}, 6);
    await until(() => receiver.of("failure_rate").length > 1);
    expect(types(receiver.of("failure_rate"))).toEqual(["firing", "resolved"]);
  },
);

together("memory: it is told although Redis takes no more writes, and resolves", {}, async ({ stack, receiver }) => {
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
});

alone(
  "a receiver that was down hears both flips when it is up again, in their order; a redirect is not followed",
  {},
  async (c) => {
    const { stack } = c;
    const { port, got } = c.receiver;
    c.receiver.stop();
    const id = await stack.submit({});
    await until(async () => (await stack.get("/alerts")).deliveries.length > 0);
    expect((await stack.get("/alerts")).deliveries[0]).toMatchObject({
      ok: false,
      text: expect.stringMatching(/^work: 1 job waits, no worker.*not taken: .*; tried again$/),
    });
    await stack.post(`/jobs/${id}/cancel`);
    await until(async () => (await ruleOf(stack, "no_worker")).firing === false);
    c.receiver = receive(port, got);
    c.receiver.answer = (n) =>
      n === 1 ? Response.redirect(`http://127.0.0.1:${port}/elsewhere`, 307) : new Response(null, { status: 204 });
    await until(() => got.length === 3, 40_000);
    await aWhile();
    expect(types(got.map(({ event }) => event))).toEqual(["firing", "firing", "resolved"]);
    expect(got[1]?.body).toBe(got[0]?.body as string);
    const { deliveries } = await stack.get("/alerts");
    expect(deliveries.slice(0, 3).map((one: { status: number }) => one.status)).toEqual([204, 204, 307]);
  },
);

alone(
  "kill -9 of the process that has a delivery in hand: another one delivers, when the lease is over",
  {},
  async ({ stack, receiver }) => {
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
  },
);

alone("a slow receiver is asked once by two gateways", {}, async (c) => {
  const { stack, receiver } = c;
  await startSecond(c);
  receiver.answer = async () => {
    await Bun.sleep(1_800);
    return new Response("ok");
  };
  await stack.submit({});
  await until(() => receiver.got.length === 1);
  await Bun.sleep(4_000);
  expect(receiver.got.length).toBe(1);
});

alone("without WEBHOOK_SECRET it is told unsigned", { env: { WEBHOOK_SECRET: "" } }, async ({ stack, receiver }) => {
  await stack.submit({});
  await until(() => receiver.got.length === 1);
  const [{ headers, event }] = receiver.got as [Got];
  expect([headers.get("webhook-id"), headers.get("webhook-signature")]).toEqual([event.id, null]);
});

alone(
  "under Deno: gateway and worker fire and resolve as under Bun",
  { runtime: "deno" },
  async ({ stack, receiver }) => {
    await stack.submit({});
    await until(() => receiver.got.length === 1);
    await stack.startWorker();
    await until(() => receiver.got.length === 2);
    stack.gateway.kill("SIGKILL"); // a worker alone sees to it as well
    await stack.gateway.exited;
    await stack.redis.client.hset(`${alertsRoot()}states`, "parked work", `firing ${Date.now() - 60_000} 0`);
    await until(() => receiver.got.length === 3);
    expect(types(receiver.got.map(({ event }) => event))).toEqual(["firing", "resolved", "resolved"]);
    for (const { body, headers } of receiver.got) new Webhook(SECRET).verify(body, Object.fromEntries(headers));
  },
);

alone(
  "without ALERT_WEBHOOK the rules are shown all the same, and nothing is written or sent",
  { env: { ALERT_WEBHOOK: "" } },
  async ({ stack, receiver }) => {
    await stack.submit({});
    await until(async () => (await ruleOf(stack, "no_worker")).firing);
    const body = await stack.get("/alerts");
    expect(body).toMatchObject({ sends: false, deliveries: [] });
    expect(body.rules[0]).toMatchObject({ rule: "no_worker", service: "work", firing: true, threshold: 1 });
    expect(body.rules.map((one: { rule: string }) => one.rule)).not.toContain("oldest_wait"); // 0 = off
    expect(body.rules.map((one: { service: string }) => one.service)).not.toContain("ifcclash"); // not deployed
    await aWhile();
    expect(await stack.redis.client.keys(`${alertsRoot()}*`)).toEqual([]);
    expect(receiver.got).toEqual([]);
  },
);

/** Rules of the contract that hold over routes: who may ask is told first, and a request sent twice is one wish. */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import type { JobId } from "../shared/jobs.ts";
import { startGatewayApp, type TestGateway } from "./support/gateway.ts";
import { startRedis, type TestRedis } from "./support/redis.ts";
import { ASK, settle } from "./support/store.ts";

const KEYS = { read: "reader-key-1", submit: "submitter-key-1", admin: "admin-key-1" };
const RANK = { read: 0, submit: 1, admin: 2 };
const OUTSIDE = "203.0.113.9";
const SERVICE = "ifc2json" as never;
const BODY = { filename: "a.ifc", output_filename: "a.json" };

let redis: TestRedis;
let g: TestGateway;
let closed: TestGateway;
beforeAll(async () => {
  redis = await startRedis();
  g = await startGatewayApp(redis.url);
  closed = await startGatewayApp(redis.url, {
    API_KEYS: Object.entries(KEYS)
      .map(([scope, key]) => `${key}:${scope}`)
      .join(),
  });
});
afterAll(async () => {
  g?.close();
  closed?.close();
  await redis?.stop();
});
beforeEach(() => redis.client.flushall());

// ---- who may ask

type Told = { method: string; path: string; scope: keyof typeof KEYS | undefined };
const routes = async (): Promise<Told[]> => {
  const { paths } = await closed.json("/openapi.json");
  return Object.entries(paths as Record<string, Record<string, { "x-scope"?: keyof typeof KEYS }>>).flatMap(
    ([path, item]) =>
      Object.entries(item).map(([method, told]) => ({ method: method.toUpperCase(), path, scope: told["x-scope"] })),
  );
};
/** What a parameter of a path may look like: an id that could be, one that cannot, and what no client would send. */
const TEXTS = [
  "ifc2json_0000000000000000000000",
  "nonsense",
  "%00",
  "__proto__",
  "..%2f..",
  "%E0%A4%A",
  "x".repeat(3_000),
];
const codeOf = async (response: Response) => ((await response.json()) as { code: string }).code;

test("every route that needs a key says so first, whatever else is wrong: 401 without one, 403 with an unknown one", async () => {
  const all = (await routes()).filter(({ scope }) => scope);
  expect(all.length).toBeGreaterThan(30);
  for (const { method, path } of all) {
    for (const text of path.includes("{") ? TEXTS : [""]) {
      const asked = `${path.replace(/\{\w+\}/g, text)}?limit=none&priority=none`;
      for (const [key, status] of [
        ["", 401],
        ["wrong-key-1", 403],
      ] as const) {
        const headers: Record<string, string> = { "content-type": "text/plain", ...(key ? { "x-api-key": key } : {}) };
        const body = method === "POST" ? { body: "{" } : {};
        const response = await closed.ask(method, asked, { headers, ...body }, OUTSIDE);
        expect([method, asked.slice(0, 80), response.status]).toEqual([method, asked.slice(0, 80), status]);
        expect(await codeOf(response)).toBe(key ? "wrong_key" : "no_key");
      }
    }
  }
});

test("every route refuses a key of a lesser scope with 403, whatever else is wrong", async () => {
  let asked = 0;
  for (const { method, path, scope } of await routes()) {
    for (const [lesser, key] of Object.entries(KEYS)) {
      if (!scope || RANK[lesser as keyof typeof KEYS] >= RANK[scope]) continue;
      for (const text of path.includes("{") ? TEXTS : [""]) {
        const body = method === "POST" ? { body: "{" } : {};
        const at = path.replace(/\{\w+\}/g, text);
        const response = await closed.ask(method, at, { headers: { "x-api-key": key }, ...body }, OUTSIDE);
        expect([method, path, text, response.status]).toEqual([method, path, text, 403]);
        expect(await codeOf(response)).toBe("wrong_scope");
        asked++;
      }
    }
  }
  expect(asked).toBeGreaterThan(100);
});

// ---- sent twice

test("Idempotency-Key stands for the options too: others are 422, the same in another spelling replay", async () => {
  const headers = { "idempotency-key": "k" };
  const id = await g.submit("/ifc2json?priority=9&timeout=60&tags=a,b", BODY, headers);
  const again = await g.post("/ifc2json?tags=a&tags=b&timeout=1m&priority=9", BODY, headers);
  expect([again.status, again.headers.get("idempotent-replayed")]).toEqual([202, "true"]);
  expect(((await again.json()) as { job_id: string }).job_id).toBe(id);
  for (const query of [
    "",
    "?priority=9",
    "?priority=8&timeout=60&tags=a,b",
    "?priority=9&timeout=60&tags=a,b&delay=1",
  ]) {
    const other = await g.post(`/ifc2json${query}`, BODY, headers);
    expect([query, other.status, await codeOf(other)]).toEqual([query, 422, "idempotency_mismatch"]);
  }
  // how the answer is asked for makes no other job
  const waited = await g.post("/ifc2json?priority=9&timeout=60&tags=a,b", BODY, { ...headers, prefer: "wait=0" });
  expect(waited.status).toBe(202);
});

const failed = async () => {
  const id = await g.submit("/ifc2json", BODY);
  const worker = g.worker("w1");
  await worker.beat(SERVICE);
  const [taken] = (await worker.turn(SERVICE, [], { ...ASK, limits: "ifc2json=3600000", slots: 1 })).jobs;
  await worker.turn(SERVICE, [settle(taken!, "fail")], { ...ASK, slots: 0 });
  return { id, worker };
};
const requeue = (id: JobId, key?: string, gateway = g, more: Record<string, string> = {}) =>
  gateway.ask("POST", `/jobs/${id}/requeue`, {
    headers: { ...more, ...(key === undefined ? {} : { "idempotency-key": key }) },
  });

test("a requeue with an Idempotency-Key is answered again when its answer was lost, wherever the job is by then", async () => {
  const { id, worker } = await failed();
  const first = await requeue(id, "once");
  expect([first.status, first.headers.get("idempotent-replayed")]).toEqual([200, null]);
  const told = await first.json();
  const again = async () => {
    const response = await requeue(id, "once");
    expect([response.status, response.headers.get("idempotent-replayed")]).toEqual([200, "true"]);
    expect(await response.json()).toEqual(told);
    expect((await requeue(id)).status).toBe(409); // without the key nobody knows that it is the same wish
  };
  await again();
  const [taken] = (await worker.turn(SERVICE, [], { ...ASK, limits: "ifc2json=3600000", slots: 1 })).jobs;
  await again();
  await worker.turn(SERVICE, [settle(taken!, "finish")], { ...ASK, slots: 0 });
  await again();
  expect((await g.json(`/jobs/${id}`)).run).toBe(1);
});

test("a requeue's Idempotency-Key is one job's and one caller's, and a refused one leaves none", async () => {
  const { id, worker } = await failed();
  const { id: other } = await failed();
  expect((await requeue(id, "k")).status).toBe(200);
  expect((await requeue(other, "k")).headers.get("idempotent-replayed")).toBeNull();
  expect((await requeue(id, "k", closed, { "x-api-key": KEYS.submit })).status).toBe(409);
  expect((await requeue(id, "refused")).status).toBe(409);
  const { jobs } = await worker.turn(SERVICE, [], { ...ASK, limits: "ifc2json=3600000", slots: 9 });
  await worker.turn(
    SERVICE,
    jobs.map((taken) => settle(taken, "fail")),
    { ...ASK, slots: 0 },
  );
  // "k" has had its run; a new wish needs a new key
  expect((await requeue(id, "k")).headers.get("idempotent-replayed")).toBe("true");
  expect((await g.json(`/jobs/${id}`)).run).toBe(1);
  expect((await requeue(id, "refused")).headers.get("idempotent-replayed")).toBeNull();
  expect((await g.json(`/jobs/${id}`)).run).toBe(2);
  expect((await requeue(id, "")).status).toBe(400);
});

// ---- what a 304 costs

test("a 304 of status or record reads no result from Redis", async () => {
  const id = await g.submit("/ifc2json", BODY);
  const worker = g.worker("w1");
  await worker.beat(SERVICE);
  const [taken] = (await worker.turn(SERVICE, [], { ...ASK, limits: "ifc2json=3600000", slots: 1 })).jobs;
  const result = JSON.stringify("x".repeat(200_000));
  await worker.turn(SERVICE, [settle(taken!, "finish", { result })], { ...ASK, slots: 0 });
  const sent = async () => Number(/total_net_output_bytes:(\d+)/.exec(await redis.client.info("stats"))?.[1]);
  for (const path of [`/jobs/${id}/status`, `/jobs/${id}`]) {
    const whole = await g.ask("GET", path);
    expect((await whole.text()).length).toBeGreaterThan(200_000);
    const etag = whole.headers.get("etag") as string;
    const before = await sent();
    const same = await g.ask("GET", path, { headers: { "if-none-match": etag } });
    expect([path, same.status, same.headers.get("etag"), await same.text()]).toEqual([path, 304, etag, ""]);
    expect((await sent()) - before).toBeLessThan(50_000);
    const other = await g.ask("GET", path, { headers: { "if-none-match": 'W/"1"' } });
    expect([path, other.status, (await other.text()).includes(result)]).toEqual([path, 200, true]);
  }
});

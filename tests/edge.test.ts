import { afterAll, beforeAll, expect, test } from "bun:test";
import { readConfig } from "../shared/config.ts";
import { freePort } from "./support/redis.ts";
import { type Stack, startStack } from "./support/stack.ts";

const [ONE, TWO] = ["key-one-12345678", "key-two-12345678"];
const ORIGIN = "https://app.example.com";
let stack: Stack;
let other: string;
beforeAll(async () => {
  stack = await startStack({
    workers: 0,
    env: { API_KEYS: `${ONE},${TWO}:read`, RATE_LIMIT: "6/m", CORS_ORIGINS: ORIGIN },
  });
  const port = await freePort();
  await stack.startGateway({ PORT: String(port), DASHBOARD_PORT: "0" });
  other = `http://127.0.0.1:${port}`;
}, 60_000);
afterAll(() => stack?.stop());
const ask = (base: string, path: string, headers: Record<string, string> = {}, method = "GET") =>
  fetch(base + path, { method, headers });

test("RATE_LIMIT holds for a key over two gateways, leaves other keys alone, and says when to come again", async () => {
  const statuses = [];
  for (let i = 0; i < 8; i++) {
    statuses.push((await ask(i % 2 ? stack.url : other, "/jobs", { "x-api-key": ONE })).status);
  }
  expect(statuses).toEqual([200, 200, 200, 200, 200, 200, 429, 429]);
  const refused = await ask(stack.url, "/jobs", { authorization: `Bearer ${ONE}` });
  expect(refused.status).toBe(429);
  expect(refused.headers.get("content-type")).toBe("application/problem+json");
  const wait = Number(refused.headers.get("retry-after"));
  expect(wait).toBeGreaterThan(0);
  expect(wait).toBeLessThanOrEqual(10);
  expect((await ask(stack.url, "/jobs", { "x-api-key": TWO })).status).toBe(200);
  for (let i = 0; i < 20; i++) expect((await ask(stack.url, "/health")).status).toBe(200);
});

test("guessing keys is limited by address, and does not use up a good key's rate", async () => {
  const statuses = [];
  for (let i = 0; i < 8; i++) statuses.push((await ask(stack.url, "/jobs", { "x-api-key": `wrong-${i}-1234` })).status);
  expect(statuses.slice(0, 6)).toEqual(Array(6).fill(403));
  expect(statuses.slice(6)).toEqual([429, 429]);
  expect((await ask(stack.url, "/jobs", { "x-api-key": TWO })).status).toBe(200);
});

test("CORS: an origin of the list is answered, also on errors, and every other is not", async () => {
  const preflight = await ask(
    stack.url,
    "/jobs",
    { origin: ORIGIN, "access-control-request-method": "POST", "access-control-request-headers": "x-api-key" },
    "OPTIONS",
  );
  expect(preflight.status).toBe(204);
  expect(preflight.headers.get("access-control-allow-origin")).toBe(ORIGIN);
  expect(preflight.headers.get("access-control-allow-headers")).toContain("X-API-Key");
  expect(preflight.headers.get("access-control-allow-credentials")).toBeNull();
  const refused = await ask(stack.url, `/jobs/work_${"0".repeat(22)}`, { origin: ORIGIN, "x-api-key": TWO });
  expect(refused.status).toBe(404);
  expect(refused.headers.get("access-control-allow-origin")).toBe(ORIGIN);
  expect(refused.headers.get("access-control-expose-headers")).toContain("Retry-After");
  for (const origin of [
    "https://evil.example",
    `${ORIGIN}.evil.example`,
    "http://app.example.com",
    "null",
    `${ORIGIN}:8443`,
  ]) {
    const response = await ask(stack.url, "/health", { origin });
    expect([origin, response.headers.get("access-control-allow-origin")]).toEqual([origin, null]);
  }
});

test("every answer is nosniff, and may be framed by nobody", async () => {
  for (const path of ["/health", "/livez", "/nowhere", "/jobs", "/jobs/x/status"]) {
    const response = await ask(stack.url, path);
    expect([path, response.headers.get("x-content-type-options")]).toEqual([path, "nosniff"]);
    expect(response.headers.get("content-security-policy")).toContain("frame-ancestors 'none'");
  }
});

test("off by default: no CORS headers, no rate, no key in Redis", async () => {
  const plain = await startStack({ workers: 0 });
  try {
    for (let i = 0; i < 50; i++) {
      const response = await ask(plain.url, "/jobs", { origin: "http://localhost:3000" });
      expect(response.status).toBe(200);
      expect(response.headers.get("access-control-allow-origin")).toBeNull();
    }
    expect(await plain.redis.client.keys("lh:{rate*")).toEqual([]);
  } finally {
    await plain.stop();
  }
}, 60_000);

test("without keys, pages of a listed origin may ask and those of others may not", async () => {
  const open = await startStack({ workers: 0, env: { CORS_ORIGINS: ORIGIN } });
  try {
    expect((await ask(open.url, "/jobs", { origin: ORIGIN })).status).toBe(200);
    expect((await ask(open.url, "/jobs", { origin: "https://evil.example" })).status).toBe(403);
  } finally {
    await open.stop();
  }
}, 60_000);

test("settings that cannot be meant are refused at start", () => {
  const bad = (env: Record<string, string>) => expect(() => readConfig(env)).toThrow(Object.keys(env)[0] as string);
  for (const RATE_LIMIT of ["100", "0/s", "-1/s", "5/d", "1.5/s", "many"]) bad({ RATE_LIMIT });
  for (const CORS_ORIGINS of ["*", "app.example.com", "https://a.example/", "https://a.example/path", "null"])
    bad({ CORS_ORIGINS });
  for (const WEBHOOK_SECRET of [
    "secret",
    "whsec_",
    "whsec_c2hvcnQ=",
    "whsec_!!!!",
    "c2hvcnRzaG9ydHNob3J0c2hvcnRzaG9ydA==",
  ])
    bad({ WEBHOOK_SECRET });
  for (const CALLBACK_ALLOW of ["http://x", "10.0.0.0/99", "1.2.3"]) bad({ CALLBACK_ALLOW });
  expect(readConfig({ RATE_LIMIT: "0" }).rateLimit).toBeNull();
  expect(readConfig({ RATE_LIMIT: "5000/h" }).rateLimit).toEqual({ requests: 5_000, perMs: 3_600_000 });
});

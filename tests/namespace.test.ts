/** NAMESPACE: two deployments that share one database of one Redis do not meet. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { Redis } from "ioredis";
import { readConfig } from "../shared/config.ts";
import { type Stack, startStack, until } from "./support/stack.ts";
import { everyVerb } from "./support/verbs.ts";

let left: Stack;
let right: Stack;
let listener: Redis;
const published = new Set<string>();

beforeAll(async () => {
  left = await startStack({ env: { NAMESPACE: "left" } });
  listener = new Redis(left.redis.url);
  await listener.psubscribe("*");
  listener.on("pmessage", (_, channel: string) => published.add(channel));
  right = await startStack({ env: { NAMESPACE: "right-2", REDIS_URL: left.redis.url } });
}, 120_000);
afterAll(async () => {
  listener?.disconnect();
  await right?.stop();
  await left?.stop();
}, 60_000);

test("two namespaces in one database: each deployment calls, lists and controls its own jobs only", async () => {
  const mine: string[] = [];
  const theirs: string[] = [];
  for (let i = 0; i < 10; i++) {
    mine.push(await left.submit({ answer: i }));
    theirs.push(await right.submit({ answer: i }));
  }
  for (const id of mine) expect((await left.ended(id)).status).toBe("finished");
  for (const id of theirs) expect((await right.ended(id)).status).toBe("finished");
  const called = (stack: Stack) => stack.service.calls.map((call) => call.headers.get("x-job-id") ?? "").sort();
  expect([called(left), called(right)]).toEqual([[...mine].sort(), [...theirs].sort()]);
  const listed = async (stack: Stack) =>
    (await stack.get("/jobs?limit=50")).jobs.map((job: { job_id: string }) => job.job_id);
  expect(new Set(await listed(left))).toEqual(new Set(mine));
  expect((await fetch(`${left.url}/jobs/${theirs[0]}`)).status).toBe(404);
  expect((await left.post("/queues/work/pause")).status).toBe(200);
  expect((await right.ended(await right.submit({}))).status).toBe("finished");
  expect((await left.post("/queues/work/resume")).status).toBe(200);
}, 60_000);

test("every verb writes no key and publishes on no channel outside of its namespace", async () => {
  await everyVerb(left, ["work"]);
  await everyVerb(right, ["work"]);
  const [worker] = Object.keys(await left.redis.client.hgetall("left:workers"));
  expect((await left.post(`/workers/${worker}/quiet`)).status).toBeLessThan(300);
  await until(() => published.has("left:ordered"));
  const keys = await left.redis.client.keys("*");
  expect(keys.filter((key) => !/^(left|right-2):/.test(key))).toEqual([]);
  expect(keys.some((key) => key.startsWith("right-2:{work}:"))).toBe(true);
  expect([...published].filter((channel) => !/^(left|right-2):(events|cancels|ordered)$/.test(channel))).toEqual([]);
  for (const channel of ["left:events", "left:cancels", "right-2:events", "right-2:cancels"])
    expect(published.has(channel)).toBe(true);
}, 120_000);

test("without NAMESPACE keys begin with lh; one with a colon, a brace or capitals is refused", () => {
  expect(readConfig({}).namespace).toBe("lh");
  expect(readConfig({ NAMESPACE: "a".repeat(32) }).namespace).toBe("a".repeat(32));
  for (const name of ["a:b", "{a}", "A", "a b", "a".repeat(33)])
    expect(() => readConfig({ NAMESPACE: name })).toThrow("NAMESPACE: must be 1 to 32 of a-z, 0-9 and -, not");
});

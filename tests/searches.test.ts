/** Searches in lists on one gateway: a few are in hand, others are told when to come again, and none is run for nobody. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { Lister } from "../shared/store/list.ts";
import { startGatewayApp, type TestGateway } from "./support/gateway.ts";
import { startRedis, type TestRedis } from "./support/redis.ts";
import { until } from "./support/stack.ts";

let redis: TestRedis;
let g: TestGateway;
const lister = Lister.prototype as unknown as { cards(...args: unknown[]): Promise<unknown> };
const real = lister.cards;
/** calls of the script that looks into payloads */
let looks = 0;
beforeAll(async () => {
  redis = await startRedis();
  g = await startGatewayApp(redis.url);
  for (let i = 0; i < 200; i++) await g.submit("/ifc2json", { filename: "a.ifc", output_filename: `${i}.json` });
  lister.cards = async function (...args) {
    looks++;
    await Bun.sleep(50); // as on a machine that is slow with large payloads
    return real.apply(this, args);
  };
});
afterAll(async () => {
  lister.cards = real;
  g?.close();
  await redis?.stop();
});
const search = (signal?: AbortSignal) => g.ask("GET", "/jobs?q=nowhere", signal ? { signal } : {});

test("of eight searches at once three are answered, and the others get 429 with Retry-After", async () => {
  const answers = await Promise.all(Array.from({ length: 8 }, () => search()));
  expect(answers.map(({ status }) => status).sort()).toEqual([200, 200, 200, 429, 429, 429, 429, 429]);
  const refused = answers.find(({ status }) => status === 429) as Response;
  expect([refused.headers.get("retry-after"), ((await refused.json()) as { code: string }).code]).toEqual([
    "1",
    "rate_limited",
  ]);
  expect((await g.ask("GET", "/jobs?limit=1")).status).toBe(200);
});

test("a search whose client has gone is not run, gives its place back, and is not gone on with", async () => {
  looks = 0;
  const first = new AbortController();
  const gone = new AbortController();
  const running = search(first.signal);
  await until(() => looks === 1);
  const waiting = [search(gone.signal), search(gone.signal)];
  await Bun.sleep(20);
  gone.abort();
  await Promise.allSettled(waiting);
  const next = search();
  first.abort();
  await Promise.allSettled([running]);
  const before = looks;
  expect(before).toBeLessThanOrEqual(3);
  expect((await next).status).toBe(200);
  expect(looks).toBeGreaterThan(before);
});

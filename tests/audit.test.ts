/** What the audit says of an action on many jobs that takes a while: its numbers so far, then its end. */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { GLOBAL } from "../shared/keys.ts";
import { type AuditEntry, Operator } from "../shared/store/operate.ts";
import { DAY, job, KEYS, SERVICE, startStore, type TestStore, wish } from "./support/store.ts";

let s: TestStore;
let operator: Operator;
beforeAll(async () => {
  s = await startStore();
  operator = new Operator(s.connection, 7 * DAY);
});
afterAll(() => s?.stop());
beforeEach(() => s.clear());

const filter = { service: SERVICE, state: "queued", tag: "x" };
/** Begins to cancel 1,200 jobs of 2,000, and notes it as the route does. @returns the action's id */
async function begin(): Promise<string> {
  for (let i = 0; i < 8; i++)
    await s.producer.send(
      SERVICE,
      Array.from({ length: 250 }, (_, n) => job(i * 250 + n < 1_200 ? { options: { tags: ["x"] } } : {})),
    );
  const about = wish("cancel", { state: "queued", tag: "x" });
  await operator.startBulk(SERVICE, about);
  await operator.stepBulk(SERVICE);
  const bulk = await operator.bulkOver([SERVICE], about.id);
  expect(bulk).toMatchObject({ done: 500, ended: undefined });
  const more = { id: about.id, status: "running", matched: 500, filter };
  await operator.note({ who: "k", ip: "127.0.0.1", action: "bulk cancel", target: SERVICE, jobs: 500, ...more });
  await operator.note({ who: "k", ip: "127.0.0.1", action: "pause", target: SERVICE, jobs: 1 });
  return about.id;
}
const entries = () => operator.audit([SERVICE], 10);
const stored = async () =>
  (await s.redis.client.lrange(GLOBAL.audit, 0, -1)).map((line) => JSON.parse(line) as AuditEntry);

test("the audit of a bulk action has its numbers while it runs, then its end, its number and its filter", async () => {
  await begin();
  await operator.stepBulk(SERVICE);
  expect((await entries())[1]).toMatchObject({
    action: "bulk cancel",
    jobs: 1_000,
    matched: 1_000,
    status: "running",
    filter,
  });
  await operator.carryOut(SERVICE, 5_000);
  // as the clocks do, in several processes at once
  await Promise.all([1, 2, 3].map(() => operator.closeAudit([SERVICE])));
  const kept = await stored();
  expect(kept.map(({ action }) => action)).toEqual(["pause", "bulk cancel"]);
  expect(kept[1]).toMatchObject({ jobs: 1_200, matched: 1_200, status: "done", filter, ended_at: expect.any(String) });
  expect(await entries()).toEqual(kept);
  expect(await s.redis.client.exists(GLOBAL.auditOpen)).toBe(0);
});

test("an entry of the audit whose bulk action's record is gone does not read running for ever", async () => {
  const id = await begin();
  await s.redis.client.del(KEYS.bulk(id));
  expect((await entries())[1]).toMatchObject({ status: "expired", jobs: 500 });
});

/** The index of finished jobs, where those of one turn share an entry: what is struck, swept, shown and counted of it. */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { sweep } from "../shared/clocks/sweep.ts";
import { readConfig } from "../shared/config.ts";
import type { JobId } from "../shared/jobs.ts";
import { noLog } from "../shared/log.ts";
import { Lister } from "../shared/store/list.ts";
import { Operator } from "../shared/store/operate.ts";
import { register } from "../shared/store/presence.ts";
import { Viewer } from "../shared/store/view.ts";
import { idsOf } from "./chaos/checker.ts";
import { DAY, job, KEYS, SERVICE, settle, startStore, type TestStore, type TestWorker, wish } from "./support/store.ts";

let s: TestStore;
let w: TestWorker;
let o: Operator;
beforeAll(async () => {
  s = await startStore();
  o = new Operator(s.connection, 7 * DAY);
});
afterAll(() => s?.stop());
beforeEach(async () => {
  await s.clear();
  w = s.worker("w1");
});

const INDEX = KEYS.ended("finished");
const entries = () => s.redis.client.zrange(INDEX, "0", "-1");
const finished = async () => (await s.counts()).finished;
/** Turns of so many jobs each. @returns their ids by turn */
const turns = async (sizes: number[]) => {
  const all: JobId[][] = [];
  for (const n of sizes) {
    await s.producer.send(
      SERVICE,
      Array.from({ length: n }, () => job()),
    );
    const taken = await w.take(n);
    await w.settle(...taken.map((one) => settle(one, "finish")));
    all.push(taken.map(({ id }) => id));
    await Bun.sleep(2); // each has a millisecond of its own
  }
  return all;
};
const listed = async (limit = 50) => {
  const lister = new Lister(s.connection);
  const ask = { services: [SERVICE], states: ["finished" as const], limit, tag: undefined, q: undefined };
  const ids: JobId[] = [];
  let page = await lister.page({ ...ask, cursor: undefined });
  for (;;) {
    ids.push(...page.cards.map(({ id }) => id));
    if (!page.next) return ids;
    page = await lister.page({ ...ask, cursor: page.next });
  }
};
const sorted = (ids: Iterable<JobId>) => [...ids].sort();
const sweepStep = async () => {
  await register(w.redis, [SERVICE]);
  const config = readConfig({ RESULTS_DIR: "/nonexistent", WORK_URL: "" });
  await sweep.step({ maintainer: s.maintainer, config, watch: { look: () => true }, log: noLog });
};

test("what finishes in one turn has one entry for 32, a job on its own stands by itself; all are listed, newest first, and counted", async () => {
  const [, one, two] = (await turns([3, 1, 130])) as [JobId[], JobId[], JobId[]];
  const found = await entries();
  expect(found.map((entry) => entry.split(" ").length - 1).sort((x, y) => x - y)).toEqual([0, 2, 3, 32, 32, 32, 32]);
  expect(found[0]).toMatch(/^\w{9}( work_\w{22}){3}$/);
  expect(found[1]).toBe(one[0] as string);
  const ids = await listed(20);
  expect(ids.length).toBe(134);
  expect(sorted(ids.slice(0, 130))).toEqual(sorted(two));
  expect(ids[130]).toBe(one[0] as JobId);
  expect(await finished()).toBe(134);
});

test("erase strikes a job from the entry that it shares, whichever it is; the last one takes the entry along", async () => {
  const [a, b, c] = (await turns([3])).flat() as [JobId, JobId, JobId];
  for (const [gone, left] of [
    [b, [a, c]],
    [a, [c]],
    [c, []],
  ] as [JobId, JobId[]][]) {
    expect(await s.producer.erase(gone)).toBe("ok");
    expect(sorted(await listed())).toEqual(sorted(left));
    expect(await finished()).toBe(left.length);
  }
  expect(await entries()).toEqual([]);
});

test("the sweep strikes what has expired from the entries that it shares, however far from the old end, and counts it", async () => {
  const all = (await turns([200, 200, 200, 200, 1, 200])).flat();
  // the third turn whole, as its life has ended, and every other job of the newest
  const gone = new Set([...all.slice(400, 600), ...all.slice(801).filter((_, i) => i % 2 === 0)]);
  await s.redis.client.del([...gone].map((id) => KEYS.job(id)));
  await sweepStep();
  expect(sorted(await listed())).toEqual(sorted(all.filter((id) => !gone.has(id))));
  const left = (await entries()).map(idsOf);
  expect(sorted(left.flat() as JobId[])).toEqual(sorted(all.filter((id) => !gone.has(id))));
  expect(await finished()).toBe(1_001 - gone.size);
});

test("bulk actions on what ended after a moment leave what ended before it", async () => {
  const [early] = (await turns([40])) as [JobId[]];
  await Bun.sleep(1_000);
  const [late] = (await turns([50])) as [JobId[]];
  const asked = wish("delete", { state: "finished", newerMs: 600 });
  await o.startBulk(SERVICE, asked);
  await o.carryOut(SERVICE, 1_000);
  expect(await o.bulk(SERVICE, asked.id)).toMatchObject({ looked: late.length, done: late.length });
  expect(sorted(await listed())).toEqual(sorted(early));
});

test("one sweep comes through all that has expired at the old end", async () => {
  const all = (await turns(Array(30).fill(128))).flat();
  await sweepStep(); // the second walk stands far on now, and leaves the old end to the first
  await s.redis.client.del(all.slice(0, 2_200).map((id) => KEYS.job(id)));
  await sweepStep();
  expect((await entries()).join(" ").match(/work_/g)).toHaveLength(all.length - 2_200);
  expect(await finished()).toBe(all.length - 2_200);
});

test("an entry that changed between the sweep's two steps is left to the next, and nothing is counted twice", async () => {
  const [a, b, c] = (await turns([3])).flat() as [JobId, JobId, JobId];
  await s.redis.client.del(KEYS.job(b));
  const found = await s.maintainer.expired(SERVICE, "finished", 0);
  expect(found).toMatchObject({ looked: 1, jobs: 3, gone: [b] });
  await s.producer.erase(a);
  expect(await s.maintainer.strike(SERVICE, "finished", found.entries)).toEqual({ struck: 0, went: 0 });
  await sweepStep();
  expect(await listed()).toEqual([c]);
  expect(await finished()).toBe(1);
});

test("an id that was used before, and stands alone, is counted once", async () => {
  const id = await s.submit();
  const finish = async () => w.settle(...(await w.take(1)).map((one) => settle(one, "finish")));
  await finish();
  for (const more of [{}, { options: { tags: ["x"] } }]) {
    await s.redis.client.del(KEYS.job(id)); // its life has ended, and no sweep has come yet
    await s.submit({ id, ...more });
    await finish();
    expect(await entries()).toEqual([id]);
    expect(await finished()).toBe(1);
  }
});

test("the dashboard's newest are as many as were asked for", async () => {
  await turns([1, 2, 30]);
  const lines = await new Viewer(s.connection).newest(SERVICE, 4);
  expect(lines.map(({ state }) => state)).toEqual(Array(4).fill("finished"));
});

test("bulk delete goes through entries of one millisecond, resumes, and passes over none when something of an entry stays", async () => {
  const all = (await turns(Array(13).fill(100))).flat();
  for (const entry of await entries()) await s.redis.client.zadd(INDEX, 1_700_000_000_000, entry);
  for (const id of all) {
    const head = String(await s.redis.client.hget(KEYS.job(id), "h"));
    await s.redis.client.hset(KEYS.job(id), "h", head.replace(/\|\d+( [\d,]+)?$/, "|1700000000000$1"));
  }
  expect(await entries()).toHaveLength(13 * 4);
  // they have expired, and stay in their entries until the sweep; the first of each, by which they would be sorted, too
  const expired = all.filter((_, i) => (i % 100) % 3 === 0);
  await s.redis.client.del(expired.map((id) => KEYS.job(id)));
  const asked = wish("delete", { state: "finished" });
  await o.startBulk(SERVICE, asked);
  expect(await o.bulk(SERVICE, asked.id)).toMatchObject({ total: 1_300 });
  const [looked, more] = await o.stepBulk(SERVICE);
  expect([looked >= 500 && looked < 532, more]).toEqual([true, 1]);
  await o.carryOut(SERVICE, 5_000);
  const done = 1_300 - expired.length;
  expect(await o.bulk(SERVICE, asked.id)).toMatchObject({ looked: 1_300, matched: done, done });
  expect(await entries()).toHaveLength(13 * 4);
  expect(await finished()).toBe(expired.length);
  await sweepStep();
  expect(await entries()).toEqual([]);
  expect(await finished()).toBe(0);
});

test("bulk actions on what ended before a moment leave what ended after it", async () => {
  const [early] = (await turns([40])) as [JobId[]];
  await Bun.sleep(1_000);
  const [late] = (await turns([50])) as [JobId[]];
  const asked = wish("delete", { state: "finished", olderMs: 600 });
  await o.startBulk(SERVICE, asked);
  await o.carryOut(SERVICE, 1_000);
  expect(await o.bulk(SERVICE, asked.id)).toMatchObject({ total: 45, looked: early.length, done: early.length });
  expect(sorted(await listed())).toEqual(sorted(late));
});

test("one sweep comes through all that has expired behind what lives longer", async () => {
  const all = (await turns(Array(20).fill(200))).flat();
  await s.redis.client.del(all.slice(600).map((id) => KEYS.job(id)));
  await sweepStep();
  expect(sorted(await listed())).toEqual(sorted(all.slice(0, 600)));
  expect(await finished()).toBe(600);
});

// the last: it leaves the walk in the middle
test("the sweep's second walk goes on where it was, though the first has struck what was before it", async () => {
  const all = (await turns(Array(30).fill(128))).flat();
  await sweepStep(); // 16 entries of 32 at the old end, 64 behind them
  const gone = all.slice(0, 16 * 32).concat(all[80 * 32] as JobId);
  await s.redis.client.del(gone.map((id) => KEYS.job(id)));
  await sweepStep();
  expect(await finished()).toBe(all.length - gone.length);
});

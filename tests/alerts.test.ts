/** The alert rules by their figures, and what Redis keeps of them. tests/alerts-told.test.ts has whole processes. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import {
  type AlertEvent,
  type Condition,
  conditions,
  firesNow,
  judge,
  nameOf,
  stateOf,
  unreachable,
} from "../shared/alerts.ts";
import { attention } from "../shared/board/attention.ts";
import type { LastHour } from "../shared/board/history.ts";
import { readConfig } from "../shared/config.ts";
import { alertKeys } from "../shared/keys.ts";
import type { ServiceState, Snapshot } from "../shared/snapshot.ts";
import { AlertStore } from "../shared/store/alerts.ts";
import { job, SERVICE, settle, startStore, type TestStore } from "./support/store.ts";

const settings = readConfig({}).alerts;
const NOW = 1_700_000_000_000;
const MINUTE = 60_000;

type Figures = {
  word: ServiceState["standing"]["word"];
  queued: number;
  waitedMs: number;
  finished: number;
  failed: number;
  paused: boolean;
  used: number;
  limit: number;
  results?: string;
};
const figures: Figures = {
  ...{ word: "healthy", queued: 0, waitedMs: 0, finished: 0, failed: 0, paused: false, used: 1, limit: 100 },
};
function snapshotOf(f: Figures): { snapshot: Snapshot; hours: Record<string, LastHour> } {
  const counts = { now: NOW, queued: f.queued, oldest: f.queued > 0 ? NOW - f.waitedMs : undefined, paused: f.paused };
  const slots = f.word === "blocked" ? 0 : 4;
  const state = {
    service: "s",
    known: true,
    standing: { word: f.word, text: `${f.word} (x)` },
    counts,
    slots,
    busy: slots,
  };
  return {
    snapshot: {
      at: NOW,
      services: [state as never],
      workers: f.results ? [{ host: "h", results: f.results } as never] : [],
      memory: { used: f.used, limit: f.limit },
    },
    hours: { s: { finished: f.finished, failed: f.failed } as LastHour },
  };
}
const rule = (name: string, more: Partial<Figures>, set = settings): Condition => {
  const { snapshot, hours } = snapshotOf({ ...figures, ...more });
  return conditions(snapshot, hours, set).find((c) => c.rule === name) as Condition;
};

test("each rule holds from its threshold on, and not below", () => {
  const edges: [string, Partial<Figures>, Partial<Figures>][] = [
    ["oldest_wait", { queued: 1, waitedMs: 30 * MINUTE - 1 }, { queued: 1, waitedMs: 30 * MINUTE }],
    ["no_worker", { queued: 3 }, { queued: 3, word: "blocked" }],
    ["parked", { queued: 3 }, { queued: 3, word: "parked" }],
    ["failure_rate", { finished: 6, failed: 5 }, { finished: 5, failed: 5 }],
    ["memory", { used: 74 }, { used: 75 }],
    ["results_dir", {}, { results: "RESULTS_DIR cannot be written: the volume is full (ENOSPC)" }],
  ];
  for (const [name, below, at] of edges) {
    expect([name, rule(name, below).holds, rule(name, at).holds]).toEqual([name, false, true]);
  }
});

test("a few failed jobs are no failure rate, no limit is no memory alert, and a threshold of 0 is off", () => {
  expect(rule("failure_rate", { failed: 9 }).holds).toBe(false);
  expect(rule("failure_rate", { failed: 10 }).holds).toBe(true);
  expect(rule("memory", { used: 100, limit: 0 }).holds).toBe(false);
  const none = { ...settings, oldestWaitMs: 0, noWorkerMs: 0, parkedMs: 0, failureRate: 0, memory: 0, resultsDirMs: 0 };
  for (const word of ["blocked", "parked"] as const) {
    const { snapshot, hours } = snapshotOf({
      ...figures,
      word,
      queued: 9,
      waitedMs: 1e9,
      failed: 99,
      used: 99,
      results: "full",
    });
    const all = conditions(snapshot, hours, none);
    expect(all.map(({ off, holds, lingers }) => [off, holds, lingers])).toEqual(all.map(() => [true, false, false]));
  }
});

test("a condition fires after its time and not before, tells it once, and is over after its time", () => {
  const on = rule("no_worker", { queued: 14, word: "blocked" });
  const off = rule("no_worker", { queued: 0 });
  let seen = "";
  const told: [number, AlertEvent][] = [];
  const look = (condition: Condition, at: number) => {
    const change = judge(condition, seen, NOW + at, settings.holdMs);
    if (!change) return;
    expect(change.seen).toBe(seen);
    seen = change.state;
    if (change.event) told.push([at, JSON.parse(change.event)]);
  };
  for (let at = 0; at <= 200_000; at += 1_000) look(on, at);
  expect(told.map(([at, { type }]) => [at, type])).toEqual([[120_000, "alert.firing"]]);
  for (let at = 201_000; at <= 300_000; at += 1_000) look(off, at);
  expect(told.map(([at]) => at)).toEqual([120_000, 231_000]);
  expect(told[0]?.[1].data).toEqual({
    ...{ rule: "no_worker", service: "s", text: "s: 14 jobs wait, no worker has taken one for 2 min." },
    ...{ since: new Date(NOW).toISOString(), until: null, value: 120, threshold: 120 },
  });
  expect(told[1]?.[1]).toMatchObject({
    type: "alert.resolved",
    timestamp: new Date(NOW + 231_000).toISOString(),
    data: { since: new Date(NOW).toISOString(), until: new Date(NOW + 201_000).toISOString(), value: 201 },
  });
  expect(told[1]?.[1].data.text).toStartWith("Over after 3 min.");
  expect(new Set(told.map(([, { id }]) => id)).size).toBe(2);
});

test("a parked service is told with its address and why; with why alone where a worker told no address", () => {
  const waiting = "ConnectionRefused; 2 jobs wait, for 3 min";
  expect(unreachable(`parked (s cannot be reached at http://s:80: ${waiting})`)).toBe(
    `the microservice cannot be reached at http://s:80: ${waiting}`,
  );
  expect(unreachable(`parked (s cannot be reached: ${waiting})`)).toBe(
    `the microservice cannot be reached. ${waiting}`,
  );
});

test("what flickers is never told: neither on its way to firing nor on its way back", () => {
  const on = rule("parked", { word: "parked" });
  const off = rule("parked", {});
  let seen = "";
  let events = 0;
  const look = (condition: Condition, at: number) => {
    const change = judge(condition, seen, NOW + at, settings.holdMs);
    seen = change?.state ?? seen;
    if (change?.event) events++;
  };
  for (let at = 0; at < 3_600_000; at += 2_000) look(at % 100_000 === 0 ? off : on, at); // never for 2 min
  expect([events, stateOf(seen).firing]).toEqual([0, false]);
  for (let at = 3_600_000; at < 3_800_000; at += 2_000) look(on, at);
  expect(events).toBe(1);
  for (let at = 3_800_000; at < 7_200_000; at += 2_000) look(at % 28_000 === 0 ? on : off, at); // never gone for 30 s
  expect([events, stateOf(seen).firing]).toEqual([1, true]);
});

test("a firing alert goes on while its value is just below the threshold", () => {
  const firing = `firing ${NOW} 0`;
  const gone = (used: number) => judge(rule("memory", { used }), firing, NOW + 1, settings.holdMs) !== undefined;
  expect([gone(80), gone(74), gone(68), gone(67)]).toEqual([false, false, false, true]);
});

test("an alert's condition is always urgent in the overview, whatever the figures", () => {
  const some = fc.record({
    word: fc.constantFrom("healthy", "waiting", "blocked", "parked", "paused"),
    queued: fc.integer({ min: 1, max: 50 }),
    waitedMs: fc.integer({ min: 0, max: 100 * MINUTE }),
    finished: fc.integer({ min: 0, max: 30 }),
    failed: fc.integer({ min: 0, max: 30 }),
    used: fc.integer({ min: 0, max: 100 }),
    limit: fc.constantFrom(0, 100),
    set: fc.record({
      oldestWaitMs: fc.constantFrom(0, MINUTE, 30 * MINUTE, 90 * MINUTE),
      failureRate: fc.constantFrom(0, 0.05, 0.5, 1),
      failureJobs: fc.constantFrom(1, 10),
      memory: fc.constantFrom(0, 0.3, 0.75, 0.95),
    }),
  });
  fc.assert(
    fc.property(some, ({ set, word, ...more }) => {
      const all = { ...settings, ...set };
      const f: Figures = { ...figures, ...more, word: word as Figures["word"], paused: word === "paused" };
      const { snapshot, hours } = snapshotOf(f);
      const items = attention(snapshot, hours, undefined, 30_000, all);
      for (const { holds, rule: name, service } of conditions(snapshot, hours, all)) {
        if (!holds) continue;
        const same = items.filter((item) => item.service === service && item.rank === 2);
        expect([name, same.length > 0]).toEqual([name, true]);
      }
    }),
    { numRuns: 2_000 },
  );
});

test("what needs attention leads to the jobs that it is about, and says what puts it right", () => {
  const items = (of: Partial<Figures>) => {
    const { snapshot, hours } = snapshotOf({ ...figures, ...of });
    return attention(snapshot, hours, undefined, 30_000, settings).map(({ jobs, paused }) => [jobs, paused]);
  };
  expect(items({ queued: 2, word: "paused", paused: true })).toEqual([["queued", true]]);
  expect(items({ queued: 2, word: "blocked" })).toEqual([["queued", undefined]]);
  expect(items({ finished: 1, failed: 19 })).toEqual([["failed", undefined]]);
});

test("without states a lasting condition counts once it is old enough", () => {
  const blocked = (waitedMs: number) => firesNow(rule("no_worker", { queued: 1, waitedMs, word: "blocked" }), NOW);
  expect([blocked(119_000), blocked(120_000)]).toEqual([false, true]);
  expect(firesNow(rule("memory", { used: 90 }), NOW)).toBe(true);
});

describe("in Redis", () => {
  let store: TestStore;
  let alerts: AlertStore;
  beforeAll(async () => {
    store = await startStore();
    alerts = new AlertStore(store.connection);
  }, 60_000);
  afterAll(() => store.stop());
  beforeEach(() => store.clear());
  const flip = (seen: string, state: string, event = "") => alerts.change([{ name: "parked a", seen, state, event }]);
  const line = { at: 1, ok: true, id: "x", text: "t" };

  test("one of many gets the turn, and the next one after its time", async () => {
    const turns = await Promise.all(Array.from({ length: 20 }, () => alerts.turn(300)));
    expect(turns.filter(Boolean).length).toBe(1);
    await Bun.sleep(350);
    expect(await alerts.turn(300)).toMatchObject({ states: new Map() });
  });

  test("of many processes that saw the same state one flips it and queues one event", async () => {
    const replies = await Promise.all(Array.from({ length: 20 }, (_, i) => flip("", "firing 5 0", `{"n":${i}}`)));
    expect(replies.reduce((a, b) => a + b)).toBe(1);
    expect(await store.redis.client.llen(alertKeys.flips("parked a"))).toBe(1);
    expect(await flip("", "firing 5 0", '{"n":"again"}')).toBe(0); // sent again after a lost reply
    expect(await store.redis.client.llen(alertKeys.flips("parked a"))).toBe(1);
  });

  test("a rule's flips are told one by one in their order; another rule's do not wait for them", async () => {
    await flip("", "firing 5 0", '"one"');
    const [first] = await alerts.lease(60_000, 8);
    await flip("firing 5 0", "quiet 6 0", '"two"');
    await alerts.change([{ name: "memory", seen: "", state: "firing 5 0", event: '"other"' }]);
    expect((await alerts.lease(60_000, 8)).map((one) => one.rule)).toEqual(["memory"]);
    expect(await alerts.oldest("parked a")).toBe('"one"');
    expect(await alerts.settle("parked a", first?.due as number, -1, '"one"', line)).toBe("ok");
    const [second] = await alerts.lease(60_000, 8);
    expect([second?.rule, await alerts.oldest("parked a")]).toEqual(["parked a", '"two"']);
    expect(await alerts.settle("parked a", second?.due as number, -1, '"two"', line)).toBe("ok");
    expect(await alerts.lease(0, 8)).toEqual([]);
  });

  test("a lease that ran out goes to another, and the first one's word counts no more", async () => {
    await flip("", "firing 5 0", '"one"');
    const [first] = await alerts.lease(10, 8);
    await Bun.sleep(30);
    const [second] = await alerts.lease(60_000, 8);
    expect(await alerts.settle("parked a", first?.due as number, -1, '"one"', line)).toBe("lost");
    expect((await alerts.known()).tries).toEqual([]);
    expect(await alerts.settle("parked a", second?.due as number, -1, '"one"', line)).toBe("ok");
    expect(await alerts.settle("parked a", second?.due as number, -1, '"one"', line)).toBe("lost");
    expect((await alerts.known()).tries).toEqual([line]);
  });

  test("what waits and what is logged are bounded: the oldest go", async () => {
    let seen = "";
    for (let i = 0; i < 60; i++) {
      await flip(seen, `quiet ${i} 0`, `"${i}"`);
      seen = `quiet ${i} 0`;
    }
    expect(await store.redis.client.llen(alertKeys.flips("parked a"))).toBe(20);
    expect(await alerts.oldest("parked a")).toBe('"40"');
    for (let i = 0; i < 60; i++) {
      const [taken] = await alerts.lease(60_000, 8);
      await alerts.settle("parked a", taken?.due as number, 0, "", { ...line, at: i });
    }
    const { tries } = await alerts.known();
    expect([tries.length, tries[0]?.at]).toEqual([50, 59]);
  });

  test("the oldest wait of a delayed job counts from when it was due, as its observed wait does", async () => {
    const worker = store.worker("w1");
    const due = Date.now() + 300;
    await store.producer.submit(job({ due }));
    await Bun.sleep(400);
    await store.maintainer.promote(SERVICE);
    expect((await store.counts()).oldest).toBe(due);
    const [taken] = await worker.take(1);
    await worker.settle(settle(taken as never, "retry", { delayMs: 200 } as never));
    await Bun.sleep(300);
    await store.maintainer.promote(SERVICE);
    const { oldest, now } = await store.counts();
    expect(now - (oldest as number)).toBeLessThan(200);
  });

  test("the oldest wait is that of a job of low priority behind ever new urgent ones", async () => {
    const worker = store.worker("w1");
    await store.submit({ priority: 9 });
    const low = await store.submit({ priority: 1 });
    await worker.take(1);
    for (let i = 0; i < 3; i++) {
      await Bun.sleep(10);
      for (const priority of [9, 7, 2]) await store.submit({ priority });
    }
    expect((await store.counts()).oldest).toBe((await store.inspector.record(low))?.created as number);
  });

  test("names of rules are those under which their states lie", () => {
    expect(nameOf(rule("memory", {}))).toBe("memory");
    expect(nameOf(rule("parked", {}))).toBe("parked s");
  });
});

/** What operators see when no worker knows an operation, or SERVICES a service: real processes of two configurations. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { limit } from "./support/patience.ts";
import { freePort } from "./support/redis.ts";
import { type Stack, startStack, until } from "./support/stack.ts";

let stack: Stack;
/** SERVICES of a worker that has not been upgraded yet: it lacks `fresh` */
let before: string;
const operations = (...names: string[]) => ({
  operations: Object.fromEntries(names.map((name) => [name, { service: "work", url: stack.service.url, slots: 2 }])),
});
beforeAll(async () => {
  stack = await startStack({
    workers: 0,
    operations: { fresh: { service: "work", url: "http://127.0.0.1:9" } },
    env: { ALERT_NO_WORKER: "1s" },
  });
  before = join(stack.dir, "before.json");
  writeFileSync(before, JSON.stringify(operations("work")));
}, 60_000);
afterAll(() => stack?.stop());

test("a worker without the operation leaves its jobs alone; health, dashboard and alerts name it; another takes them", async () => {
  const old = await stack.startWorker({ SERVICES: before });
  const waiting = [await stack.submit({ n: 1 }, "/fresh"), await stack.submit({ n: 2 }, "/fresh")];
  const known = await stack.submit({ n: 3 });
  expect((await stack.ended(known)).status).toBe("finished");
  await until(async () => /no worker for the operation fresh/.test((await stack.get("/health")).services.work));
  expect((await stack.get("/health")).services.work).toBe("blocked (2 jobs, no worker for the operation fresh)");
  const state = await (await fetch(`${stack.dashboardUrl}/state.json`)).json();
  expect(JSON.stringify(state.attention)).toContain(
    "work: 2 jobs wait for the operation fresh and no worker serves them",
  );
  await until(async () => {
    const { rules } = await stack.get("/alerts");
    return rules.some(
      (one: { rule: string; text: string; firing: boolean }) =>
        one.rule === "no_worker" && one.firing && one.text.includes("2 jobs wait for the operation fresh"),
    );
  });
  for (const id of waiting) {
    expect(await stack.get(`/jobs/${id}`)).toMatchObject({
      status: "queued",
      attempt: 0,
      redeliveries: 0,
      attempts: [],
    });
  }
  expect(old.output()).not.toContain("fresh");

  const after = join(stack.dir, "after.json");
  writeFileSync(after, JSON.stringify(operations("work", "fresh")));
  await stack.startWorker({ SERVICES: after });
  for (const id of waiting) expect((await stack.ended(id)).status).toBe("finished");
  // one that is set aside while the worker that knows it is blocked in BLMOVE: it looks within a few seconds
  for (let i = 0; i < 4; i++) {
    const began = performance.now();
    const id = await stack.submit({ n: i }, "/fresh");
    expect((await stack.ended(id)).status).toBe("finished");
    expect(performance.now() - began).toBeLessThan(limit(8_000));
  }
  await until(async () => (await stack.get("/health")).services.work === "healthy");
}, 90_000);

test("a service that has left SERVICES with jobs in it is named by health, dashboard, alerts and lists", async () => {
  const earlier = join(stack.dir, "earlier.json");
  writeFileSync(earlier, JSON.stringify({ operations: { left: { url: stack.service.url } } }));
  const port = String(await freePort());
  const other = await stack.startGateway({ SERVICES: earlier, PORT: port, DASHBOARD_PORT: "0" });
  const post = (path: string) =>
    fetch(`http://127.0.0.1:${port}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{}",
    });
  const ids: string[] = [];
  for (const path of ["/left", "/left", "/left?delay=1h"]) ids.push((await (await post(path)).json()).job_id);
  other.kill("SIGTERM");

  await until(async () => "left" in (await stack.get("/health")).services);
  const text = "blocked (3 jobs, no worker, and SERVICES does not name this service)";
  expect(await stack.get("/health")).toMatchObject({ status: "degraded", services: { left: text } });
  const state = await (await fetch(`${stack.dashboardUrl}/state.json`)).json();
  expect(state.services.find((one: { service: string }) => one.service === "left")).toMatchObject({
    ...{ known: false, queued: 2, scheduled: 1, operations: [] },
  });
  expect(JSON.stringify(state.attention)).toContain("SERVICES does not name this service");
  await until(async () =>
    (await stack.get("/alerts")).rules.some(
      (one: { rule: string; service: string; firing: boolean }) =>
        one.rule === "no_worker" && one.service === "left" && one.firing,
    ),
  );
  const idsOf = async (query: string) =>
    (await stack.get(`/jobs?${query}`)).jobs.map((one: { job_id: string }) => one.job_id).sort();
  expect(await idsOf("service=left")).toEqual(ids.toSorted());
  expect(await idsOf("state=queued")).toEqual(ids.slice(0, 2).toSorted());
  expect((await stack.get("/autoscale")).services).not.toHaveProperty("left");

  expect(await (await stack.post("/queues/left/empty")).json()).toMatchObject({ emptied: 3 });
  await until(async () => !("left" in (await stack.get("/health")).services));
}, 60_000);

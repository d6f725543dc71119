/** The same code on Sentinel and on a Cluster of three masters: real redis-servers, real gateways and workers. */
import { afterEach, expect, test } from "bun:test";
import { AlertStore } from "../../shared/store/alerts.ts";
import { connect } from "../../shared/store/redis.ts";
import { type Stack, startStack, until } from "../support/stack.ts";
import { startCluster, startSentinel, type Topology } from "../support/topology.ts";
import { everyVerb } from "../support/verbs.ts";

let stack: Stack | undefined;
let topology: Topology | undefined;
afterEach(async () => {
  await stack?.stop();
  await topology?.stop();
  stack = undefined;
  topology = undefined;
}, 30_000);

const NAMES = ["work", "alpha", "beta", "gamma"]; // their hash tags lie on all three masters
async function start(kind: () => Promise<Topology>): Promise<{ s: Stack; t: Topology }> {
  topology = await kind();
  stack = await startStack({ env: { REDIS_URL: topology.url }, workers: 0 });
  const { url } = stack.service;
  const operations = Object.fromEntries(NAMES.map((name) => [name, { url, slots: 8, backoff: "100ms" }]));
  await Bun.write(`${stack.dir}/services.json`, JSON.stringify({ operations }));
  stack.gateway.kill("SIGKILL");
  await stack.gateway.exited;
  stack.gateway = await stack.startGateway();
  for (let i = 0; i < 2; i++) await stack.startWorker();
  return { s: stack, t: topology };
}

test("Cluster: every verb over three masters, and a master that is killed and comes back loses nothing", async () => {
  const { s, t } = await start(startCluster);
  const masters = await Promise.all(NAMES.map((name) => t.master(`lh:{${name}}:ready`)));
  expect(new Set(masters).size).toBe(3);
  await everyVerb(s, NAMES);
  const long = await s.submit({ sleep: 7_000 }, "/work"); // longer than the outage and the lease
  await until(async () => (await s.get(`/jobs/${long}/status`)).status === "started");
  const down = masters[0]!;
  await down.kill9();
  const other = NAMES[masters.findIndex((node) => node !== down)] as string;
  expect((await s.ended(await s.submit({}, `/${other}`), 20_000)).status).toBe("finished"); // others go on
  const refused = await s.post("/work", {});
  expect(refused.status).toBe(503);
  expect((await fetch(`${s.url}/jobs/${long}/status`)).status).toBe(503);
  await Bun.sleep(3_500);
  await down.restart();
  expect((await s.ended(long, 30_000)).status).toBe("finished");
  expect(s.service.byJob(long).length).toBe(1);
  await until(async () => (await s.post("/work", {})).status === 202, 15_000);
  await everyVerb(s, NAMES);
}, 120_000);

test("Cluster: all keys of the alerts share one slot, so flips and deliveries work as over one Redis", async () => {
  topology = await startCluster();
  const redis = connect(topology.url, "work", "test");
  try {
    const far = new AlertStore(redis);
    expect(await far.turn(60_000)).toMatchObject({ states: new Map() });
    expect(await far.turn(60_000)).toBeUndefined();
    const names = ["parked a", "parked b", "memory"];
    const changes = names.map((name) => ({ name, seen: "", state: "firing 5 0", event: `"${name}"` }));
    expect(await far.change(changes)).toBe(3);
    const taken = await far.lease(60_000, 8);
    expect(taken.map((one) => one.rule).sort()).toEqual([...names].sort());
    for (const { rule: name, due } of taken) {
      expect(await far.oldest(name)).toBe(`"${name}"`);
      const line = { at: 1, ok: true, id: "x", text: "t" };
      expect(await far.settle(name, due, -1, `"${name}"`, line)).toBe("ok");
    }
    const { states, tries } = await far.known();
    expect([states.size, tries.length]).toEqual([3, 3]);
  } finally {
    redis.disconnect();
  }
}, 60_000);

test("Sentinel: every verb, a failover under load, and every verb again; what was accepted ends", async () => {
  const { s, t } = await start(startSentinel);
  await everyVerb(s, NAMES);
  const long = await s.submit({ sleep: 9_000 });
  await until(async () => (await s.get(`/jobs/${long}/status`)).status === "started");
  const old = await t.master("");
  const ids = [];
  for (let i = 0; i < 40; i++) ids.push(await s.submit({ sleep: i < 10 ? 500 : 0 }));
  await Bun.sleep(200); // asynchronous replication has caught up: what it had not is lost with the master
  await old.kill9();
  // A client with an Idempotency-Key sends until it is told.
  const key = { "idempotency-key": "through-the-failover" };
  let again = "";
  await until(async () => {
    const response = await s.post("/work", {}, key);
    if (response.status === 202) again = ((await response.json()) as { job_id: string }).job_id;
    return again !== "";
  }, 30_000);
  expect((await t.master("")).port).not.toBe(old.port);
  for (const id of [...ids, long, again]) expect((await s.ended(id, 30_000)).status).toBe("finished");
  await old.restart(); // comes back as a replica
  await until(async () => /role:slave/.test(await old.client.info("replication")), 20_000);
  await everyVerb(s, NAMES);
}, 150_000);

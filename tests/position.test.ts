/** `position` of a queued job: what is taken before it, its priority included. */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import type { JobId, ServiceName, WorkerId } from "../shared/jobs.ts";
import { Presence } from "../shared/store/presence.ts";
import { startGatewayApp, type TestGateway } from "./support/gateway.ts";
import { startRedis, type TestRedis } from "./support/redis.ts";

const SERVICE = "ifc2json" as ServiceName;
let redis: TestRedis;
let g: TestGateway;
beforeAll(async () => {
  redis = await startRedis();
  g = await startGatewayApp(redis.url);
});
afterAll(async () => {
  g?.close();
  await redis?.stop();
});
beforeEach(() => redis.client.flushall());

const submit = (query = "") =>
  g.submit(`/ifc2json${query}`, { filename: "a.ifc", output_filename: "a.json" }) as Promise<JobId>;
/** Positions in status and record, which must agree. */
async function positions(ids: JobId[]): Promise<(number | null)[]> {
  await g.gateway.snapshots.get(0);
  const found: (number | null)[] = [];
  for (const id of ids) {
    const [status, record] = [await g.json(`/jobs/${id}/status`), await g.json(`/jobs/${id}`)];
    expect(record.position).toBe(status.position);
    found.push(status.position);
  }
  return found;
}
/** The order in which a worker takes them. */
async function taken(): Promise<string[]> {
  const worker = g.worker("w");
  const ask = { slots: 100, concurrency: 0, limits: "ifc2json=1000" };
  return (await worker.turn(SERVICE, [], ask)).jobs.map(({ id }) => id);
}

test("position counts what goes before a job, of whatever priority, and no job that is scheduled", async () => {
  const ids: JobId[] = [];
  for (const query of [
    "",
    "?priority=9",
    "?delay=1h",
    "?priority=1",
    "",
    "?priority=9",
    "?delay=1h",
    "",
    "?priority=7",
    "?priority=1",
  ])
    ids.push(await submit(query));
  const told = await positions(ids);
  const order = await taken();
  expect(told).toEqual(ids.map((id) => (order.includes(id) ? order.indexOf(id) + 1 : null)));
});

test("position of a default job that came after the figures were read counts those that came since", async () => {
  const ids = [await submit(), await submit()];
  await g.gateway.snapshots.get(0);
  const later = [await submit(), await submit()];
  const status = await g.json(`/jobs/${later[1]}/status`);
  expect([ids.length, status.position]).toEqual([2, 4]);
});

test("eta_s of a queued job is null while it is paused, without a worker, or of an operation that no worker has", async () => {
  const id = await submit();
  const other = (await g.submit("/jobs", {
    operation: "ifc2json",
    payload: { filename: "b.ifc", output_filename: "b.json" },
    priority: 1,
  })) as JobId;
  const eta = async (of: JobId = id) => {
    await g.gateway.snapshots.get(0);
    const [status, record] = [await g.json(`/jobs/${of}/status`), await g.json(`/jobs/${of}`)];
    expect(record.eta_s).toBe(status.eta_s);
    expect(status.position).toBeGreaterThan(0);
    return status.eta_s;
  };
  const presence = new Presence(g.redis, "w" as WorkerId);
  const serve = (...operations: string[]) =>
    presence.announce({
      ...{ id: "w", host: "h", pid: 1, version: "0", runtime: "bun", state: "running", rssBytes: 0 },
      lanes: { [SERVICE]: { slots: 1, busy: 0, operations } },
    });
  expect(await eta()).toBeNull(); // no worker
  await serve("ifc2json");
  expect([await eta(), await eta(other)]).toEqual([expect.any(Number), expect.any(Number)]);
  expect((await g.post(`/queues/${SERVICE}/pause`)).status).toBe(200);
  expect([await eta(), await eta(other)]).toEqual([null, null]);
  expect((await g.post(`/queues/${SERVICE}/resume`)).status).toBe(200);
  expect(await eta()).toEqual(expect.any(Number));
  await serve("another");
  await g.worker("w").turn(SERVICE, [], { slots: 5, concurrency: 0, limits: "another=1000" }); // sets both aside
  expect([await eta(), await eta(other)]).toEqual([null, null]);
});

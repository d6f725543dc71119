/** A slot of a Cluster moves from one real node to another while jobs are submitted, taken and read. */
import { afterEach, expect, test } from "bun:test";
import { newJobId, newWorkerId, serviceName } from "../shared/jobs.ts";
import { keysOf } from "../shared/keys.ts";
import type { Connection } from "../shared/script.ts";
import { Consumer } from "../shared/store/consume.ts";
import { Producer } from "../shared/store/produce.ts";
import { connect, ready } from "../shared/store/redis.ts";
import { until } from "./support/stack.ts";
import { startCluster, type Topology } from "./support/topology.ts";

let cluster: Topology | undefined;
const connections: Connection[] = [];
afterEach(async () => {
  for (const connection of connections.splice(0)) connection.disconnect();
  await cluster?.stop();
  cluster = undefined;
}, 30_000);

const open = async (purpose: "request" | "work") => {
  const redis = connect(cluster!.url, purpose, "test");
  connections.push(redis);
  await ready(redis, 10_000);
  return redis;
};

test("Cluster: scripts wait while their slot moves, and no job is lost or split over two nodes", async () => {
  cluster = await startCluster();
  const service = serviceName("work");
  const keys = keysOf(service);
  const producer = new Producer(await open("request"), { maxQueued: 0, idempotencyTtlMs: 1_000, failureTtlMs: 1_000 });
  const submit = () => producer.submit({ id: newJobId(service), operation: "work", payload: "{}" });
  const consumer = new Consumer(await open("work"), newWorkerId());
  const ids = [await submit(), await submit(), await submit()].map(({ id }) => id);

  const from = await cluster.master(keys.ready);
  const to = cluster.nodes.find((node) => node !== from)!;
  const [fromId, toId] = await Promise.all([from, to].map(({ client }) => client.call("CLUSTER", "MYID")));
  const slot = Number(await from.client.call("CLUSTER", "KEYSLOT", keys.ready));
  const there = async () => Number(await to.client.call("CLUSTER", "COUNTKEYSINSLOT", slot));
  await to.client.call("CLUSTER", "SETSLOT", slot, "IMPORTING", String(fromId));
  await from.client.call("CLUSTER", "SETSLOT", slot, "MIGRATING", String(toId));

  const turned = consumer.turn(service, [], { slots: 8, concurrency: 0, limits: "work=60000" });
  await expect(submit()).rejects.toMatchObject({ code: "redis_unreachable" });
  expect(await there()).toBe(0);

  const moved = keys.job(ids[0]!);
  const move = (...names: string[]) =>
    from.client.call("MIGRATE", "127.0.0.1", to.port, "", 0, 5_000, "KEYS", ...names); // without REPLACE
  await move(moved);
  // what has moved and what has not is read, at once too
  const reading = connections[0]!;
  expect(await Promise.all(ids.map((id) => reading.exists(keys.job(id))))).toEqual([1, 1, 1]);

  await move(...((await from.client.call("CLUSTER", "GETKEYSINSLOT", slot, 100)) as string[]));
  for (const node of [to, ...cluster.nodes.filter((node) => node !== to)])
    await node.client.call("CLUSTER", "SETSLOT", slot, "NODE", String(toId));

  expect((await turned).jobs.map(({ id }) => id)).toEqual(ids);
  await until(() => submit().then(Boolean, () => false), 10_000);
}, 90_000);

/** A Redis that must not be used stops gateway and worker before they write; one that may be used later is waited for. */
import { afterEach, expect, test } from "bun:test";
import { createServer, connect as dial, type Server, type Socket } from "node:net";
import type { Redis } from "ioredis";
import { connect } from "../shared/store/redis.ts";
import { freePort, startRedis, type TestRedis } from "./support/redis.ts";
import { type Process, type Stack, startProcess, startStack, until } from "./support/stack.ts";

let redis: TestRedis | undefined;
let stack: Stack | undefined;
const processes: Process[] = [];
const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const process of processes.splice(0)) {
    process.kill("SIGKILL");
    await process.exited;
  }
  for (const close of closing.splice(0)) await close();
  await stack?.stop();
  await redis?.stop();
  redis = undefined;
  stack = undefined;
}, 30_000);

const BOTH = ["gateway.ts", "worker.ts"];
function start(file: string, env: Record<string, string>, runtime?: string): Process {
  const process = startProcess(
    file,
    { PORT: "0", DASHBOARD_PORT: "0", IFC2JSON_URL: "http://127.0.0.1:9", ...env },
    runtime,
  );
  processes.push(process);
  return process;
}
/** How many keys there are in any database. */
const written = async (client: Redis) => (await client.info("keyspace")).match(/^db\d+:.*$/gm) ?? [];

test("a database that does not exist stops gateway and worker, and nothing is written", async () => {
  redis = await startRedis();
  for (const runtime of ["bun", "deno"]) {
    for (const file of BOTH) {
      const process = start(file, { REDIS_URL: `${redis.url}/99` }, runtime);
      expect([file, runtime, await process.exited]).toEqual([file, runtime, 1]);
      expect(process.output()).toContain("Redis cannot be used: it refuses database 99 (ERR DB index is out of range)");
      expect(process.output()).toContain("set NAMESPACE");
    }
  }
  expect(await written(redis.client)).toEqual([]);
}, 90_000);

test("a connection whose SELECT is refused is never ready, and what was queued is never sent", async () => {
  redis = await startRedis();
  for (const purpose of ["work", "request", "block"] as const) {
    const connection = connect(`${redis.url}/99`, purpose, "test");
    let [refusals, ready] = [0, 0];
    connection.on("unfit", () => refusals++);
    connection.on("ready", () => ready++);
    connection.set("lost", "1").catch(() => {});
    await until(() => refusals > 2); // it goes on trying, as to a Redis that is away
    expect([purpose, ready]).toEqual([purpose, 0]);
    connection.disconnect();
  }
  expect(await written(redis.client)).toEqual([]);
}, 60_000);

test("a database that is gone after a reconnect stops gateway and worker before they write", async () => {
  stack = await startStack();
  const port = await freePort();
  redis = await startRedis({}, port);
  const gatewayPort = await freePort();
  const env = { ...stack.env, REDIS_URL: `${redis.url}/9`, PORT: String(gatewayPort), DASHBOARD_PORT: "0" };
  const [gateway, worker] = BOTH.map((file) => start(file, env)) as [Process, Process];
  await gateway.says(/gateway ready/);
  await worker.says(/ready under/);
  const submit = () =>
    fetch(`http://127.0.0.1:${gatewayPort}/work`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{}",
    }).then(
      (response) => response.status,
      () => 0,
    );
  expect(await submit()).toBe(202);
  expect((await written(redis.client)).map((line) => line.split(":")[0])).toEqual(["db9"]);
  await redis.stop();
  redis = await startRedis({ databases: "4" }, port);
  while (gateway.exitCode === null) expect(await submit()).not.toBe(202);
  expect([await gateway.exited, await worker.exited]).toEqual([1, 1]);
  for (const process of [gateway, worker]) expect(process.output()).toContain("it refuses database 9");
  expect(await written(redis.client)).toEqual([]);
}, 90_000);

test("a user that may not SELECT its database is refused, and nothing is written", async () => {
  redis = await startRedis();
  await redis.client.call("ACL", "SETUSER", "few", "on", ">pw", "~*", "&*", "+@all", "-select");
  const process = start("gateway.ts", { REDIS_URL: `redis://few:pw@127.0.0.1:${redis.port}/1` });
  expect(await process.exited).toBe(1);
  expect(process.output()).toContain("it refuses database 1 (NOPERM");
  expect(await written(redis.client)).toEqual([]);
}, 60_000);

test("a worker that comes back to a Redis of another protocol ends at once", async () => {
  stack = await startStack();
  const [worker] = stack.workers as [Process];
  await stack.redis.client.hset("lh:protocol", "major", 99);
  await stack.redis.client.call("CLIENT", "KILL", "TYPE", "normal");
  expect(await worker.exited).toBe(1);
  expect(worker.output()).toContain("holds jobs of protocol 99");
}, 60_000);

test("a worker that comes back to a volatile Redis lets its calls end, takes none, and exits with 1", async () => {
  stack = await startStack({ env: { DRAIN_TIMEOUT: "20s" } });
  const [worker] = stack.workers as [Process];
  const gateway = stack.gateway;
  const running = await stack.submit({ sleep: 3_000 });
  await until(async () => (await stack!.get(`/jobs/${running}/status`)).status === "started");
  await stack.redis.client.config("SET", "appendonly", "no");
  await stack.redis.client.call("CLIENT", "KILL", "TYPE", "normal");
  await worker.says(/Redis cannot be used: takes nothing more and stops reason="appendonly is no/);
  expect(await worker.exited).toBe(1);
  expect(await gateway.exited).toBe(1);
  await stack.redis.client.config("SET", "appendonly", "yes");
  await stack.startGateway();
  expect((await stack.get(`/jobs/${running}/status`)).status).toBe("finished");
  expect(stack.service.byJob(running)).toHaveLength(1);
}, 60_000);

test("gateway and worker that come back to an empty Redis register there and go on", async () => {
  stack = await startStack();
  await stack.redis.client.flushall();
  await stack.redis.client.call("CLIENT", "KILL", "TYPE", "normal");
  await until(async () => (await stack!.redis.client.exists("lh:protocol", "lh:services", "lh:workers")) === 3);
  await until(async () => (await fetch(`${stack!.url}/readyz`)).ok);
  expect((await stack.ended(await stack.submit({}))).status).toBe("finished");
}, 60_000);

test("a replica as REDIS_URL is said to be one, and used as soon as it is the master", async () => {
  stack = await startStack({ workers: 0 });
  redis = await startRedis();
  await redis.client.replicaof("127.0.0.1", stack.redis.port);
  await until(async () => /master_link_status:up/.test(String(await redis?.client.info("replication"))));
  const before = await stack.redis.client.keys("*");
  const both = BOTH.map((file) =>
    start(file, { ...stack?.env, REDIS_URL: redis!.url, PORT: "0", DASHBOARD_PORT: "0" }),
  );
  for (const process of both) await process.says(/Redis is a read-only replica: REDIS_URL must name its master/);
  expect((await stack.redis.client.keys("*")).sort()).toEqual(before.sort());
  await redis.client.replicaof("NO", "ONE");
  await both[1]?.says(/ready under/);
  await until(async () => (await redis?.client.exists("lh:workers")) === 1);
}, 60_000);

/** A real Redis behind a wire that changes what it says of its version. */
async function agedRedis(port: number, from: string, to: string): Promise<string> {
  const sockets = new Set<Socket>();
  const server: Server = createServer((client) => {
    const upstream = dial(port, "127.0.0.1");
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => [client, upstream].map((one) => one.destroy()));
    }
    client.pipe(upstream);
    upstream.on("data", (bytes) => client.write(Buffer.from(bytes.toString("latin1").replace(from, to), "latin1")));
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  closing.push(() => {
    for (const socket of sockets) socket.destroy();
    return new Promise((done) => server.close(done));
  });
  return `redis://127.0.0.1:${(server.address() as { port: number }).port}`;
}

test("a Redis before 7.0, which knows no flags of scripts, is refused with the version it has", async () => {
  redis = await startRedis();
  const version = /redis_version:(\S+)/.exec(await redis.client.info("server"))?.[1] as string;
  const old = `6${version.slice(1)}`;
  const url = await agedRedis(redis.port, `redis_version:${version}`, `redis_version:${old}`);
  const process = start("gateway.ts", { REDIS_URL: url });
  expect(await process.exited).toBe(1);
  expect(process.output()).toContain(`it is Redis ${old}; Redis 7.0 or newer is needed`);
  expect(await written(redis.client)).toEqual([]);
}, 60_000);

test("a socket, an IPv6 address and a login without a user are served as any Redis", async () => {
  const path = `/tmp/longhaul-${process.pid}.sock`;
  redis = await startRedis({ unixsocket: path, bind: "127.0.0.1 ::1", requirepass: "p@ss/w" });
  const login = ":p%40ss%2Fw@";
  for (const url of [
    `unix://${login}${path}?db=1`,
    `redis://${login}[::1]:${redis.port}/2`,
    `redis://${login}localhost:${redis.port}/3`,
  ]) {
    const worker = start("worker.ts", { REDIS_URL: url });
    await worker.says(/ready under/);
  }
  expect((await written(redis.client)).map((line) => line.split(":")[0])).toEqual(["db1", "db2", "db3"]);
}, 60_000);

/** What happens to a Redis under a running gateway and worker, without a reconnect: emptied, set otherwise, half of its commands gone. */
import { afterEach, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import "../shared/store/open.ts"; // the test's own client outlives a renamed INFO by it, too
import { freePort, memoryDir, startRedis, type TestRedis } from "./support/redis.ts";
import { type Process, type Stack, startProcess, startStack, until } from "./support/stack.ts";

let stack: Stack | undefined;
let redis: TestRedis | undefined;
const processes: Process[] = [];
afterEach(async () => {
  for (const process of processes.splice(0)) {
    process.kill("SIGKILL");
    await process.exited;
  }
  await stack?.stop();
  await redis?.stop();
  stack = redis = undefined;
}, 30_000);

const start = (file: string, env: Record<string, string>) => {
  const process = startProcess(file, env);
  processes.push(process);
  return process;
};

test("FLUSHALL under gateway and worker: retried and delayed jobs of afterwards run, and the log tells", async () => {
  stack = await startStack();
  expect((await stack.ended(await stack.submit({}))).status).toBe("finished");
  await stack.redis.client.flushall();
  const jobs = [await stack.submit({ fail: 1 }), await stack.submit({}, "/work?delay=1")];
  for (const id of jobs) expect((await stack.ended(id, 25_000)).status).toBe("finished");
  const logs = () => stack!.gateway.output() + stack!.workers[0]!.output();
  await until(() => /ERROR Redis was emptied.*FLUSHALL/.test(logs()), 20_000, logs);
  expect(await stack.redis.client.exists("lh:protocol", "lh:services")).toBe(2);
}, 60_000);

test("a Redis that is set to evict, or not to append, while it is used stops worker and gateway", async () => {
  stack = await startStack({ env: { DRAIN_TIMEOUT: "20s" } });
  const [worker] = stack.workers as [Process];
  const running = await stack.submit({ sleep: 12_000 });
  await stack.redis.client.config("SET", "maxmemory-policy", "allkeys-lru");
  expect(await worker.exited).toBe(1);
  expect(await stack.gateway.exited).toBe(1);
  for (const { output } of [worker, stack.gateway]) expect(output()).toContain("maxmemory-policy is allkeys-lru");
  await stack.redis.client.config("SET", "maxmemory-policy", "noeviction");
  await stack.startGateway();
  expect((await stack.get(`/jobs/${running}/status`)).status).toBe("finished");
}, 60_000);

test("with ALLOW_VOLATILE a setting that changes while Redis is used is told once and shown by /health", async () => {
  stack = await startStack({ env: { ALLOW_VOLATILE: "1" } });
  const health = async () => (await stack!.get("/health")).services.redis as string;
  expect(await health()).toBe("healthy");
  await stack.redis.client.config("SET", "appendonly", "no");
  await until(async () => /^degraded \(appendonly is no/.test(await health()), 25_000);
  await Bun.sleep(11_000);
  expect(stack.gateway.output().match(/Redis is not as it should be/g)).toHaveLength(1);
}, 60_000);

async function withoutCommand(name: string): Promise<TestRedis> {
  const file = join(memoryDir("longhaul-renamed-"), "redis.conf");
  writeFileSync(file, `rename-command ${name} ""\n`);
  return startRedis({ include: file });
}

test("a Redis whose EVALSHA or HSETNX was renamed stops gateway and worker with what it lacks", async () => {
  for (const name of ["EVALSHA", "HSETNX"]) {
    redis = await withoutCommand(name);
    const env = {
      REDIS_URL: redis.url,
      PORT: String(await freePort()),
      DASHBOARD_PORT: "0",
      IFC2JSON_URL: "http://127.0.0.1:9",
    };
    for (const process of ["gateway.ts", "worker.ts"].map((file) => start(file, env))) {
      expect(await process.exited).toBe(1);
      expect(process.output()).toContain(
        `it does not serve what every job needs (unknown command '${name.toLowerCase()}')`,
      );
    }
    await redis.stop();
    redis = undefined;
  }
}, 60_000);

test("a Redis whose INFO was renamed is used with a warning of what is not known", async () => {
  redis = await withoutCommand("INFO");
  const env = {
    REDIS_URL: redis.url,
    PORT: String(await freePort()),
    DASHBOARD_PORT: "0",
    IFC2JSON_URL: "http://127.0.0.1:9",
  };
  for (const file of ["gateway.ts", "worker.ts"]) {
    const process = start(file, env);
    await process.says(/appendonly could not be read \(INFO is barred\)/);
    await process.says(/gateway ready|worker ready/);
  }
}, 60_000);

test("a master that becomes a replica under a worker is told once, and served as soon as it is the master again", async () => {
  redis = await startRedis();
  stack = await startStack();
  const { client } = stack.redis;
  await redis.client.replicaof("127.0.0.1", stack.redis.port);
  await client.replicaof("127.0.0.1", redis.port);
  await Bun.sleep(5_000);
  await client.replicaof("NO", "ONE");
  expect((await stack.ended(await retried(stack), 20_000)).status).toBe("finished");
  expect(stack.workers[0]!.output().match(/is a read-only replica/g)).toHaveLength(1);
}, 60_000);

async function retried(s: Stack): Promise<string> {
  let id: string | undefined;
  await until(async () => {
    id = await s.submit({}).catch(() => undefined);
    return id;
  });
  return id as string;
}

test("a script of somebody else that keeps Redis busy for longer than the lease: answers say BUSY, a call is made once", async () => {
  stack = await startStack({ workers: 2 });
  const { client } = stack.redis;
  await client.config("SET", "busy-reply-threshold", "300");
  const long = await stack.submit({ sleep: 9_000 });
  await until(async () => (await stack!.get(`/jobs/${long}/status`)).status === "started");
  const other = client.duplicate();
  const loop = "local t = redis.call('TIME')[1] + 6 while tonumber(redis.call('TIME')[1]) < t do end";
  const over = other.eval(loop, 0).catch(() => {});
  await Bun.sleep(1_000);
  const refused = await stack.post("/work", {});
  expect(refused.status).toBe(503);
  expect(await refused.json()).toMatchObject({ code: "redis_unreachable", detail: expect.stringContaining("(BUSY)") });
  await over;
  other.disconnect();
  expect((await stack.ended(long, 30_000)).status).toBe("finished");
  expect(stack.service.byJob(long)).toHaveLength(1);
}, 60_000);

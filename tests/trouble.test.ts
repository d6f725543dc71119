/** Redis in trouble: what clients are told, and that jobs outlive it. */
import { afterEach, expect, test } from "bun:test";
import { EventEmitter } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, connect as dial } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tellAway } from "../shared/away.ts";
import { PROTOCOL } from "../shared/keys.ts";
import { listLog } from "./support/log.ts";
import { freePort, startRedis, type TestRedis } from "./support/redis.ts";
import { type Stack, type StackOptions, startProcess, startStack, until } from "./support/stack.ts";

let stack: Stack;
let dir = "";
afterEach(async () => {
  await stack?.stop();
  if (dir) rmSync(dir, { recursive: true, force: true });
  dir = "";
});
const start = async (options: StackOptions = {}) => {
  stack = await startStack(options);
  return stack;
};
type Answer = { status: number; body: Record<string, unknown>; retryAfter: number; ms: number };
async function ask(path: string, payload?: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  const began = performance.now();
  const response = payload === undefined ? await fetch(stack.url + path) : await stack.post(path, payload, headers);
  const body = (await response.json()) as Record<string, unknown>;
  const retryAfter = Number(response.headers.get("retry-after"));
  return { status: response.status, body, retryAfter, ms: performance.now() - began };
}
/** Submits until it is answered with `status`. */
async function submitted(payload: unknown, status = 202, ms = 15_000): Promise<Answer> {
  let answer: Answer | undefined;
  await until(
    async () => {
      answer = await ask("/work", payload);
      return answer.status === status;
    },
    ms,
    () => JSON.stringify(answer),
  );
  return answer as Answer;
}
const idOf = (answer: Answer) => answer.body.job_id as string;
const state = async (id: string) => (await stack.get(`/jobs/${id}/status`)).status;
const started = (id: string) => until(async () => (await state(id)) === "started");

test("an idle lane takes again after Redis was away", async () => {
  await start();
  await stack.ended(idOf(await submitted({})));
  for (let i = 0; i < 2; i++) {
    await Bun.sleep(500); // the lane waits in BLMOVE
    await stack.redis.kill9();
    await Bun.sleep(300);
    await stack.redis.restart();
    expect((await stack.ended(idOf(await submitted({})), 8_000)).status).toBe("finished");
  }
}, 60_000);

test("three outages of Redis, each longer than the lease, under a long call: it is made once, and is no poison", async () => {
  await start({ workers: 2, env: { LEASE: "2s" } });
  const id = idOf(await submitted({ sleep: 16_000 }));
  await started(id);
  for (const how of ["killed", "silent", "killed"]) {
    if (how === "killed") await stack.redis.kill9();
    else process.kill(stack.redis.pid, "SIGSTOP");
    await Bun.sleep(3_000);
    if (how === "killed") await stack.redis.restart();
    else process.kill(stack.redis.pid, "SIGCONT");
    await Bun.sleep(1_500);
  }
  expect((await stack.ended(id, 30_000)).status).toBe("finished");
  expect(stack.service.byJob(id).map((call) => call.aborted)).toEqual([false]);
  expect(await stack.get(`/jobs/${id}`)).toMatchObject({ attempt: 1, redeliveries: 0 });
}, 90_000);

test("a call that ends while Redis is away for longer than the lease keeps its result", async () => {
  await start({ workers: 2, env: { LEASE: "2s" } });
  const id = idOf(await submitted({ sleep: 1_500, answer: { kept: true } }));
  await started(id);
  await stack.redis.kill9();
  await Bun.sleep(4_000);
  await stack.redis.restart();
  expect(await stack.ended(id, 30_000)).toMatchObject({ status: "finished", result: { kept: true } });
  expect(stack.service.byJob(id).length).toBe(1);
}, 60_000);

test("a silent Redis: every answer within 2 s, a submit's is unknown and names the id", async () => {
  await start();
  const known = idOf(await submitted({}));
  await stack.ended(known);
  process.kill(stack.redis.pid, "SIGSTOP");
  const answers = await Promise.all([
    ask("/work", { n: 1 }),
    ask("/work", { n: 2 }),
    ask(`/jobs/${known}/status`),
    ask(`/jobs/${known}`),
    ask("/health"),
  ]);
  process.kill(stack.redis.pid, "SIGCONT");
  for (const { ms } of answers) expect(ms).toBeLessThan(2_000);
  expect(answers.map(({ status }) => status)).toEqual([503, 503, 503, 503, 200]);
  expect(answers[4]?.body.status).toBe("unhealthy");
  expect(answers[0]?.body.accepted).toBe("unknown");
  for (const { body, retryAfter } of answers.slice(0, 2)) {
    expect(["unknown", "no"]).toContain(body.accepted as string); // "no" = it waited behind the first and was not sent
    expect(retryAfter).toBeGreaterThan(0);
    if (body.accepted === "no") continue;
    // It was on its way, so here it was accepted: looked up, it is there and ends.
    await until(async () => (await fetch(`${stack.url}/jobs/${body.job_id}/status`)).status === 200);
    expect((await stack.ended(body.job_id as string)).status).toBe("finished");
  }
  const unknown = answers.slice(0, 2).filter(({ body }) => body.accepted === "unknown").length;
  expect((await stack.redis.client.keys("lh:{work}:job:*")).length).toBe(1 + unknown); // no ghost
}, 60_000);

test("Redis gone: a submit is refused at once, leaves no ghost, and its Idempotency-Key works afterwards", async () => {
  await start();
  await stack.redis.kill9();
  await until(async () => (await ask("/readyz")).status === 503);
  const answer = await ask("/work", { answer: 1 }, { "idempotency-key": "one" });
  expect(answer).toMatchObject({ status: 503, body: { code: "redis_unreachable", accepted: "no" } });
  expect(answer.ms).toBeLessThan(2_000);
  await stack.redis.restart();
  await until(async () => (await ask("/readyz")).status === 200);
  await Bun.sleep(1_000);
  expect((await stack.redis.client.keys("lh:{work}:job:*")).length).toBe(0);
  const first = await ask("/work", { answer: 1 }, { "idempotency-key": "one" });
  const second = await ask("/work", { answer: 1 }, { "idempotency-key": "one" });
  expect([first.status, second.status, idOf(second)]).toEqual([202, 202, idOf(first)]);
}, 60_000);

test("NOSCRIPT: after SCRIPT FLUSH every verb works at once, and nobody is told", async () => {
  await start();
  for (let i = 0; i < 5; i++) {
    await stack.redis.client.script("FLUSH");
    const answers = await Promise.all(Array.from({ length: 10 }, () => ask("/work", {})));
    expect(answers.map(({ status }) => status)).toEqual(Array(10).fill(202));
    await stack.redis.client.script("FLUSH");
    for (const answer of answers) expect((await stack.ended(idOf(answer))).status).toBe("finished");
  }
}, 60_000);

test("READONLY: writes are 503 and reads go on, running calls are kept, and all goes on afterwards", async () => {
  await start();
  const id = idOf(await submitted({ sleep: 3_000 }));
  await started(id);
  await stack.redis.client.replicaof("127.0.0.1", 1);
  const answer = await ask("/work", {});
  expect(answer).toMatchObject({ status: 503, body: { accepted: "no" } });
  expect(answer.retryAfter).toBeGreaterThan(0);
  expect(answer.ms).toBeLessThan(2_000);
  await until(async () => (await ask(`/jobs/${id}/status`)).status === 200);
  const cancel = await ask(`/jobs/${id}/cancel`, {});
  expect(cancel.status).toBe(503);
  await Bun.sleep(4_000); // longer than the lease
  await stack.redis.client.replicaof("NO", "ONE");
  expect((await stack.ended(id)).status).toBe("finished");
  expect(stack.service.byJob(id).length).toBe(1);
  expect((await stack.ended(idOf(await submitted({})))).status).toBe("finished");
}, 60_000);

test("MISCONF: a disk that cannot be written is 503, never a hang, and running calls are kept", async () => {
  dir = mkdtempSync(join(tmpdir(), "longhaul-misconf-"));
  mkdirSync(join(dir, "blocked.rdb"));
  writeFileSync(join(dir, "blocked.rdb", "file"), "a snapshot cannot be renamed onto this");
  await start({ redis: { dir, dbfilename: "blocked.rdb", save: "3600 1000000" } });
  const id = idOf(await submitted({ sleep: 2_500 }));
  await started(id);
  const { client } = stack.redis;
  await client.bgsave();
  await until(async () => /rdb_last_bgsave_status:err/.test(await client.info("persistence")));
  const answer = await ask("/work", {});
  expect(answer).toMatchObject({ status: 503, body: { code: "redis_refuses", accepted: "no" } });
  expect(answer.ms).toBeLessThan(2_000);
  expect((await ask(`/jobs/${id}/status`)).status).toBe(200);
  await Bun.sleep(3_000);
  rmSync(join(dir, "blocked.rdb"), { recursive: true });
  await client.bgsave();
  expect((await stack.ended(id, 20_000)).status).toBe("finished");
  expect(stack.service.byJob(id).length).toBe(1);
}, 60_000);

test("LOADING: 503 until Redis has read its file, never 404", async () => {
  await start({ redis: { "key-load-delay": "250" } });
  const id = idOf(await submitted({ answer: 7 }));
  await stack.ended(id);
  const { client } = stack.redis;
  for (let i = 0; i < 8_000; i += 500) {
    await Promise.all(Array.from({ length: 500 }, (_, k) => client.set(`more:${i + k}`, "x")));
  }
  await stack.redis.kill9();
  const restarted = stack.redis.restart();
  const seen = new Set<number>();
  await until(
    async () => {
      const answer = await ask(`/jobs/${id}/status`);
      seen.add(answer.status);
      const submit = await ask("/work", {});
      expect([202, 503]).toContain(submit.status);
      expect(submit.ms).toBeLessThan(2_000);
      return answer.status === 200;
    },
    20_000,
    () => [...seen].join(),
  );
  await restarted;
  expect([...seen].sort()).toEqual([200, 503]);
}, 60_000);

test("maxmemory: submits refused from 80 %, takes stop at 90 %, running jobs finish even above 100 %, beats go on", async () => {
  // SYNCED, too: else what waits behind a slow fsync is memory in use that does not count towards maxmemory, and comes and goes
  await start({ redis: { maxmemory: "40mb" }, operation: { slots: 2 } });
  const { client } = stack.redis;
  const used = async () => Number(/used_memory:(\d+)/.exec(await client.info("memory"))?.[1]) / (40 * 1024 * 1024);
  let piece = 0;
  const fill = async (to: number) => {
    while ((await used()) < to) await client.set(`ballast:${piece++}`, "x".repeat(200_000));
  };
  const long = await Promise.all([
    submitted({ sleep: 9_000 }),
    submitted({ sleep: 9_000, answer: "x".repeat(50_000) }),
  ]);
  for (const answer of long) await started(idOf(answer));
  const waiting = idOf(await submitted({}));
  await fill(0.83);
  const refused = await submitted({}, 429);
  expect(refused.body.code).toBe("memory_full");
  expect(refused.retryAfter).toBeGreaterThan(0);
  expect((await ask("/jobs", [{ operation: "work", payload: {} }])).status).toBe(429);
  expect((await ask("/health")).body.status).toBe("degraded");
  await fill(0.93);
  // Above the limit even a plain write of Redis is refused; what runs must still end.
  await client.config("SET", "maxmemory", Math.floor((await used()) * 40 * 1024 * 1024 * 0.98));
  await expect(client.set("probe", "x".repeat(1_000))).rejects.toThrow("OOM");
  const beat = async () => Number((await client.zrange("lh:{work}:leases", "0", "-1", "WITHSCORES"))[1]);
  const before = await beat();
  for (const answer of long) expect((await stack.ended(idOf(answer), 20_000)).status).toBe("finished");
  await until(async () => (await beat()) > before);
  await Bun.sleep(2_500);
  expect(await state(waiting)).toBe("queued");
  for (const answer of long) expect(stack.service.byJob(idOf(answer)).length).toBe(1);
  for (let i = 0; i < piece; i++) await client.del(`ballast:${i}`);
  expect((await stack.ended(waiting)).status).toBe("finished");
  expect((await stack.ended(idOf(await submitted({})))).status).toBe("finished");
}, 90_000);

test("another major of the protocol is refused with what to do; two minors work together", async () => {
  await start();
  await stack.redis.client.hset("lh:protocol", "minor", 7);
  const worker = await stack.startWorker();
  expect((await stack.ended(idOf(await submitted({})))).status).toBe("finished");
  expect(await stack.redis.client.hget("lh:protocol", "minor")).toBe("7");
  worker.kill("SIGTERM");
  await worker.exited;
  await stack.redis.client.hset("lh:protocol", "major", 99);
  for (const file of ["worker.ts", "gateway.ts"]) {
    const process = startProcess(file, { ...stack.env, PORT: "0", DASHBOARD_PORT: "0" });
    expect(await process.exited).toBe(1);
    expect(process.output()).toMatch(
      new RegExp(`protocol 99, this version speaks ${PROTOCOL.major}\\..*queues are empty`, "s"),
    );
  }
}, 60_000);

test("SIGTERM ends a worker although Redis is away, and its job runs again elsewhere", async () => {
  await start({ env: { DRAIN_TIMEOUT: "500ms", LEASE: "2s" } });
  const id = idOf(await submitted({ sleep: 60_000 }));
  await started(id);
  await stack.redis.kill9();
  const [worker] = stack.workers;
  worker?.kill("SIGTERM");
  expect(await worker?.exited).toBe(1);
  expect(worker?.output()).toContain("other workers take the jobs back");
  await stack.redis.restart();
  const second = await stack.startWorker();
  const record = await stack.redis.client.hgetall(`lh:{work}:job:${id}`);
  const told = () => `${JSON.stringify(record)}\n${second.output()}`;
  await until(() => stack.service.byJob(id).length === 2, 20_000, told);
}, 60_000);

test("a Redis that may lose jobs is refused at start, with what to set", async () => {
  const redis = await startRedis({ appendonly: "no", "maxmemory-policy": "allkeys-lru" });
  const worker = startProcess("worker.ts", { REDIS_URL: redis.url, IFCCONVERT_URL: "http://127.0.0.1:1" });
  expect(await worker.exited).toBe(1);
  expect(worker.output()).toMatch(/noeviction.*appendonly.*ALLOW_VOLATILE/s);
  await redis.stop();
}, 30_000);

test("a gateway outlives a connection that breaks just after it became ready", async () => {
  await start();
  let broken = 0;
  const port = await freePort();
  const server = createServer((near) => {
    const far = dial(stack.redis.port, "127.0.0.1");
    far.pipe(near);
    near.on("data", (bytes: Buffer) => {
      if (!/sadd/i.test(bytes.toString()) || broken++ > 1) far.write(bytes);
      else near.destroy();
    });
    for (const socket of [near, far]) {
      socket.on("error", () => {});
      socket.on("close", () => {
        near.destroy();
        far.destroy();
      });
    }
  }).listen(port, "127.0.0.1");
  const gateway = startProcess("gateway.ts", {
    ...{ ...stack.env, PORT: "0", DASHBOARD_PORT: "0", REDIS_URL: `redis://127.0.0.1:${port}` },
  });
  await until(() => broken > 2 || gateway.exitCode !== null);
  await Bun.sleep(200);
  expect(gateway.exitCode).toBeNull();
  gateway.kill("SIGKILL");
  await gateway.exited;
  server.close();
}, 60_000);

test("a worker that starts while Redis refuses writes waits, and works when it does not any more", async () => {
  await start({ workers: 0 });
  const id = idOf(await submitted({}));
  await stack.redis.client.replicaof("127.0.0.1", 1);
  const starting = stack.startWorker();
  await Bun.sleep(1_500);
  await stack.redis.client.replicaof("NO", "ONE");
  await starting;
  expect((await stack.ended(id)).status).toBe("finished");
}, 60_000);

test("without a Redis, worker and gateway say where they look and why they wait, once, and start when it comes", async () => {
  const port = await freePort();
  const env = { REDIS_URL: `redis://:hush-hush@127.0.0.1:${port}/0`, IFCCONVERT_URL: "http://127.0.0.1:1" };
  const line = `Redis at 127.0.0.1:${port} does not answer (ECONNREFUSED); waiting for it. REDIS_URL says where it is.`;
  const waiting = [
    startProcess("worker.ts", env),
    startProcess("gateway.ts", { ...env, PORT: "0", DASHBOARD_PORT: "0" }),
  ];
  let redis: TestRedis | undefined;
  try {
    for (const one of waiting) await one.says(/waiting for it/, 10_000);
    await Bun.sleep(1_000);
    for (const one of waiting) {
      expect(one.output().split(line)).toHaveLength(2);
      expect(one.output()).not.toContain("hush-hush");
    }
    redis = await startRedis({ requirepass: "hush-hush" }, port);
    await waiting[0]?.says(/ready under/);
    for (const one of waiting) await one.says(/Redis at 127.0.0.1:\d+ answers\./);
  } finally {
    for (const one of waiting) one.kill("SIGKILL");
    await redis?.stop();
  }
}, 60_000);

test("an absence of Redis is told after a while, then at intervals; a short one is not, nor any password", async () => {
  const redis = Object.assign(new EventEmitter(), { status: "connecting" });
  const lines: string[] = [];
  tellAway(redis as never, "redis://me:hush-hush@db:7000", listLog(lines), { firstMs: 60, againMs: 200 });
  redis.emit("error", new Error("WRONGPASS invalid username-password pair"));
  redis.emit("close");
  await until(() => lines.length > 0);
  expect(lines[0]).toStartWith("WARN  Redis at db:7000 refuses the connection (WRONGPASS ");
  await Bun.sleep(100); // a connection that comes and goes is told no oftener
  for (const event of ["ready", "close", "ready", "close"]) redis.emit(event);
  expect(lines).toEqual([lines[0] as string, "INFO  Redis at db:7000 answers."]);
  await until(() => lines.length > 2);
  redis.emit("ready");
  expect(lines.slice(2)).toEqual([
    "WARN  Redis at db:7000 does not answer; waiting for it. REDIS_URL says where it is.",
    "INFO  Redis at db:7000 answers.",
  ]);
});

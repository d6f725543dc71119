/**
 * `bun run bench --scale [--jobs 1000000]`: what a long queue, more workers, many long calls and no work at all cost.
 * Longhaul alone: a rate against its own rate with a short queue, so that only ratios matter.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "./client.ts";
import { longhaul } from "./contenders.ts";
import { type BenchRedis, type Child, cpuOf, freePort, median, range, start, startRedis } from "./machine.ts";

type Stage = {
  redis: BenchRedis;
  gateway: Child;
  client: Client;
  url: string;
  board: string;
  serviceUrl: string;
  dir: string;
  end(): Promise<void>;
};

async function stage(delayMs = 0): Promise<Stage> {
  const dir = mkdtempSync(join(tmpdir(), "longhaul-scale-"));
  const [port, boardPort, servicePort] = [await freePort(), await freePort(), await freePort()];
  const redis = await startRedis(longhaul.redis);
  const service = await start(
    "bench/peers/noop-service.ts",
    { PORT: String(servicePort), DELAY: String(delayMs) },
    /ready/,
  );
  const gateway = await longhaul.gateway(redis, port, dir, [], { MAX_QUEUED: "0", DASHBOARD_PORT: String(boardPort) });
  const url = `http://127.0.0.1:${port}`;
  return {
    redis,
    gateway,
    client: new Client(url),
    dir,
    url,
    board: `http://127.0.0.1:${boardPort}`,
    serviceUrl: `http://127.0.0.1:${servicePort}`,
    async end() {
      this.client.stop();
      await gateway.stop();
      await service.stop();
      await redis.stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** Jobs a second of `workers` processes, from 2,000 finished jobs on; the rest of the queue stays. */
async function drained(s: Stage, jobs: number, workers = 1): Promise<number> {
  const before = await longhaul.finished(s.redis);
  const all = await Promise.all(Array.from({ length: workers }, () => longhaul.worker(s.redis, s.serviceUrl, s.dir)));
  const done = async () => (await longhaul.finished(s.redis)) - before;
  let first = 0;
  while (first < 2_000) {
    await Bun.sleep(2);
    first = await done();
  }
  const begun = performance.now();
  let last = first;
  while (last < jobs + first) {
    await Bun.sleep(5);
    last = await done();
  }
  const rate = (last - first) / ((performance.now() - begun) / 1_000);
  for (const worker of all) worker.kill();
  await Promise.all(all.map((worker) => worker.stop()));
  return rate;
}

/** ms, median of 20. */
async function latency(url: string, pauseMs = 0): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < 20; i++) {
    if (pauseMs) await Bun.sleep(pauseMs);
    const at = performance.now();
    const answer = await fetch(url);
    await answer.arrayBuffer();
    if (!answer.ok) throw new Error(`${url} answered ${answer.status}`);
    times.push(performance.now() - at);
  }
  return median(times);
}

/** Jobs of the queue that the long one is compared with, and how often it is. */
const SHORT = 15_000;
const PAIRS = 15;
/** Submits that the short queue's gateway has seen before, so that its code is compiled like the other's. */
const WARM = 100_000;

/**
 * The long queue beside a short one, by turns: the rows above lie minutes apart, and the machine's speed changes by more
 * from one to the next than a long queue costs.
 */
async function againstShort(long: Stage, total: number): Promise<void> {
  const short = await stage();
  await short.client.submit(WARM);
  await short.redis.client.flushall();
  await short.client.submit(SHORT);
  const pairs = async (when: string) => {
    const rates = [long, short].map((s) => ({ s, submit: [] as number[], take: [] as number[] }));
    for (let pair = 0; pair < PAIRS; pair++) {
      const order = pair % 2 ? [...rates].reverse() : rates;
      for (const { s, submit } of order) submit.push(10_000 / ((await s.client.submit(10_500, 500)) / 1_000));
      for (const { s, take } of order) take.push(await drained(s, 8_000));
    }
    for (const what of ["submit", "take"] as const) {
      const [far, near] = rates.map((side) => side[what]) as [number[], number[]];
      const ratios = far.map((rate, i) => rate / (near[i] as number));
      const seen = `${Math.round(median(far))}/s, at ${SHORT} ${Math.round(median(near))}/s`;
      console.log(`${what} at ${total} queued${when}: ${seen}: ${range(ratios, 2)} ×`);
    }
  };
  // Redis doubles its table of keys when there are as many as a power of two, and moves a piece of it with each look at a key.
  const keys = await long.redis.client.dbsize();
  const doubles = 2 ** Math.ceil(Math.log2(keys));
  if (doubles - keys < total / 10) {
    await long.client.submit(doubles - keys);
    await pairs(", while Redis doubles its table of keys");
    for (let looked = 0; looked < doubles; looked += 10_000) {
      const looks = long.redis.client.pipeline();
      for (let i = 0; i < 10_000; i++) looks.exists("nothing");
      await looks.exec();
    }
  }
  await pairs("");
  await short.end();
}

async function longQueue(total: number): Promise<void> {
  const s = await stage();
  await s.client.submit(SHORT); // warm
  const step = total / 10;
  for (let at = step; at <= total; at += step) {
    const memory = await s.redis.memory();
    const perSecond = (step * 1_000) / (await s.client.submit(step));
    const bytes = ((await s.redis.memory()) - memory) / step;
    const ms = [await latency(`${s.board}/state.json`, 60), await latency(`${s.url}/jobs?limit=50`)];
    const told = [at, perSecond, bytes, ...ms].map((n, i) => n.toFixed(i > 2 ? 2 : 0));
    console.log(`| ${told.join(" | ")} |`);
  }
  await againstShort(s, total);
  for (const workers of [1, 2, 4])
    console.log(`${workers} workers: ${Math.round(await drained(s, Math.min(20_000, total / 10), workers))}/s`);
  await s.end();
}

async function longCalls(slots: number, delayMs: number): Promise<void> {
  const s = await stage(delayMs);
  await s.client.submit(slots * 10);
  const worker = await longhaul.worker(s.redis, s.serviceUrl, s.dir, [], { WORKER_SLOTS: `*:${slots}` });
  while ((await longhaul.finished(s.redis)) < slots) await Bun.sleep(5);
  const [begun, first] = [performance.now(), await longhaul.finished(s.redis)];
  while ((await longhaul.finished(s.redis)) < slots * 9) await Bun.sleep(5);
  const rate = ((await longhaul.finished(s.redis)) - first) / ((performance.now() - begun) / 1_000);
  console.log(
    `${slots} slots of calls of ${delayMs} ms: ${Math.round(rate)}/s of ${(slots * 1_000) / delayMs} possible`,
  );
  await worker.stop();
  await s.end();
}

async function idle(seconds: number): Promise<void> {
  const s = await stage();
  const worker = await longhaul.worker(s.redis, s.serviceUrl, s.dir);
  await Bun.sleep(3_000);
  const cost = async () => [
    await s.redis.commands(),
    await s.redis.cpu(),
    await cpuOf(s.gateway.pid),
    await cpuOf(worker.pid),
  ];
  const before = await cost();
  await Bun.sleep(seconds * 1_000);
  const [commands, redis, gateway, work] = (await cost()).map((n, i) => n - (before[i] as number)) as [
    number,
    number,
    number,
    number,
  ];
  const ms = (n: number) => `${Math.round(n * 1_000)} ms`;
  console.log(
    `idle for ${seconds} s: ${commands} Redis commands; CPU of Redis ${ms(redis)}, gateway ${ms(gateway)}, worker ${ms(work)}`,
  );
  await worker.stop();
  await s.end();
}

/** All of it. @param total  jobs in the long queue */
export async function scale(total: number): Promise<void> {
  console.log("| queued | submit /s | bytes a job | state.json ms | list ms |\n|---|---|---|---|---|");
  await longQueue(total);
  await longCalls(1_000, 500);
  await idle(30);
}

/**
 * One round: all contenders are up, and take turns in slices. The speed of a shared machine changes by a half from one minute to
 * the next; slices of some hundred milliseconds meet the same of it. Nobody but the one whose turn it is has work, and the workers
 * are stopped (SIGSTOP) between their turns; the clock and the CPU of a slice run while it is theirs alone.
 */
import { Client } from "./client.ts";
import type { Contender } from "./contenders.ts";
import { latenciesOf } from "./latency.ts";
import { type BenchRedis, type Child, cpuOf, freePort, quantile, startRedis } from "./machine.ts";

/** Jobs before the clock starts, of every contender: a compiler that warms up is not what is measured. */
export const WARM = 5_000;
const SLICES = 5;
/** Seconds each: fewer. */
const PACED_SLICES = 4;
/** Jobs of a slice before its clock starts: caches are cold, and a worker has found its connections closed. */
const RESUME = 500;
/** ms between two looks at what has finished: each wakes Redis, and at 5 they were a fiftieth of its work. */
const LOOK_MS = 20;
/** ms between two slices, in which what was on its way comes to an end */
const REST_MS = 100;

/** What a contender did in one round. Rates a second, memory in bytes a job, CPU in µs a job, latency in ms. */
export type Figures = {
  submit: number;
  drain: number;
  /** of Redis, submit and work */
  cpu: number;
  cpuSubmit: number;
  cpuWork: number;
  /** of worker, service and Redis together while they drain; the kernel's handling of packets is in none of them */
  cpuDrain: number;
  queuedBytes: number;
  finishedBytes: number;
  p50: number;
  p99: number;
};

export type Load = { jobs: number; rate: number; seconds: number };
export type Service = { url: string; pid: number; dir: string };

type Side = {
  contender: Contender;
  redis: BenchRedis;
  gateway: Child;
  client: Client;
  memory: number;
  figures: Figures;
};
const NONE = { submit: 0, drain: 0, cpu: 0, cpuSubmit: 0, cpuWork: 0, cpuDrain: 0 };
const nothing = (): Figures => ({ ...NONE, queuedBytes: 0, finishedBytes: 0, p50: 0, p99: 0 });

/** Each does its part as often as there are slices, in an order of chance, so that nobody always follows the same one. */
async function byTurns<T>(sides: T[], slices: number, part: (side: T, slice: number) => Promise<void>) {
  for (let slice = 0; slice < slices; slice++) {
    const order = sides.map((side) => [Math.random(), side] as const).sort(([a], [b]) => a - b);
    for (const [, side] of order) {
      await part(side, slice);
      await Bun.sleep(REST_MS);
    }
  }
}

async function startSide(contender: Contender, dir: string): Promise<Side> {
  const redis = await startRedis(contender.redis);
  const port = await freePort();
  const gateway = await contender.gateway(redis, port, dir);
  const client = new Client(`http://127.0.0.1:${port}`);
  await Bun.sleep(700);
  await client.submit(WARM);
  return { contender, redis, gateway, client, memory: await redis.memory(), figures: nothing() };
}

async function submitAll(sides: Side[], jobs: number): Promise<void> {
  const spent = new Map(sides.map((side) => [side, { ms: 0, cpu: 0 }]));
  await byTurns(sides, SLICES, async (side) => {
    const sum = spent.get(side) as { ms: number; cpu: number };
    const cpu = await side.redis.cpu();
    sum.ms += await side.client.submit(jobs / SLICES, RESUME);
    sum.cpu += (await side.redis.cpu()) - cpu;
  });
  for (const side of sides) {
    const { ms, cpu } = spent.get(side) as { ms: number; cpu: number };
    side.figures.submit = (jobs - SLICES * RESUME) / (ms / 1_000);
    side.figures.cpuSubmit = (cpu * 1e6) / jobs;
    side.figures.queuedBytes = ((await side.redis.memory()) - side.memory) / jobs;
  }
}

/** What was done within the slices: jobs, s, and CPU seconds of Redis and of worker, service and Redis. */
type Draining = Side & { worker: Child; jobs: number; seconds: number; redisCpu: number; cpu: number };

/** Starts a worker and stops it when it is warm: starting a process is not draining. */
async function startDrain(side: Side, service: Service): Promise<Draining> {
  const worker = await side.contender.worker(side.redis, service.url, service.dir);
  await reach(side, WARM);
  process.kill(worker.pid, "SIGSTOP");
  return { ...side, worker, jobs: 0, seconds: 0, redisCpu: 0, cpu: 0 };
}

/** Waits until so many jobs have finished. @returns how many have */
async function reach({ contender, redis }: Side, jobs: number): Promise<number> {
  let done = await contender.finished(redis);
  for (; done < jobs; done = await contender.finished(redis)) await Bun.sleep(LOOK_MS);
  return done;
}

/** Lets a stopped worker run while its part lasts. */
async function awake<T>(worker: Child, part: () => Promise<T>): Promise<T> {
  process.kill(worker.pid, "SIGCONT");
  const made = await part();
  process.kill(worker.pid, "SIGSTOP");
  return made;
}

async function drainAll(sides: Draining[], total: number, servicePid: number): Promise<void> {
  const share = Math.floor((total - WARM) / SLICES);
  const drainSlice = async (side: Draining, slice: number) => {
    const { contender, redis, worker } = side;
    const spent = async () => [await redis.cpu(), (await cpuOf(worker.pid)) + (await cpuOf(servicePid))] as const;
    const from = await reach(side, (await contender.finished(redis)) + RESUME);
    const begun = performance.now();
    const [redis0, others0] = await spent();
    // to a place of its own: what was done beyond the last slice's is not added to it, and when it ends there are jobs left
    const done = await reach(side, WARM + (slice + 1) * share - RESUME);
    side.seconds += (performance.now() - begun) / 1_000;
    const [redis1, others1] = await spent();
    side.jobs += done - from;
    side.redisCpu += redis1 - redis0;
    side.cpu += redis1 - redis0 + others1 - others0;
  };
  await byTurns(sides, SLICES, (side, slice) => awake(side.worker, () => drainSlice(side, slice)));
  for (const { figures, jobs, seconds, redisCpu, cpu } of sides) {
    figures.drain = jobs / seconds;
    figures.cpuWork = (redisCpu * 1e6) / jobs;
    figures.cpuDrain = (cpu * 1e6) / jobs;
  }
  for (const side of sides) {
    await awake(side.worker, () => reach(side, total));
    side.figures.finishedBytes = ((await side.redis.memory()) - side.memory) / total;
  }
}

/** @returns what each of them did */
export async function round(contenders: Contender[], load: Load, service: Service): Promise<Figures[]> {
  const least = SLICES * 3 * RESUME;
  if (load.jobs < least) throw new Error(`--jobs ${load.jobs} are too few for ${SLICES} slices: take ${least} or more`);
  const sides: Side[] = [];
  for (const contender of contenders) sides.push(await startSide(contender, service.dir));
  const jobs = Math.ceil(load.jobs / SLICES) * SLICES;
  await submitAll(sides, jobs);
  const draining: Draining[] = [];
  for (const side of sides) draining.push(await startDrain(side, service));
  await drainAll(draining, jobs + WARM, service.pid);

  const latencies = new Map<Side, number[]>(draining.map((side) => [side, []]));
  await byTurns(draining, PACED_SLICES, async (side) => {
    const { contender, redis, client, worker } = side;
    const seconds = load.seconds / PACED_SLICES;
    const told = await awake(worker, () => latenciesOf(contender, redis, client, load.rate, seconds));
    latencies.get(side)?.push(...told);
  });
  for (const side of draining) {
    const { figures, client, worker, gateway, redis } = side;
    figures.cpu = figures.cpuSubmit + figures.cpuWork;
    figures.p50 = quantile(latencies.get(side) as number[], 0.5);
    figures.p99 = quantile(latencies.get(side) as number[], 0.99);
    client.stop();
    process.kill(worker.pid, "SIGCONT");
    await worker.stop();
    await gateway.stop();
    await redis.stop();
  }
  return draining.map(({ figures }) => figures);
}

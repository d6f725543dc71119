/**
 * Longhaul beside its peers, interleaved in one run: real gateways over HTTP, real workers, the same no-op service,
 * the same Redis settings. Only ratios carry over to another machine.
 *
 *   bun run bench [--rounds 5] [--jobs 20000] [--rate 200] [--seconds 10] [--only name]
 *   bun run bench --scale [--jobs 1000000]     long queues, more workers, long calls, idle: see scale.ts
 *   bun run bench --features [--rounds 5]      what each feature costs: see features.ts
 *
 * Prints the table and writes bench/results/<time>.json. It is a benchmark and never a test.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { BUN_START } from "../shared/runtime.ts";
import { bullmq, bullmqAsOurs, type Contender, floor, longhaul } from "./contenders.ts";
import { features } from "./features.ts";
import { latenciesOf } from "./latency.ts";
import { BODY, CONCURRENCY, cpuOf, freePort, load, median, quantile, ROOT, start, startRedis } from "./machine.ts";
import { hasRq, RQ_KINDS, type RqKind, rqDrain } from "./rq.ts";
import { scale } from "./scale.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    jobs: { type: "string" },
    scale: { type: "boolean", default: false },
    features: { type: "boolean", default: false },
    rate: { type: "string", default: "200" },
    seconds: { type: "string", default: "10" },
    only: { type: "string", default: "" },
  },
});
if (values.scale) {
  await scale(Number(values.jobs ?? 1_000_000));
  process.exit(0);
}
if (values.features) {
  await features(Number(values.rounds));
  process.exit(0);
}
const [rounds, jobs, rate, seconds] = [values.rounds, values.jobs ?? 20_000, values.rate, values.seconds].map(
  Number,
) as [number, number, number, number];

/** Jobs before the clock starts, of every contender: a compiler that warms up is not what is measured. */
const WARM = 5_000;

/** One round of one contender. Rates a second, memory in bytes a job, CPU of Redis in µs a job, latency in ms. */
type Figures = {
  submit: number;
  drain: number;
  cpu: number;
  cpuSubmit: number;
  cpuWork: number;
  /** of worker, service and Redis together while they drain, µs a job; the kernel's handling of packets is in none of them */
  cpuDrain: number;
  queuedBytes: number;
  finishedBytes: number;
  p50: number;
  p99: number;
};

const dir = mkdtempSync(join(tmpdir(), "longhaul-bench-"));
const servicePort = await freePort();
const serviceUrl = `http://127.0.0.1:${servicePort}`;
const service = await start("bench/peers/noop-service.ts", { PORT: String(servicePort) }, /ready/);

async function round(contender: Contender): Promise<Figures> {
  const redis = await startRedis(contender.redis);
  const port = await freePort();
  const gateway = await contender.gateway(redis, port, dir);
  const url = `http://127.0.0.1:${port}`;
  await Bun.sleep(700);
  await load({ MODE: "submit", URL: url, JOBS: String(WARM) }); // warm
  const [memory0, cpu0] = [await redis.memory(), await redis.cpu()];
  const { perSecond } = JSON.parse(await load({ MODE: "submit", URL: url, JOBS: String(jobs) })) as {
    perSecond: number;
  };
  const [memory1, cpu1] = [await redis.memory(), await redis.cpu()];

  const total = jobs + WARM;
  const worker = await contender.worker(redis, serviceUrl, dir);
  // The clock starts at the first finished jobs: starting a process is not draining.
  let first = 0;
  while (first < WARM) {
    await Bun.sleep(2);
    first = await contender.finished(redis);
  }
  const spent = async () =>
    (await Promise.all([worker.pid, service.pid, redis.pid].map(cpuOf))).reduce((sum, seconds) => sum + seconds, 0);
  const begun = performance.now();
  const [cpu2, spent2] = [await redis.cpu(), await spent()];
  let done = first;
  while (done < total) {
    await Bun.sleep(10);
    done = await contender.finished(redis);
  }
  const drain = (total - first) / ((performance.now() - begun) / 1_000);
  const [cpu3, spent3] = [await redis.cpu(), await spent()];
  const memory2 = await redis.memory();

  const latencies = await latenciesOf(contender, redis, url, rate, seconds);

  await worker.stop();
  await gateway.stop();
  await redis.stop();
  return {
    submit: perSecond,
    drain,
    cpuSubmit: ((cpu1 - cpu0) * 1e6) / jobs,
    cpuWork: ((cpu3 - cpu2) * 1e6) / (total - first),
    cpuDrain: ((spent3 - spent2) * 1e6) / (total - first),
    cpu: ((cpu1 - cpu0) * 1e6) / jobs + ((cpu3 - cpu2) * 1e6) / (total - first),
    queuedBytes: (memory1 - memory0) / jobs,
    finishedBytes: (memory2 - memory0) / total,
    p50: quantile(latencies, 0.5),
    p99: quantile(latencies, 0.99),
  };
}

type Limits = { post: number; fetch: number; call: number; floor: Figures };

async function limits(): Promise<Limits> {
  const port = await freePort();
  const noop = await start("bench/peers/noop-gateway.ts", { PORT: String(port) }, /ready/);
  await load({ MODE: "submit", URL: `http://127.0.0.1:${port}`, JOBS: String(WARM) });
  const { perSecond } = JSON.parse(
    await load({ MODE: "submit", URL: `http://127.0.0.1:${port}`, JOBS: String(jobs) }),
  ) as { perSecond: number };
  await noop.stop();
  const env = { SERVICE_URL: serviceUrl, JOBS: String(jobs), CONCURRENCY: String(CONCURRENCY), BODY };
  const bare = await start("bench/peers/bare-fetch.ts", env);
  const fetch = Number(await bare.output);
  const alone = await start("bench/peers/call-alone.ts", { ...env, ...BUN_START });
  const call = Number(await alone.output);
  return { post: perSecond, fetch, call, floor: await round(floor) };
}

const contenders = [longhaul, bullmq, bullmqAsOurs].filter((c) =>
  c.name.toLowerCase().includes(values.only.toLowerCase()),
);
const results = new Map<string, Figures[]>(contenders.map((c) => [c.name, []]));
const bounds: Limits[] = [];
const rq: Record<RqKind, number[]> = { worker: [], fork: [], simple: [] };
const withRq = values.only === "" && hasRq();
for (let n = 1; n <= rounds; n++) {
  // each round begins with another one, so that none always has the warmer machine
  const order = contenders.map((_, i) => contenders[(i + n) % contenders.length] as Contender);
  for (const contender of order) {
    const figures = await round(contender);
    results.get(contender.name)?.push(figures);
    console.log(
      `round ${n} ${contender.name}: submit ${Math.round(figures.submit)}/s, drain ${Math.round(figures.drain)}/s, Redis ${figures.cpu.toFixed(1)} µs/job`,
    );
  }
  bounds.push(await limits());
  if (withRq) for (const kind of RQ_KINDS) rq[kind].push(await rqDrain(kind, serviceUrl));
}
await service.stop();
rmSync(dir, { recursive: true, force: true });

const at = (name: string, field: keyof Figures) => (results.get(name) ?? []).map((f) => f[field]);
/**
 * Longhaul's figures beside another's: each round's own ratio, for where the machine's speed drifts it takes both with it; and
 * the ratio of the medians, the steadier one where it changes within a round.
 */
const beside = (field: keyof Figures, theirs: number[]) => {
  const ours = at(longhaul.name, field);
  return { each: ours.map((value, n) => value / (theirs[n] as number)), medians: median(ours) / median(theirs) };
};
const range = (list: number[], digits: number) =>
  list.length
    ? `${median(list).toFixed(digits)} (${Math.min(...list).toFixed(digits)}–${Math.max(...list).toFixed(digits)})`
    : "–";
const ROWS: [string, keyof Figures, number, string][] = [
  ["submit over HTTP, /s", "submit", 0, "≥ 1.7 · 2.3"],
  ["drain, one worker, /s", "drain", 0, "≥ 2.3 · 3.3"],
  ["Redis CPU, µs/job", "cpu", 1, "≤ 0.30 · 0.20"],
  ["  of it submit", "cpuSubmit", 1, ""],
  ["  of it work", "cpuWork", 1, ""],
  ["CPU of worker, service and Redis in a drain, µs/job", "cpuDrain", 1, ""],
  ["memory queued, bytes/job", "queuedBytes", 0, "≤ 0.60 · 0.47"],
  ["memory finished, bytes/job", "finishedBytes", 0, "≤ 0.60 · 0.45"],
  [`submit→finished p50 at ${rate}/s, ms`, "p50", 2, ""],
  [`submit→finished p99 at ${rate}/s, ms`, "p99", 2, "≤ 0.80 · 0.50"],
];
console.log(
  `\n${rounds} rounds, ${jobs} jobs of ${BODY.length} bytes, concurrency ${CONCURRENCY}, ${cpus().length} cores, Bun ${Bun.version}\n`,
);
console.log(
  `| | ${contenders.map((c) => c.name).join(" | ")} | ratio, a round | ratio of the medians | must · aim |\n|---|${"---|".repeat(contenders.length + 3)}`,
);
for (const [label, field, digits, goal] of ROWS) {
  const { each, medians } = beside(field, at(bullmq.name, field));
  const ratio = values.only === "" ? `${range(each, 2)} × | ${medians.toFixed(2)} ×` : "– | –";
  console.log(
    `| ${label} | ${contenders.map((c) => range(at(c.name, field), digits)).join(" | ")} | ${ratio} | ${goal} |`,
  );
}
const RQ_NAMES: Record<RqKind, [name: string, goal: string]> = {
  worker: ["RQ by its own command, a process a job (the old system)", "≥ 300 · 1,500"],
  fork: ["RQ, a process a job, everything loaded before", ""],
  simple: ["RQ SimpleWorker", ""],
};
for (const kind of RQ_KINDS) {
  if (rq[kind].length === 0) continue;
  const { each, medians } = beside("drain", rq[kind]);
  const [name, goal] = RQ_NAMES[kind];
  const times = `${median(each).toFixed(0)} × | ${medians.toFixed(0)} ×`;
  console.log(`| drain of ${name}, /s | ${range(rq[kind], 0)} | | | ${times} | ${goal} |`);
}
/** A row of a limit, and how much of it Longhaul reaches in what is compared with it. */
function limit(name: string, of: (b: Limits) => number, what: keyof Figures, digits: number, goal = "") {
  const theirs = bounds.map(of);
  const { each, medians } = beside(what, theirs);
  const shares = each.map((ratio) => 100 * ratio);
  const share = shares.length ? `${what} is ${range(shares, 0)} % of it | ${(100 * medians).toFixed(0)} %` : "– | –";
  const cells = `${range(theirs, digits)} | | | ${share}`;
  console.log(`| limit: ${name} | ${cells} | ${goal} |`);
}
limit("hono no-op POST, /s", (b) => b.post, "submit", 0);
limit("bare fetch, /s", (b) => b.fetch, "drain", 0, "≥ 50 % · 70 %");
limit("a job's call alone, no queue, /s", (b) => b.call, "drain", 0);
limit("the floor, submit, /s", (b) => b.floor.submit, "submit", 0);
limit("the floor, drain, /s", (b) => b.floor.drain, "drain", 0);
limit("the floor, p99, ms", (b) => b.floor.p99, "p99", 2);
mkdirSync(`${ROOT}/bench/results`, { recursive: true });
const file = `${ROOT}/bench/results/${new Date().toISOString().replaceAll(":", "-")}.json`;
writeFileSync(
  file,
  JSON.stringify(
    {
      rounds,
      jobs,
      rate,
      seconds,
      bun: Bun.version,
      cpus: cpus().length,
      results: Object.fromEntries(results),
      limits: bounds,
      rq,
    },
    null,
    2,
  ),
);
console.log(`\nwritten to ${file}`);
process.exit(0);

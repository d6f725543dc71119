/**
 * Longhaul beside its peers, interleaved in one run: real gateways over HTTP, real workers, the same no-op service,
 * the same Redis settings. Only ratios carry over to another machine.
 *
 *   bun run bench [--rounds 5] [--jobs 20000] [--rate 200] [--seconds 20] [--only name]
 *   bun run bench --no-echo                    also with a service that does not send X-Job-Id back: a connection a call
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
import { Client } from "./client.ts";
import { bullmq, bullmqAsOurs, floor, longhaul, longhaulUnnamed } from "./contenders.ts";
import { features } from "./features.ts";
import { BODY, CONCURRENCY, freePort, median, ROOT, range, start } from "./machine.ts";
import { type Figures, round, WARM } from "./round.ts";
import { hasRq, RQ_KINDS, type RqKind, rqDrain } from "./rq.ts";
import { scale } from "./scale.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    jobs: { type: "string" },
    scale: { type: "boolean", default: false },
    features: { type: "boolean", default: false },
    rate: { type: "string", default: "200" },
    seconds: { type: "string", default: "20" },
    only: { type: "string", default: "" },
    "no-echo": { type: "boolean", default: false },
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

const dir = mkdtempSync(join(tmpdir(), "longhaul-bench-"));
const servicePort = await freePort();
const serviceUrl = `http://127.0.0.1:${servicePort}`;
const service = await start("bench/peers/noop-service.ts", { PORT: String(servicePort) }, /ready/);

type Limits = { post: number; fetch: number; call: number; floor: Figures };

async function limits(floor: Figures): Promise<Limits> {
  const port = await freePort();
  const noop = await start("bench/peers/noop-gateway.ts", { PORT: String(port) }, /ready/);
  const client = new Client(`http://127.0.0.1:${port}`);
  await client.submit(WARM);
  const post = (jobs * 1_000) / (await client.submit(jobs));
  client.stop();
  await noop.stop();
  const env = { SERVICE_URL: serviceUrl, JOBS: String(jobs), CONCURRENCY: String(CONCURRENCY), BODY };
  const bare = await start("bench/peers/bare-fetch.ts", env);
  const fetch = Number(await bare.output);
  const alone = await start("bench/peers/call-alone.ts", { ...env, ...BUN_START });
  const call = Number(await alone.output);
  return { post, fetch, call, floor };
}

const ours = values["no-echo"] ? [longhaul, longhaulUnnamed] : [longhaul];
const contenders = [...ours, bullmq, bullmqAsOurs].filter((c) =>
  c.name.toLowerCase().includes(values.only.toLowerCase()),
);
const results = new Map<string, Figures[]>(contenders.map((c) => [c.name, []]));
const bounds: Limits[] = [];
const rq: Record<RqKind, number[]> = { worker: [], fork: [], simple: [] };
const withRq = values.only === "" && hasRq();
for (let n = 1; n <= rounds; n++) {
  const told = await round([...contenders, floor], { jobs, rate, seconds }, { url: serviceUrl, pid: service.pid, dir });
  contenders.forEach(({ name }, i) => {
    const figures = told[i] as Figures;
    results.get(name)?.push(figures);
    const rates = `submit ${Math.round(figures.submit)}/s, drain ${Math.round(figures.drain)}/s`;
    console.log(
      `round ${n} ${name}: ${rates}, Redis ${figures.cpu.toFixed(1)} µs/job, p99 ${figures.p99.toFixed(2)} ms`,
    );
  });
  bounds.push(await limits(told.at(-1) as Figures));
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

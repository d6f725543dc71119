/**
 * `bun run chaos`: breaks everything for a while and counts what was lost. Exit 1 when anything was.
 *   --jobs 20000 --seconds 60 --faults all|kill,SIGSTOP,… --seed 1 --workers 4 --gateways 2 --every 800
 */
import { parseArgs } from "node:util";
import { Redis } from "ioredis";
import { until } from "../support/stack.ts";
import { Checker } from "./checker.ts";
import { Clients, newLedger } from "./clients.ts";
import { Havoc } from "./faults.ts";
import { probe } from "./probe.ts";
import { report, verdict } from "./report.ts";
import { LEASE_MS, SERVICE, startWorld } from "./world.ts";

const { values } = parseArgs({
  options: {
    jobs: { type: "string", default: "20000" },
    seconds: { type: "string", default: "60" },
    faults: { type: "string", default: "all" },
    seed: { type: "string" },
    workers: { type: "string", default: "4" },
    gateways: { type: "string", default: "2" },
    every: { type: "string", default: "800" },
    verbose: { type: "boolean", default: false },
  },
});
const jobs = Number(values.jobs);
const seconds = Number(values.seconds);
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));

/** A small generator with a seed (mulberry32): the same faults in the same order, though not at the same instant. */
function generator(state: number): () => number {
  let a = state;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

const began = performance.now();
const took = () => ((performance.now() - began) / 1_000).toFixed(0);
console.log(`chaos: ${jobs} jobs over ${seconds} s, ${values.workers} workers, faults ${values.faults}, seed ${seed}`);
const world = await startWorld(Number(values.gateways), Number(values.workers), generator(seed ^ 0x51));
// Whatever hangs, the run ends by itself.
const watchdog = setTimeout(
  async () => {
    console.error("\nchaos: the run hangs; given up");
    await world.stop();
    process.exit(2);
  },
  (3 * seconds + 120) * 1_000,
);
const looking = new Redis(world.redis.port, {
  maxRetriesPerRequest: 0,
  enableOfflineQueue: false,
  retryStrategy: () => 100,
});
looking.on("error", () => {});
await until(() => looking.status === "ready");

const ledger = newLedger();
const checker = new Checker(looking, SERVICE, ledger, generator(seed ^ 0x52));
const clients = new Clients(
  ledger,
  world.urls,
  generator(seed ^ 0x53),
  jobs,
  jobs / seconds,
  () => checker.openCount,
  (gateway) => world.gateways[gateway]?.turns ?? 0,
);
const names = values.faults === "all" ? undefined : values.faults.split(",");
const havoc = new Havoc(world, generator(seed ^ 0x54), names);

let over = false;
const sampling = (async () => {
  while (!over) {
    await checker.sample().catch((error) => {
      if (!/ECONN|max retries|writeable|closed|LOADING/i.test(String(error))) console.error(`\nchecker: ${error}`);
    });
    await Bun.sleep(200);
  }
})();
const line = setInterval(
  () => {
    const faults = [...havoc.counts.values()].reduce((a, b) => a + b, 0);
    const broken = [...checker.broken.values()].reduce((sum, list) => sum + list.length, 0);
    const text = `${took()} s  accepted ${ledger.accepted.size}  ended ${checker.ended.size}  open ${checker.openCount}  calls ${world.service.total}  faults ${faults}  samples ${checker.samples}  broken ${broken}`;
    process.stdout.write(process.stdout.isTTY ? `\r${text}` : `${text}\n`);
  },
  process.stdout.isTTY ? 500 : 5_000,
);

// Now and then somebody starts a failed job anew: the only way out of a terminal state (I3).
const requeuing = setInterval(() => {
  const failed = [...checker.ended].filter(([, seen]) => seen.state === "failed" && seen.run === "");
  const [id] = failed[failed.length - 1] ?? [];
  if (id) void clients.requeue(id);
}, 400);

const breaking = havoc.run(Number(values.every));
await clients.run(200);
await havoc.stop();
await breaking;
clearInterval(requeuing);
// I8: once faults stop, all ends within lease + backoff + run time, and what reconnecting takes.
const healed = performance.now();
const bound = LEASE_MS + 30_000;
await until(() => checker.openCount === 0, bound).catch(() => {
  checker.broken.set("I8 not all ended in time", [`${checker.openCount} open after ${bound} ms`]);
});
const drainMs = performance.now() - healed;
await probe(world, looking, checker);
over = true;
await sampling;
clearInterval(line);
const result = await verdict(world, ledger, checker, looking);
report(result, { havoc, world, ledger, checker, seconds: Number(took()), drainMs, seed });
if (values.verbose) for (const l of world.lines(/./)) console.log(l);
looking.disconnect();
await world.stop();
clearTimeout(watchdog);
process.exit(result.bad ? 1 : 0);

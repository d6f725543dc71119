/**
 * `bun run chaos`: breaks everything for a while and counts what was lost. Exit 1 when anything was.
 *   --jobs 20000 --seconds 60 --faults all|kill,SIGSTOP,… --seed 1 --workers 4 --gateways 2 --every 800
 *   --topology plain|cluster|sentinel
 *   --fsync memory (always, Redis's file in memory) | everysec (in memory, too) | always (on the disk)
 */
import { parseArgs } from "node:util";
import { noFakeClock } from "../support/clock.ts";
import { limit } from "../support/patience.ts";
import { until } from "../support/stack.ts";
import { Checker } from "./checker.ts";
import { Clients, newLedger } from "./clients.ts";
import { watchClocks } from "./clocks.ts";
import { Havoc } from "./faults.ts";
import { probe } from "./probe.ts";
import { report, verdict } from "./report.ts";
import { type Durability, type Kind, LEASE_MS, SERVICE, startWorld, type World } from "./world.ts";

const { values } = parseArgs({
  options: {
    jobs: { type: "string", default: "20000" },
    seconds: { type: "string", default: "60" },
    faults: { type: "string", default: "all" },
    seed: { type: "string" },
    workers: { type: "string", default: "4" },
    gateways: { type: "string", default: "2" },
    every: { type: "string", default: "800" },
    fsync: { type: "string", default: "memory" },
    topology: { type: "string", default: "plain" },
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

/** Breaks the world for a while, waits until it has healed, and judges. @returns whether all is well */
async function run(world: World): Promise<boolean> {
  const looking = world.look();
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
    world.receiver.url,
  );
  const havoc = new Havoc(
    world,
    generator(seed ^ 0x54),
    values.faults === "all" ? undefined : values.faults.split(","),
  );

  let over = false;
  const sampling = (async () => {
    while (!over) {
      await checker.sample().catch((error) => {
        if (!/ECONN|max retries|writeable|closed|LOADING/i.test(String(error))) console.error(`checker: ${error}`);
      });
      await Bun.sleep(200);
    }
  })();
  const line = setInterval(
    () => {
      const text = [
        `${took()} s  accepted ${ledger.accepted.size}  ended ${checker.ended.size}  open ${checker.openCount}`,
        `calls ${world.service.total}  faults ${havoc.total}  samples ${checker.samples}  broken ${checker.brokenCount}`,
      ].join("  ");
      process.stdout.write(process.stdout.isTTY ? `\r${text}` : `${text}\n`);
    },
    process.stdout.isTTY ? 500 : 5_000,
  );
  // Now and then somebody starts a failed job anew: the only way out of a terminal state (I3).
  const requeuing = setInterval(() => {
    const id = checker.someFailed();
    if (id) void clients.requeue(id);
  }, 400);
  // And some that finished are erased, with the files of their results.
  const erasing = setInterval(() => {
    const id = checker.someFinished();
    if (!id) return;
    checker.release(id);
    void clients.erase(id);
  }, 100);
  // Nothing of ours may end unless it is killed. As any supervisor would, this one starts it again, and tells.
  const supervising = setInterval(() => {
    for (const member of [...world.gateways, ...world.workers]) {
      if (member.stopped || member.process.exitCode === null) continue;
      checker.tell("a process ended by itself", `${member.name}: ${member.process.output()}`);
      void world.revive(member);
    }
  }, 1_000);

  const clocksSeen = watchClocks(world, world.boardUrl, checker);
  const breaking = havoc.run(Number(values.every));
  await clients.run(200, 1_500 * seconds);
  await havoc.stop();
  await breaking;
  clearInterval(requeuing);
  clearInterval(erasing);
  // I8: once faults stop, all ends within lease + backoff + run time, and what reconnecting takes. The time counts from
  // the last end: a starved machine needs longer for thousands, and a job that stays open is found all the same.
  const healed = performance.now();
  const bound = limit(LEASE_MS + 30_000);
  for (let [since, least] = [healed, checker.openCount]; checker.openCount > 0; await Bun.sleep(20)) {
    if (checker.openCount < least) [since, least] = [performance.now(), checker.openCount];
    if (performance.now() - since < bound) continue;
    for (const text of await checker.leftovers()) checker.tell(`I8 nothing ended for ${bound} ms`, text);
    break;
  }
  const drainMs = performance.now() - healed;
  await probe(world, looking, checker);
  over = true;
  console.log(
    `clocks: the dashboard was looked at ${clocksSeen()} times${noClock ? `; SKIPPED steps: ${noClock}` : ""}`,
  );
  for (const timer of [line, supervising]) clearInterval(timer);
  await sampling;
  const result = await verdict(world, ledger, checker, looking);
  report(result, { havoc, world, ledger, checker, seconds: Number(took()), drainMs, seed });
  if (values.verbose) for (const text of world.lines(/./)) console.log(text);
  looking.disconnect();
  return !result.bad;
}

const began = performance.now();
const took = () => ((performance.now() - began) / 1_000).toFixed(0);
console.log(`chaos: ${jobs} jobs over ${seconds} s, ${values.workers} workers, faults ${values.faults}, seed ${seed}`);
const noClock = await noFakeClock();
if (noClock) console.log(`chaos: SKIPPED clock steps: ${noClock}`);
const world = await startWorld(
  Number(values.gateways),
  Number(values.workers),
  values.fsync as Durability,
  values.topology as Kind,
  generator(seed ^ 0x51),
  noClock === undefined,
);
let ending = false;
async function end(code: number): Promise<void> {
  if (ending) return;
  ending = true;
  await world.stop();
  process.exit(code);
}
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => void end(130));
// Whatever hangs, the run ends by itself.
setTimeout(
  () => {
    console.error("chaos: the run hangs; given up");
    for (const text of world.lines(/./).slice(-60)) console.error(text);
    void end(2);
  },
  (4 * seconds + 240) * 1_000,
);
run(world).then(
  (well) => end(well ? 0 : 1),
  (error) => {
    console.error("chaos:", error);
    return end(2);
  },
);

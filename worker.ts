/**
 * A worker: lanes, beat, reconcile, clocks, signals.
 *
 *   boot      configuration → Redis fit? → a lane for each service that has an address → beats, clocks
 *   SIGTERM   lanes take nothing more → calls end by themselves within DRAIN_TIMEOUT → the rest is handed back
 *   again     everything is handed back at once, or left to others after 10 s without Redis
 *   a third   it ends at once: others take its jobs back when the lease is over
 */
import { hostname } from "node:os";
import process from "node:process";
import { Redis } from "ioredis";
import { tellAway } from "./shared/away.ts";
import { History } from "./shared/board/history.ts";
import { after } from "./shared/call.ts";
import { clocks, everywhere } from "./shared/clocks/index.ts";
import { type Config, readConfig } from "./shared/config.ts";
import { type JobId, newWorkerId, type ServiceName, serviceName } from "./shared/jobs.ts";
import { GLOBAL, useNamespace } from "./shared/keys.ts";
import { Lane } from "./shared/lane.ts";
import { die, endLog, logSettings, messageOf, log as processLog, startLog } from "./shared/log.ts";
import { repeat } from "./shared/repeat.ts";
import { checkResults } from "./shared/result-file.ts";
import { RUNTIME, tuned } from "./shared/runtime.ts";
import { onStop } from "./shared/signals.ts";
import { Snapshots } from "./shared/snapshot.ts";
import { Consumer } from "./shared/store/consume.ts";
import { keepFit, VolatileRedis } from "./shared/store/fit.ts";
import { Inspector, MOST_RUNS, type WorkerInfo } from "./shared/store/inspect.ts";
import { Maintainer } from "./shared/store/maintain.ts";
import { type Announced, Presence, register } from "./shared/store/presence.ts";
import { connect, info, probe } from "./shared/store/redis.ts";
import { Viewer } from "./shared/store/view.ts";
import { durationText } from "./shared/units.ts";
import { VERSION } from "./shared/version.ts";
import { Watch } from "./shared/watch.ts";
import { workerHealth } from "./shared/worker-health.ts";

const isHealthCheck = process.argv.includes("--health");
const callCap = isHealthCheck ? 0 : tuned();
const worker = newWorkerId();
const logged = logSettings(process.env);
startLog(logged);
const log = processLog.with({ worker });
const fail = (message: string): never => die(logged, message);

let config: Config;
try {
  config = readConfig(process.env);
} catch (error) {
  fail(messageOf(error));
}

if (isHealthCheck) {
  useNamespace(config!.namespace);
  const why = await workerHealth(config!);
  if (why) fail(why);
  process.exit(0);
}

for (const warning of config!.mistyped.values()) log.warn(warning);

const services = config!.registry
  .deployed()
  .filter((name) => config.workerServices.length === 0 || config.workerServices.includes(name));
if (services.length === 0)
  fail("No service has an address. Set one, for example IFCCONVERT_URL, or SERVICES=services.json.");
const slotsOf = (name: string) =>
  config.workerSlots.get(name) ?? config.workerSlots.get("*") ?? config.registry.lane(name).slots;
const calls = services.reduce((sum, name) => sum + slotsOf(name), 0);
if (calls > callCap)
  fail(
    `${calls} slots, but this process may make ${callCap} calls at once: raise BUN_CONFIG_MAX_HTTP_REQUESTS or lower WORKER_SLOTS.`,
  );

useNamespace(config!.namespace);
let isServing = false;
// Before anything is waited for: as the first process of a container it would ignore a signal that it does not ask for.
onStop((signals) => {
  if (!isServing) {
    log.info("stopped while starting");
    process.exit(0);
  } else if (signals === 1) void shutdown();
  else if (signals === 2) {
    log.info("second signal: calls are handed back at once");
    handBack();
  } else {
    log.warn("stopped at once by a third signal; other workers take the jobs back when the lease is over");
    process.exit(1);
  }
});
const redis = connect(config!.redisUrl, "work", `longhaul-worker-${worker}`);
tellAway(redis, config!.redisUrl, log);
const events = connect(config!.redisUrl, "work", `longhaul-events-${worker}`);
const consumer = new Consumer(redis, worker);
const presence = new Presence(redis, worker);
const inspector = new Inspector(redis);
const fit = Promise.withResolvers<void>();
keepFit(redis, config!.allowVolatile, {
  async fit() {
    await register(redis, services);
    await inspector.time.ask(redis);
    fit.resolve();
  },
  unfit(error) {
    // Calls that run already may end and be settled where Redis is only volatile.
    if (!(error instanceof VolatileRedis) || !isServing) fail(`Redis cannot be used: ${error.message}`);
    log.error("Redis cannot be used: takes nothing more and stops", { reason: error.message });
    process.exitCode = 1;
    obey("stop");
  },
  log,
});
await fit.promise;

/** A lane with its own blocking connection. */
function laneOf(name: ServiceName): { lane: Lane; unblock(): Promise<void> } {
  const blocking = connect(config.redisUrl, "block", `longhaul-block-${worker}`);
  const lane = new Lane(
    name,
    new Map((config.registry.services.get(name) ?? []).map((op) => [op.name, op])),
    {
      ...config,
      slots: slotsOf(name),
      concurrency: config.registry.lane(name).concurrency,
    },
    consumer,
    // A Cluster's client sends again what was cut off, each command by itself: a take of before would start a job for nobody.
    (ask, nonce) => consumer.block(blocking, name, blocking instanceof Redis ? ask : undefined, nonce),
    log.with({ service: name }),
  );
  return {
    lane,
    // Ends a BLMOVE without breaking its connection, so that nothing it moves is stranded until a lease ends.
    async unblock() {
      if (!(blocking instanceof Redis)) return;
      const mine = String(await redis.client("LIST"))
        .split("\n")
        .filter((line) => line.includes(`name=longhaul-block-${worker} `));
      for (const line of mine) await redis.client("UNBLOCK", Number(/id=(\d+)/.exec(line)?.[1]));
    },
  };
}

const lanes = services.map((name) => laneOf(serviceName(name)));
const done = Promise.all(lanes.map(({ lane }) => lane.run()));
let state: WorkerInfo["state"] = "running";

/** why large results cannot be written, in a sentence; undefined = they can */
let resultsFault = await checkResults(config!.resultsDir, worker);
if (resultsFault)
  log.error(`${resultsFault}; larger answers than RESULT_INLINE_BYTES need it`, { results_dir: config!.resultsDir });

let over = false;
const every = (everyMs: number, step: () => Promise<void>, name: string) =>
  void repeat(name, everyMs, step, log, () => over);

/** What the check says, or an answer that waits to be written: the last bytes of a volume may do for the check. */
function resultsFaultNow(): { results?: string } {
  const waiting = lanes.flatMap(({ lane }) => [...lane.unwritten.values()]);
  const kept = `${waiting.length} answer${waiting.length === 1 ? " waits" : "s wait"} in memory`;
  if (waiting.length === 0) return resultsFault ? { results: resultsFault } : {};
  return { results: `${resultsFault ?? `RESULTS_DIR cannot be written: ${waiting[0]}`}; ${kept}` };
}

const describe = (): Announced => ({
  id: worker,
  host: hostname(),
  pid: process.pid,
  version: VERSION,
  runtime: RUNTIME,
  state,
  rssBytes: process.memoryUsage().rss,
  ...resultsFaultNow(),
  lanes: Object.fromEntries(
    lanes.map(({ lane }) => [
      lane.service,
      {
        slots: lane.settings.slots,
        busy: lane.prefetch.busy,
        operations: lane.operations,
        // a map keeps the order of insertion: the longest running first
        runs: [...lane.running.values().take(MOST_RUNS)].map(({ job }) => ({
          id: job.id,
          op: job.operation,
          since: job.started,
        })),
        ...(lane.parking.parked ? { parked: lane.parking.parked.reason, since: lane.parking.parked.since } : {}),
      },
    ]),
  ),
});

const beatMs = config!.leaseMs / 6;
every(
  beatMs,
  async () => {
    await Promise.all(lanes.map(({ lane }) => lane.beat()));
    obey(await presence.order());
    if (!over) inspector.time.heard(await presence.announce(describe()));
  },
  "beat",
);
every(
  beatMs,
  async () => {
    const before = resultsFault;
    resultsFault = await checkResults(config.resultsDir, worker);
    if (resultsFault === before) return;
    if (resultsFault) log.error(resultsFault);
    else log.info("RESULTS_DIR can be written again");
  },
  "results",
);
every(
  1_000,
  async () => {
    for (const { lane } of lanes) lane.sweep();
  },
  "reconcile",
);
// Takes stop at 90 % of Redis's memory: what is running must still find room for its result (protocol.md §4).
every(
  2_000,
  async () => {
    const memory = await info(redis, "memory");
    const used = Number(memory?.get("used_memory") ?? 0);
    const limit = Number(memory?.get("maxmemory") ?? 0);
    const full = limit > 0 && used > 0.9 * limit;
    if (full !== lanes[0]?.lane.held) {
      if (full) log.warn("Redis is nearly full: lanes take nothing", { used_bytes: used, limit_bytes: limit });
      else if (lanes[0]?.lane.held) log.info("Redis has room again: lanes take jobs");
    }
    for (const { lane } of lanes) lane.held = full;
  },
  "memory",
);
const maintainer = new Maintainer(redis);
const watch = new Watch(config!.leaseMs);
for (const clock of clocks)
  every(clock.everyMs(config!), () => clock.step({ maintainer, config, watch, log }), clock.name);
const snapshots = new Snapshots(inspector, config!.registry, config!.leaseMs);
const history = new History(new Viewer(redis), [...config!.registry.services.keys()], () => inspector.time.now());
for (const clock of everywhere)
  every(clock.everyMs(config!), () => clock.step({ redis, snapshots, history, config, log }), clock.name);
every(60_000, () => maintainer.forget(10 * config.leaseMs), "forget");

probe(events);
events.subscribe(GLOBAL.cancels, GLOBAL.ordered).catch(() => {});
events.on("message", (channel, text: string) => {
  if (channel === GLOBAL.cancels) for (const { lane } of lanes) lane.cancel(text as JobId);
  else if (text.startsWith(`${worker} `)) obey(text.slice(worker.length + 1));
});

/** Does what an operator ordered: quiet takes nothing more, stop drains as SIGTERM does. Neither is taken back. */
function obey(order: string | null): void {
  if (order === "stop") {
    void shutdown();
  } else if (order === "quiet" && state === "running") {
    state = "quiet";
    log.info("quiet: takes nothing more");
    for (const { lane } of lanes) lane.hush();
    lanes[0]?.unblock().catch(() => {});
    presence.announce(describe()).catch(() => {});
  }
}

/** ms that a worker which hands its jobs back waits for Redis to take them. */
const HAND_BACK_MS = 10_000;

/** Without Redis nothing can be handed back: the reapers of other workers take the jobs when the lease is over. */
function handBack(): void {
  for (const { lane } of lanes) lane.stop(true);
  setTimeout(() => {
    log.error("stopped without Redis; other workers take the jobs back");
    process.exit(1);
  }, HAND_BACK_MS);
}

async function shutdown(): Promise<void> {
  if (state === "draining") return;
  state = "draining";
  presence.announce(describe()).catch(() => {});
  const busy = lanes.reduce((sum, { lane }) => sum + lane.prefetch.busy, 0);
  // a second signal hands them back at once
  log.info("draining", { calls: busy, for: durationText(config.drainMs) });
  for (const { lane } of lanes) lane.stop(false);
  void lanes[0]?.unblock().catch(() => {});
  after(config.drainMs, handBack);
  await done;
  over = true;
  await presence.leave().catch(() => {});
  log.info("stopped");
  await endLog();
  process.exit(); // with exitCode
}
isServing = true;
log.info(`worker ready under ${RUNTIME}`, {
  slots: services.map((name) => `${name}×${slotsOf(name)}`).join(","),
  version: VERSION,
});

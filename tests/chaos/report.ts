/** The end of a run: what was promised against what is there, as a table. */
import { readFileSync } from "node:fs";
import type { Redis } from "ioredis";
import { parseHead } from "../../shared/jobs.ts";
import { until } from "../support/stack.ts";
import type { Checker } from "./checker.ts";
import type { Ledger } from "./clients.ts";
import { type Havoc, redisKills } from "./faults.ts";
import { SERVICE, type World } from "./world.ts";

export type Result = {
  bad: boolean;
  states: Map<string, number>;
  failures: Map<string, number>;
  counters: Map<string, number>;
  unknown: { found: number; absent: number };
  faults: string[];
  /** jobs whose callback was taken, and those whose end reached nobody */
  callbacks: { taken: number; lost: string[] };
  /** result files that belong to no record */
  strays: string[];
  erased: number;
};

/** "service/id/file" of all there are. */
const resultFiles = (dir: string) => [...new Bun.Glob("*/*/*").scanSync({ cwd: dir, dot: true })];

/**
 * Waits until every callback is sent. A process that was killed over one leaves it leased for more than a minute: what is due later is
 * made due now, again and again, which at worst sends one twice.
 */
async function deliverAll(redis: Redis): Promise<void> {
  const outbox = `lh:{${SERVICE}}:outbox`;
  await until(async () => {
    const waiting = await redis.zrange(outbox, "0", "-1");
    if (waiting.length > 0) await redis.zadd(outbox, "XX", ...waiting.flatMap((entry) => [String(Date.now()), entry]));
    await Bun.sleep(2_000);
    return waiting.length === 0;
  }, 60_000).catch(() => {});
}

/** Reads every record once and compares it with the ledgers of the clients and of the microservice. */
export async function verdict(world: World, ledger: Ledger, checker: Checker, redis: Redis): Promise<Result> {
  const faults: string[] = [];
  const wrong = (what: string) => faults.push(what);
  await deliverAll(redis);
  await checker.all([...ledger.accepted.keys()]);
  // the clocks add up what scripts have counted
  await until(async () => (await redis.llen(`lh:{${SERVICE}}:tally`)) === 0, 10_000);
  await checker.indexes();
  // Every record there is, by what its payload says it is: finds jobs that nobody was told of.
  const byN = new Map<number, string[]>();
  const states = new Map<string, number>();
  const failures = new Map<string, number>();
  const count = (map: Map<string, number>, what: string) => map.set(what, (map.get(what) ?? 0) + 1);
  const keys: string[] = [];
  const callbacks: Result["callbacks"] = { taken: 0, lost: [] };
  const ids = new Set<string>();
  let cursor = "0";
  do {
    const [next, found] = await redis.scan(cursor, "MATCH", `lh:{${SERVICE}}:job:*`, "COUNT", 2_000);
    cursor = next;
    keys.push(...found);
  } while (cursor !== "0");
  for (let i = 0; i < keys.length; i += 1_000) {
    const slice = keys.slice(i, i + 1_000);
    const rows = await Promise.all(slice.map((key) => redis.hmget(key, "h", "p", "r", "err", "d", "rf", "g")));
    rows.forEach(([h, payload, inline, error, redeliveries, inFile, run], k) => {
      const head = parseHead(h);
      const state = head?.state;
      const id = (slice[k] as string).slice(`lh:{${SERVICE}}:job:`.length);
      const { n } = JSON.parse(payload ?? "{}") as { n: number };
      ids.add(id);
      byN.set(n, [...(byN.get(n) ?? []), id]);
      count(states, state ?? "none");
      const calls = world.service.calls.get(id) ?? [];
      if (state === "finished") {
        const token = head?.start?.token;
        const result = inFile ? readFileSync(`${world.resultsDir}/${SERVICE}/${id}/${token}`, "utf8") : inline;
        const answer = JSON.parse(result ?? "{}") as { id?: string; n?: number; token?: string; early?: true };
        // one that was given before the request was read cannot know its payload
        const another = answer.id !== id || (answer.n !== n && !answer.early);
        if (another) wrong(`${id} (${n}) finished with the answer of another: ${result?.slice(0, 300)}`);
        if (answer.token !== token) wrong(`I4 ${id} is of ${token}, but has the answer of ${answer.token}`);
        if (!calls.some((call) => call.said === "ok")) wrong(`${id} finished, but the service never said so`);
      } else if (state === "failed") {
        const { code } = JSON.parse(error ?? "{}") as { code: string };
        count(failures, code);
        const said = (what: string) => calls.some((call) => call.said === what);
        const told =
          (code === "http_error" && said("500")) ||
          // On a starved machine the call may end before the service reads it; a reaper may not overrule such a job.
          (code === "timeout" && (calls.length > 0 || /did not finish within/.test(error ?? ""))) ||
          ((code === "poison" || code === "reset") && Number(redeliveries) > 3) ||
          (code === "cut_short" && calls.length > 2);
        if (!told) wrong(`${id} failed for no reason: ${error}; the service said ${JSON.stringify(calls)}`);
      } else if (state === "canceled" && !ledger.promises[n]?.canceled) wrong(`${id} was canceled by nobody`);
      if (ledger.promises[n]?.callback) {
        const last = Number(run ?? 0);
        const reached = world.receiver.taken.get(n)?.some((c) => c.id === id && c.state === state && c.run === last);
        if (reached) callbacks.taken++;
        else
          callbacks.lost.push(`${id} (${n}) ${state} in run ${last}: ${JSON.stringify(world.receiver.taken.get(n))}`);
      }
    });
  }
  let found = 0;
  let absent = 0;
  let erased = 0;
  for (const promise of ledger.promises) {
    if (!promise) continue;
    const records = byN.get(promise.n) ?? [];
    const missing = [...promise.ids].filter((id) => !records.includes(id));
    if (promise.erased) erased += missing.length;
    else for (const id of missing) checker.lost.add(id);
    if (promise.key && records.length > 1) wrong(`I9 ${promise.key} stands for ${records.join(", ")}`);
    if (!promise.key && records.length > promise.ids.size + promise.unknown) {
      wrong(`ghost: job ${promise.n} was refused and yet it is there: ${records.join(", ")}`);
    }
    if (promise.unknown > 0 && promise.ids.size === 0) records.length > 0 ? found++ : absent++;
  }
  const flat = await redis.hgetall(`lh:{${SERVICE}}:counts`);
  const counters = new Map(Object.entries(flat).map(([name, value]) => [name, Number(value)]));
  // The scripts count each end once: more ends than ended jobs means that one ended twice between two samples.
  const sum = (of: Map<string, number>) => ["finished", "failed", "canceled"].reduce((n, s) => n + (of.get(s) ?? 0), 0);
  const again = counters.get("requeued") ?? 0;
  if (sum(counters) !== sum(states) + again + erased) {
    wrong(
      `twice: ${sum(counters)} ends were counted, but ${sum(states)} jobs ended, ${erased} were erased and ${again} requeued`,
    );
  }
  const made = counters.get("submitted") ?? 0;
  if (made !== keys.length + erased)
    wrong(`${made} submits were counted, but ${keys.length} records and ${erased} erased`);
  faults.push(...world.receiver.faults);
  const strays = resultFiles(world.resultsDir).filter((path) => !ids.has(path.split("/")[1] as string));
  const bad =
    [faults, callbacks.lost, strays].some((list) => list.length > 0) ||
    [checker.broken, checker.lost, checker.twice].some((of) => of.size > 0);
  return { bad, states, failures, counters, unknown: { found, absent }, faults, callbacks, strays, erased };
}

export function report(
  result: Result,
  run: {
    havoc: Havoc;
    world: World;
    ledger: Ledger;
    checker: Checker;
    seconds: number;
    drainMs: number;
    seed: number;
  },
): void {
  const { havoc, world, ledger, checker } = run;
  const n = (name: string) => result.counters.get(name) ?? 0;
  const { surplus, early, late } = world.service.outOfTurn;
  const outOfTurn = `${surplus} · ${early} · ${late}`;
  const failures = [...result.failures].map(([code, count]) => `${code} ${count}`).join(", ");
  const rows: [string, string | number][] = [
    ["accepted", ledger.accepted.size],
    ["finished", result.states.get("finished") ?? 0],
    ["failed, as told", `${result.states.get("failed") ?? 0}${failures ? `  (${failures})` : ""}`],
    ["requeued", n("requeued")],
    ["canceled, as asked", result.states.get("canceled") ?? 0],
    ["erased, as asked", result.erased],
    ["LOST", checker.lost.size],
    ["TWICE (changed after its end)", checker.twice.size],
    ["WRONG RESULT", result.faults.filter((fault) => fault.includes("answer of another")).length],
    ["callbacks taken", result.callbacks.taken],
    ["CALLBACKS LOST", result.callbacks.lost.length],
    ["STRAY RESULT FILES", result.strays.length],
    ["unknown, looked up: there / not", `${result.unknown.found} / ${result.unknown.absent}`],
    ["calls of the microservice", world.service.total],
    ["surplus answers · answers before the body · after the limit", outOfTurn],
    ["redelivered", n("redelivered")],
    ["handed back", n("returned")],
    ["adopted (the take's reply was lost)", world.lines(/its reply was lost/).length],
    ["stale results refused", n("stale")],
    ["faults", havoc.total],
    ["answers lost or late by proxies", Object.values(world.proxies).reduce((sum, proxy) => sum + proxy.hits, 0)],
    ["samples of I1–I7", checker.samples],
    ["slowest answer to a submit", `${Math.round(ledger.slowestMs)} ms`],
    ["all ended after the last fault", `${(run.drainMs / 1_000).toFixed(1)} s`],
    ["the run took", `${run.seconds} s`],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  console.log(`\n\n${rows.map(([name, value]) => `  ${name.padEnd(width)}  ${value}`).join("\n")}\n`);
  console.log(`  faults: ${[...havoc.counts].map(([name, count]) => `${name} ${count}`).join(", ")}`);
  console.log(`  answers to clients: ${[...ledger.answers].map(([what, count]) => `${what}: ${count}`).join(", ")}`);
  for (const [rule, list] of checker.broken) {
    console.log(
      `\n  BROKEN ${rule}: ${list.length}\n${list
        .slice(0, 5)
        .map((text) => `    ${text}`)
        .join("\n")}`,
    );
  }
  // Told just before a kill and gone with it: Redis had answered before it wrote. Told long before: we lost it.
  for (const id of [...checker.lost].slice(0, 20)) {
    const told = ledger.toldAt.get(id) ?? Number.NaN;
    const next = redisKills.find((at) => at >= told);
    const when = next === undefined ? "after the last" : `${Math.round(next - told)} ms before the next`;
    console.log(`  LOST ${id}: its 202 came ${when} kill -9 of Redis`);
  }
  for (const text of result.callbacks.lost.slice(0, 10)) console.log(`  CALLBACK LOST ${text}`);
  for (const path of result.strays.slice(0, 10)) console.log(`  STRAY ${path}`);
  for (const fault of result.faults.slice(0, 20)) console.log(`  WRONG ${fault}`);
  if (result.faults.length > 20) console.log(`  … and ${result.faults.length - 20} more`);
  console.log(
    result.bad ? `\nchaos: FAILED (seed ${run.seed})` : `\nchaos: nothing lost, nothing twice (seed ${run.seed})`,
  );
}

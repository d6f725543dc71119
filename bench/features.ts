/**
 * `bun run bench --features`: what each feature costs Redis, in µs of script time a job. The scripts run as they are and with one
 * feature cut out of their text, in turn, 20 jobs a call; medians of 5 rounds.
 */
import IORedis from "ioredis";
import type { WorkerId } from "../shared/jobs.ts";
import { boundScripts } from "../shared/script.ts";
import { Consumer } from "../shared/store/consume.ts";
import { Producer } from "../shared/store/produce.ts";
import { longhaul } from "./contenders.ts";
import { LIMITS, submitAll, workAll } from "./lifecycle.ts";
import { median, startRedis } from "./machine.ts";

const BATCH = 20;
const JOBS = 10_000;

/** Cuts that leave the queue working for this one measurement. Each must still apply. */
const CUTS: [feature: string, from: string, to: string][] = [
  ["all on", "", ""],
  ["without statistics", "if #parts > 0 then call", "if false then call"],
  ["without the index of ended jobs", "    finished[#finished + 1] = id\n", ""],
  ["without the fence", " and find(was, token, -#token, true) then", " then"],
  ["without a life of the record", "    call('PEXPIREAT', key, how.till)\n", ""],
];

async function measure(from: string, to: string): Promise<[submit: number, turn: number]> {
  const redis = await startRedis(longhaul.redis);
  const client = new IORedis(redis.url);
  let applied = from === "";
  for (const [file, { lua }] of boundScripts()) {
    const text = from !== "" && lua.includes(from) ? lua.replace(from, to) : lua;
    applied ||= text !== lua;
    client.defineCommand(`lh_${file.replaceAll("-", "_")}`, { numberOfKeys: 1, lua: text });
  }
  if (!applied) throw new Error(`the cut no longer applies: ${from}`);
  const producer = new Producer(client, LIMITS);
  const worker = new Consumer(client, "w00000001" as WorkerId);
  const spent = async () => {
    const m = /cmdstat_evalsha:calls=\d+,usec=(\d+)/.exec(await client.info("commandstats"));
    await client.config("RESETSTAT");
    return Number(m?.[1] ?? 0) / JOBS;
  };
  const figures: [number, number] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
  for (let round = 0; round < 2; round++) {
    await spent();
    await submitAll(producer, JOBS, BATCH);
    figures[0] = Math.min(figures[0], await spent());
    await workAll(worker, BATCH);
    figures[1] = Math.min(figures[1], await spent());
  }
  client.disconnect();
  await redis.stop();
  return figures;
}

/** Prints the table. @param rounds  of all cuts, interleaved */
export async function features(rounds: number): Promise<void> {
  const found = CUTS.map(() => ({ submit: [] as number[], turn: [] as number[] }));
  for (let round = 0; round < rounds; round++) {
    for (const [i, [, from, to]] of CUTS.entries()) {
      const [submit, turn] = await measure(from, to);
      found[i]?.submit.push(submit);
      found[i]?.turn.push(turn);
    }
  }
  console.log("| | submit, µs of script a job | settle and take | saved |\n|---|---|---|---|");
  const sum = (i: number) => median(found[i]?.submit ?? []) + median(found[i]?.turn ?? []);
  for (const [i, [name]] of CUTS.entries()) {
    const { submit, turn } = found[i] as (typeof found)[number];
    const saved =
      i === 0 ? "" : `${(sum(0) - sum(i)).toFixed(1)} µs (${((100 * (sum(0) - sum(i))) / sum(0)).toFixed(0)} %)`;
    console.log(`| ${name} | ${median(submit).toFixed(1)} | ${median(turn).toFixed(1)} | ${saved} |`);
  }
}

/**
 * What the dashboard costs with a million jobs and 50 viewers (performance.md §3: at most 5 ms of the gateway's time for
 * a state, independent of jobs and viewers). A gateway process of its own, asked over HTTP:
 *
 *   bun tests/slow/board.ts [jobs = 1000000] [viewers = 50]
 *
 * Prints time and bytes of /state.json without jobs and with them, what Redis spends on a state, and the gateway's own
 * processor time with no viewer, with one and with all. Exit code 1 when a state, made each second and sent to one viewer,
 * costs more than 5 ms beyond what the gateway spends without viewers.
 */
import { readFileSync } from "node:fs";
import { newJobId } from "../../shared/jobs.ts";
import { Producer } from "../../shared/store/produce.ts";
import { connect } from "../../shared/store/redis.ts";
import { type Process, startStack } from "../support/stack.ts";
import { DAY, SERVICE } from "../support/store.ts";

const JOBS = Number(process.argv[2] ?? 1_000_000);
const VIEWERS = Number(process.argv[3] ?? 50);
const LIMIT_MS = 5;
const TICKS_A_SECOND = 100;

const stack = await startStack({ workers: 1, env: { MAX_QUEUED: "0" } });
const { client } = stack.redis;
const base = stack.dashboardUrl;
const percentile = (list: number[], share: number) =>
  [...list].sort((a, b) => a - b)[Math.floor(share * (list.length - 1))] as number;

/** ms of processor time that a process has used so far. */
function processorMs({ pid }: Pick<Process, "pid">): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return ((Number(fields[11]) + Number(fields[12])) * 1_000) / TICKS_A_SECOND;
}

/** ms of Redis's time by command, since the last reset. */
async function redisMs(): Promise<number> {
  const stats = await client.info("commandstats");
  return (
    [...stats.matchAll(/^cmdstat_(evalsha|hgetall|info)\b.*?usec=(\d+)/gm)].reduce((sum, m) => sum + Number(m[2]), 0) /
    1_000
  );
}

async function measure(what: string): Promise<void> {
  const times: number[] = [];
  const fresh: number[] = [];
  let bytes = 0;
  const before = processorMs(stack.gateway);
  for (let i = 0; i < 200; i++) {
    const start = performance.now();
    bytes = (await (await fetch(`${base}/state.json`)).arrayBuffer()).byteLength;
    times.push(performance.now() - start);
  }
  const served = (processorMs(stack.gateway) - before) / 200;
  await client.config("RESETSTAT");
  const made = processorMs(stack.gateway);
  for (let i = 0; i < 10; i++) {
    await Bun.sleep(1_100); // older than a tick: made anew
    const start = performance.now();
    await (await fetch(`${base}/state.json`)).arrayBuffer();
    fresh.push(performance.now() - start);
  }
  const [own, redis] = [(processorMs(stack.gateway) - made) / 10, (await redisMs()) / 10];
  console.log(
    `${what}: ${bytes} bytes; from the shared text p50 ${percentile(times, 0.5).toFixed(2)} ms, p95 ${percentile(times, 0.95).toFixed(2)} ms, ` +
      `${served.toFixed(2)} ms of the gateway's processor; made anew p50 ${percentile(fresh, 0.5).toFixed(1)} ms, ` +
      `${own.toFixed(1)} ms of the gateway's processor in 1.1 s, ${redis.toFixed(2)} ms of Redis`,
  );
}

async function watched(viewers: number): Promise<number> {
  const stop = new AbortController();
  let bytes = 0;
  let states = 0;
  const reads = Array.from({ length: viewers }, async () => {
    const answer = await fetch(`${base}/state/events`, { signal: stop.signal });
    const decoder = new TextDecoder();
    for await (const part of answer.body as unknown as AsyncIterable<Uint8Array>) {
      bytes += part.length;
      states += decoder.decode(part, { stream: true }).split("event: state").length - 1;
    }
  });
  await Bun.sleep(2_000);
  const [start, before, sent, seen] = [performance.now(), processorMs(stack.gateway), bytes, states];
  await client.config("RESETSTAT");
  await Bun.sleep(15_000);
  const seconds = (performance.now() - start) / 1_000;
  const cost = (processorMs(stack.gateway) - before) / seconds;
  const redis = (await redisMs()) / seconds;
  console.log(
    `${viewers} viewers: ${cost.toFixed(1)} ms of the gateway's processor a second, ${redis.toFixed(2)} ms of Redis, ` +
      `${viewers ? Math.round((bytes - sent) / seconds / viewers) : 0} bytes and ${viewers ? ((states - seen) / seconds / viewers).toFixed(1) : 0} states a viewer and second`,
  );
  stop.abort();
  await Promise.allSettled(reads);
  return cost;
}

const costs: number[] = [];
try {
  await measure("0 jobs");
  await stack.post("/queues/work/pause");
  const connection = connect(stack.redis.url, "work", "fill");
  const producer = new Producer(connection, { maxQueued: 0, idempotencyTtlMs: DAY, failureTtlMs: 7 * DAY });
  const start = performance.now();
  for (let done = 0; done < JOBS; done += 256) {
    const batch = Array.from({ length: Math.min(256, JOBS - done) }, () => ({
      ...{ id: newJobId(SERVICE), operation: "work", payload: '{"input_filename":"/uploads/house.ifc"}' },
    }));
    await producer.send(SERVICE, batch);
  }
  // a third of them have ended: lists and counts must not care
  const ended = Math.floor(JOBS / 3);
  for (let i = 0; i < ended; i += 500) {
    const ids = (await client.rpop("lh:{work}:shelf", 500)) as string[];
    await client.zadd("lh:{work}:ended:finished", ...ids.flatMap((id, n) => [Date.now() - i - n, id]));
    await client.hincrby("lh:{work}:counts", "finished", ids.length);
  }
  console.log(`filled in ${Math.round((performance.now() - start) / 1_000)} s`);
  await measure(`${JOBS} jobs`);
  const list: number[] = [];
  for (let i = 0; i < 50; i++) {
    const from = performance.now();
    await (await fetch(`${base}/api/jobs?limit=50`)).arrayBuffer();
    list.push(performance.now() - from);
  }
  console.log(
    `a page of 50 jobs: p50 ${percentile(list, 0.5).toFixed(1)} ms, p95 ${percentile(list, 0.95).toFixed(1)} ms`,
  );
  for (const viewers of [0, 1, VIEWERS]) costs.push(await watched(viewers));
  connection.disconnect();
} finally {
  await stack.stop();
}
const [none = 0, one = 0, all = 0] = costs;
const [state, viewer] = [one - none, (all - one) / (VIEWERS - 1)];
console.log(
  `a state: ${state.toFixed(1)} ms of the gateway's processor; each further viewer: ${viewer.toFixed(2)} ms a second`,
);
process.exit(state > LIMIT_MS ? 1 : 0);

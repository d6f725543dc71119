/** The system that Longhaul replaces: RQ, where python3-rq is installed. Only its drain is compared: it is two orders slower. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BODY, start, startRedis } from "./machine.ts";

/** A Python that has RQ: the system's own, where another one stands before it in PATH. */
const PYTHON = ["python3", "/usr/bin/python3"].find(
  (path) => Bun.which(path) && Bun.spawnSync([path, "-c", "import rq, redis"]).exitCode === 0,
);
/** Whether RQ can be measured here. */
export const hasRq = (): boolean => PYTHON !== undefined;
const python = (env: Record<string, string>, ready?: RegExp, flags: string[] = [], file = "bench/peers/rq_call.py") =>
  start(file, env, ready, flags, PYTHON as string);

/**
 * - worker: a process a job by RQ's own command, as the old gateway ran it: the process loads what the function imports
 * - fork: the same with all of that loaded before, in a worker of one's own
 * - simple: in the worker's process, without another one
 */
export const RQ_KINDS = ["worker", "fork", "simple"] as const;
export type RqKind = (typeof RQ_KINDS)[number];

/** Jobs a second of one RQ worker, from its first finished job on. @see https://python-rq.org/docs/workers/ */
export async function rqDrain(kind: RqKind, serviceUrl: string): Promise<number> {
  const jobs = { worker: 100, fork: 200, simple: 2_000 }[kind];
  const redis = await startRedis();
  const cache = mkdtempSync(join(tmpdir(), "longhaul-bench-")); // modules stay compiled, and not beside their sources
  const env = { REDIS_URL: redis.url, SERVICE_URL: serviceUrl, BODY, JOBS: String(jobs), PYTHONPYCACHEPREFIX: cache };
  await (await python({ ...env, MODE: "enqueue" })).output;
  const command = ["-m", "rq.cli", "worker", "--burst", "--quiet", "--path", "bench/peers", "--url", redis.url];
  const worker = await (kind === "worker"
    ? python(env, undefined, command, "noop")
    : python({ ...env, MODE: kind }, /ready/));
  let over = false;
  void worker.output.then(() => {
    over = true;
  });
  /** A burst worker ends by itself, when it has done all. */
  const finished = async () => {
    const ended = over;
    const done = await redis.client.zcard("rq:finished:noop");
    if (ended && done < jobs) throw new Error(`RQ's worker ended after ${done} of ${jobs} jobs`);
    return done;
  };
  let first = 0;
  while (first === 0) {
    await Bun.sleep(5);
    first = await finished();
  }
  const begun = performance.now();
  let done = first;
  while (done < jobs) {
    await Bun.sleep(10);
    done = await finished();
  }
  const rate = (jobs - first) / ((performance.now() - begun) / 1_000);
  worker.kill(); // it has nothing in hand, and would tell at length that it was stopped
  await redis.stop();
  rmSync(cache, { recursive: true, force: true });
  return rate;
}

/** The system that Longhaul replaces: RQ, where python3-rq is installed. Only its drain is compared: it is two orders slower. */
import { BODY, start, startRedis } from "./machine.ts";

/** A Python that has RQ: the system's own, where another one stands before it in PATH. */
const PYTHON = ["python3", "/usr/bin/python3"].find(
  (path) => Bun.which(path) && Bun.spawnSync([path, "-c", "import rq, redis"]).exitCode === 0,
);
/** Whether RQ can be measured here. */
export const hasRq = (): boolean => PYTHON !== undefined;
const python = (env: Record<string, string>, ready?: RegExp) =>
  start("bench/peers/rq_call.py", env, ready, [], PYTHON as string);

/**
 * Jobs a second of one RQ worker, from its first finished job on.
 * @param kind  fork: a process a job, RQ's own way · simple: in the worker's process
 */
export async function rqDrain(kind: "fork" | "simple", serviceUrl: string): Promise<number> {
  const jobs = kind === "fork" ? 200 : 2_000;
  const redis = await startRedis();
  const env = { REDIS_URL: redis.url, SERVICE_URL: serviceUrl, BODY, JOBS: String(jobs), PYTHONDONTWRITEBYTECODE: "1" };
  await (await python({ ...env, MODE: "enqueue" })).output;
  const worker = await python({ ...env, MODE: kind }, /ready/);
  const finished = () => redis.client.zcard("rq:finished:noop");
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
  await worker.stop();
  await redis.stop();
  return rate;
}

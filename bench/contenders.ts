/** Those who are measured: each knows how to start its gateway and its worker, and where its jobs lie. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { BUN_START } from "../shared/runtime.ts";
import { type BenchRedis, type Child, CONCURRENCY, start } from "./machine.ts";

export type Contender = {
  name: string;
  /** settings of Redis that its own deployment makes, beside append-only and noeviction */
  redis: string;
  gateway(
    redis: BenchRedis,
    port: number,
    dir: string,
    flags?: string[],
    more?: Record<string, string>,
  ): Promise<Child>;
  worker(
    redis: BenchRedis,
    serviceUrl: string,
    dir: string,
    flags?: string[],
    more?: Record<string, string>,
  ): Promise<Child>;
  finished(redis: BenchRedis): Promise<number>;
  /** the hash of a job; the last that is written to it is its end */
  record(id: string): string;
};

/** Longhaul's compose.yaml and `up` start Redis with it. */
const LISTPACK = "--hash-max-listpack-value 1024";

/** What was submitted and is neither waiting, nor with a worker, nor ended otherwise: of the finished, an entry of the index holds many. */
const FINISHED = `
local at = KEYS[1]
local n = (redis.call('HGET', at .. 'counts', 'seq') or 0) - redis.call('LLEN', at .. 'ready')
for _, other in ipairs({ 'scheduled', 'backlog', 'ended:failed', 'ended:canceled' }) do n = n - redis.call('ZCARD', at .. other) end
for _, w in ipairs(redis.call('ZRANGE', at .. 'leases', 0, -1)) do
  n = n - redis.call('SCARD', at .. 'held:' .. w) - redis.call('LLEN', at .. 'wake:' .. w)
end
return n`;

const longhaulOn = (name: string, path: string): Contender => ({
  name,
  redis: LISTPACK,
  gateway(redis, port, dir, flags, more) {
    return start(
      "gateway.ts",
      { ...env(redis, port, dir, "http://127.0.0.1:1", path), ...more },
      /gateway ready/,
      flags,
    );
  },
  worker(redis, serviceUrl, dir, flags, more) {
    return start("worker.ts", { ...env(redis, 0, dir, serviceUrl, path), ...more }, /ready under/, flags);
  },
  finished: (redis) => redis.client.eval(FINISHED, 1, "lh:{noop}:") as Promise<number>,
  record: (id) => `lh:{noop}:job:${id}`,
});
/** Its service sends X-Job-Id back, so that connections are used again. */
export const longhaul = longhaulOn("Longhaul", "/noop");
/** Its service does not: a connection a call. */
export const longhaulUnnamed = longhaulOn("Longhaul, no X-Job-Id", "/unnamed");

/** One operation on the no-op service; every feature on, as shipped. */
function env(redis: BenchRedis, port: number, dir: string, serviceUrl: string, path: string): Record<string, string> {
  const file = join(dir, `services-${port}${path.replace("/", "-")}.json`);
  writeFileSync(file, JSON.stringify({ operations: { noop: { url: serviceUrl, path, slots: CONCURRENCY } } }));
  return {
    ...BUN_START, // as `up` sets it; a worker would begin anew to set it, which a profiler does not outlive
    REDIS_URL: redis.url,
    PORT: String(port),
    DASHBOARD_PORT: "0",
    SERVICES: file,
    DATA_DIR: join(dir, "data"),
  };
}

/** Starts bench/peers/<name>-gateway.ts and -worker.ts. */
const peer = (name: string, env: Record<string, string>): Pick<Contender, "gateway" | "worker"> => ({
  gateway: (redis, port) =>
    start(`bench/peers/${name}-gateway.ts`, { ...env, REDIS_URL: redis.url, PORT: String(port) }, /ready/),
  worker: (redis, serviceUrl) =>
    start(
      `bench/peers/${name}-worker.ts`,
      { ...env, REDIS_URL: redis.url, SERVICE_URL: serviceUrl, CONCURRENCY: String(CONCURRENCY) },
      /ready/,
    ),
});

const bull = (name: string, redis: string, env: Record<string, string>): Contender => ({
  name,
  redis,
  ...peer("bullmq", env),
  finished: (redis) => redis.client.zcard("bull:noop:completed"),
  record: (id) => `bull:noop:${id}`,
});

/** As its documentation recommends for speed. */
export const bullmq = bull("BullMQ on Bun", "", {});
/** The same with the settings of Redis and of Bun that Longhaul's deployment makes, which BullMQ's does not. */
export const bullmqAsOurs = bull("BullMQ, Redis and Bun set as ours", LISTPACK, { ...BUN_START });

/**
 * The same packages with none of the promises: what they alone allow on this machine. No contender, a limit.
 */
export const floor: Contender = {
  name: "floor",
  redis: LISTPACK,
  ...peer("floor", BUN_START),
  finished: async (redis) => Number(await redis.client.get("done")),
  record: (id) => `floor:${id}`,
};

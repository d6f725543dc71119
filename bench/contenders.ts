/** Those who are measured: each knows how to start its gateway and its worker, and how to read when a job ended. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type BenchRedis, type Child, start } from "./machine.ts";

export type Contender = {
  name: string;
  gateway(redis: BenchRedis, port: number, dir: string): Promise<Child>;
  worker(redis: BenchRedis, serviceUrl: string, dir: string): Promise<Child>;
  finished(redis: BenchRedis): Promise<number>;
  /** end of a job, ms since 1970 */
  endedAt(redis: BenchRedis, id: string): Promise<number>;
};

export const CONCURRENCY = 50;

export const longhaul: Contender = {
  name: "Longhaul",
  gateway(redis, port, dir) {
    return start("gateway.ts", env(redis, port, dir, "http://127.0.0.1:1"), /gateway ready/);
  },
  worker(redis, serviceUrl, dir) {
    return start("worker.ts", env(redis, 0, dir, serviceUrl), /ready under/);
  },
  finished: (redis) => redis.client.zcard("lh:{noop}:ended:finished"),
  endedAt: async (redis, id) => Number(await redis.client.hget(`lh:{noop}:job:${id}`, "e")),
};

/** One operation on the no-op service; every feature on, as shipped. */
function env(redis: BenchRedis, port: number, dir: string, serviceUrl: string): Record<string, string> {
  const file = join(dir, `services-${port}.json`);
  writeFileSync(file, JSON.stringify({ operations: { noop: { url: serviceUrl, slots: CONCURRENCY } } }));
  return { REDIS_URL: redis.url, PORT: String(port), DASHBOARD_PORT: "0", SERVICES: file, DATA_DIR: join(dir, "data") };
}

export const bullmq: Contender = {
  name: "BullMQ on Bun",
  gateway: (redis, port) =>
    start("bench/peers/bullmq-gateway.ts", { REDIS_URL: redis.url, PORT: String(port) }, /ready/),
  worker: (redis, serviceUrl) =>
    start(
      "bench/peers/bullmq-worker.ts",
      { REDIS_URL: redis.url, SERVICE_URL: serviceUrl, CONCURRENCY: String(CONCURRENCY) },
      /ready/,
    ),
  finished: (redis) => redis.client.zcard("bull:noop:completed"),
  endedAt: async (redis, id) => Number(await redis.client.hget(`bull:noop:${id}`, "finishedOn")),
};

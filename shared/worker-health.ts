/**
 * Whether the worker of this host is well: `worker.ts --health`, for a container's healthcheck. A worker listens nowhere; what
 * can fail without ending it is its way to Redis. So it is well when Redis, reached as the worker reaches it (one server,
 * Sentinel, Cluster, TLS), has heard its beat within a lease.
 */
import { hostname } from "node:os";
import type { Config } from "./config.ts";
import { redisAddress } from "./redis-url.ts";
import { Inspector } from "./store/inspect.ts";
import { connect, logText, ready } from "./store/redis.ts";

/** ms for connection and answer: the healthcheck of compose.yaml waits for 10 s. */
const WAIT_MS = 8_000;

/** Leaves its connection open: the process ends behind it. @returns undefined when it is well, else why not */
export async function workerHealth(config: Config): Promise<string | undefined> {
  const redis = connect(config.redisUrl, "request", "longhaul-health");
  redis.on("error", () => {}); // told by the answer that does not come
  try {
    await ready(redis, WAIT_MS);
    const workers = await new Inspector(redis).workers(config.leaseMs);
    if (workers.some(({ host }) => host === hostname())) return undefined;
    return `Redis at ${redisAddress(config.redisUrl)} has heard of no worker on ${hostname()} for ${config.leaseMs / 1_000} s`;
  } catch (error) {
    return `Redis at ${redisAddress(config.redisUrl)}: ${logText(error)}`;
  }
}

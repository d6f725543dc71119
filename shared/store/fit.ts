/** Whether a Redis may be used: looked at on each connect, because another one may have taken its place. */
import { Cluster, type Redis } from "ioredis";
import { GLOBAL, PROTOCOL } from "../keys.ts";
import type { Log } from "../log.ts";
import type { Connection } from "../script.ts";
import { info, logText, UnfitRedis } from "./redis.ts";

/** Scripts carry flags (`#!lua`), which came with it. */
const OLDEST = 7;

/** It answers, but may lose what it accepts. What has been taken from it may still be settled there. */
export class VolatileRedis extends UnfitRedis {}

/** It takes no writes now, and may later: a replica before its failover. */
export class ReadOnlyRedis extends Error {}

/**
 * Checks that this Redis keeps what it accepts, and that its protocol is ours (protocol.md §2, §4).
 * @returns warnings: what could not be checked, or is allowed by ALLOW_VOLATILE
 * @throws UnfitRedis · ReadOnlyRedis · what ioredis throws
 */
export async function checkRedis(redis: Connection, allowVolatile: boolean): Promise<string[]> {
  const masters: (Redis | Cluster)[] = redis instanceof Cluster ? redis.nodes("master") : [redis];
  const found = await Promise.all((masters.length ? masters : [redis]).map((node) => checkServer(node, redis)));
  const wrong = [...new Set(found.flatMap((one) => one.wrong))];
  if (wrong.length && !allowVolatile) {
    throw new VolatileRedis(`${wrong.join("; ")}. (ALLOW_VOLATILE=1 starts all the same and shows it as degraded.)`);
  }
  await redis.hsetnx(GLOBAL.protocol, "major", PROTOCOL.major);
  const [major, minor] = await redis.hmget(GLOBAL.protocol, "major", "minor");
  if (Number(major) !== PROTOCOL.major) {
    throw new UnfitRedis(
      `this Redis holds jobs of protocol ${major}, this version speaks ${PROTOCOL.major}. Run the version that fits until its queues are empty, or use another Redis database or NAMESPACE.`,
    );
  }
  if (Number(minor ?? -1) < PROTOCOL.minor) await redis.hset(GLOBAL.protocol, "minor", PROTOCOL.minor);
  return [...new Set([...found.flatMap((one) => one.unknown), ...wrong])];
}

async function checkServer(node: Connection, redis: Connection): Promise<{ wrong: string[]; unknown: string[] }> {
  const [server, memory, persistence, replication] = await Promise.all(
    ["server", "memory", "persistence", "replication"].map((section) => info(node, section)),
  );
  const version = server?.get("redis_version");
  if (version !== undefined && Number.parseInt(version, 10) < OLDEST)
    throw new UnfitRedis(`it is Redis ${version}; Redis ${OLDEST}.0 or newer is needed, or Valkey`);
  if (server?.get("redis_mode") === "sentinel")
    throw new UnfitRedis("it is a Sentinel: REDIS_URL must be such as redis+sentinel://host:26379/master");
  if (replication?.get("role") === "slave" && !(redis instanceof Cluster))
    throw new ReadOnlyRedis("is a read-only replica: REDIS_URL must name its master, or the sentinels");
  const wrong: string[] = [];
  const unknown: string[] = [];
  const policy = memory?.get("maxmemory_policy");
  const appendOnly = persistence?.get("aof_enabled");
  if (policy === undefined) unknown.push("maxmemory-policy could not be read (INFO is barred): it must be noeviction");
  else if (policy !== "noeviction")
    wrong.push(`maxmemory-policy is ${policy}, so Redis may evict jobs: set it to noeviction`);
  if (appendOnly === undefined) unknown.push("appendonly could not be read (INFO is barred): it must be yes");
  else if (appendOnly !== "1") wrong.push("appendonly is no, so a crash of Redis loses jobs: set it to yes");
  return { wrong, unknown };
}

/** ms between two looks at a Redis that could not be looked at, and between two lines about that. */
const AGAIN_MS = 1_000;
const TOLD_MS = 60_000;

/**
 * Checks a connection's Redis now and after each reconnect.
 * @param on  fit: it may be used, with the warnings; unfit: it must not be, and waiting does not cure that
 */
export function keepFit(
  redis: Connection,
  allowVolatile: boolean,
  on: { fit(warnings: string[]): Promise<void>; unfit(error: UnfitRedis): void; log: Log },
): void {
  let latest = 0;
  const check = async () => {
    const mine = ++latest;
    let toldAt = -Infinity;
    for (; mine === latest && redis.status === "ready"; await new Promise((done) => setTimeout(done, AGAIN_MS))) {
      try {
        await on.fit(await checkRedis(redis, allowVolatile));
        return;
      } catch (error) {
        if (mine !== latest) return;
        if (error instanceof UnfitRedis) return on.unfit(error);
        if (redis.status !== "ready" || performance.now() - toldAt < TOLD_MS) continue;
        // a failover: READONLY; a full disk: MISCONF
        on.log.warn(
          `Redis ${error instanceof ReadOnlyRedis ? error.message : `refuses (${logText(error)})`}; trying again until it may be used.`,
        );
        toldAt = performance.now();
      }
    }
  };
  redis.on("ready", () => void check());
  redis.on("unfit", (error: UnfitRedis) => on.unfit(error));
  if (redis.status === "ready") void check();
}

/**
 * Whether a Redis may be used: looked at on each connect, because another one may have taken its place, and from time to time, because
 * somebody may have changed its settings or emptied it.
 */
import { Cluster, type Redis } from "ioredis";
import { serviceName } from "../jobs.ts";
import { GLOBAL, PROTOCOL } from "../keys.ts";
import type { Log } from "../log.ts";
import type { Connection } from "../script.ts";
import { Maintainer } from "./maintain.ts";
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
  await needed(async () => {
    await new Maintainer(redis).leased(serviceName("fit")); // a script, on a key that it names itself, as all do
    await redis.hsetnx(GLOBAL.protocol, "major", PROTOCOL.major);
  });
  const [major, minor] = await redis.hmget(GLOBAL.protocol, "major", "minor");
  if (Number(major) !== PROTOCOL.major) {
    throw new UnfitRedis(
      `this Redis holds jobs of protocol ${major}, this version speaks ${PROTOCOL.major}. Run the version that fits until its queues are empty, or use another Redis database or NAMESPACE.`,
    );
  }
  if (Number(minor ?? -1) < PROTOCOL.minor) await redis.hset(GLOBAL.protocol, "minor", PROTOCOL.minor);
  return [...new Set([...found.flatMap((one) => one.unknown), ...wrong])];
}

/** Commands that were renamed, and stand-ins for Redis that serve no such script: waiting cures neither. */
async function needed(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    const said = /^ERR (unknown command .\w+.|.*undeclared key)/i.exec(error instanceof Error ? error.message : "");
    if (!said) throw error;
    throw new UnfitRedis(
      `it does not serve what every job needs (${said[1]}). Longhaul needs a Redis whose commands are not renamed, EVAL and EVALSHA among them, and whose scripts may name keys themselves`,
    );
  }
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

/** ms between two looks at a Redis that may be used; at one that could not be looked at; and between two lines about that. */
const LOOK_MS = 10_000;
const AGAIN_MS = 1_000;
const TOLD_MS = 60_000;

/**
 * Checks a connection's Redis now, after each reconnect, and every LOOK_MS. Warnings are told on each connect, and when they change.
 * @param on  fit: it may be used, with the warnings, after each look; unfit: it must not be, and waiting does not cure that
 */
export function keepFit(
  redis: Connection,
  allowVolatile: boolean,
  on: { fit(warnings: string[]): Promise<void>; unfit(error: UnfitRedis): void; log: Log },
  lookMs = LOOK_MS,
): void {
  let latest = 0;
  let toldAt = -Infinity; // over reconnects: a master that became a replica ends each connection at its first write
  let wasFit = false;
  const check = async () => {
    const mine = ++latest;
    let told = "";
    for (let pauseMs = 0; ; ) {
      await new Promise((done) => setTimeout(done, pauseMs));
      if (mine !== latest || redis.status !== "ready") return;
      try {
        const emptied = wasFit && (await redis.exists(GLOBAL.protocol)) === 0;
        const warnings = await checkRedis(redis, allowVolatile);
        if (emptied) on.log.error("Redis was emptied: the jobs that it held are gone", { reason: EMPTIED });
        for (const reason of warnings.join() === told ? [] : warnings)
          on.log.warn("Redis is not as it should be", { reason });
        told = warnings.join();
        await on.fit(warnings);
        wasFit = true;
        toldAt = -Infinity;
        pauseMs = lookMs;
      } catch (error) {
        if (mine !== latest) return;
        if (error instanceof UnfitRedis) return on.unfit(error);
        pauseMs = AGAIN_MS;
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

const EMPTIED = "somebody called FLUSHALL or FLUSHDB, or another Redis has taken its place";

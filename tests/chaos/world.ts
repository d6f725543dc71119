/** Everything that a chaos run breaks: Redis, proxies, gateways, workers, the microservice. Real processes, loopback only. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { freePort, memoryDir, startRedis, type TestRedis } from "../support/redis.ts";
import { type Process, startProcess, until } from "../support/stack.ts";
import { startCluster, startSentinel } from "../support/topology.ts";
import { clockEnv, removeClocks } from "./clocks.ts";
import { type Disk, mountDisk } from "./disk.ts";
import { type LossyProxy, startLossyProxy } from "./proxy.ts";
import { type Receiver, startReceiver } from "./receiver.ts";
import { type ChaosService, LARGE_BYTES, startChaosService } from "./service.ts";

export type Member = { name: string; process: Process; stopped: boolean; turns: number; env: Record<string, string> };
export type World = {
  redis: Pick<TestRedis, "client" | "kill9" | "restart" | "stop">;
  /** whether proxies stand before Redis */
  proxied: boolean;
  /** a connection for looking: fails fast, and follows a failover */
  look(): Redis;
  service: ChaosService;
  receiver: Receiver;
  /** where large results lie */
  resultsDir: string;
  /** file systems that may be filled; undefined where this user may not mount any, or Redis's file is not on one */
  disks: { results: Disk | undefined; redis: Disk | undefined };
  /** between workers and Redis, gateways and Redis, workers and the microservice */
  proxies: { workers: LossyProxy; gateways: LossyProxy; service: LossyProxy };
  gateways: Member[];
  workers: Member[];
  urls: string[];
  /** of the first gateway's dashboard */
  boardUrl: string;
  /** starts a dead one again under the same settings */
  revive(member: Member): Promise<void>;
  /** lines of dead and living workers that match */
  lines(pattern: RegExp): string[];
  over: boolean;
  stop(): Promise<void>;
};

export const LEASE_MS = 2_500;
export const SERVICE = "work";
/** A second operation of the service, which every other worker does not know: as during a rolling upgrade. */
export const RARE = "rare";

/**
 * How Redis syncs its file, and where that lies. With everysec Redis answers before it has written while an fsync is
 * under way, so that kill -9 of Redis alone loses what it acknowledged (docs/reliability.md): for up to 2 s on a slow
 * disk, and for moments in memory, too, when its thread for that waits for a starved core. So the run that is to judge
 * this code, and neither the disk nor the machine, syncs always, and in memory, where that costs next to nothing.
 */
export type Durability = "memory" | "everysec" | "always";
export type Kind = "plain" | "cluster" | "sentinel";

const FAST = { maxRetriesPerRequest: 0, enableOfflineQueue: false, retryStrategy: () => 100 };

/** On a Cluster the master of the jobs' slot is killed and comes back; with Sentinel another one takes over first. */
async function startRedisOf(kind: Kind, data: string, durability: Durability) {
  if (kind === "plain") {
    const redis = await startRedis({ dir: data, appendfsync: durability === "everysec" ? "everysec" : "always" });
    return { redis, url: "", port: redis.port, look: () => new Redis(redis.port, FAST) };
  }
  const topology = await (kind === "cluster" ? startCluster() : startSentinel());
  const key = `lh:{${SERVICE}}:ready`;
  const first = await topology.master(key);
  let victim = first;
  const look = () => (kind === "cluster" ? new Redis(first.port, FAST) : topology.follow(FAST));
  const redis: World["redis"] = {
    client: kind === "cluster" ? first.client : topology.follow({ maxRetriesPerRequest: null }),
    async kill9() {
      victim = await topology.master(key);
      await victim.kill9();
    },
    async restart() {
      if (kind === "sentinel") await until(async () => (await topology.master(key)) !== victim, 20_000);
      await victim.restart();
      // A Cluster's master that was started again refuses everything for a moment.
      const well = async () => /cluster_state:ok/.test(String(await first.client.call("CLUSTER", "INFO")));
      if (kind === "cluster") await until(well, 20_000);
    },
    async stop() {
      redis.client.disconnect();
      await topology.stop();
    },
  };
  return { redis, url: topology.url, port: first.port, look };
}

export async function startWorld(
  gateways: number,
  workers: number,
  durability: Durability,
  kind: Kind,
  random: () => number,
  /** whether the clocks of the first gateway and the first worker can be set */
  clocks: boolean,
): Promise<World> {
  const dir = mkdtempSync(join(tmpdir(), "longhaul-chaos-"));
  const data = durability === "always" ? join(dir, "redis") : memoryDir("longhaul-chaos-");
  const resultsDir = join(dir, "results");
  const disks = {
    results: mountDisk(resultsDir, 64),
    redis: kind === "plain" && durability !== "always" ? mountDisk(data, 2_048) : undefined,
  };
  if (!disks.results)
    console.log("chaos: SKIPPED the faults of full disks: no file system can be mounted here (needs root)");
  mkdirSync(data, { recursive: true });
  const [{ redis, url: direct, port: redisPort, look }, service, receiver] = await Promise.all([
    startRedisOf(kind, data, durability),
    startChaosService(random),
    startReceiver(random),
  ]);
  const [forWorkers, forGateways, forService] = await Promise.all([
    startLossyProxy(redisPort, random),
    startLossyProxy(redisPort, random),
    startLossyProxy(service.port, random),
  ]);
  const url = `http://127.0.0.1:${forService.port}`;
  const settings = { url, path: "/work", slots: 16, backoff: "200ms", timeout: "4s" };
  const known = { [SERVICE]: settings, [RARE]: { ...settings, service: SERVICE } };
  writeFileSync(join(dir, "services.json"), JSON.stringify({ operations: known }));
  writeFileSync(join(dir, "services-before.json"), JSON.stringify({ operations: { [SERVICE]: settings } }));
  const env = {
    SERVICES: join(dir, "services.json"),
    DATA_DIR: join(dir, "data"),
    RESULTS_DIR: resultsDir,
    RESULT_INLINE_BYTES: `${LARGE_BYTES / 2}`,
    WEBHOOK_SECRET: receiver.secret,
    CALLBACK_ALLOW: "127.0.0.1",
    CALLBACK_TIMEOUT: "2s",
    GATEWAY_URL: "http://127.0.0.1:1", // only so that calls are told their token
    LEASE: `${LEASE_MS}ms`,
    DRAIN_TIMEOUT: "1s",
    DASHBOARD_PORT: "0",
  };
  const past: string[] = [];
  const boardPort = await freePort();
  const member = (name: string, file: string, more: Record<string, string>): Member => {
    const all = { ...env, ...more };
    return { name, env: all, stopped: false, turns: 0, process: startProcess(file, all) };
  };
  const world: World = {
    redis,
    proxied: kind === "plain",
    look,
    service,
    receiver,
    resultsDir,
    disks,
    proxies: { workers: forWorkers, gateways: forGateways, service: forService },
    gateways: [],
    workers: [],
    urls: [],
    boardUrl: `http://127.0.0.1:${boardPort}`,
    async revive(dead) {
      if (world.over) return;
      past.push(...dead.process.output().split("\n"));
      dead.process = startProcess(dead.name.startsWith("gateway") ? "gateway.ts" : "worker.ts", dead.env);
    },
    lines(pattern) {
      const living = [...world.workers, ...world.gateways].flatMap((m) => m.process.output().split("\n"));
      return [...past, ...living].filter((line) => pattern.test(line));
    },
    over: false,
    async stop() {
      world.over = true;
      const all = [...world.gateways, ...world.workers];
      for (const m of all) m.process.kill("SIGKILL");
      await Promise.all(all.map((m) => m.process.exited));
      for (const proxy of Object.values(world.proxies)) proxy.stop();
      service.stop();
      receiver.stop();
      await redis.stop();
      for (const disk of Object.values(disks)) disk?.unmount();
      removeClocks();
      for (const path of [dir, data]) rmSync(path, { recursive: true, force: true });
    },
  };
  for (let i = 0; i < gateways; i++) {
    const port = await freePort();
    world.urls.push(`http://127.0.0.1:${port}`);
    world.gateways.push(
      member(`gateway ${i + 1}`, "gateway.ts", {
        PORT: String(port),
        ...(i === 0 ? { DASHBOARD_PORT: String(boardPort), ...(clocks ? clockEnv() : {}) } : {}),
        REDIS_URL: direct || `redis://127.0.0.1:${forGateways.port}`,
      }),
    );
  }
  for (let i = 0; i < workers; i++) {
    world.workers.push(
      member(`worker ${i + 1}`, "worker.ts", {
        REDIS_URL: direct || `redis://127.0.0.1:${forWorkers.port}`,
        ...(i % 2 === 1 ? { SERVICES: join(dir, "services-before.json") } : {}),
        ...(i === 0 && clocks ? clockEnv() : {}),
      }),
    );
  }
  try {
    await Promise.all([
      ...world.gateways.map((m) => m.process.says(/gateway ready/, 60_000)),
      ...world.workers.map((m) => m.process.says(/ready under/, 60_000)),
    ]);
  } catch (error) {
    await world.stop();
    throw error;
  }
  return world;
}

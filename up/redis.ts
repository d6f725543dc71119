/** The Redis of one machine: the one that REDIS_URL names, or one of our own. */
import { mkdirSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { onPath, output, program, type Say, Trouble } from "./install.ts";
import { ROOT } from "./settings.ts";

/** Older ones know no per-script `allow-oom`. */
const OLDEST = 7;

const handedOut = new Set<number>();

/** A port of 127.0.0.1 that was free a moment ago, and not given to another program of ours that has yet to listen. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = await new Promise<number>((resolve, reject) => {
      const server = createServer();
      server.on("error", reject);
      server.listen({ port: 0, host: "127.0.0.1" }, () => {
        const { port } = server.address() as { port: number };
        server.close(() => resolve(port));
      });
    });
    if (handedOut.has(port)) continue;
    handedOut.add(port);
    return port;
  }
}

/** @returns undefined when it answers PING, else why it does not */
export async function silence(url: string, timeoutMs = 3_000): Promise<string | undefined> {
  let client: Bun.RedisClient | undefined;
  try {
    client = new Bun.RedisClient(url, { connectionTimeout: timeoutMs, autoReconnect: false, maxRetries: 0 });
    const late = Bun.sleep(timeoutMs).then(() => {
      throw new Error(`no answer within ${timeoutMs / 1000} s`);
    });
    await Promise.race([client.send("PING", []), late]);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  } finally {
    client?.close();
  }
}

/**
 * Connects as gateway and worker do, so that it fails before them and for the same reasons.
 * @throws Trouble when the Redis that the user named does not answer, or must not be used
 */
export async function given(url: string): Promise<void> {
  const env = { ...process.env, REDIS_URL: url };
  const { ok, text } = await output([process.execPath, `${ROOT}/up/given.ts`], { env, cwd: ROOT });
  if (!ok)
    throw new Trouble(`${text.trim()}\nStart it, correct REDIS_URL, or unset REDIS_URL to have one started here.`);
}

/** A server that is new enough, installed where there is none. */
async function server(say: Say): Promise<string> {
  const otherwise = "or set REDIS_URL to a Redis that runs, for example redis://127.0.0.1:6379";
  const tooOld: string[] = [];
  for (const name of ["redis-server", "valkey-server"]) {
    const path = onPath(name);
    if (!path) continue;
    const told = Bun.spawnSync([path, "--version"]).stdout.toString();
    const major = Number(/\bv=(\d+)/.exec(told)?.[1]);
    if (!(major < OLDEST)) return path; // an unknown version is given the benefit of the doubt
    tooOld.push(`${path} is version ${major}`);
  }
  if (tooOld.length)
    throw new Trouble(`${tooOld.join(", ")}; ${OLDEST} or newer is needed.\nInstall one, ${otherwise}`);
  return program("redis", otherwise, say);
}

export interface OwnRedis {
  command: string[];
  port: number;
  url: string;
}

/** How to start our own Redis, which keeps its data in `dataDir`/redis and is reached from this machine only. */
export async function own(dataDir: string, say: Say): Promise<OwnRedis> {
  const path = await server(say);
  const dir = join(dataDir, "redis");
  mkdirSync(dir, { recursive: true });
  const port = await freePort();
  const settings = {
    port: String(port),
    bind: "127.0.0.1",
    dir,
    // Survives a power cut, and kill -9 of Redis while the disk is slow, but for a second or two (docs/reliability.md).
    ...{ appendonly: "yes", appendfsync: "everysec", save: "3600 1" },
    // Never throw a queued job away to make room.
    "maxmemory-policy": "noeviction",
    // Job records stay listpacks, a third smaller than as hashtables.
    ...{ "hash-max-listpack-value": "1024", "hash-max-listpack-entries": "512" },
    "tcp-keepalive": "15",
  };
  const command = [path, ...Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value])];
  return { command, port, url: `redis://127.0.0.1:${port}` };
}

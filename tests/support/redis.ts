/** A real redis-server of the test's own, on a free port, with append-only persistence in a temporary folder (in memory). */
import { existsSync, mkdtempSync, rmSync, statfsSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";

const given = new Set<number>();

/**
 * A port that was free a moment ago. Below the range that the system gives to outgoing connections (32768 on Linux):
 * one of those could take the port of a server that is to be started again on it.
 */
export async function freePort(): Promise<number> {
  const free = (port: number) =>
    new Promise<boolean>((done) => {
      const server = createServer();
      server.once("error", () => done(false));
      server.listen(port, "127.0.0.1", () => server.close(() => done(true)));
    });
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 22_000);
    if (given.has(port)) continue; // whoever got it may not listen yet
    given.add(port);
    if (await free(port)) return port;
  }
}

/**
 * How the tests' Redis syncs its file. With everysec it answers before it has written while an fsync is under way, so that
 * on a busy disk kill -9 alone loses up to 2 s (docs/reliability.md): tests that kill it would judge the disk, and not this code.
 */
export const SYNCED = { appendfsync: "always" };

/** A new folder in memory, where syncing costs next to nothing; where there is no room for one, on the disk. */
export function memoryDir(prefix: string): string {
  const shm = "/dev/shm";
  const free = existsSync(shm) ? statfsSync(shm) : { bavail: 0, bsize: 0 };
  return mkdtempSync(join(free.bavail * free.bsize > 512 * 1024 ** 2 ? shm : tmpdir(), prefix));
}

export type TestRedis = {
  port: number;
  url: string;
  /** a plain client for looking and for breaking things */
  client: Redis;
  /** the process's id, for signals of the test's own */
  readonly pid: number;
  kill9(): Promise<void>;
  /** starts it again on the same port and data */
  restart(): Promise<void>;
  stop(): Promise<void>;
};

/**
 * @param options  further options of redis-server: { maxmemory: "50mb" }
 * @param at       its port, where the test has told it to others already
 */
export async function startRedis(options: Record<string, string> = {}, at?: number, tries = 3): Promise<TestRedis> {
  const dir = memoryDir("longhaul-redis-");
  const port = at ?? (await freePort());
  const settings: Record<string, string> = {
    port: String(port),
    bind: "127.0.0.1",
    dir,
    appendonly: "yes",
    ...SYNCED,
    save: "",
    "maxmemory-policy": "noeviction",
    "hash-max-listpack-value": "1024",
    daemonize: "no",
    ...options,
  };
  const args = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]);
  const spawn = () => Bun.spawn(["redis-server", ...args], { stdout: "ignore", stderr: "ignore" });
  let child = spawn();
  const client = new Redis({
    port,
    password: options.requirepass,
    maxRetriesPerRequest: null,
    retryStrategy: () => 50,
  });
  client.on("error", () => {});
  const up = await Promise.race([client.ping(), child.exited.then(() => undefined)]);
  if (up === undefined) {
    client.disconnect();
    rmSync(dir, { recursive: true, force: true });
    if (at !== undefined || tries === 0) throw new Error(`redis-server ended at once with ${child.exitCode}: ${args}`);
    return startRedis(options, undefined, tries - 1); // somebody else took the port meanwhile
  }
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    client,
    get pid() {
      return child.pid;
    },
    async kill9() {
      child.kill("SIGKILL");
      await child.exited;
    },
    async restart() {
      child = spawn();
      await client.ping();
    },
    async stop() {
      client.disconnect();
      child.kill("SIGKILL");
      await child.exited;
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

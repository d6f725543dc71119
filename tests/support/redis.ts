/** A real redis-server of the test's own, on a free port, with append-only persistence in a temporary folder. */
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
 * For tests that kill Redis and look for what it had acknowledged. With everysec it answers before it has written while
 * an fsync is under way, so that on a busy disk kill -9 alone loses up to 2 s (docs/reliability.md): these tests would
 * judge the disk, and not this code. For the same reason their file is in memory, where there is room for it.
 */
export const SYNCED = { appendfsync: "always" };

function inMemory(): string {
  const shm = "/dev/shm";
  if (!existsSync(shm)) return tmpdir();
  const { bavail, bsize } = statfsSync(shm);
  return bavail * bsize > 512 * 1024 ** 2 ? shm : tmpdir();
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
export async function startRedis(options: Record<string, string> = {}, at?: number): Promise<TestRedis> {
  const dir = mkdtempSync(join(options.appendfsync === "always" ? inMemory() : tmpdir(), "longhaul-redis-"));
  const port = at ?? (await freePort());
  const settings: Record<string, string> = {
    port: String(port),
    bind: "127.0.0.1",
    dir,
    appendonly: "yes",
    appendfsync: "everysec",
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
  await client.ping();
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

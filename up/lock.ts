/**
 * One `up` a data directory: two Redis servers that append to the same file would destroy it.
 * The lock is a file with the pid of its holder, and with what the next one must wait for should the holder be killed.
 */
import { linkSync, mkdirSync, readFileSync, realpathSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Say, Trouble } from "./install.ts";
import { born, isAlive } from "./processes.ts";

interface Holder {
  pid: number;
  /** Start of the holder, so that a later process with the same pid is not taken for it. */
  born: string;
  /** The guard outlives a killed holder until it has stopped all children (children.ts). */
  guard?: number;
  /** Port of the Redis that writes into this directory. */
  redisPort?: number;
}

function read(file: string): Holder | undefined {
  try {
    return JSON.parse(readFileSync(file, "utf8")) as Holder;
  } catch {
    return undefined; // missing
  }
}

/** Sends one command to a Redis of ours. @returns its answer, undefined when nothing listens there */
async function ask(port: number, command: string, args: string[]): Promise<unknown> {
  const client = new Bun.RedisClient(`redis://127.0.0.1:${port}`, {
    ...{ connectionTimeout: 1_000, autoReconnect: false, maxRetries: 0 },
  });
  try {
    return await client.send(command, args);
  } catch {
    return undefined;
  } finally {
    client.close();
  }
}

/** Waits until nothing of a killed run is left, so that no two Redis ever share the directory. */
async function outwait(last: Holder, redisDir: string, say: Say, checkpoint: () => void, drainMs: number) {
  if (last.guard && isAlive(last.guard)) {
    const most = Math.ceil(drainMs / 1_000) + 15;
    say(
      `the run before was killed; waiting until what it left has stopped: 10 to 15 s, up to ${most} s while calls run (DRAIN_TIMEOUT)`,
    );
  }
  while (last.guard && isAlive(last.guard)) {
    checkpoint();
    await Bun.sleep(200);
  }
  const dir = last.redisPort && (await ask(last.redisPort, "CONFIG", ["GET", "dir"]));
  // Its port may be somebody else's by now.
  if (!dir || !JSON.stringify(dir).includes(JSON.stringify(realpathSync(redisDir)))) return;
  say(`stopping the Redis that the run before left on port ${last.redisPort}`);
  await ask(last.redisPort as number, "SHUTDOWN", []);
  while (await ask(last.redisPort as number, "PING", [])) {
    checkpoint();
    await Bun.sleep(200);
  }
}

export interface Lock {
  /** Adds what the next holder must know. */
  note(more: Partial<Pick<Holder, "guard" | "redisPort">>): void;
  release(): void;
}

/**
 * Takes the directory, made where it is missing, for this process.
 * @param checkpoint  asked while waiting; throws to give up
 * @param drainMs     how long a worker lets calls end: told, where a killed run's worker is waited for
 * @throws Trouble with the pid of the `up` that has it
 */
export async function lock(dataDir: string, say: Say, checkpoint: () => void, drainMs: number): Promise<Lock> {
  mkdirSync(dataDir, { recursive: true });
  const file = join(dataDir, "up.lock");
  const mine = `${file}.${process.pid}`;
  let me: Holder = { pid: process.pid, born: born(process.pid) };
  const write = () => writeFileSync(mine, JSON.stringify(me));
  write();
  try {
    for (;;) {
      try {
        linkSync(mine, file); // fails when it exists, and no reader ever sees half a file
        break;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      }
      const last = read(file);
      if (last && isAlive(last.pid) && (!last.born || last.born === born(last.pid))) {
        throw new Trouble(
          `${dataDir} is in use by another run, pid ${last.pid}.\n` +
            "Stop that one, or set DATA_DIR (and PORT, DASHBOARD_PORT) to run a second one beside it.",
        );
      }
      if (last) await outwait(last, join(dataDir, "redis"), say, checkpoint, drainMs);
      // Two that take over at once: whoever removes the other's fresh lock is found out by the check below.
      if (read(file)?.pid === last?.pid) rmSync(file, { force: true });
    }
    await Bun.sleep(20);
    if (read(file)?.pid !== process.pid) throw new Trouble(`${dataDir} was taken by another run at the same moment.`);
  } finally {
    rmSync(mine, { force: true });
  }
  return {
    note(more) {
      me = { ...me, ...more };
      write();
      renameSync(mine, file); // whole or not at all: a reader of half a file would take the lock for stale
    },
    release() {
      if (read(file)?.pid === process.pid) rmSync(file, { force: true });
    },
  };
}

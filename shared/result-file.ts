/** Large results as files in RESULTS_DIR: jobs.ts, resultDir, says where and why. */
import { mkdir, open, readdir, rename, rm, rmdir, stat, unlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { NAME, resultDir } from "./jobs.ts";
import type { Taken } from "./store/consume.ts";

type Owner = Pick<Taken, "id" | "token">;

/**
 * Writes a large result whole or not at all, under the attempt's own name. When it returns, file and directories are on the disk; when it
 * throws, nothing of this attempt is left.
 * @throws Error of the file system; whyNotWritten says it without a path
 */
export async function keepResult(resultsDir: string, { id, token }: Owner, result: string | Uint8Array): Promise<void> {
  const dir = resultDir(resultsDir, id);
  const temporary = `${dir}/.${token}`;
  try {
    const made = await mkdir(dir, { recursive: true });
    await writeFile(temporary, result, { flush: true });
    await rename(temporary, `${dir}/${token}`);
    await syncDirectory(dir);
    // A new directory is an entry of its parent, which is to be on the disk, too.
    for (let child = dir; made !== undefined && child.length >= made.length; child = dirname(child)) {
      await syncDirectory(dirname(child));
    }
  } catch (error) {
    await discardResult(resultsDir, { id, token });
    throw error;
  }
}

/** Removes what an attempt has written, and the job's directory when nothing else is in it. */
export async function discardResult(resultsDir: string, { id, token }: Owner): Promise<void> {
  const dir = resultDir(resultsDir, id);
  for (const name of [`.${token}`, token]) await unlink(`${dir}/${name}`).catch(() => {});
  await rmdir(dir).catch(() => {}); // another attempt's file keeps it
}

/** A file system that cannot sync a directory says so with one of these: then its entries are as safe as it makes them. */
const NO_SYNC = new Set(["EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EISDIR", "EPERM"]);

async function syncDirectory(path: string): Promise<void> {
  try {
    const handle = await open(path, "r");
    await handle.sync().finally(() => handle.close());
  } catch (error) {
    if (!NO_SYNC.has(codeOf(error))) throw error;
  }
}

const codeOf = (error: unknown) => String((error as { code?: unknown }).code ?? "");

const REASONS: Record<string, string> = {
  ENOSPC: "the volume is full",
  EDQUOT: "the quota is used up",
  EROFS: "the volume is read-only",
  EACCES: "the process has no right to it",
  EPERM: "the process has no right to it",
  ENOENT: "it does not exist",
  ENOTDIR: "it is no directory",
  EEXIST: "it is no directory",
  EIO: "the disk reports an error",
};

/** Why the file system refused, for clients and operators: the system's own text would show a path of this machine. */
export function whyNotWritten(error: unknown): string {
  const code = codeOf(error);
  const reason = REASONS[code] ?? "the file system refused";
  return code ? `${reason} (${code})` : reason;
}

/** Longest that a check of the volume may take, ms: a network volume that is away makes calls wait for ever. */
const CHECK_MS = 10_000;

/**
 * Whether large results can be kept: writes a file, syncs it, removes it.
 * @param name  of the process, as others check the same directory
 * @returns undefined when all is well, else a sentence without a path
 */
export async function checkResults(resultsDir: string, name: string): Promise<string | undefined> {
  const probe = `${resultsDir}/.check-${name}`;
  const write = async () => {
    try {
      await mkdir(resultsDir, { recursive: true });
      await writeFile(probe, new Uint8Array(4_096), { flush: true });
      return undefined;
    } catch (error) {
      return `RESULTS_DIR cannot be written: ${whyNotWritten(error)}`;
    } finally {
      await unlink(probe).catch(() => {});
    }
  };
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<string>((say) => {
    timer = setTimeout(say, CHECK_MS, `RESULTS_DIR cannot be written: no answer for ${CHECK_MS / 1_000} s`);
  });
  return Promise.race([write(), late]).finally(() => clearTimeout(timer));
}

/**
 * Removes directories of jobs that no record speaks of any more, and files that a killed worker left half-written.
 * Only what is older than `minAgeMs`, so that nothing is lost to a Redis that was emptied or restored by mistake, and nothing
 * of another deployment that shares the directory.
 * @param known  which of the ids have a record
 * @returns how many directories and files went
 */
export async function sweepStrays(
  resultsDir: string,
  known: (service: string, ids: string[]) => Promise<Set<string>>,
  minAgeMs: number,
): Promise<number> {
  let removed = 0;
  const now = await volumeTime(resultsDir);
  if (now === undefined) return 0;
  const old = async (path: string, ms: number) => {
    const seen = await stat(path).catch(() => undefined);
    return seen !== undefined && now - seen.mtimeMs > ms;
  };
  for (const service of await readdir(resultsDir).catch(() => [])) {
    if (!NAME.test(service)) continue;
    const folder = join(resultsDir, service);
    const ids: string[] = [];
    for (const id of await readdir(folder).catch(() => [])) {
      if (!id.startsWith(`${service}_`)) continue;
      const dir = join(folder, id);
      if (await old(dir, minAgeMs)) ids.push(id);
      for (const name of await readdir(dir).catch(() => [])) {
        if (!name.startsWith(".") || !(await old(join(dir, name), HALF_WRITTEN_MS))) continue;
        await unlink(join(dir, name)).catch(() => {});
        removed++;
      }
    }
    for (let from = 0; from < ids.length; from += 500) {
      const slice = ids.slice(from, from + 500);
      const alive = await known(service, slice);
      for (const id of slice) {
        if (alive.has(id)) continue;
        await rm(join(folder, id), { force: true, recursive: true }).catch(() => {});
        removed++;
      }
    }
  }
  return removed;
}

/** What the volume says the time is, ms: ages of its files go by its own clock. undefined = it cannot be written. */
async function volumeTime(resultsDir: string): Promise<number | undefined> {
  const file = `${resultsDir}/.time-${crypto.randomUUID()}`;
  try {
    await writeFile(file, "");
    return (await stat(file)).mtimeMs;
  } catch {
    return undefined;
  } finally {
    await unlink(file).catch(() => {});
  }
}

/** Age from which a file with a temporary name is nobody's any more: RESULT_WRITE_RETRY makes a new one each time. */
const HALF_WRITTEN_MS = 3_600_000;

/**
 * Paths in payloads. They may be relative, or absolute under the names that every container of the pipeline shares:
 * /uploads, /output, /examples. Where those lie on this machine is the environment's business.
 */
import { realpathSync, statSync } from "node:fs";
import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { basename, dirname, extname, join, resolve, sep } from "node:path";
import { Fault } from "./fault.ts";

export interface Root {
  /** The name in payloads and answers: "/uploads". */
  mount: string;
  /** The directory here, absolute, as configured (symlinks not yet resolved). */
  dir: string;
}

/** The three shared volumes, read from the environment at each call so that tests can move them. */
export function roots(env: Record<string, string | undefined> = process.env) {
  const at = (mount: string, value: string | undefined): Root => ({ mount, dir: resolve(value || mount) });
  return {
    uploads: at("/uploads", env.UPLOADS_DIR),
    output: at("/output", env.OUTPUT_DIR),
    examples: at("/examples", env.EXAMPLES_DIR),
  };
}

const isInside = (path: string, dir: string) => path === dir || path.startsWith(dir.endsWith(sep) ? dir : dir + sep);

/** realpath of the deepest part that exists, the rest appended: where a file not yet written would really land. */
function realTarget(path: string): string {
  const missing: string[] = [];
  for (let at = path; ; at = dirname(at)) {
    try {
      return join(realpathSync(at), ...missing);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if ((code !== "ENOENT" && code !== "ENOTDIR") || at === dirname(at)) throw error;
      missing.unshift(basename(at));
    }
  }
}

/**
 * Maps a payload's path onto this machine.
 * @param given  as the client wrote it
 * @param base   directory for a relative path, e.g. OUTPUT_DIR/json
 * @returns an absolute path with symlinks resolved, inside one of the three roots
 * @throws Fault 400 for a path that leaves them, by .., by an absolute path or by a symlink, or that no client should
 *   send (NUL, backslash, over 4096 characters)
 */
export function placed(given: string, base: string): string {
  const refuse = (why: string) => new Fault(400, `Path ${JSON.stringify(given.slice(0, 200))} refused: ${why}`);
  if (given.trim() === "") throw refuse("it is empty");
  if (given.length > 4096) throw refuse("it is longer than 4096 characters");
  if (given.includes("\0")) throw refuse("it contains a NUL character");
  if (given.includes("\\")) throw refuse("it contains a backslash; separate folders by /");

  const all = Object.values(roots());
  let path = resolve(base, given);
  if (given.startsWith("/")) {
    const mount = all.find((root) => isInside(path, root.mount));
    if (mount) path = join(mount.dir, path.slice(mount.mount.length));
  }
  const outside = "only files in /uploads, /output and /examples may be named";
  if (!all.some((root) => isInside(path, root.dir) || isInside(path, realTarget(root.dir)))) throw refuse(outside);

  // A link inside a root may still point out of it, so the check is repeated on the real path.
  let real: string;
  try {
    real = realTarget(path);
  } catch (error) {
    throw refuse(`${(error as NodeJS.ErrnoException).code ?? "error"} on the way to it`);
  }
  if (!all.some((root) => isInside(real, realTarget(root.dir)))) throw refuse(outside);
  return real;
}

/**
 * An existing file to read.
 * @throws Fault 400 (refused, or not a regular file), 404 `File <given> not found`
 */
export function inputFile(given: string, base: string): string {
  const path = placed(given, base);
  let isFile: boolean;
  try {
    isFile = statSync(path).isFile();
  } catch {
    throw new Fault(404, `File ${given} not found`);
  }
  // A pipe or a device in the volume would block the read for ever.
  if (!isFile) throw new Fault(400, `${given} is not a file`);
  return path;
}

/**
 * A file to write.
 * @throws Fault 400 when refused, when it names a directory, or when it would overwrite one of `inputs`
 */
export function outputFile(given: string, base: string, inputs: string[] = []): string {
  const path = placed(given, base);
  let taken: boolean;
  try {
    taken = statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
  } catch (error) {
    throw new Fault(400, `${given} cannot be written: ${(error as NodeJS.ErrnoException).code}`);
  }
  if (taken || given.endsWith("/")) {
    throw new Fault(400, `${given} is a directory; name a file`);
  }
  if (inputs.includes(path)) throw new Fault(400, `${given} is also the input; writing it would destroy the model`);
  return path;
}

/** The name of a real path in the pipeline's terms: "/output/json/house.json". */
export function shared(path: string): string {
  for (const root of Object.values(roots())) {
    for (const dir of [root.dir, realTarget(root.dir)]) {
      if (isInside(path, dir)) return root.mount + path.slice(dir.length);
    }
  }
  return path;
}

export const stemOf = (path: string): string => basename(path, extname(path));

const PARTIAL = /\.\w{8}\.partial$/;
/** Older than any call lasts: whoever wrote it was killed together with its service. */
const STALE_MS = 24 * 3600 * 1000;

/** Removes what killed runs for the same file have left behind. */
async function sweep(final: string): Promise<void> {
  for (const name of await readdir(dirname(final))) {
    if (!name.startsWith(`${basename(final)}.`) || !PARTIAL.test(name)) continue;
    const path = join(dirname(final), name);
    const age = Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now());
    if (age > STALE_MS) await rm(path, { force: true });
  }
}

/**
 * Runs `write` with temporary names beside the final ones, and renames when it has succeeded. A job may run twice and
 * may be killed at any point: a reader sees the old file or the new one, never half of one.
 */
export async function writing<T>(finals: string[], write: (partials: string[]) => Promise<T>): Promise<T> {
  const partials = finals.map((path) => `${path}.${crypto.randomUUID().slice(0, 8)}.partial`);
  try {
    for (const path of finals) {
      await mkdir(dirname(path), { recursive: true });
      await sweep(path);
    }
    const result = await write(partials);
    for (const [i, partial] of partials.entries()) await rename(partial, finals[i]!);
    return result;
  } catch (error) {
    const { code, path } = error as NodeJS.ErrnoException;
    const status = ["ENOTDIR", "EEXIST", "ENAMETOOLONG"].includes(code ?? "") ? 400 : 500;
    if (code && path) throw new Fault(status, `Cannot write ${shared(path).replace(PARTIAL, "")}: ${code}`);
    throw error;
  } finally {
    for (const partial of partials) await rm(partial, { force: true }).catch(() => {});
  }
}

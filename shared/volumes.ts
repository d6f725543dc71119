/**
 * The three volumes: paths as clients and microservices write them (/uploads/a.ifc) and the files that they mean here.
 * A file is opened first and judged then: what was opened is what is sent, whatever the path means a moment later.
 */
import { constants, existsSync } from "node:fs";
import { type FileHandle, open, opendir, readlink, realpath, stat } from "node:fs/promises";
import { basename, join, sep } from "node:path";
import type { Config } from "./config.ts";
import { Fault } from "./faults.ts";
import { pathFault, VOLUMES } from "./paths.ts";

export type VolumeDirs = Pick<Config, "uploadsDir" | "outputDir" | "examplesDir">;
type Volume = (typeof VOLUMES)[number];

export const dirOf = (dirs: VolumeDirs, volume: Volume): string =>
  ({ "/uploads": dirs.uploadsDir, "/output": dirs.outputDir, "/examples": dirs.examplesDir })[volume];

const outside = (path: string, why: string) =>
  new Fault("invalid", `The path ${JSON.stringify(path.slice(0, 200))} ${why}.`, {
    errors: [{ path: "file_path", message: why }],
  });
export const noFile = (path: string) => new Fault("unknown_file", `File not found: ${path.slice(0, 200)}`);

/**
 * A client's path in its full form: `a.ifc` and `uploads/a.ifc` are /uploads/a.ifc.
 * @throws Fault invalid when it leaves the volumes or cannot be a path
 */
export function fullPath(text: string): string {
  const why = text === "" ? "is empty" : pathFault(text);
  if (why) throw outside(text, why);
  const plain = text.split("/").filter((part) => part !== "" && part !== ".");
  const absolute = text.startsWith("/") || VOLUMES.some((volume) => volume === `/${plain[0]}`);
  return `${absolute ? "" : "/uploads"}/${plain.join("/")}`;
}

/**
 * A judged path as its file is called. macOS takes letters with accents apart (a + ¨), uploads are kept put together (ä), and to
 * Linux those are two names: a client that names its file as it has it would not find it.
 * @returns the path as it came, unless only the other spelling exists
 */
export function asKept(dirs: VolumeDirs, text: string): string {
  if (!/\p{M}/u.test(text)) return text;
  const composed = text.normalize("NFC");
  const exists = (name: string) => {
    const path = fullPath(name);
    const volume = VOLUMES.find((root) => path.startsWith(`${root}/`));
    return volume !== undefined && existsSync(join(dirOf(dirs, volume), path.slice(volume.length)));
  };
  return composed !== text && !exists(text) && exists(composed) ? composed : text;
}

/** A file that lies inside the volumes, open. Close its handle, or hand it to `openBody`. */
export type OpenFile = {
  handle: FileHandle;
  /** as clients write it */
  path: string;
  /** on this machine, links resolved */
  realPath: string;
  name: string;
  sizeBytes: number;
  mtimeMs: number;
  /** strong: another content has another one */
  etag: string;
};

/** NONBLOCK: opening a pipe would wait for its writer. NOFOLLOW: the path has no links left, unless it was swapped. */
const READ = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/**
 * Opens a file by its full path. Symbolic links are followed as long as they end inside one of the volumes.
 * Hidden files are as if they were not there: among them are what others are just sending. Only the path is judged by
 * that, not where its links end: Kubernetes mounts every file as a link into a hidden directory.
 * @throws Fault unknown_file, invalid
 */
export async function openFile(dirs: VolumeDirs, path: string): Promise<OpenFile> {
  const volume = VOLUMES.find((name) => path.startsWith(`${name}/`));
  if (!volume) throw outside(path, "is a volume; name a file in it"); // fullPath lets nothing else through
  const fault = pathFault(path);
  if (fault) throw outside(path, fault);
  if (path.split("/").some((part) => part.startsWith("."))) throw noFile(path);
  const roots = await realRoots(dirs);
  const inside = (real: string) => roots.some((root) => real.startsWith(root + sep));
  const wanted = join(dirOf(dirs, volume), path.slice(volume.length));
  const realPath = await orNoFile(path, () => realpath(wanted)).catch((error) => {
    // macOS takes letters with accents apart, and uploads are kept put together
    const composed = wanted.normalize("NFC");
    if (composed === wanted) throw error;
    return orNoFile(path, () => realpath(composed));
  });
  if (!inside(realPath)) throw outside(path, `leads out of ${VOLUMES.join(", ")}`);
  const handle = await orNoFile(path, () => open(realPath, READ));
  try {
    const found = await handle.stat({ bigint: true });
    if (!found.isFile()) throw new Fault("unknown_file", `${path.slice(0, 200)} is not a file`);
    // Between the two steps above a directory may have become a link to elsewhere.
    const opened = await nameOf(handle, realPath);
    if (!inside(opened)) throw outside(path, `leads out of ${VOLUMES.join(", ")}`);
    return {
      handle,
      path,
      realPath,
      name: basename(path),
      sizeBytes: Number(found.size),
      mtimeMs: Number(found.mtimeMs),
      // ctime, because a copy or a touch may give a new content the old one's mtime
      etag: `"${[found.ino, found.size, found.mtimeNs, found.ctimeNs].map((part) => part.toString(36)).join("-")}"`,
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** What the volumes' directories are with all links resolved; those that do not exist are left out. */
async function realRoots(dirs: VolumeDirs): Promise<string[]> {
  const all = await Promise.all(VOLUMES.map((volume) => realpath(dirOf(dirs, volume)).catch(() => undefined)));
  return all.filter((root) => root !== undefined);
}

/** Where an open file really lies. Without /proc the path is resolved again and must mean the same file. */
async function nameOf(handle: FileHandle, path: string): Promise<string> {
  const name = await readlink(`/proc/self/fd/${handle.fd}`).catch(() => undefined);
  if (name !== undefined) return name;
  const again = await realpath(path);
  const [one, other] = await Promise.all([handle.stat(), stat(again)]);
  return one.ino === other.ino && one.dev === other.dev ? again : "";
}

async function orNoFile<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const { code } = error as { code?: string };
    if (/^(ENOENT|ENOTDIR|EISDIR|ELOOP|ENAMETOOLONG|EACCES|EPERM|ENXIO|ENODEV)$/.test(code ?? "")) throw noFile(path);
    throw error;
  }
}

/** One directory as `GET /list_directories` shows it: names of files, and directories by name. */
export type Listing = { files: string[]; sub: Record<string, Listing> };

/** Bounds of one listing: entries looked at, and depth. */
const MOST_SEEN = 100_000;
const DEEPEST = 32;

/**
 * All files of the volumes, hidden ones left out. A link to a file inside counts as that file; other links are not
 * followed, so there is no loop.
 * @param limit  files at most; `truncated` tells that there are more
 */
export async function listFiles(dirs: VolumeDirs, limit: number) {
  const roots = await realRoots(dirs);
  const files: string[] = [];
  let seen = 0;
  let truncated = false;

  const isFileInside = async (path: string) => {
    const real = await realpath(path).catch(() => undefined);
    if (real === undefined || !roots.some((root) => real.startsWith(root + sep))) return false;
    return (await stat(real).catch(() => undefined))?.isFile() ?? false;
  };

  const walk = async (dir: string, path: string, depth: number): Promise<Listing> => {
    const listing: Listing = { files: [], sub: Object.create(null) };
    const below: string[] = [];
    // Nothing there, or not ours to read: an empty volume.
    const entries = await opendir(dir).catch(() => undefined);
    for await (const entry of entries ?? []) {
      if (entry.name.startsWith(".")) continue;
      if (files.length >= limit || seen >= MOST_SEEN) {
        truncated = true;
        break;
      }
      seen++;
      if (entry.isDirectory()) below.push(entry.name);
      else if (entry.isFile() || (entry.isSymbolicLink() && (await isFileInside(join(dir, entry.name))))) {
        listing.files.push(entry.name);
        files.push(`${path}/${entry.name}`);
      }
    }
    if (depth >= DEEPEST && below.length > 0) truncated = true;
    else for (const name of below.sort()) listing.sub[name] = await walk(join(dir, name), `${path}/${name}`, depth + 1);
    listing.files.sort();
    return listing;
  };

  const structure: Record<string, Listing> = {};
  for (const volume of VOLUMES) structure[volume.slice(1)] = await walk(dirOf(dirs, volume), volume, 1);
  return { files: files.sort(), structure, truncated };
}

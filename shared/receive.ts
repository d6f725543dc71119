/** Takes a stream of bytes into a volume: under a hidden temporary name first, under its own once it is complete. */
import { constants } from "node:fs";
import { type FileHandle, mkdir, open, readdir, rename, stat, unlink } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { Fault } from "./faults.ts";
import { random62 } from "./jobs.ts";
import { sizeText } from "./units.ts";

/** `.longhaul-<host>-<pid>-<random>.part`: hidden from listings, and told apart from those of gateways that live. */
const TEMPORARY = /^\.longhaul-(.+)-(\d+)-[0-9A-Za-z]+\.part$/;
const HOST = hostname()
  .replace(/[^\w.-]/g, "_")
  .slice(0, 64);
/** A part that nobody has written to for so long belongs to nobody, on whatever host. */
const DEAD_MS = 24 * 3_600_000;
/** Longest name of a file, bytes: what common file systems allow. */
const MAX_NAME = 255;

/**
 * The name under which a client's file is kept: directories in front are dropped, also those that climb (../a.ifc).
 * @throws Fault invalid when it hides, or cannot be a name
 */
export function safeName(text: string, field: string): string {
  const fault = (why: string) =>
    new Fault("invalid", `The file name ${JSON.stringify(text.slice(0, 100))} ${why}.`, {
      errors: [{ path: field, message: why }],
    });
  if (/[\u0000-\u001f\u007f-\u009f]/.test(text)) throw fault("holds a control character");
  // two names that differ only there would be one, and the second file take the first one's place
  if (text.includes("\ufffd")) throw fault("holds bytes that are not UTF-8; send the name as UTF-8");
  let decoded = text;
  try {
    decoded = decodeURIComponent(text);
  } catch {
    // a lone % is a plain character of a name
  }
  if (/[\u0000-\u001f]/.test(decoded)) throw fault("holds an encoded control character");
  if (decoded.split(/[/\\]/).length !== text.split(/[/\\]/).length) throw fault("holds an encoded / or \\");
  const name = (text.split(/[/\\]/).pop() as string).normalize("NFC").trim();
  if (name === "" || name === ".") throw fault("is empty");
  if (name === "..") throw fault("names a directory");
  if (name.startsWith(".")) throw fault("begins with a dot: such files are hidden");
  if (new TextEncoder().encode(name).length > MAX_NAME) throw fault(`is longer than ${MAX_NAME} bytes`);
  return name;
}

/** A whole file that has no name yet. */
export type Received = {
  sizeBytes: number;
  /** Gives it its name; a file of that name is replaced in one step. @throws Fault already_exists, not_stored */
  keep(name: string): Promise<void>;
  drop(): Promise<void>;
};

/**
 * Writes `pieces` to a new file in `dir`, at the sender's pace or the disk's, whichever is slower.
 * @throws Fault too_large, not_stored, and what `pieces` throws; then nothing is left behind
 */
export async function receive(dir: string, pieces: AsyncIterable<Uint8Array>, maxBytes: number): Promise<Received> {
  const path = join(dir, `.longhaul-${HOST}-${process.pid}-${random62(16)}.part`);
  const drop = () => unlink(path).catch(() => {});
  let handle: FileHandle | undefined;
  let sizeBytes = 0;
  try {
    await mkdir(dir, { recursive: true });
    handle = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o644);
    for await (const piece of pieces) {
      sizeBytes += piece.length;
      if (sizeBytes > maxBytes) throw uploadTooLarge(maxBytes);
      await writeAll(handle, piece);
    }
    await handle.sync(); // before the rename: after a power cut the name must not stand for an empty file
  } catch (error) {
    await handle?.close().catch(() => {});
    await drop();
    throw asStoreFault(error);
  }
  await handle.close();
  return {
    sizeBytes,
    drop,
    async keep(name) {
      try {
        await rename(path, join(dir, name));
        await syncDir(dir);
      } catch (error) {
        await drop();
        const { code } = error as { code?: string };
        if (/^(EISDIR|ENOTEMPTY|EEXIST|ENOTDIR)$/.test(code ?? "")) {
          throw new Fault(
            "already_exists",
            `There is a directory of the name ${JSON.stringify(name)}; choose another name.`,
          );
        }
        throw asStoreFault(error);
      }
    },
  };
}

export const uploadTooLarge = (maxBytes: number) =>
  new Fault("too_large", `The file is larger than ${sizeText(maxBytes)} (MAX_UPLOAD_BYTES).`);

async function writeAll(handle: FileHandle, piece: Uint8Array): Promise<void> {
  for (let at = 0; at < piece.length; ) at += (await handle.write(piece, at, piece.length - at)).bytesWritten;
}

async function syncDir(dir: string): Promise<void> {
  const handle = await open(dir, "r");
  await handle.sync().catch(() => {}); // not every file system can
  await handle.close();
}

/** What a disk says, as a client may hear it. */
function asStoreFault(error: unknown): unknown {
  const { code } = error as { code?: string };
  const why = {
    ENOSPC: "the volume is full",
    EDQUOT: "the volume's quota is used up",
    EROFS: "the volume is read-only",
    EACCES: "the gateway may not write to the volume",
    EPERM: "the gateway may not write to the volume",
    EFBIG: "the volume cannot hold files of that size",
    ENAMETOOLONG: "the volume cannot hold names of that length",
  }[code ?? ""];
  return why ? new Fault("not_stored", `The file was not stored: ${why}.`) : error;
}

/**
 * What time it is by the clock that stamps the files in `dir`: a volume may be another machine's, and ours may be off.
 * @returns ms since 1970; undefined where nothing can be written
 */
async function volumeTime(dir: string): Promise<number | undefined> {
  const path = join(dir, `.longhaul-${HOST}-${process.pid}-${random62(16)}.part`);
  try {
    const handle = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW);
    await handle.close();
    return (await stat(path)).mtimeMs;
  } catch {
    return undefined;
  } finally {
    await unlink(path).catch(() => {});
  }
}

/** Removes what killed gateways left: parts of this host's dead processes, and old ones of any host. */
export async function sweepParts(dir: string): Promise<number> {
  let swept = 0;
  let now: number | undefined;
  for (const name of await readdir(dir).catch(() => [])) {
    const m = TEMPORARY.exec(name);
    if (!m) continue;
    const path = join(dir, name);
    const dead = m[1] === HOST && !isAlive(Number(m[2]));
    const found = await stat(path).catch(() => undefined);
    if (!dead) now ??= await volumeTime(dir);
    if (!found || !(dead || (now !== undefined && now - found.mtimeMs > DEAD_MS))) continue;
    if (
      await unlink(path).then(
        () => true,
        () => false,
      )
    )
      swept++;
  }
  return swept;
}

/** Our own pid is not alive here: we have written nothing yet, and a container's pid is the same after each restart. */
function isAlive(pid: number): boolean {
  if (pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as { code?: string }).code === "EPERM";
  }
}

/** What the system tells of other processes: by /proc on Linux, by ps elsewhere. */
import { readFileSync } from "node:fs";

/** One column of ps for one process; "" when it is gone, or there is no ps. */
function ps(column: string, pid: number): string {
  const path = Bun.which("ps");
  return path
    ? Bun.spawnSync([path, "-o", `${column}=`, "-p", String(pid)])
        .stdout.toString()
        .trim()
    : "";
}

/** A field of /proc/<pid>/stat, counted as in proc(5); undefined without /proc, or when the process is gone. */
function stat(pid: number, field: number): string | undefined {
  try {
    // Counted from the end of the name, which may itself hold spaces and brackets.
    return readFileSync(`/proc/${pid}/stat`, "utf8")
      .replace(/^.*\) /s, "")
      .split(" ")[field - 3];
  } catch {
    return undefined;
  }
}

/** Something that differs between two processes with the same pid; "" when it cannot be told. */
export const born = (pid: number) => stat(pid, 22) ?? ps("lstart", pid);

const parentOf = (pid: number) => Number(stat(pid, 4) ?? ps("ppid", pid));

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
  } catch {
    return ps("args", pid);
  }
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"; // it lives, and belongs to somebody else
  }
}

/**
 * Calls back once when what started this process on our behalf has died: `bun run`, and npx with its shell above it.
 * `kill` of npx reaches neither: its shell does not pass the signal on. A process that was started directly may outlive
 * its shell (nohup), so nothing is watched then.
 */
export function onOrphaned(call: () => void): void {
  if (!process.env.npm_lifecycle_event) return;
  const line = [process.pid];
  for (let i = 0; i < 4; i++) line.push(parentOf(line.at(-1) as number));
  const npm = line.findIndex((pid, i) => i > 1 && /\bnp[mx]\b/.test(commandOf(pid)));
  const watched = line.slice(0, npm > 0 ? npm + 1 : 2);
  const timer = setInterval(() => {
    if (watched.every((pid, i) => i + 1 === watched.length || parentOf(pid) === watched[i + 1])) return;
    clearInterval(timer);
    call();
  }, 1_000);
  timer.unref();
}

/** Text lines of a stream; the last one may lack its newline. */
export async function* lines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const chunk of stream) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = parts.pop() as string;
    for (const line of parts) yield line.trimEnd();
  }
  if (rest) yield rest;
}

/**
 * A machine's clock that is off, or is set while a process runs: libfaketime, preloaded into that process alone. The wall
 * clock moves and the monotonic one does not, as on a real machine. Where the library is missing, tests skip and say so.
 */
import { existsSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const LIBRARY = [
  "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
  "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
  "/usr/lib64/faketime/libfaketimeMT.so.1",
].find((path) => existsSync(path));

export const MINUTE = 60_000;
export const HOUR = 3_600_000;

export type FakeClock = {
  /** for the process whose clock it is */
  env: Record<string, string>;
  /** Sets the clock `ms` ahead of the true one, or behind it. The process has it within a second. */
  set(ms: number): void;
  remove(): void;
};

/** @param ms  how far the clock is ahead of the true one when the process starts */
export function fakeClock(ms = 0): FakeClock {
  const dir = mkdtempSync(join(tmpdir(), "longhaul-clock-"));
  const file = join(dir, "offset");
  const clock: FakeClock = {
    env: {
      LD_PRELOAD: LIBRARY ?? "",
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
      FAKETIME_TIMESTAMP_FILE: file,
      FAKETIME_CACHE_DURATION: "1",
      NO_FAKE_STAT: "1", // files are stamped by the kernel, whose clock is another
    },
    set(offset) {
      // at once: a half written file would be read as another time
      writeFileSync(`${file}.new`, `${offset < 0 ? "-" : "+"}${Math.abs(offset) / 1_000}\n`);
      renameSync(`${file}.new`, file);
    },
    remove: () => rmSync(dir, { recursive: true, force: true }),
  };
  clock.set(ms);
  return clock;
}

const PROBE = `
const seen = () => [Date.now(), performance.now()];
const [wall, steady] = seen();
console.log("begun");
const timer = setInterval(() => {
  const [w, s] = seen();
  if (Math.abs(w - wall - (s - steady)) > 60000) { clearInterval(timer); console.log(w - wall, s - steady); }
}, 50);
setTimeout(() => process.exit(1), 8000).unref?.();
`;

/**
 * Whether a clock can be faked here: sets that of a process while it runs, and looks whether its wall clock moved and its
 * monotonic one did not.
 * @returns undefined when it can be, else why not
 */
export async function noFakeClock(runtime = "bun"): Promise<string | undefined> {
  if (!LIBRARY) return "libfaketime is not installed (Debian: apt-get install libfaketime)";
  const clock = fakeClock();
  const command = runtime === "deno" ? ["deno", "eval", PROBE] : [process.execPath, "-e", PROBE];
  const child = Bun.spawn(command, { env: { ...process.env, ...clock.env }, stdout: "pipe", stderr: "ignore" });
  try {
    let text = "";
    for await (const part of child.stdout as unknown as AsyncIterable<Uint8Array>) {
      text += new TextDecoder().decode(part);
      if (text === "begun\n") clock.set(25 * HOUR);
    }
    const [wall = 0, steady = 0] = (text.split("\n")[1] ?? "").split(" ").map(Number);
    if (Math.abs(wall - 25 * HOUR) > MINUTE) return `the wall clock of ${runtime} does not move`;
    if (!(steady > 0 && steady < MINUTE)) return `the monotonic clock of ${runtime} moves with the wall clock`;
    return undefined;
  } finally {
    child.kill();
    clock.remove();
  }
}

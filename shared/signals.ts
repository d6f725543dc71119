/** SIGTERM, SIGINT and SIGHUP, counted: what the second and the third of them mean is the caller's to say. */
import { readFileSync } from "node:fs";
import process from "node:process";

/** ms in which several signals are one. */
export const ECHO_MS = 400;

/**
 * Whether this process was started to outlive its terminal: nohup, setsid -f and daemons leave SIGHUP ignored, and a
 * handler would undo that. Elsewhere than on Linux nobody tells; nohup takes the output away from a terminal.
 */
export function ignoresHangup(): boolean {
  try {
    const mask = /^SigIgn:\s*([0-9a-f]+)/m.exec(readFileSync("/proc/self/status", "utf8"))?.[1];
    if (mask !== undefined) return (BigInt(`0x${mask}`) & 1n) === 1n; // the lowest bit is signal 1
  } catch {}
  return !process.stdout.isTTY;
}

/**
 * Calls `stop` with 1 at the first signal, 2 at the second, and so on. One Ctrl-C arrives up to three times: from the
 * terminal, and passed on by `bun run` and by npx. A SIGTERM for a process group or a cgroup arrives twice where `bun run`
 * passes it on. Such echoes do not count. A terminal that closes (SIGHUP) stops as SIGTERM does, unless nohup forbids it.
 */
export function onStop(stop: (signals: number) => void): void {
  let signals = 0;
  let lastAt = Number.NEGATIVE_INFINITY;
  const heard = () => {
    const isEcho = performance.now() - lastAt < ECHO_MS;
    lastAt = performance.now();
    if (!isEcho) stop(++signals);
  };
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, heard);
  if (!ignoresHangup()) process.on("SIGHUP", heard);
}

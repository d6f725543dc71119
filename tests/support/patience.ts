/**
 * How much longer than usual the tests wait on this machine, as it is just now: all their limits are multiplied by it. It is
 * measured by a fixed piece of work, as the tests do it themselves: processes are started, and something is computed.
 * A limit is for what hangs; on a starved machine what only takes its time must not look like it.
 */
import { createHash } from "node:crypto";

/** ms that the piece of work takes on two idle cores of an ordinary server. */
const USUAL_MS = 80;
const MAX = 12;
/** ms after which the machine is measured again: its load changes. */
const AGAIN_MS = 60_000;

function measure(): number {
  const began = performance.now();
  for (let i = 0; i < 5; i++) Bun.spawnSync([process.execPath, "-e", "0"], { stdin: "ignore", stdout: "ignore" });
  const hash = createHash("sha256");
  const block = Buffer.alloc(1 << 20);
  for (let i = 0; i < 48; i++) hash.update(block);
  hash.digest();
  return performance.now() - began;
}

/** TEST_PATIENCE: a factor to begin with, for a machine whose load comes later. */
const LEAST = Number(process.env.TEST_PATIENCE) || 1;

/** The factor for so many ms: 1 on a usual machine, and more than the plain ratio on a slow one, whose load also jumps. */
export const factorOf = (ms: number): number => Math.max(LEAST, Math.min(MAX, 2 * (ms / USUAL_MS) - 1.5));

let factor = factorOf(measure());
let measuredAt = performance.now();

/**
 * Measures the machine anew, if that was not done within the last minute. Between two test files, and not within one: it holds
 * up this process for a tenth of a second, or for as long as the machine needs.
 */
export function measureAgain(): void {
  if (performance.now() - measuredAt < AGAIN_MS) return;
  factor = factorOf(measure());
  measuredAt = performance.now();
}

/** A limit for this machine. @param ms  on a usual one */
export const limit = (ms: number): number => Math.ceil(ms * factor);

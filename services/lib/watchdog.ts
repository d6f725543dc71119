/**
 * A thread that ends its process when the parent is gone: one call of WASM may keep the main thread busy for an hour, and
 * there it hears of nothing. Linux alone could do it by prctl; a look at the parent works everywhere.
 */
import { workerData as parent } from "node:worker_threads";

/** ms between two looks. */
const EVERY_MS = 500;

setInterval(() => {
  if (process.ppid !== parent) process.kill(process.pid, "SIGKILL");
}, EVERY_MS);

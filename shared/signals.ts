/** SIGTERM and SIGINT, counted: what the second and the third of them mean is the caller's to say. */
import process from "node:process";

/** ms in which several SIGINT are one Ctrl-C. */
const ECHO_MS = 400;

/**
 * Calls `stop` with 1 at the first signal, 2 at the second, and so on. One Ctrl-C arrives up to three times, from the
 * terminal, and passed on by `bun run` and by npx: such echoes do not count. A SIGTERM is sent by a supervisor, once.
 */
export function onStop(stop: (signals: number) => void): void {
  let signals = 0;
  let lastAt = Number.NEGATIVE_INFINITY;
  process.on("SIGTERM", () => stop(++signals));
  process.on("SIGINT", () => {
    const isEcho = performance.now() - lastAt < ECHO_MS;
    lastAt = performance.now();
    if (!isEcho) stop(++signals);
  });
}

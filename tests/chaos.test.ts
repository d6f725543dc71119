import { expect, test } from "bun:test";

/**
 * The whole of it once, small enough for a busy machine: real gateways and workers, a fault about every second, an
 * independent checker and the clients' ledger. `bun run chaos` does 20,000 jobs, and as many as it is told.
 * CHAOS_SEED repeats a run.
 */
test("chaos: 4,000 jobs, and none is lost and none ends twice", async () => {
  const seed = process.env.CHAOS_SEED ?? String(Math.floor(Math.random() * 2 ** 31));
  const args = ["tests/chaos/index.ts", "--jobs", "4000", "--seconds", "30", "--seed", seed];
  const child = Bun.spawn([process.execPath, ...args], { stdout: "pipe", stderr: "inherit" });
  const text = await new Response(child.stdout).text();
  const code = await child.exited;
  const lines = text.split("\n");
  console.log(lines.slice(lines.findLastIndex((line) => / s {2}accepted /.test(line))).join("\n"));
  expect([code, code === 0 ? "" : text.slice(-3_000)]).toEqual([0, ""]);
}, 600_000);

/**
 * The microkernel alone: a copy of the tree without shared/routes and shared/clocks, whose entries are given empty
 * indexes instead. Submit, status, record, cancel, requeue, health and the worker's loop must still be whole.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const ROOT = new URL("..", import.meta.url).pathname;
let copy: string;
beforeAll(() => {
  copy = mkdtempSync(join(tmpdir(), "longhaul-kernel-"));
  for (const name of ["package.json", "gateway.ts", "worker.ts", "shared", "tests/support"]) {
    cpSync(join(ROOT, name), join(copy, name), {
      recursive: true,
      filter: (path) => !/shared\/(routes|clocks)(\/|$)/.test(path),
    });
  }
  symlinkSync(join(ROOT, "node_modules"), join(copy, "node_modules"));
  mkdirSync(join(copy, "shared/routes"));
  mkdirSync(join(copy, "shared/clocks"));
  writeFileSync(
    join(copy, "shared/routes/index.ts"),
    "export const routes = [];\nexport const edge = () => {};\n" +
      'import { newApp } from "../app.ts";\nexport const dashboard = () => newApp();\n',
  );
  writeFileSync(join(copy, "shared/clocks/index.ts"), "export const clocks = [];\nexport const everywhere = [];\n");
});
afterAll(() => rmSync(copy, { recursive: true, force: true }));

const STORY = `
  import { startStack, until } from "./tests/support/stack.ts";
  const said: Record<string, unknown> = {};
  const stack = await startStack({ workers: 0, operation: { slots: 1 } });
  try {
    const canceled = await stack.submit({ n: 1 });
    said.cancelQueued = (await stack.post("/jobs/" + canceled + "/cancel")).status;
    said.canceled = (await stack.get("/jobs/" + canceled)).status;
    const id = await stack.submit({ answer: { n: 2 } });
    const worker = await stack.startWorker();
    said.finished = await stack.ended(id);
    said.record = (await stack.get("/jobs/" + id)).attempts.length;
    said.requeue = (await stack.post("/jobs/" + canceled + "/requeue")).status;
    said.requeued = (await stack.ended(canceled)).status;
    const running = await stack.submit({ sleep: 9_000 });
    await until(() => stack.service.byJob(running).length === 1);
    await stack.post("/jobs/" + running + "/cancel");
    said.cancelRunning = (await stack.ended(running)).error;
    said.health = await stack.get("/health");
    const kept = await stack.submit({ sleep: 9_000 });
    await until(() => stack.service.byJob(kept).length === 1);
    worker.kill("SIGTERM");
    await worker.exited;
    said.drained = (await stack.get("/jobs/" + kept)).status;
    said.unknown = (await fetch(stack.url + "/metrics")).status;
  } finally {
    await stack.stop();
  }
  console.log(JSON.stringify(said));
  process.exit(0);
`;

test("the kernel works without any route or clock that is mounted on it", async () => {
  writeFileSync(join(copy, "story.ts"), STORY);
  const child = Bun.spawn([process.execPath, "story.ts"], { cwd: copy, stdout: "pipe", stderr: "inherit" });
  const said = JSON.parse((await new Response(child.stdout).text()) || "{}");
  expect(await child.exited).toBe(0);
  expect(said).toMatchObject({
    cancelQueued: 202,
    canceled: "canceled",
    finished: { status: "finished", result: { n: 2 } },
    record: 1,
    requeue: 200,
    requeued: "finished",
    cancelRunning: "canceled by request (final: ValueError)",
    health: { status: "healthy", services: { work: "healthy", redis: "healthy" } },
    drained: "queued",
    unknown: 404,
  });
}, 60_000);

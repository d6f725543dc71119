/** RESULTS_DIR when it is full, read-only or away: what becomes of the answer, and who is told. */
import { afterEach, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { JobId } from "../shared/jobs.ts";
import { checkResults, keepResult, whyNotWritten } from "../shared/result-file.ts";
import { type SmallDisk, smallDisk } from "./support/disk.ts";
import { type Stack, type StackOptions, startStack, until } from "./support/stack.ts";

const ID = `work_${"a".repeat(22)}` as JobId;
const LARGE = 5 * 1024 * 1024;
let stack: Stack | undefined;
let disk: SmallDisk | undefined;
afterEach(async () => {
  await stack?.stop();
  disk?.remove();
  stack = disk = undefined;
}, 60_000);

const probe = smallDisk(1);
probe?.remove();
/** Without the right to mount there is no full disk to be had. */
const withDisk = probe ? test : test.skip;
if (!probe) console.warn("SKIPPED: tests of a full RESULTS_DIR, as this process may not mount a tmpfs");

const start = async (options: StackOptions = {}) => {
  disk = smallDisk() as SmallDisk;
  stack = await startStack({ ...options, env: { RESULTS_DIR: disk.dir, LEASE: "2s", ...options.env } });
  return { stack, disk };
};
const health = async () => (await stack?.get("/health")) as { status: string; services: Record<string, string> };

withDisk("a result file on a full volume: the write fails, nothing is left, the message has no path", async () => {
  disk = smallDisk(4) as SmallDisk;
  disk.fill();
  const failed = await keepResult(disk.dir, { id: ID, token: "1.w.n" }, "x".repeat(LARGE)).catch((error) => error);
  expect(whyNotWritten(failed)).toBe("the volume is full (ENOSPC)");
  expect(readdirSync(join(disk.dir, "work"))).toEqual([]);
  disk.free();
  await keepResult(disk.dir, { id: ID, token: "1.w.n" }, "{}");
  expect(readdirSync(join(disk.dir, "work", ID))).toEqual(["1.w.n"]);
  disk.fill();
  expect(await checkResults(disk.dir, "w")).toBe("RESULTS_DIR cannot be written: the volume is full (ENOSPC)");
  expect(readdirSync(disk.dir)).toEqual(["work"]);
});

test("a RESULTS_DIR that leads through a file: the check says so without a path", async () => {
  const dir = mkdtempSync(join(tmpdir(), "longhaul-results-"));
  writeFileSync(join(dir, "file"), "");
  const said = await checkResults(join(dir, "file/results"), "w");
  expect(said).toMatch(/^RESULTS_DIR cannot be written: it is no directory \(E(NOTDIR|EXIST)\)$/);
  expect(await checkResults(join(dir, "new/results"), "w")).toBeUndefined();
  expect(readdirSync(join(dir, "new/results"))).toEqual([]);
  rmSync(dir, { recursive: true });
});

withDisk(
  "a full RESULTS_DIR: the answer waits in memory, nothing is claimed, one call is made",
  async () => {
    await start({ env: { ALERT_RESULTS_DIR: "100ms" }, operation: { slots: 4, timeout: "2s" } });
    disk?.fill();
    await until(async () => (await health()).status === "degraded");
    expect((await health()).services.RESULTS_DIR).toStartWith(
      "degraded (RESULTS_DIR cannot be written: the volume is full (ENOSPC) (worker on ",
    );
    const { rules } = await stack!.get("/alerts");
    expect(rules.find(({ rule }: { rule: string }) => rule === "results_dir")).toMatchObject({ firing: true });
    const id = await stack!.submit({ size: LARGE });
    await until(() => stack!.workers[0]!.output().includes("result cannot be written to RESULTS_DIR"));
    const next = await stack!.submit({});
    await Bun.sleep(4_500); // longer than the job's time limit and the lease
    expect((await stack!.get(`/jobs/${next}/status`)).status).toBe("queued");
    await until(async () => (await health()).services.RESULTS_DIR?.includes("1 answer waits in memory"));
    disk?.free();
    expect(await stack!.ended(id)).toMatchObject({ status: "finished", attempt: 1 });
    expect((await stack!.ended(next)).status).toBe("finished");
    expect(stack!.service.byJob(id)).toHaveLength(1);
    expect(await (await fetch(`${stack!.url}/jobs/${id}/result`)).text()).toBe(JSON.stringify("x".repeat(LARGE)));
    await until(async () => (await health()).status === "healthy");
  },
  90_000,
);

withDisk(
  "RESULT_WRITE_RETRY is over: the job is tried again, then fails without a path in its error",
  async () => {
    await start({ env: { RESULT_WRITE_RETRY: "1s" }, operation: { retries: 1 } });
    disk?.fill();
    const id = await stack!.submit({ size: LARGE });
    expect((await stack!.ended(id, 30_000)).status).toBe("failed");
    const { error } = await stack!.get(`/jobs/${id}`);
    expect(error.code).toBe("result_lost");
    expect(error.message).toBe(
      `The answer of ${LARGE + 2} bytes could not be written to RESULTS_DIR for 1 s: the volume is full (ENOSPC)`,
    );
    expect(stack!.service.byJob(id)).toHaveLength(2);
  },
  60_000,
);

withDisk(
  "a worker is stopped while an answer waits: the job goes back without an attempt spent",
  async () => {
    await start({ env: { DRAIN_TIMEOUT: "500ms" } });
    disk?.fill();
    const id = await stack!.submit({ size: LARGE });
    await until(() => stack!.workers[0]!.output().includes("result cannot be written to RESULTS_DIR"));
    stack!.workers[0]!.kill("SIGTERM");
    await stack!.workers[0]!.exited;
    expect(await stack!.get(`/jobs/${id}`)).toMatchObject({ status: "queued", attempt: 0, redeliveries: 0 });
    disk?.free();
    await stack!.startWorker();
    expect(await stack!.ended(id)).toMatchObject({ status: "finished", attempt: 1 });
    expect(existsSync(join(disk!.dir, "work", id))).toBe(true);
  },
  60_000,
);

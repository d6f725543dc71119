/** Files in RESULTS_DIR go with their job's record, whatever its end was; those without a job go when they are old. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { STRAY_AGE_MS, strays } from "../shared/clocks/strays.ts";
import { sweep } from "../shared/clocks/sweep.ts";
import { readConfig } from "../shared/config.ts";
import { type JobId, newJobId, resultDir } from "../shared/jobs.ts";
import { noLog } from "../shared/log.ts";
import { keepResult } from "../shared/result-file.ts";
import { Operator } from "../shared/store/operate.ts";
import { register } from "../shared/store/presence.ts";
import { DAY, KEYS, SERVICE, settle, startStore, type TestStore, type TestWorker, wish } from "./support/store.ts";

let s: TestStore;
let w: TestWorker;
let dir: string;
beforeAll(async () => {
  s = await startStore();
});
afterAll(() => s?.stop());
beforeEach(async () => {
  await s.clear();
  w = s.worker("w1");
  dir = mkdtempSync(join(tmpdir(), "longhaul-results-"));
  await register(w.redis, [SERVICE]);
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const context = () => ({
  maintainer: s.maintainer,
  config: readConfig({ RESULTS_DIR: dir }),
  watch: { look: () => true },
  log: noLog,
});
const folders = () => readdirSync(join(dir, SERVICE));

/** How a job with a file in RESULTS_DIR comes to its end. */
const ENDS: Record<string, (id: JobId) => Promise<unknown>> = {
  async finished() {
    const [taken] = await w.take();
    await keepResult(dir, taken!, "large");
    await w.settle(settle(taken!, "finish", { sizeBytes: 5 }));
  },
  async "canceled while its answer was written"(id) {
    const [taken] = await w.take();
    await s.producer.cancel(id);
    await keepResult(dir, taken!, "large");
    await w.settle(settle(taken!, "finish", { sizeBytes: 5 }));
  },
  async "finished inline after a worker that wrote and died"() {
    const [taken] = await w.take();
    await keepResult(dir, taken!, "large");
    await s.age(w, 31_000);
    await w.reapOf(w);
    const [again] = await s.worker("w2").take();
    await s.worker("w2").settle(settle(again!, "finish"));
  },
  async "failed as one that may not run twice"() {
    const [taken] = await w.take();
    await keepResult(dir, taken!, "large");
    await s.age(w, 31_000);
    await w.reapOf(w, ["work"]);
  },
  async "failed at its second attempt"() {
    const [taken] = await w.take();
    await keepResult(dir, taken!, "large");
    await w.settle(settle(taken!, "retry", { delayMs: 0 }));
    const [again] = await w.take();
    await w.settle(settle(again!, "fail"));
  },
  async "requeued, and failed again"(id) {
    const [taken] = await w.take();
    await keepResult(dir, taken!, "large");
    await w.settle(settle(taken!, "fail"));
    await s.producer.requeue(id, (await s.inspector.glance(id))!.rev);
    const [again] = await w.take();
    await w.settle(settle(again!, "fail"));
  },
};

for (const [how, end] of Object.entries(ENDS)) {
  test(`a job ${how}: its files go when it expires, is erased, or deleted in bulk`, async () => {
    for (const go of ["expire", "erase", "bulk"] as const) {
      const id = await s.submit();
      await end(id);
      expect([go, folders()]).toEqual([go, [id]]);
      await sweep.step(context());
      expect([go, folders()]).toEqual([go, [id]]); // as long as the record lives
      if (go === "expire") await s.redis.client.pexpire(KEYS.job(id), 1);
      else if (go === "erase") expect(await s.producer.erase(id)).toBe("ok");
      else {
        const o = new Operator(s.connection, 7 * DAY);
        await o.startBulk(SERVICE, wish("delete", { ids: [id] }));
        await o.carryOut(SERVICE, 500);
      }
      await Bun.sleep(5);
      expect([go, await s.state(id)]).toEqual([go, null]);
      await sweep.step(context());
      expect([go, folders()]).toEqual([go, []]);
      expect(await s.counts()).toMatchObject({ finished: 0, failed: 0, canceled: 0 });
    }
  });
}

test("erasing a job that cannot have files leaves no entry behind for the sweep", async () => {
  const id = await s.submit();
  await w.settle(settle((await w.take())[0]!, "fail"));
  expect(await s.producer.erase(id)).toBe("ok");
  expect(await s.redis.client.zcard(KEYS.ended("failed"))).toBe(0);
});

test("files without a job go when they are older than any life, half-written ones after an hour", async () => {
  const old = (path: string, ms: number) => {
    const seconds = (Date.now() - ms) / 1_000;
    utimesSync(path, seconds, seconds);
  };
  const made = (id: JobId, ageMs: number) => {
    const folder = resultDir(dir, id);
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "1.w.n"), "large");
    old(folder, ageMs);
    return id;
  };
  const living = made(await s.submit(), STRAY_AGE_MS + DAY);
  const young = made(newJobId(SERVICE), STRAY_AGE_MS - DAY);
  const stray = made(newJobId(SERVICE), STRAY_AGE_MS + DAY);
  const half = join(resultDir(dir, young), ".1.w.m");
  const writing = join(resultDir(dir, young), ".1.w.o");
  writeFileSync(half, "lar");
  writeFileSync(writing, "lar");
  old(half, 2 * 3_600_000);
  mkdirSync(join(dir, "Not a service", "work_x"), { recursive: true });
  old(join(dir, "Not a service", "work_x"), STRAY_AGE_MS + DAY);
  await strays.step(context());
  expect(folders().sort()).toEqual([living, young].sort());
  expect(existsSync(resultDir(dir, stray))).toBe(false);
  expect(readdirSync(resultDir(dir, young)).sort()).toEqual([".1.w.o", "1.w.n"]);
  expect(existsSync(join(dir, "Not a service", "work_x"))).toBe(true);
});

test("a deadline is moved for the attempt that holds the job, and no reaper overrules it before", async () => {
  const id = await s.submit();
  const [taken] = await w.take(1, { limits: "work=1000" });
  await s.overrun(id, DAY);
  expect(await w.extend(SERVICE, id, "1.w2.other", DAY)).toBe("lost");
  expect(await w.extend(SERVICE, newJobId(SERVICE), taken!.token, DAY)).toBe("gone");
  expect(await w.extend(SERVICE, id, taken!.token, 60_000)).toBe("ok");
  await w.reapOf(w);
  expect(await s.state(id)).toBe("started");
  const { deadline = 0 } = (await s.inspector.record(id))!;
  expect(await w.extend(SERVICE, id, taken!.token, 1_000)).toBe("ok"); // never earlier
  expect((await s.inspector.record(id))!.deadline).toBe(deadline);
  expect(await w.settle(settle(taken!, "finish"))).toEqual(["ok"]);
  expect(await w.extend(SERVICE, id, taken!.token, DAY)).toBe("lost");
});

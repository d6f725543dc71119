/**
 * `bun bench/instructions.ts [jobs a call, 20]`: instructions of Redis a job, counted by valgrind's callgrind with the append-only
 * file on. No neighbour of the machine can blur it, so a change of one in a hundred shows. Needs valgrind.
 * `--keep <file>` keeps the counts by function, for callgrind_annotate.
 */
import { copyFileSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import IORedis from "ioredis";
import type { WorkerId } from "../shared/jobs.ts";
import { defineScripts } from "../shared/script.ts";
import { Consumer } from "../shared/store/consume.ts";
import { Producer } from "../shared/store/produce.ts";
import { LIMITS, submitAll, workAll } from "./lifecycle.ts";
import { freePort } from "./machine.ts";

const { values, positionals } = parseArgs({ options: { keep: { type: "string" } }, allowPositionals: true });
const BATCH = Number(positionals[0] ?? 20);
const JOBS = 2_000;

const dir = mkdtempSync(join(tmpdir(), "longhaul-instructions-"));
const port = await freePort();
const out = join(dir, "callgrind");
const server = Bun.spawn(
  [
    ...["valgrind", "-q", "--tool=callgrind", `--callgrind-out-file=${out}`, "redis-server", "--port", String(port)],
    ...["--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "yes", "--hash-max-listpack-value", "1024"],
  ],
  { stdout: "ignore", stderr: "inherit" },
);
const redis = new IORedis({ port, retryStrategy: () => 100, maxRetriesPerRequest: null });
redis.on("error", () => {});
await redis.ping();
defineScripts(redis);
const producer = new Producer(redis, LIMITS);
const worker = new Consumer(redis, "w00000001" as WorkerId);

const control = async (flag: string) => {
  await Bun.spawn(["callgrind_control", flag, String(server.pid)], { stdout: "ignore", stderr: "ignore" }).exited;
  await redis.ping(); // it acts when the process runs on
  await Bun.sleep(300);
};
let dumps = 0;
/** Instructions a job of what `run` has Redis do. */
async function count(name: string, run: () => Promise<void>) {
  await control("-z");
  await run();
  await control("-d");
  const file = `${out}.${++dumps}`;
  const total = Number(/^(?:summary|totals): (\d+)/m.exec(readFileSync(file, "utf8"))?.[1]);
  console.log(`${name}: ${Math.round(total / JOBS)} instructions a job`);
  if (values.keep) copyFileSync(file, `${values.keep}.${dumps}`);
}

const submit = () => submitAll(producer, JOBS, BATCH);
const work = () => workAll(worker, BATCH);
await submit();
await work(); // warm: scripts loaded, buffers grown
await count("submit", submit);
await count("settle and take", work);
redis.disconnect();
server.kill("SIGKILL");
await server.exited;
rmSync(dir, { recursive: true, force: true });
process.exit(0);

import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { freePort, startRedis } from "./support/redis.ts";
import { type Process, startProcess, until } from "./support/stack.ts";

const ROOT = join(import.meta.dir, "..");
let home: string; // of this file's run
let copy: string; // the project as a fresh clone has it
let bin: string; // the only PATH: Redis, and no bun, as with npx on a fresh machine
const runs: Process[] = [];

beforeAll(() => {
  home = mkdtempSync(join(tmpdir(), "longhaul-up-"));
  copy = join(home, "copy");
  const left = new Set(["node_modules", ".git", ".data", ".env", "bench", "tests", "examples"]);
  cpSync(ROOT, copy, { recursive: true, filter: (path) => !left.has(basename(path)) });
  bin = join(home, "bin");
  mkdirSync(bin);
  symlinkSync(Bun.which("redis-server") as string, join(bin, "redis-server"));
});
afterAll(async () => {
  for (const run of runs) run.kill("SIGKILL");
  await until(
    () => left(home).length === 0,
    15_000,
    () => `left: ${left(home)}`,
  ).finally(() => {
    rmSync(home, { recursive: true, force: true });
  });
}, 20_000);

/** Environment of one run: own ports, own data. */
async function settings(name: string, more: Record<string, string> = {}): Promise<Record<string, string>> {
  const certificates = process.env.NODE_EXTRA_CA_CERTS;
  return {
    PATH: bin,
    ...(certificates ? { NODE_EXTRA_CA_CERTS: certificates } : {}),
    DATA_DIR: join(home, name),
    PORT: String(await freePort()),
    DASHBOARD_PORT: String(await freePort()),
    ...more,
  };
}

function up(env: Record<string, string>): Process {
  const run = startProcess(join(copy, "up.ts"), env);
  runs.push(run);
  return run;
}

const ready = (run: Process) => run.says(/Ctrl-C stops everything/, 60_000);

/** "pid command" of every process that works in `dir`, or has it in its environment. */
function left(dir: string): string[] {
  if (!existsSync("/proc/self/environ")) return [];
  const found: string[] = [];
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      // Redis writes its title over its environment, but it works in its data directory.
      const isOurs = `=${readlinkSync(`/proc/${pid}/cwd`)}\0${readFileSync(`/proc/${pid}/environ`)}`.includes(
        `=${dir}`,
      );
      if (isOurs) found.push(`${pid} ${readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ")}`);
    } catch {} // it has just ended
  }
  return found;
}
const pidOf = (dir: string, file: string) =>
  Number(
    left(dir)
      .find((line) => line.includes(file))
      ?.split(" ")[0],
  );

const listens = (port: string | undefined) =>
  fetch(`http://127.0.0.1:${port}/`).then(
    () => true,
    () => false,
  );

async function expectNothingLeft(env: Record<string, string>): Promise<void> {
  expect(left(env.DATA_DIR as string)).toEqual([]);
  expect(await listens(env.PORT)).toBe(false);
  expect(await listens(env.DASHBOARD_PORT)).toBe(false);
  expect(existsSync(join(env.DATA_DIR as string, "up.lock"))).toBe(false);
}

/** Does what it prints for people to paste. @returns what that shows */
async function paste(run: Process, env: Record<string, string> = {}): Promise<string> {
  const script = /^told=[\s\S]*?done$/m.exec(run.output())?.[0] as string;
  const shell = Bun.spawn(["sh", "-c", script], { stdout: "pipe", env: { ...process.env, ...env } });
  const late = setTimeout(() => shell.kill("SIGKILL"), 20_000);
  const shown = await new Response(shell.stdout).text();
  clearTimeout(late);
  expect(shell.signalCode).toBeNull();
  return shown;
}

test("a fresh copy starts, its curl makes a GLB, crashes are repaired, the data outlives it", async () => {
  const env = await settings("first");
  const run = up(env);
  await ready(run);
  expect(run.output()).toContain(`http://127.0.0.1:${env.PORT}`);
  expect(run.output()).toContain(`http://127.0.0.1:${env.DASHBOARD_PORT}`);
  const shown = await paste(run);
  const job = JSON.parse(shown.slice(shown.lastIndexOf('{"job_id"')));
  expect(job.status).toBe("finished");
  expect(readFileSync(join(home, "first/output/converted/house.glb")).toString("latin1", 0, 4)).toBe("glTF");

  for (const file of ["worker.ts", "gateway.ts", "ifcconvert.ts", "redis-server"]) {
    const pid = pidOf(env.DATA_DIR as string, file);
    process.kill(pid, "SIGKILL");
    await until(() => ![pid, Number.NaN].includes(pidOf(env.DATA_DIR as string, file)));
  }
  expect(run.output()).toContain("worker was killed by SIGKILL; starting it again in 0.5 s");
  await until(async () => (await fetch(`http://127.0.0.1:${env.PORT}/readyz`).catch(() => undefined))?.ok);

  const second = up(await settings("first"));
  expect(await second.exited).toBe(1);
  expect(second.output()).toContain(`is in use by another run, pid ${run.pid}`);

  run.kill("SIGINT");
  expect(await run.exited).toBe(0);
  expect(run.output()).toContain("nothing is left running");
  await expectNothingLeft(env);

  const again = up(env);
  await ready(again);
  const status = await fetch(`http://127.0.0.1:${env.PORT}/jobs/${job.job_id}/status`);
  expect(await status.json()).toMatchObject({ status: "finished", result: { success: true } });
  again.kill("SIGTERM");
  expect(await again.exited).toBe(0);
  await expectNothingLeft(env);
}, 90_000);

test("two run beside each other; kill -9 of one leaves nothing, and the next start takes over", async () => {
  const [one, other] = [await settings("one"), await settings("other")];
  const [first, second] = [up(one), up(other)];
  await Promise.all([ready(first), ready(second)]);
  first.kill("SIGKILL");
  const next = up(one);
  await ready(next);
  expect(next.output()).toContain("waiting until what it left has stopped: 10 to 15 s, up to 45 s");
  expect(await listens(other.PORT)).toBe(true);
  for (const run of [next, second]) run.kill("SIGHUP");
  expect(await Promise.all([next.exited, second.exited])).toEqual([0, 0]);
  await expectNothingLeft(one);
  await expectNothingLeft(other);
}, 90_000);

test("what it prints for people to paste ends when the key is wrong, and shows the answer", async () => {
  const env = await settings("keys", { API_KEYS: "right-key-1" });
  const run = up(env);
  await ready(run);
  const shown = await paste(run, { API_KEY: "wrong-key-1" });
  expect(shown.trim().split("\n")).toHaveLength(1);
  expect(JSON.parse(shown)).toMatchObject({ status: 403, code: "wrong_key" });
  expect(await paste(run, { API_KEY: "right-key-1" })).toContain('"status":"finished"');
  run.kill("SIGTERM");
  expect(await run.exited).toBe(0);
}, 90_000);

test("under nohup: `up` outlives its terminal, and ends on SIGTERM", async () => {
  const env = await settings("nohup");
  const run = Bun.spawn([Bun.which("nohup") as string, process.execPath, join(copy, "up.ts")], {
    cwd: copy,
    env,
    stdout: "ignore",
    stderr: "ignore",
  });
  const isReady = async () => (await fetch(`http://127.0.0.1:${env.PORT}/readyz`).catch(() => undefined))?.ok;
  await until(isReady, 60_000);
  run.kill("SIGHUP");
  await Bun.sleep(1_500);
  expect([run.exitCode, await isReady()]).toEqual([null, true]);
  run.kill("SIGTERM");
  expect(await run.exited).toBe(0);
  await expectNothingLeft(env);
}, 90_000);

test("busy ports: all are named at once with their variables, and nothing is started", async () => {
  const servers = [createServer(), createServer()];
  const ports: string[] = [];
  for (const server of servers) {
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    ports.push(String((server.address() as { port: number }).port));
  }
  const [one, other] = ports as [string, string];
  for (const [taken, words] of [
    [{ PORT: one }, [`Port ${one} is in use; PORT sets another`, /For example: PORT=\d+ npx/]],
    [{ DASHBOARD_PORT: one }, [`Port ${one} is in use; DASHBOARD_PORT sets another`]],
    [
      { PORT: one, DASHBOARD_PORT: other },
      [`Port ${one} is in use`, `Port ${other} is in use`, /For example: PORT=\d+ DASHBOARD_PORT=\d+ npx/],
    ],
  ] as const) {
    const env = await settings("busy", taken);
    const run = up(env);
    expect(await run.exited).toBe(1);
    for (const word of words) expect(run.output()).toMatch(word);
    expect(left(env.DATA_DIR as string)).toEqual([]);
  }
  for (const server of servers) server.close();
}, 60_000);

test("Ctrl-C to the whole terminal in the first seconds: a sentence, code 0, nothing left", async () => {
  for (const ms of [150, 250, 400, 700, 1_200]) {
    const env = await settings(`early-${ms}`);
    // a process group of its own, as a terminal has one: the signal reaches each child that has none
    const run = Bun.spawn([process.execPath, join(copy, "up.ts")], {
      ...{ cwd: copy, env, detached: true, stdout: "pipe", stderr: "pipe" },
    });
    await Bun.sleep(ms);
    process.kill(-run.pid, "SIGINT");
    const text = await new Response(run.stdout).text();
    expect([ms, await run.exited, text]).toEqual([ms, 0, expect.stringContaining("SIGINT: stopping.")]);
    expect(text.split("\n").some((line) => /^up +\| *$/.test(line))).toBe(false);
    await expectNothingLeft(env);
  }
}, 60_000);

test("a package registry that is away is one sentence, not an error for each package", async () => {
  const fresh = join(home, "fresh");
  cpSync(copy, fresh, { recursive: true, filter: (path) => basename(path) !== "node_modules" });
  const registry = `http://127.0.0.1:${await freePort()}/`;
  const cache = join(home, "no-cache");
  const env = await settings("away", { NPM_CONFIG_REGISTRY: registry, BUN_INSTALL_CACHE_DIR: cache, HOME: home });
  const run = startProcess(join(fresh, "up.ts"), env);
  runs.push(run);
  expect(await run.exited).toBe(1);
  const said = run.output().trim().split("\n");
  expect(said).toEqual([
    expect.stringMatching(
      /cannot be installed: the package registry at 127\.0\.0\.1:\d+ cannot be reached \(.+NPM_CONFIG_REGISTRY/,
    ),
  ]);
}, 60_000);

test("a dead REDIS_URL: says so without the password, starts nothing", async () => {
  const env = await settings("dead", { REDIS_URL: `redis://:hush-hush@127.0.0.1:${await freePort()}/0` });
  const run = up(env);
  expect(await run.exited).toBe(1);
  expect(run.output()).toMatch(
    /Redis at 127\.0\.0\.1:\d+ does not answer \(ECONNREFUSED\)\.\n.*Start it, correct REDIS_URL, or unset/,
  );
  expect(run.output()).not.toContain("hush-hush");
  await expectNothingLeft(env);
}, 30_000);

test("a REDIS_URL whose database does not exist: `up` says so and starts nothing", async () => {
  const redis = await startRedis();
  const env = await settings("database", { REDIS_URL: `${redis.url}/99` });
  const run = up(env);
  expect(await run.exited).toBe(1);
  expect(run.output()).toContain("Redis cannot be used: it refuses database 99");
  expect(await redis.client.info("keyspace")).not.toContain("db");
  await expectNothingLeft(env);
  await redis.stop();
}, 30_000);

test("no Redis and no package manager: says what to type", async () => {
  const env = await settings("none", { PATH: join(home, "nothing") });
  const run = up(env);
  expect(await run.exited).toBe(1);
  expect(run.output()).toContain("redis-server or valkey-server is not on PATH");
  expect(run.output()).toContain("apt-get install redis-server");
  expect(run.output()).toContain("or set REDIS_URL");
  await expectNothingLeft(env);
}, 30_000);

test("mistakes in the configuration are told all at once, before anything starts", async () => {
  const env = await settings("wrong", { PORT: "eighty", LEASE: "soon", HOST: "0.0.0.0" });
  const run = up(env);
  expect(await run.exited).toBe(1);
  expect(run.output()).toMatch(/PORT: must be a whole number/);
  expect(run.output()).toMatch(/LEASE: must be a duration/);
  expect(run.output().split("there are no API_KEYS")).toHaveLength(2);
  expect(existsSync(env.DATA_DIR as string)).toBe(false);
}, 30_000);

test("a child that cannot start ends everything, with the reason", async () => {
  const redis = await startRedis({ "maxmemory-policy": "allkeys-lru" }); // the gateway refuses one that may lose jobs
  const env = await settings("unfit", { REDIS_URL: redis.url });
  const run = up(env);
  expect(await run.exited).toBe(1);
  expect(run.output()).toMatch(/(worker|gateway) ended while starting/);
  expect(run.output()).toContain("noeviction");
  await expectNothingLeft(env);
  await redis.stop();
}, 30_000);

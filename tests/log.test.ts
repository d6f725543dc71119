/** What a gateway and a worker write to their logs, on real processes; and how a line is made. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathOf } from "../shared/access.ts";
import { type Level, type Log, lineOf, withoutSecrets } from "../shared/log.ts";
import { DENO } from "./support/deno.ts";
import { laneStage, type Stage } from "./support/lane.ts";
import { type Process, type Stack, startProcess, startStack, until } from "./support/stack.ts";
import { job } from "./support/store.ts";

const KEY = "key-of-the-client-1";
const SECRET = "payload-nobody-may-read";

type Line = Record<string, unknown> & { time: string; level: string; message: string };
/** Every line of a process's output; one that is not JSON fails the test. */
const linesOf = (process: Process): Line[] =>
  process
    .output()
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line));

// ---- lines

test("text from outside cannot start a line, end one, or reach the terminal", () => {
  const fields = { error: "bad\r\n2026 INFO  job finished\u001b[2J\u009b1m\u2028\u202egnp", user_agent: 'a b="c' };
  for (const format of ["text", "json"] as const) {
    const line = lineOf(format, 0, "warn", "job failed", fields);
    expect(line.slice(0, -1)).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u2028-\u202e]/);
    expect(line.split("\n")).toHaveLength(2);
  }
  expect(JSON.parse(lineOf("json", 0, "warn", "job failed", fields))).toMatchObject(fields);
  expect(lineOf("text", 0, "info", "job finished", { job: "a_1", ms: 3, gone: undefined })).toBe(
    "1970-01-01T00:00:00.000Z INFO  job finished job=a_1 ms=3\n",
  );
});

test("a long text keeps its head and its tail", () => {
  const { error } = JSON.parse(lineOf("json", 0, "warn", "job failed", { error: `first${"x".repeat(9_000)}last` }));
  expect(error).toMatch(/^firstx+ … 7009 characters … x+last$/);
  expect(error.length).toBeLessThan(2_100);
});

test.each([
  ["GET https://me:hush@host:1/a/b?t=hush#x failed", "GET https://host:1/a/b?… failed"],
  ["redis://:hush@db:6379/0 is away", "redis://db:6379/0 is away"],
  ["Authorization: Bearer hush-hush.hush", "Authorization: …"],
  ["sent Basic aHVzaDpodXNo", "sent Basic …"],
  [`{"api_key": "hush", "db_password":"hush"}`, `{"api_key": "…", "db_password":"…"}`],
  ["token=hush&x=1", "token=…&x=1"],
  ["KeyError: 'name' in row 7", "KeyError: 'name' in row 7"],
])("what looks like a credential is left out of a text: %s", (text, clean) => {
  expect(withoutSecrets(text)).not.toContain("hush");
  if (!text.startsWith("Authorization")) expect(withoutSecrets(text)).toBe(clean);
});

test.each([
  ["http://h/jobs/a_1/progress?t=hush", "/jobs/a_1/progress"],
  ["http://h/download/hush", "/download/…"],
  ["http://h/%64ownload/hush/x.ifc?y", "/download/…/x.ifc"],
  ["http://h/api//Download/hush", "/api//Download/…"],
  ["/download/hush", "/download/…"],
  ["http://h/%ff?a", "/%ff"],
])("the path of a request stands in the access log without its tokens: %s", (url, path) => {
  expect(pathOf(url)).toBe(path);
});

// ---- processes

let stack: Stack;
beforeAll(async () => {
  stack = await startStack({
    env: { LOG_FORMAT: "json", ACCESS_LOG: "1", LOG_LEVEL: "debug", API_KEYS: `${KEY}:admin` },
    operation: { retries: 1, retry500: true, backoff: "10ms", timeout: "20s" },
    operations: {
      away: { url: "http://127.0.0.1:9", backoff: "10ms" },
      once: { url: "http://127.0.0.1:9", on_orphan: "fail" },
    },
  });
});
afterAll(() => stack?.stop());

const headers = { "x-api-key": KEY, "user-agent": "test\u0080agent" };
const about = (process: Process | undefined, id: string) => linesOf(process as Process).filter(({ job }) => job === id);
async function logs(id: string, message: string, process = stack.workers[0]): Promise<Line> {
  const found = () => about(process, id).find((line) => line.message === message);
  await until(found, 20_000, () => `${id}: no "${message}" in\n${process?.output()}`);
  return found() as Line;
}

test("the log says of each job that it finished, with worker, attempt, time and size", async () => {
  const id = await stack.submit({ note: SECRET, sleep: 50 }, "/work", headers);
  const line = await logs(id, "job finished");
  expect(line).toMatchObject({ level: "info", operation: "work", service: "work", attempt: 1, bytes: 11 });
  expect(line.ms).toBeGreaterThanOrEqual(49);
  expect(line.worker).toMatch(/^\w{8,}$/);
  expect(Math.abs(Date.now() - Date.parse(line.time))).toBeLessThan(60_000);
  expect((await logs(id, "call starts")).level).toBe("debug");
});

test("the log says why a job was tried again, and why it failed in the end", async () => {
  const id = await stack.submit({ note: SECRET, status: 503, detail: "busy\nINFO  job finished" }, "/work", headers);
  expect(await logs(id, "job is tried again")).toMatchObject({ level: "warn", attempt: 1, http_status: 503 });
  const line = await logs(id, "job failed");
  expect(line).toMatchObject({ level: "warn", attempt: 2, operation: "work", http_status: 503 });
  expect(line.code).toBeString();
  expect(line.error).toContain("busy");
});

test("the log says that a lane parked, that its jobs went back, and what was canceled", async () => {
  const id = await stack.submit({ note: SECRET }, "/away", headers);
  expect(await logs(id, "job handed back")).toMatchObject({ level: "info", why: "the service refuses", attempt: 1 });
  const [worker] = stack.workers;
  const parked = linesOf(worker as Process).find(({ message }) => message.startsWith("lane parked"));
  expect(parked).toMatchObject({ level: "warn", service: "away", reason: expect.stringContaining("127.0.0.1:9") });
  expect((await stack.post(`/jobs/${id}/cancel`, undefined, headers)).status).toBe(202);
  expect(await logs(id, "job canceled", stack.gateway)).toMatchObject({
    caller: expect.stringMatching(/^[\w-]{3,16}$/),
  });
});

test("the log says that a running job was canceled, and how long it had run", async () => {
  const id = await stack.submit({ note: SECRET, sleep: 15_000 }, "/work", headers);
  await until(() => stack.service.byJob(id).length > 0);
  await stack.post(`/jobs/${id}/cancel`, undefined, headers);
  expect((await logs(id, "job canceled")).ms).toBeNumber();
  expect((await logs(id, "cancel asked of a running job", stack.gateway)).level).toBe("info");
});

test("the log of another worker says which jobs of a dead worker it handed on", async () => {
  const dying = await stack.startWorker();
  const { pid } = dying;
  const ids = await Promise.all(Array.from({ length: 16 }, () => stack.submit({ sleep: 12_000 }, "/work", headers)));
  await until(() => ids.every((id) => stack.service.byJob(id).length > 0));
  process.kill(pid, "SIGKILL");
  const its = ids.filter((id) => about(dying, id).length > 0);
  expect(its.length).toBeGreaterThan(0);
  for (const id of its) {
    const line = await logs(id, "job is redelivered: its worker is gone");
    expect(line).toMatchObject({ level: "warn", operation: "work", service: "work", attempt: 1 });
    expect(line.lost_worker).not.toBe(line.worker);
  }
  for (const id of ids) await stack.post(`/jobs/${id}/cancel`, undefined, headers);
}, 60_000);

test("the access log has a line for each request, with who asked and which job was made", async () => {
  const id = await stack.submit({ note: SECRET }, "/work", headers);
  await fetch(`${stack.url}/nothing/here?token=hush-hush`, { headers });
  await fetch(`${stack.url}/jobs/${id}`); // without a key
  const lines = () => linesOf(stack.gateway).filter(({ message }) => message === "request");
  await until(() => lines().some(({ status }) => status === 401));
  expect(lines().find(({ job }) => job === id)).toMatchObject({
    ...{ method: "POST", path: "/work", status: 202, server: "gateway", ip: "127.0.0.1" },
    ...{ caller: expect.stringMatching(/^[\w-]{3,16}$/), ms: expect.any(Number) },
  });
  expect(lines().find(({ path }) => path === "/nothing/here")).toMatchObject({ status: 404, method: "GET" });
  expect(lines().find(({ status }) => status === 401)?.caller).toBeUndefined();
});

test("neither log holds a payload, a key, a token or a query", async () => {
  const [call] = stack.service.calls;
  const token = new URL(call?.headers.get("x-progress-url") ?? "").searchParams.get("t") as string;
  await fetch(call?.headers.get("x-progress-url") as string, { method: "POST", body: '{"progress":0.5}' });
  mkdirSync(join(stack.dir, "output"), { recursive: true });
  writeFileSync(join(stack.dir, "output", "a.txt"), "x");
  const made = await stack.post("/create_download_link", { file_path: "/output/a.txt" }, headers);
  const link = (await made.json()) as { url: string; download_token: string };
  expect((await fetch(new URL(link.url, stack.url))).status).toBe(200);
  await until(() => stack.gateway.output().includes("/download/…"));
  const text = [stack.gateway, ...stack.workers].map((process) => process.output()).join("\n");
  for (const secret of [SECRET, KEY, token, link.download_token, "hush-hush"]) {
    expect([secret, text.includes(secret)]).toEqual([secret, false]);
  }
});

test("a worker that stops says so, and what it hands back", async () => {
  const worker = await stack.startWorker({ DRAIN_TIMEOUT: "100ms", WORKER_SERVICES: "work" });
  const ids = await Promise.all(Array.from({ length: 16 }, () => stack.submit({ sleep: 9_000 }, "/work", headers)));
  await until(() => ids.every((id) => stack.service.byJob(id).length > 0));
  worker.kill("SIGTERM");
  expect(await worker.exited).toBe(0);
  await until(() => linesOf(worker).at(-1)?.message === "stopped", 5_000, worker.output);
  const messages = linesOf(worker).map(({ message }) => message);
  expect(messages[0]).toMatch(/^worker ready under /);
  expect(messages).toContain("draining");
  const back = linesOf(worker).filter(({ message }) => message === "job handed back");
  expect(back.length).toBeGreaterThan(0);
  expect(back[0]).toMatchObject({ why: "the worker stops", attempt: 1, operation: "work", ms: expect.any(Number) });
  for (const id of ids) await stack.post(`/jobs/${id}/cancel`, undefined, headers);
}, 60_000);

test("under Deno gateway and worker write the same lines", async () => {
  const env = { ...stack.env, PORT: "0", DASHBOARD_PORT: "0", WORKER_SERVICES: "away" };
  const started = [startProcess("worker.ts", env, "deno"), startProcess("gateway.ts", env, "deno")];
  try {
    for (const one of started) {
      await one.says(/ready under deno/);
      expect(linesOf(one)).toContainEqual(
        expect.objectContaining({ level: "info", message: expect.stringMatching(/^\w+ ready under deno/) }),
      );
      one.kill("SIGTERM");
      await until(() => linesOf(one).at(-1)?.message === "stopped", 20_000, one.output);
    }
  } finally {
    for (const one of started) one.kill("SIGKILL");
  }
}, 60_000);

test("a configuration that cannot be used is one line of JSON with LOG_FORMAT=json", async () => {
  const worker = startProcess("worker.ts", { LOG_FORMAT: "json", LOG_LEVEL: "loud", PORT: "x" });
  expect(await worker.exited).toBe(1);
  const [line] = linesOf(worker);
  expect(line).toMatchObject({ level: "error", message: "cannot start" });
  expect(line?.detail).toMatch(/PORT.*LOG_LEVEL: must be debug, info, warn, error, not "loud"/s);
});

// ---- what it costs

const OUTPUT = `
import process from "node:process";
import { endLog, log, startLog } from ${JSON.stringify(join(import.meta.dir, "../shared/log.ts"))};
startLog({ format: "json", level: "info", access: false });
const began = performance.now();
for (let round = 0; round < 200; round++) {
  for (let i = 0; i < 1_000; i++) log.info("a line", { round, i, filler: "x".repeat(150) });
  await new Promise((next) => setTimeout(next, 1));
}
process.stderr.write("worked on");
await END;
process.exit(0);
`;

const RUNTIMES: [string, string[]][] = [
  ["Bun", [process.execPath, "-e"]],
  ...(DENO ? [["Deno", [DENO, "eval", "--quiet"]] as [string, string[]]] : []),
];
/** Waits in a shell until a file is as it should be; after half a minute it ends with 1, and the pipe that it had with it. */
const patient = (file: string) => `n=0; while [ ! ${file} ]; do [ $n = 500 ] && exit 1; n=$((n+1)); sleep 0.05; done`;
/** Runs a script whose log goes into a pipe with `reader` at its other end; "$out" is a file with what it says besides. */
const piped = (out: string, command: string[], script: string, reader: string) =>
  Bun.spawn(["/bin/sh", "-c", `out=$1; shift; "$@" 2>"$out" | ${reader}`, "sh", out, ...command, script], {
    cwd: join(import.meta.dir, ".."),
    stdout: "pipe",
  });

test.each(RUNTIMES)(
  "%s: a stalled reader of the log holds up no work; lines left out are counted",
  async (name, command) => {
    const out = join(stack.dir, `worked-on-${name}`);
    // the reader begins when the work is done, which it never would be if a write waited for the reader
    const reader = `{ ${patient('-s "$out"')}; cat; }`;
    const child = piped(out, command, OUTPUT.replace("END", "endLog()"), reader);
    const text = await new Response(child.stdout).text();
    expect(readFileSync(out, "utf8")).toBe("worked on");
    const lines = text
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line));
    const left = lines.find(({ message }) => message.startsWith("log lines left out"));
    expect(left.lines).toBe(200_000 - (lines.length - 1));
  },
  60_000,
);

test.each(RUNTIMES)(
  "%s: a process ends though nobody reads its log",
  async (name, command) => {
    const out = join(stack.dir, `unread-${name}`);
    const script = OUTPUT.replace("round < 200", "round < 20").replace("END", "endLog()");
    // it reads once the process has ended, which it notices by the file that is written then
    const ended = `{ ${patient('-e "$out.ended"')}; }`;
    const both = ["/bin/sh", "-c", '"$@"; : > "$0.ended"', out, ...command];
    const child = piped(out, both, script, ended);
    expect(await child.exited).toBe(0);
    expect(readFileSync(out, "utf8")).toBe("worked on");
  },
  60_000,
);

test("a process that ends at once has written its last lines", async () => {
  const script = OUTPUT.replace("round < 200", "round < 5").replace("END", "0");
  const child = Bun.spawn([process.execPath, "-e", script], { stdout: "pipe", stderr: "ignore" });
  const lines = (await new Response(child.stdout).text()).split("\n").filter(Boolean);
  expect(lines.map((line) => JSON.parse(line).i)).toEqual(Array.from({ length: 5_000 }, (_, i) => i % 1_000));
});

let stage: Stage;
laneStage((made) => {
  stage = made;
});

test("at level warn a finished job makes no line and no fields: the level is asked first", async () => {
  const asked: Level[] = [];
  const written: string[] = [];
  const log: Log = {
    on: (level) => {
      asked.push(level);
      return level === "warn" || level === "error";
    },
    ...{ debug: () => written.push("debug"), info: () => written.push("info") },
    ...{ warn: (message) => written.push(message), error: (message) => written.push(message) },
    with: () => log,
  };
  const { worker } = stage.lanes.start("quiet-log", { slots: 20 }, undefined, {}, log);
  const ids = await Promise.all(Array.from({ length: 20 }, () => stage.s.submit(job())));
  await until(async () =>
    (await Promise.all(ids.map((id) => stage.s.state(id)))).every((state) => state === "finished"),
  );
  expect(worker).toBeDefined();
  expect(written).toEqual([]);
  expect(new Set(asked)).toEqual(new Set(["debug", "info"]));
});

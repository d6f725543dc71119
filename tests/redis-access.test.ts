/** Redis with access control: the least rights that docs/operating.md names, fewer, and logins that are refused. */
import { afterEach, expect, test } from "bun:test";
import { EventEmitter } from "node:events";
import { readFileSync } from "node:fs";
import { Redis as Client, type Redis } from "ioredis";
import { tellAway } from "../shared/away.ts";
import { startRedis, type TestRedis } from "./support/redis.ts";
import { type Process, type Stack, startProcess, startStack, until } from "./support/stack.ts";
import { startCluster } from "./support/topology.ts";
import { everyVerb } from "./support/verbs.ts";

let redis: TestRedis | undefined;
let stack: Stack | undefined;
const closing: (() => unknown)[] = [];
afterEach(async () => {
  await stack?.stop();
  for (const close of closing.splice(0)) await close();
  await redis?.stop();
  redis = undefined;
  stack = undefined;
}, 30_000);

const DOCS = readFileSync(new URL("../docs/operating.md", import.meta.url), "utf8");
/** The rule as operators copy it, with a password that needs encoding. */
const RULE = (/^ {4}ACL SETUSER (longhaul on >PASSWORD .*)$/m.exec(DOCS)?.[1] ?? "")
  .replace("PASSWORD", "pa/ss")
  .split(" ");
const LOGIN = "longhaul:pa%2Fss@";
const setUser = async (client: Redis, ...more: string[]) => {
  await client.call("ACL", "SETUSER", ...RULE, ...more);
  await client.call("ACL", "SETUSER", "default", "off");
};
const refusals = async (client: Redis) => ((await client.call("ACL", "LOG")) as unknown[]).map(String);
/** What was printed that is no line of Longhaul's. */
const foreign = (...processes: Process[]) =>
  processes
    .flatMap((process) => process.output().split("\n"))
    .filter((line) => line && !/^(\d{4}-\d\d-\d\dT|\{"audit"|gateway ready|dashboard:|Redis: )/.test(line));

test("the rule in docs/operating.md lets every verb pass, is asked for no more, and nothing else", async () => {
  redis = await startRedis();
  await setUser(redis.client);
  stack = await startStack({ env: { REDIS_URL: redis.url.replace("://", `://${LOGIN}`), RATE_LIMIT: "1000/s" } });
  await everyVerb(stack, ["work"]);
  // Each process connects anew, subscribes anew and teaches its scripts anew.
  await redis.client.call("SCRIPT", "FLUSH");
  await redis.client.call("CLIENT", "KILL", "TYPE", "normal");
  await until(async () => (await fetch(`${stack!.url}/readyz`)).ok);
  await everyVerb(stack, ["work"]);
  const [worker] = stack.workers as [Process];
  worker.kill("SIGTERM");
  expect(await worker.exited).toBe(0);
  const asked = (await refusals(redis.client)).filter((entry) => !/client\|(list|unblock)/.test(entry));
  expect(asked).toEqual([]);
  expect(foreign(worker, stack.gateway)).toEqual([]);
  const user = new Client({ port: redis.port, username: "longhaul", password: "pa/ss", maxRetriesPerRequest: 1 });
  closing.push(() => user.disconnect());
  for (const command of [
    "FLUSHALL",
    "FLUSHDB",
    "KEYS *",
    "CONFIG GET *",
    "ACL LIST",
    "CLIENT LIST",
    "SHUTDOWN",
    "SCRIPT FLUSH",
    "GET other",
    "PUBLISH other 1",
  ]) {
    const [name, ...args] = command.split(" ") as [string, ...string[]];
    const reply = await user.call(name, ...args).then(String, (error: Error) => error.message);
    expect([command, reply]).toEqual([command, expect.stringContaining("NOPERM")]);
  }
}, 90_000);

test("a user without INFO and CLIENT: jobs run, a warning says what is not checked, ioredis is quiet", async () => {
  redis = await startRedis();
  await setUser(redis.client, "-info", "-client");
  stack = await startStack({ env: { REDIS_URL: redis.url.replace("://", `://${LOGIN}`) } });
  await everyVerb(stack, ["work"]);
  const [worker] = stack.workers as [Process];
  await redis.client.call("CLIENT", "KILL", "TYPE", "normal");
  await Bun.sleep(1_500);
  expect(worker.output()).toContain("appendonly could not be read (INFO is barred): it must be yes");
  expect(foreign(worker, stack.gateway)).toEqual([]);
}, 90_000);

test("the rule with the two rights of a Cluster lets every verb pass there", async () => {
  const cluster = await startCluster();
  closing.push(() => cluster.stop());
  const names = ["alpha", "beta", "gamma"];
  expect(DOCS).toContain("`+cluster|slots +cluster|info`");
  for (const node of cluster.nodes) await setUser(node.client, "+cluster|slots", "+cluster|info");
  stack = await startStack({ env: { REDIS_URL: cluster.url.replace("://", `://${LOGIN}`) }, names });
  await everyVerb(stack, ["work", ...names]);
  for (const node of cluster.nodes) expect(await refusals(node.client)).toEqual([]);
  expect(foreign(stack.gateway, ...stack.workers)).toEqual([]);
}, 90_000);

test("a login that Redis refuses: the log says what to do, and never the password", async () => {
  redis = await startRedis({ requirepass: "right-pw" });
  const start = (url: string) => {
    const process = startProcess("worker.ts", { REDIS_URL: url, IFC2JSON_URL: "http://127.0.0.1:9" });
    closing.push(() => process.kill("SIGKILL"));
    return process;
  };
  const wrong = start(redis.url.replace("://", "://me:hush-hush@"));
  const none = start(redis.url);
  await wrong.says(/refuses the connection \(WRONGPASS [^)]*\): user or password in REDIS_URL is wrong/);
  await none.says(/refuses the connection \(NOAUTH [^)]*\): it asks for a password: redis:\/\/user:password@host/);
  expect(wrong.output()).not.toContain("hush");
  for (const process of [wrong, none]) process.kill("SIGKILL");
  await Promise.all([wrong.exited, none.exited]);
  await redis.client.config("SET", "maxclients", "1");
  const full = start(redis.url.replace("://", "://:right-pw@"));
  await full.says(/it has no room for another connection/);
}, 90_000);

test("words of Redis and of TLS that a log knows a cure for, where no Redis of ours can say them", async () => {
  const CASES: [string, string][] = [
    [
      "DENIED Redis is running in protected mode because protected mode is enabled",
      "give it a password and name that in REDIS_URL",
    ],
    ["NOPERM User x has no permissions to run the 'hsetnx' command", "docs/operating.md has the ACL rule"],
    ["ERR This instance has cluster support disabled", "redis:// instead of redis+cluster://"],
    ["CERT_HAS_EXPIRED", "its certificate has expired"],
    ["getaddrinfo ENOTFOUND db", "there is no such host name"],
    ["HELLO failed for pa/ss", "refuses the connection (HELLO failed for …)"],
  ];
  for (const [words, cure] of CASES) {
    const lines: string[] = [];
    const redis = Object.assign(new EventEmitter(), { status: "connecting" });
    const log = { warn: (line: string) => void lines.push(line), info: () => {} };
    tellAway(redis as never, "redis://me:pa%2Fss@db", log, { firstMs: 1, againMs: 60_000 });
    redis.emit("error", new Error(words));
    redis.emit("error", new Error("Connection is closed.")); // says less, so it replaces nothing
    await until(() => lines.length > 0);
    redis.emit("ready");
    expect([words, lines[0]]).toEqual([words, expect.stringContaining(cure)]);
  }
});

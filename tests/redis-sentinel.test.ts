/** Sentinels with passwords and over TLS: real sentinels, one failover each would cost minutes and stands in tests/slow. */
import { afterEach, expect, test } from "bun:test";
import { type Process, type Stack, startProcess, startStack } from "./support/stack.ts";
import { startSentinel } from "./support/topology.ts";
import { everyVerb } from "./support/verbs.ts";

let stack: Stack | undefined;
let topology: Awaited<ReturnType<typeof startSentinel>> | undefined;
const processes: Process[] = [];
afterEach(async () => {
  for (const process of processes.splice(0)) {
    process.kill("SIGKILL");
    await process.exited;
  }
  await stack?.stop();
  await topology?.stop();
  stack = undefined;
  topology = undefined;
}, 30_000);

function startWorker(url: string): Process {
  const process = startProcess("worker.ts", { REDIS_URL: url, IFC2JSON_URL: "http://127.0.0.1:9" });
  processes.push(process);
  return process;
}
const withLogin = (url: string, login: string, more = "") => `${url.replace("://", `://${login}@`)}${more}`;
/** What a process printed that is neither Longhaul's own line nor empty. */
const foreign = (process: Process) =>
  process
    .output()
    .split("\n")
    .filter((line) => line && !/^\d{4}-\d\d-\d\dT/.test(line));

test("sentinels with Redis's password get the login of REDIS_URL, and only when they ask", async () => {
  topology = await startSentinel({ password: "hush-hush", sentinel: ["requirepass hush-hush"] });
  const url = withLogin(topology.url, ":hush-hush");
  stack = await startStack({ env: { REDIS_URL: url } });
  await everyVerb(stack, ["work"]);
  for (const node of topology.nodes)
    await node.client.call("ACL", "SETUSER", "few", "on", ">hush-hush", "+@all", "~*", "&*");
  const user = startWorker(withLogin(topology.url, "few:hush-hush")); // the sentinels have no such user
  await user.says(/ready under/);
  expect([...foreign(user), ...foreign(stack.workers[0] as Process)]).toEqual([]);
}, 90_000);

test("sentinels with a password of their own: sentinel_password in REDIS_URL, else the log names it", async () => {
  topology = await startSentinel({ password: "hush-hush", sentinel: ["requirepass other%pw"] });
  const wrong = startWorker(withLogin(topology.url, ":hush-hush"));
  const right = startWorker(withLogin(topology.url, ":hush-hush", "?sentinel_password=other%25pw"));
  await right.says(/ready under/);
  await wrong.says(/the sentinels ask for another login: add \?sentinel_password=/);
  expect(wrong.output()).not.toContain("hush-hush");
}, 90_000);

test("sentinels with an ACL user: sentinel_username and sentinel_password in REDIS_URL", async () => {
  const user = "user watcher on >watch-pw ~* &* +@all";
  topology = await startSentinel({ password: "hush-hush", sentinel: [user] });
  const query = "?sentinel_username=watcher&sentinel_password=watch-pw";
  await startWorker(withLogin(topology.url, ":hush-hush", query)).says(/ready under/);
}, 90_000);

test("sentinels without a password serve a REDIS_URL that has one, and no word of ioredis is printed", async () => {
  topology = await startSentinel({ password: "hush-hush" });
  const worker = startWorker(withLogin(topology.url, ":hush-hush"));
  await worker.says(/ready under/);
  const lost = startWorker(withLogin(topology.url.replace(/main$/, "other"), ":hush-hush"));
  await lost.says(/No such master with that name\): REDIS_URL must name the master as the sentinels do/);
  const direct = startWorker(topology.url.replace("+sentinel", "").replace(/,.*/, ""));
  expect(await direct.exited).toBe(1);
  expect(direct.output()).toContain("it is a Sentinel: REDIS_URL must be such as redis+sentinel://");
  expect([...foreign(worker), ...foreign(lost)]).toEqual([]);
}, 90_000);

test("sentinels and Redis over TLS, where certificates are for names and addresses are announced", async () => {
  topology = await startSentinel({ names: ["DNS:localhost"] });
  stack = await startStack({ env: { REDIS_URL: topology.url, NODE_EXTRA_CA_CERTS: topology.tls!.ca } });
  await everyVerb(stack, ["work"]);
}, 90_000);

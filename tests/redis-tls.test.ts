/** Redis over TLS: one server, a Cluster and Sentinels, with certificates of an authority that no system knows. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "./support/redis.ts";
import { type Process, type Stack, startProcess, startStack, until } from "./support/stack.ts";
import { makeCertificates } from "./support/tls.ts";
import { startCluster } from "./support/topology.ts";
import { everyVerb } from "./support/verbs.ts";

const NAMES = ["alpha", "beta", "gamma"]; // with work, their hash tags lie on all three masters
let cluster: Awaited<ReturnType<typeof startCluster>>;
let stack: Stack | undefined;
const processes: Process[] = [];

beforeAll(async () => {
  const more = { "cluster-announce-hostname": "localhost", "cluster-preferred-endpoint-type": "hostname" };
  cluster = await startCluster({ names: ["DNS:localhost"], more });
}, 60_000);
afterEach(async () => {
  for (const process of processes.splice(0)) {
    process.kill("SIGKILL");
    await process.exited;
  }
  await stack?.stop();
  stack = undefined;
}, 30_000);
afterAll(() => cluster?.stop(), 30_000);

function startWorker(url: string, env: Record<string, string> = {}, runtime?: string): Process {
  const process = startProcess("worker.ts", { REDIS_URL: url, IFC2JSON_URL: "http://127.0.0.1:9", ...env }, runtime);
  processes.push(process);
  return process;
}

test("a Cluster over TLS whose certificates are for names takes and runs jobs on every master", async () => {
  const env = { REDIS_URL: cluster.url, NODE_EXTRA_CA_CERTS: cluster.tls!.ca };
  stack = await startStack({ env, names: NAMES });
  await everyVerb(stack, ["work", ...NAMES]);
}, 90_000);

test("a Cluster over TLS whose nodes announce addresses is known by the name in REDIS_URL", async () => {
  for (const node of cluster.nodes) await node.client.config("SET", "cluster-preferred-endpoint-type", "ip");
  try {
    const env = { REDIS_URL: `${cluster.url}?ca=${cluster.tls!.ca}`, NAMESPACE: "by-address" };
    stack = await startStack({ env, names: NAMES });
    await everyVerb(stack, ["work", ...NAMES]);
    await startWorker(env.REDIS_URL, {}, "deno").says(/ready under/);
  } finally {
    for (const node of cluster.nodes) await node.client.config("SET", "cluster-preferred-endpoint-type", "hostname");
  }
}, 90_000);

test("a Redis and a node of a Cluster are told the name that is asked for, as proxies of many need it", async () => {
  const greetings: string[] = [];
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", (bytes) => {
      greetings.push(bytes.toString("latin1")); // the name stands in the first message, before anything is secret
      socket.destroy();
    });
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  try {
    const { port } = server.address() as { port: number };
    for (const runtime of ["bun", "deno"]) {
      for (const scheme of ["rediss", "rediss+cluster"]) {
        greetings.length = 0;
        const worker = startWorker(`${scheme}://localhost:${port}`, {}, runtime);
        await until(() => greetings.length > 0);
        worker.kill("SIGKILL");
        expect([runtime, scheme, greetings[0]?.includes("localhost")]).toEqual([runtime, scheme, true]);
      }
    }
  } finally {
    server.close();
  }
}, 60_000);

test("a Cluster that cannot be connected to over TLS: the log has the node's own error and its cure", async () => {
  const unknown = startWorker(cluster.url);
  const named = startWorker(cluster.url.replaceAll("localhost", "127.0.0.1"), { NODE_EXTRA_CA_CERTS: cluster.tls!.ca });
  await unknown.says(
    /does not answer \(SELF_SIGNED_CERT_IN_CHAIN\): its certificate's authority is unknown here: NODE_EXTRA/,
  );
  await named.says(/does not answer \(ERR_TLS_CERT_ALTNAME_INVALID\): its certificate is for another name/);
}, 60_000);

test("one Redis that asks for client certificates is served with ?cert= and ?key=, under Bun and Deno", async () => {
  const dir = mkdtempSync(join(tmpdir(), "longhaul-tls-"));
  const port = await freePort();
  const tls = makeCertificates(dir, ["DNS:localhost", "IP:127.0.0.1"], true);
  const settings = { port: "0", "tls-port": String(port), bind: "127.0.0.1", dir, appendonly: "yes", ...tls.settings };
  const args = Object.entries({ ...settings, "maxmemory-policy": "noeviction" }).flatMap(([k, v]) => [`--${k}`, v]);
  const server = Bun.spawn(["redis-server", ...args], { stdout: "ignore", stderr: "ignore" });
  try {
    const url = `rediss://localhost:${port}/1?ca=${tls.ca}`;
    const both = ["bun", "deno"].map((runtime) => startWorker(`${url}&cert=${tls.cert}&key=${tls.key}`, {}, runtime));
    for (const worker of both) await worker.says(/ready under/);
    const without = startWorker(url);
    await without.says(/it asks for a client's certificate: \?cert=/);
  } finally {
    server.kill("SIGKILL");
    await server.exited;
    rmSync(dir, { recursive: true, force: true });
  }
}, 60_000);

test("a scheme that differs from what Redis speaks, TLS or none, is suspected in the log", async () => {
  const plain = startWorker(`redis://127.0.0.1:${cluster.nodes[0]!.port}`);
  stack = await startStack({ workers: 0 });
  const secure = startWorker(`rediss://127.0.0.1:${stack.redis.port}`);
  await secure.says(/if it speaks no TLS there, REDIS_URL begins with redis:/);
  await plain.says(/if it speaks TLS there, REDIS_URL begins with rediss:/);
}, 60_000);

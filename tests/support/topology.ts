/** Sentinel and Cluster from real redis-servers on loopback. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Redis } from "ioredis";
import { freePort, memoryDir, SYNCED } from "./redis.ts";
import { until } from "./stack.ts";
import { type Certificates, makeCertificates } from "./tls.ts";

export type Node = {
  port: number;
  readonly pid: number;
  client: Redis;
  kill9(): Promise<void>;
  restart(): Promise<void>;
};
export type Topology = {
  url: string;
  nodes: Node[];
  /** the node that takes the writes for a key now */
  master(key: string): Promise<Node>;
  /** a client of whoever is the master */
  follow(options: object): Redis;
  stop(): Promise<void>;
};

/** A client that looks at a server of the test's own, over TLS where it has it. */
function look(port: number, tls?: Certificates, more: object = {}): Redis {
  const secure = tls && {
    tls: {
      ...{ ca: readFileSync(tls.ca), cert: readFileSync(tls.cert), key: readFileSync(tls.key) },
      checkServerIdentity: () => undefined,
    },
  };
  const client = new Redis({ port, maxRetriesPerRequest: null, retryStrategy: () => 50, ...secure, ...more });
  client.on("error", () => {});
  return client;
}

/** `port` as a server over TLS names it. */
const listening = (port: number, tls?: Certificates): Record<string, string> =>
  tls ? { port: "0", "tls-port": String(port), ...tls.settings } : { port: String(port) };

async function startNode(
  dir: string,
  port: number,
  settings: Record<string, string>,
  tls?: Certificates,
): Promise<Node> {
  const own = join(dir, String(port));
  mkdirSync(own, { recursive: true });
  const all: Record<string, string> = {
    ...{ bind: "127.0.0.1", dir: own, appendonly: "yes", ...SYNCED, save: "", daemonize: "no" },
    ...{ "maxmemory-policy": "noeviction", "hash-max-listpack-value": "1024" },
    ...listening(port, tls),
    ...settings,
  };
  const args = Object.entries(all).flatMap(([name, value]) => [`--${name}`, ...value.split(" ")]);
  const spawn = () => Bun.spawn(["redis-server", ...args], { stdout: "ignore", stderr: "ignore" });
  let child = spawn();
  const client = look(port, tls, { password: settings.requirepass });
  await client.ping();
  return {
    port,
    client,
    get pid() {
      return child.pid;
    },
    async kill9() {
      child.kill("SIGKILL");
      await child.exited;
    },
    async restart() {
      child = spawn();
      await client.ping();
    },
  };
}

async function stopAll(dir: string, nodes: Node[]): Promise<void> {
  for (const node of nodes) {
    node.client.disconnect();
    await node.kill9();
  }
  rmSync(dir, { recursive: true, force: true });
}

/**
 * Three masters, no replicas: a killed one is away until it is started again.
 * @param names  over TLS, with certificates for these names
 * @param more   further settings of each node
 */
export async function startCluster({
  names,
  more = {},
}: {
  names?: string[];
  more?: Record<string, string>;
} = {}): Promise<Topology & { tls?: Certificates }> {
  const dir = memoryDir("longhaul-cluster-");
  const ports: number[] = [];
  const buses: number[] = []; // a fixed distance from the ports would lie where outgoing connections have theirs
  for (let i = 0; i < 3; i++) {
    ports.push(await freePort());
    buses.push(await freePort());
  }
  const tls = names && makeCertificates(dir, names);
  const nodes = await Promise.all(
    ports.map((port, i) =>
      startNode(
        dir,
        port,
        {
          ...{ "cluster-enabled": "yes", "cluster-node-timeout": "2000", "cluster-port": String(buses[i]) },
          ...{ "cluster-require-full-coverage": "no", ...(tls ? { "tls-cluster": "yes" } : {}), ...more },
        },
        tls,
      ),
    ),
  );
  const [first] = nodes as [Node];
  for (const [i, node] of nodes.entries()) {
    const from = Math.floor((16_384 * i) / 3);
    const to = Math.floor((16_384 * (i + 1)) / 3) - 1;
    await node.client.call("CLUSTER", "ADDSLOTSRANGE", from, to);
    if (i > 0) await first.client.call("CLUSTER", "MEET", "127.0.0.1", node.port, buses[i] as number);
  }
  for (const node of nodes) {
    await until(async () =>
      /cluster_state:ok[\s\S]*cluster_known_nodes:3/.test(String(await node.client.call("CLUSTER", "INFO"))),
    );
  }
  return {
    url: `${tls ? "rediss" : "redis"}+cluster://${ports.map((port) => `${tls ? "localhost" : "127.0.0.1"}:${port}`).join(",")}`,
    ...(tls ? { tls } : {}),
    nodes,
    async master(key) {
      const slot = Number(await first.client.call("CLUSTER", "KEYSLOT", key));
      return nodes[Math.min(2, Math.floor(((slot + 0.5) * 3) / 16_384))] as Node;
    },
    follow: (options) => look(first.port, tls, options),
    stop: () => stopAll(dir, nodes),
  };
}

/**
 * A master, two replicas and three sentinels that agree by two, after a second of silence.
 * @param names     over TLS, with certificates for these names
 * @param sentinel  further lines of a sentinel's file
 * @param password  of master and replicas
 */
export async function startSentinel({
  names,
  sentinel: lines = [],
  password,
}: {
  names?: string[];
  sentinel?: string[];
  password?: string;
} = {}): Promise<Topology & { tls?: Certificates }> {
  const dir = memoryDir("longhaul-sentinel-");
  const ports: number[] = [];
  for (let i = 0; i < 6; i++) ports.push(await freePort());
  // Without the first two a master whose replicas are still copying goes on accepting, and the next failover then
  // loses everything since the last one (1,052 of 2,818 jobs in a run): docs/reliability.md.
  const safe = { "min-replicas-to-write": "1", "min-replicas-max-lag": "2", "repl-diskless-sync-delay": "0" };
  const tls = names && makeCertificates(dir, names);
  const settings: Record<string, string> = {
    ...safe,
    ...(tls ? { "tls-replication": "yes" } : {}),
    ...(password ? { requirepass: password, masterauth: password } : {}),
  };
  const nodes = [await startNode(dir, ports[0] as number, settings, tls)];
  for (const port of ports.slice(1, 3)) {
    nodes.push(await startNode(dir, port, { replicaof: `127.0.0.1 ${ports[0]}`, ...settings }, tls));
  }
  const [first, ...replicas] = nodes as [Node, ...Node[]];
  await until(async () => /connected_slaves:2/.test(await first.client.info("replication")));
  for (const { client } of replicas)
    await until(async () => /master_link_status:up/.test(await client.info("replication")));
  const sentinels = ports.slice(3).map((port) => {
    const file = join(dir, `sentinel-${port}.conf`);
    const own = ["down-after-milliseconds main 1000", "failover-timeout main 4000", "parallel-syncs main 2"];
    if (password) own.push(`auth-pass main ${password}`);
    const served = Object.entries({ ...listening(port, tls), ...(tls ? { "tls-replication": "yes" } : {}) });
    writeFileSync(
      file,
      [...served.map(([name, value]) => `${name} ${value}`), "bind 127.0.0.1", `dir ${dir}`]
        .concat(`sentinel monitor main 127.0.0.1 ${ports[0]} 2`)
        .concat(
          own.map((line) => `sentinel ${line}`),
          lines,
        )
        .join("\n"),
    );
    return Bun.spawn(["redis-server", file, "--sentinel"], { stdout: "ignore", stderr: "ignore" });
  });
  const secret = /requirepass (\S+)/.exec(lines.join("\n"))?.[1];
  const asking = look(ports[3] as number, tls, { password: secret });
  await until(async () => /num-other-sentinels,2/.test(String(await asking.call("SENTINEL", "MASTER", "main"))));
  return {
    url: `${tls ? "rediss" : "redis"}+sentinel://${ports
      .slice(3)
      .map((port) => `${tls ? "localhost" : "127.0.0.1"}:${port}`)
      .join(",")}/main`,
    ...(tls ? { tls } : {}),
    nodes,
    async master() {
      const [, port] = (await asking.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")) as [string, string];
      return nodes.find((node) => node.port === Number(port)) as Node;
    },
    follow(options) {
      const sentinels = ports.slice(3).map((port) => ({ host: "127.0.0.1", port }));
      const client = new Redis({ sentinels, name: "main", ...options });
      client.on("error", () => {});
      return client;
    },
    async stop() {
      asking.disconnect();
      for (const sentinel of sentinels) sentinel.kill("SIGKILL");
      await Promise.all(sentinels.map((sentinel) => sentinel.exited));
      await stopAll(dir, nodes);
    },
  };
}

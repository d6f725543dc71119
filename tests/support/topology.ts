/** Sentinel and Cluster from real redis-servers on loopback. */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Redis } from "ioredis";
import { freePort, memoryDir, SYNCED } from "./redis.ts";
import { until } from "./stack.ts";

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

async function startNode(dir: string, settings: Record<string, string>): Promise<Node> {
  const port = Number(settings.port);
  const own = join(dir, String(port));
  mkdirSync(own, { recursive: true });
  const all: Record<string, string> = {
    ...{ bind: "127.0.0.1", dir: own, appendonly: "yes", ...SYNCED, save: "", daemonize: "no" },
    ...{ "maxmemory-policy": "noeviction", "hash-max-listpack-value": "1024" },
    ...settings,
  };
  const args = Object.entries(all).flatMap(([name, value]) => [`--${name}`, ...value.split(" ")]);
  const spawn = () => Bun.spawn(["redis-server", ...args], { stdout: "ignore", stderr: "ignore" });
  let child = spawn();
  const client = new Redis({ port, maxRetriesPerRequest: null, retryStrategy: () => 50 });
  client.on("error", () => {});
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

/** Three masters, no replicas: a killed one is away until it is started again. */
export async function startCluster(): Promise<Topology> {
  const dir = memoryDir("longhaul-cluster-");
  const ports: number[] = [];
  const buses: number[] = []; // a fixed distance from the ports would lie where outgoing connections have theirs
  for (let i = 0; i < 3; i++) {
    ports.push(await freePort());
    buses.push(await freePort());
  }
  const nodes = await Promise.all(
    ports.map((port, i) =>
      startNode(dir, {
        ...{ port: String(port), "cluster-enabled": "yes", "cluster-node-timeout": "2000" },
        "cluster-port": String(buses[i]),
        "cluster-require-full-coverage": "no",
      }),
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
    url: `redis+cluster://${ports.map((port) => `127.0.0.1:${port}`).join(",")}`,
    nodes,
    async master(key) {
      const slot = Number(await first.client.call("CLUSTER", "KEYSLOT", key));
      return nodes[Math.min(2, Math.floor(((slot + 0.5) * 3) / 16_384))] as Node;
    },
    follow: (options) => new Redis({ port: first.port, ...options }),
    stop: () => stopAll(dir, nodes),
  };
}

/** A master, two replicas and three sentinels that agree by two, after a second of silence. */
export async function startSentinel(): Promise<Topology> {
  const dir = memoryDir("longhaul-sentinel-");
  const ports: number[] = [];
  for (let i = 0; i < 6; i++) ports.push(await freePort());
  // Without the first two a master whose replicas are still copying goes on accepting, and the next failover then
  // loses everything since the last one (1,052 of 2,818 jobs in a run): docs/reliability.md.
  const safe = { "min-replicas-to-write": "1", "min-replicas-max-lag": "2", "repl-diskless-sync-delay": "0" };
  const nodes = [await startNode(dir, { port: String(ports[0]), ...safe })];
  for (const port of ports.slice(1, 3)) {
    nodes.push(await startNode(dir, { port: String(port), replicaof: `127.0.0.1 ${ports[0]}`, ...safe }));
  }
  const [first, ...replicas] = nodes as [Node, ...Node[]];
  await until(async () => /connected_slaves:2/.test(await first.client.info("replication")));
  for (const { client } of replicas)
    await until(async () => /master_link_status:up/.test(await client.info("replication")));
  const sentinels = ports.slice(3).map((port) => {
    const file = join(dir, `sentinel-${port}.conf`);
    const lines = ["down-after-milliseconds main 1000", "failover-timeout main 4000", "parallel-syncs main 2"];
    writeFileSync(
      file,
      [`port ${port}`, "bind 127.0.0.1", `dir ${dir}`, `sentinel monitor main 127.0.0.1 ${ports[0]} 2`]
        .concat(lines.map((line) => `sentinel ${line}`))
        .join("\n"),
    );
    return Bun.spawn(["redis-server", file, "--sentinel"], { stdout: "ignore", stderr: "ignore" });
  });
  const asking = new Redis({ port: ports[3] as number, maxRetriesPerRequest: null, retryStrategy: () => 50 });
  asking.on("error", () => {});
  await until(async () => /num-other-sentinels,2/.test(String(await asking.call("SENTINEL", "MASTER", "main"))));
  return {
    url: `redis+sentinel://${ports
      .slice(3)
      .map((port) => `127.0.0.1:${port}`)
      .join(",")}/main`,
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

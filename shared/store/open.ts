/** Clients of ioredis for each kind of REDIS_URL: one server, a socket, Sentinel, Cluster; and their TLS and logins. */
import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { type ConnectionOptions, checkServerIdentity, type PeerCertificate } from "node:tls";
import { Cluster, Redis, type RedisOptions } from "ioredis";
import type { RedisTarget } from "../redis-url.ts";
import type { Connection } from "../script.ts";

/** The reply mapping stays ioredis's own: this type keeps its constructors' overloads apart. */
export type Options = Omit<RedisOptions, "replyMapping">;

/** @param patient  whether commands wait while a Cluster is away or failing over */
export function open(target: RedisTarget, options: Options, patient: boolean): Connection {
  const { kind, username, password, db } = target;
  const common = {
    ...options,
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    ...(target.family === undefined ? {} : { family: target.family }),
    ...(target.tls ? { tls: tlsOf(target) } : {}),
  };
  if (kind === "sentinel") return openSentinel(target, common);
  if (kind === "cluster") return openCluster(target, common, patient);
  if (kind === "socket") return new Redis({ ...common, path: target.path as string, db });
  return new Redis({ ...common, ...(target.nodes[0] as RedisTarget["nodes"][number]), db });
}

/**
 * Certificates are checked against the name that is connected to. Sentinels and nodes of a Cluster may announce each other by
 * address, where managed services sign names only: such a node may also have a certificate for a name that REDIS_URL has.
 */
function tlsOf({ nodes, ca, cert, key }: RedisTarget): ConnectionOptions {
  const names = nodes.map(({ host }) => host).filter((host) => !isIP(host));
  return {
    ...(ca === undefined ? {} : { ca: readFileSync(ca) }),
    ...(cert === undefined || key === undefined ? {} : { cert: readFileSync(cert), key: readFileSync(key) }),
    checkServerIdentity(host: string, certificate: PeerCertificate) {
      const wrong = checkServerIdentity(host, certificate);
      if (!wrong || !isIP(host)) return wrong;
      return names.some((name) => !checkServerIdentity(name, certificate)) ? undefined : wrong;
    },
  };
}

function openSentinel(target: RedisTarget, options: Options): Redis {
  const { nodes, master, db, username, password, sentinelUsername, sentinelPassword } = target;
  const own = sentinelPassword === undefined ? {} : { sentinelUsername: sentinelUsername ?? "", sentinelPassword };
  const redis = new Redis({
    ...options,
    ...own,
    ...(options.tls ? { sentinelTLS: options.tls, enableTLSForSentinelMode: true } : {}),
    sentinels: nodes,
    name: master as string,
    db,
    failoverDetector: true,
  });
  if (sentinelPassword !== undefined || password === undefined) return redis;
  // Sentinels mostly have no password, or that of Redis, and rarely its users: what they refuse is not tried next time.
  const logins = [
    { sentinelUsername: "", sentinelPassword: "" },
    { sentinelUsername: username ?? "", sentinelPassword: password },
    { sentinelUsername: "", sentinelPassword: password },
  ];
  let at = 0;
  redis.on("sentinelError", (error: Error) => {
    if (/NOAUTH|WRONGPASS/.test(error.message)) Object.assign(redis.options, logins[++at % logins.length]);
  });
  return redis;
}

function openCluster(target: RedisTarget, options: Options, patient: boolean): Cluster {
  // No pipelines: where one meets a slot that is moving, ioredis asks the other node for all of it, what has not moved included.
  const { lazyConnect, retryStrategy, enableOfflineQueue, enableAutoPipelining, ...redisOptions } = options;
  const cluster = new Cluster(target.nodes, {
    redisOptions,
    // Names stay names: a certificate is for the name, and an address that is looked up once is old after a failover.
    dnsLookup: (name, done) => done(null, name),
    lazyConnect: true,
    enableOfflineQueue: patient,
    clusterRetryStrategy: (times) => Math.min(100 * times, 1_000),
    // A command that meets a moved slot or a failing over master is sent again within this bound.
    retryDelayOnFailover: 200,
    retryDelayOnClusterDown: 200,
    retryDelayOnTryAgain: 200,
    maxRedirections: patient ? 64 : 6,
    slotsRefreshTimeout: 2_000,
  });
  waitForMovedSlots(cluster);
  // ioredis asks a copy of each node's connection for the slots and keeps that one's errors to itself.
  cluster.on("+node", (node: Redis) => {
    const duplicate = node.duplicate.bind(node);
    node.duplicate = (more) => {
      const copy = duplicate(more);
      copy.on("error", (error) => cluster.emit("node error", error));
      return copy;
    };
  });
  return cluster;
}

type HandleError = (error: Error & { command?: { name: string } }, ...more: unknown[]) => void;

/**
 * While a slot moves to another node, a node asks clients to send there what it has not itself. The name that our scripts are called
 * with is no key, so it asks for each of them from the first moment on, and the other node has few of the keys yet or none: a settle
 * would find no record, and a submit begin a second queue, which the move then refuses or overwrites. So scripts wait until their slot
 * has moved, as for TRYAGAIN. Single commands on one key follow: they are right wherever the key is.
 */
function waitForMovedSlots(cluster: Cluster): void {
  const inner = cluster as unknown as { handleError: HandleError };
  const handle = inner.handleError.bind(cluster);
  inner.handleError = (error, ...more) => {
    const single = error.command !== undefined && !/^eval/i.test(error.command.name);
    const isAsked = error.message.startsWith("ASK ") && !single;
    handle(isAsked ? new Error("TRYAGAIN its keys are moving to another node of the Cluster") : error, ...more);
  };
}

// Where the user of REDIS_URL may not call INFO, ioredis takes Redis for loaded, as it should, and says so on each connect. Where INFO was
// renamed it would reconnect for ever.
const { info } = Redis.prototype;
Redis.prototype.info = function (this: Redis, ...args: unknown[]) {
  const done = args.at(-1);
  const ask = info as (...list: unknown[]) => Promise<string>;
  if (typeof done !== "function") return ask.apply(this, args);
  const quiet = (error: Error | null, text?: string) =>
    /NOPERM|unknown command/.test(error?.message ?? "") ? done(null, {}) : done(error, text);
  return ask.call(this, ...args.slice(0, -1), quiet);
} as typeof info;

/**
 * Connections to Redis, and what its errors mean to a client.
 * Plain, Sentinel and Cluster run the same scripts: all keys of a service share one slot.
 */
import { setInterval } from "node:timers";
import { Cluster, Redis } from "ioredis";
import { Fault } from "../faults.ts";
import { parseRedisUrl } from "../redis-url.ts";
import { type Connection, defineScripts } from "../script.ts";
import { type Options, open } from "./open.ts";

/** ms; a BLMOVE never blocks longer, so a worker stops within it and a dead host's client gets nothing for long. */
export const BLOCK_MS = 4_000;

/**
 * What a connection is for.
 * - `request`: a gateway's. Fails at once when Redis is away and never sends a command later: a command that
 *   waited in an offline queue would run after its 503 (a ghost job).
 * - `work`: a worker's. Waits for Redis as long as it takes and sends again: every mutation is idempotent.
 * - `block`: a worker's for BLMOVE alone. Its silence limit is longer than the block, and it has no command
 *   timeout: both would drop a reply that carries a job.
 */
export type Purpose = "request" | "work" | "block";

const common: Options = {
  lazyConnect: true,
  connectTimeout: 3_000,
  keepAlive: 15_000,
  disableClientInfo: true, // a user of few rights would have it in its ACL log at each connect
  enableReadyCheck: true, // LOADING is "not ready", not an error to a client
};

const OPTIONS: Record<Purpose, Options> = {
  request: {
    ...common,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    socketTimeout: 5_000,
    enableAutoPipelining: true,
    autoPipeliningIgnoredCommands: ["lh_submit"], // it gathers by itself (produce.ts)
    retryStrategy: (times) => Math.min(100 * times, 1_000),
  },
  work: {
    ...common,
    maxRetriesPerRequest: null,
    socketTimeout: 8_000,
    retryStrategy: (times) => Math.min(100 * times, 1_000) * (0.5 + Math.random()),
  },
  block: {
    ...common,
    // 0: a lost connection ends the BLMOVE with an error. With null and without sending again, ioredis forgets it
    // and its promise never settles, so that the lane waits for ever.
    maxRetriesPerRequest: 0,
    socketTimeout: 2 * BLOCK_MS,
    // Sent again after a reconnect it would block without its caller; the lane asks anew instead.
    autoResendUnfulfilledCommands: false,
    retryStrategy: (times) => Math.min(100 * times, 1_000) * (0.5 + Math.random()),
  },
};

/** After a failover the old master answers READONLY: reconnect, and Sentinel names the new one. 1 = reconnect only. */
const reconnectOnError = (error: Error) => (/^READONLY/.test(error.message) ? 1 : false);

/**
 * Opens a connection and teaches it the scripts. It connects by itself and reconnects for ever.
 * @param url  as redis-url.ts reads it
 * @fires unfit  with an UnfitRedis, when it got through to a Redis that has not the database
 */
export function connect(url: string, purpose: Purpose, name: string): Connection {
  const options: Options = { ...OPTIONS[purpose], connectionName: name, reconnectOnError };
  const redis = open(parseRedisUrl(url), options, purpose !== "request");
  defineScripts(redis);
  refuseOtherDatabase(redis);
  redis.on("error", () => {}); // states are watched by `ready` and by each call's own error
  neverEnd(redis);
  redis.connect().catch(() => {});
  return redis;
}

/**
 * When SELECT is refused, ioredis tells it as any error and goes on in database 0, where another deployment may live. Here such a
 * connection is broken before it is ready, so that no command of ours gets through.
 */
function refuseOtherDatabase(redis: Connection): void {
  if (redis instanceof Cluster) return; // it has one database
  redis.on("error", (error: Error & { command?: { name: string } }) => {
    if (error.command?.name !== "select") return;
    redis.stream.destroy();
    redis.emit(
      "unfit",
      new UnfitRedis(
        `it refuses database ${redis.options.db} (${error.message}). REDIS_URL names the database: choose one that exists, or set NAMESPACE to part deployments in one database`,
      ),
    );
  });
}

/**
 * ioredis gives a connection up for good, without a word, when it is told to reconnect while it asks the sentinels for
 * the master (Redis.connect: a connector's error sets "end"). It ends only when we say so.
 */
function neverEnd(redis: Connection): void {
  let wanted = true;
  const disconnect = redis.disconnect.bind(redis);
  redis.disconnect = (reconnect = false) => {
    wanted = reconnect;
    disconnect(reconnect);
  };
  redis.on("end", () => {
    if (wanted) setTimeout(() => redis.connect().catch(() => {}), 200 + 300 * Math.random());
  });
}

/** s; what a client is told to wait when Redis is away. */
const AWAY_S = 2;

/** ioredis's own words when there is no connection. They name its options, which nobody here can set. */
const NO_CONNECTION =
  /isn't writeable|connection is closed|socket (closed|timeout)|max retries|command timed out|^(read |write |connect )?(ECONN|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENOTFOUND)|getaddrinfo|all sentinels|cluster nodes|slots cache/i;

/** An error as a log says it. */
export function logText(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return NO_CONNECTION.test(text) ? "Redis does not answer (REDIS_URL)" : text;
}

/** Turns an error of ioredis into what a client is told. Never 404 or 500 because Redis is down. */
export function asFault(error: unknown, members: Record<string, unknown> = {}): Fault {
  if (error instanceof Fault) {
    const { extra } = error;
    return new Fault(error.code, error.detail, { ...extra, members: { ...extra.members, ...members } });
  }
  const text = error instanceof Error ? error.message : String(error);
  const extra = { retryAfterS: AWAY_S, members };
  if (/^OOM|maxmemory/.test(text)) {
    return new Fault("memory_full", "Redis is at its memory limit; send the job again later.", {
      ...extra,
      retryAfterS: 30,
    });
  }
  if (/^(READONLY|MISCONF|NOREPLICAS|NOAUTH|NOPERM|WRONGPASS)/.test(text)) {
    return new Fault(
      "redis_refuses",
      `Redis refuses writes (${text.split(" ")[0]}); the operators must look at it.`,
      extra,
    );
  }
  if (/^BUSY /.test(text)) {
    const why = "Redis is busy with one script and serves nothing else (BUSY); try again in a moment.";
    return new Fault("redis_unreachable", why, extra);
  }
  return new Fault("redis_unreachable", "Redis does not answer; try again in a moment.", extra);
}

/**
 * Fails when the answer takes too long, so that no client hangs on a silent Redis.
 * The command itself may still arrive: the caller must treat it as unknown.
 */
export function within<T>(ms: number, work: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout>;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () =>
        reject(
          new Fault("redis_unreachable", "Redis does not answer; try again in a moment.", { retryAfterS: AWAY_S }),
        ),
      ms,
    );
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

/**
 * Sends in one write what `work` asks for before it first waits: of many small questions, the system calls cost most.
 * A Cluster's connections are left alone.
 */
export function together<T>(redis: Connection, work: () => T): T {
  const stream = redis instanceof Redis ? redis.stream : undefined;
  stream?.cork();
  try {
    return work();
  } finally {
    stream?.uncork();
  }
}

/** ms between two questions to a connection that only listens. */
const PROBE_MS = 10_000;

/**
 * Asks a connection that only listens for a sign of life: a silent one looks like one without news. Where a balancer or a firewall has
 * forgotten it, its socket time-out ends it, and it subscribes anew. A Cluster has a subscriber of its own, which cannot be asked.
 */
export function probe(redis: Connection, everyMs = PROBE_MS): void {
  if (redis instanceof Cluster) return;
  const ask = () => {
    if (redis.status === "ready") redis.ping().catch(() => {});
  };
  setInterval(ask, everyMs).unref();
}

/** Waits until the connection is ready. @throws Fault redis_unreachable after `ms` */
export async function ready(redis: Connection, ms: number): Promise<void> {
  if (redis.status === "ready") return;
  await within(ms, new Promise<void>((done) => redis.once("ready", () => done())));
}

/** A Redis that must not be used, with what to do about it. */
export class UnfitRedis extends Error {}

/** An INFO section as a map; undefined where the deployment bars it. */
export async function info(redis: Connection, section: string): Promise<Map<string, string> | undefined> {
  try {
    const node = redis instanceof Cluster ? (redis.nodes("master")[0] ?? redis) : redis;
    const text = await (node as Redis).info(section);
    return new Map(
      text
        .split(/\r?\n/)
        .flatMap((line) =>
          /^[^#].*:/.test(line) ? [[line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1)] as const] : [],
        ),
    );
  } catch {
    return undefined;
  }
}

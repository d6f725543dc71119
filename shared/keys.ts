/**
 * Every key of Redis, its type and what it holds; and the version of the protocol.
 * Lua gets the same names as `K.ready` and so on from script.ts, so each key is spelled here only.
 */
import type { BatchId, JobId, ServiceName, WorkerId } from "./jobs.ts";

/** Another major refuses to start; minors work together. Raise it with a note in CHANGELOG.md. */
export const PROTOCOL = { major: 4, minor: 1 } as const;

export type RedisType = "hash" | "list" | "set" | "zset" | "string" | "stream";
declare const holds: unique symbol;
/** A key that remembers, for the compiler only, which Redis type lives there. */
export type Key<T extends RedisType> = string & { readonly [holds]: T };

/**
 * Keys of one service, all under `<namespace>:{<service>}:`. The braces make them one cluster slot, so one script may
 * touch them all. A name that ends in ":" takes a suffix.
 */
export const SERVICE_KEYS = {
  /** ids of the default priority, FIFO: pushed left, taken right (BLMOVE) */
  ready: ["list", "ready"],
  /** ids of other priorities; score = (9 − priority) × 2^43 + sequence */
  backlog: ["zset", "backlog"],
  /** by operation: ids whose operation was unknown to the worker that met them; scored as the backlog */
  aside: ["zset", "aside:"],
  /** operations that have jobs aside */
  asides: ["set", "asides"],
  /** BLMOVE's target by worker: taken, not yet started */
  wake: ["list", "wake:"],
  /** by worker: started and not settled; the truth */
  held: ["set", "held:"],
  /** worker → last beat, ms by Redis TIME */
  leases: ["zset", "leases"],
  /** id → due time, ms (delay, backoff) */
  scheduled: ["zset", "scheduled"],
  /** exists while the service is paused */
  paused: ["string", "paused"],
  /** where `ready` lies while paused, so that a blocked BLMOVE gets nothing */
  shelf: ["list", "shelf"],
  /** parts that an empty took away, scored by the sequence number then; purge cancels them */
  condemned: ["zset", "condemned"],
  /** by part: what was `ready` or `shelf` */
  condemnedList: ["list", "condemned:l:"],
  /** by part: what was `backlog` or `scheduled` */
  condemnedSet: ["zset", "condemned:z:"],
  /** by nonce of an empty: how many jobs it took, TTL */
  emptied: ["string", "emptied:"],
  /** actions on many jobs that are in hand, by time of their start */
  bulks: ["zset", "bulks"],
  /** one of them: what it is for, its place and its counts; TTL once it has ended */
  bulk: ["hash", "bulk:"],
  /** ids that it has still to look at, beside the sorted set that it walks */
  todo: ["list", "todo:"],
  /** ids of running jobs whose cancel was asked for; the beat reads it */
  cancels: ["set", "cancels"],
  /** by terminal state: id → end time, ms; or, of those that finished in one turn, one entry for 32 (lua/lib/entry.lua) */
  ended: ["zset", "ended:"],
  /** by hash of API key and Idempotency-Key: "<job id> <body hash>" */
  idem: ["string", "idem:"],
  /** effects of a settle for elsewhere by due time: "c <job id>" a callback, "b <batch id>" news for a batch's record,
   *  "a <rule> <service>" flips of an alert */
  outbox: ["zset", "outbox"],
  /** by job: the last 20 tries of its callbacks, JSON, the newest first; TTL of the record */
  deliveries: ["list", "deliveries:"],
  /** batches that have members not released yet → when the first was staged, ms */
  staged: ["zset", "staged"],
  /** by batch: its members that are not released yet, in the client's order */
  stage: ["list", "stage:"],
  /** by batch, its members in this service: left (not ended), finished, failed, canceled, members, life, e. TTL at left = 0 */
  batch: ["hash", "batch:"],
  /** by batch: ids of its failed members in this service */
  misses: ["set", "misses:"],
  /** by minute "m<epoch minute>" and hour "h<epoch hour>": counters and histograms, TTL */
  stats: ["hash", "stats:"],
  /** what scripts counted and nobody has added to stats and counts yet, a text a script */
  tally: ["list", "tally"],
  /** seq, head, ghosts, condemned, aside, struck (finished jobs that left their index), running totals since the start, mean duration by operation */
  counts: ["hash", "counts"],
  /** the record */
  job: ["hash", "job:"],
  // The alerts have a root of their own (alertsRoot), and the outbox beside these:
  /** by rule, "<rule> <service>": quiet or firing, since when, and since when it looks the other way */
  alertStates: ["hash", "states"],
  /** exists while a process has looked a moment ago: nobody else needs to */
  alertTurn: ["string", "turn"],
  /** by rule: flips that are not delivered yet, JSON, the oldest first: one rule's are told in their order */
  alertFlips: ["list", "flips:"],
  /** the last 50 tries of deliveries, JSON, the newest first */
  alertLog: ["list", "log"],
} as const satisfies Record<string, readonly [RedisType, string]>;

export type ServiceKeyName = keyof typeof SERVICE_KEYS;

/** What every key and channel of this process begins with, up to the first colon. */
let namespace = "lh";

/** Puts every key and channel of this process under NAMESPACE. Called once, before the first connection. */
export function useNamespace(name: string): void {
  namespace = name;
  Object.assign(GLOBAL, globals());
}

/** The name all keys of a service begin with. No such key exists; scripts get it as KEYS[1], which names the slot. */
export const root = (service: ServiceName): Key<"string"> => `${namespace}:{${service}}:` as Key<"string">;

const at = <N extends ServiceKeyName>(service: ServiceName, name: N, suffix = "") =>
  `${root(service)}${SERVICE_KEYS[name][1]}${suffix}` as Key<(typeof SERVICE_KEYS)[N][0]>;

export const keysOf = (service: ServiceName) => ({
  ready: at(service, "ready"),
  backlog: at(service, "backlog"),
  aside: (operation: string) => at(service, "aside", operation),
  asides: at(service, "asides"),
  wake: (worker: WorkerId) => at(service, "wake", worker),
  held: (worker: WorkerId) => at(service, "held", worker),
  leases: at(service, "leases"),
  scheduled: at(service, "scheduled"),
  shelf: at(service, "shelf"),
  paused: at(service, "paused"),
  ended: (state: string) => at(service, "ended", state),
  outbox: at(service, "outbox"),
  deliveries: (id: JobId) => at(service, "deliveries", id),
  staged: at(service, "staged"),
  stage: (batch: BatchId) => at(service, "stage", batch),
  batch: (batch: BatchId) => at(service, "batch", batch),
  misses: (batch: BatchId) => at(service, "misses", batch),
  stats: (slice: string) => at(service, "stats", slice),
  counts: at(service, "counts"),
  bulk: (id: string) => at(service, "bulk", id),
  job: (id: JobId) => at(service, "job", id),
});

/** By a hash of a dashboard's cookie: "1" once its browser has signed out; TTL to the session's end. */
export const signedOutKey = (id: string): Key<"string"> => `${namespace}:{signed-out:${id}}` as Key<"string">;
/** By download token: the path that it stands for; TTL. Any gateway may serve it. */
export const tokenKey = (token: string): Key<"string"> => `${namespace}:{token:${token}}` as Key<"string">;

/** Channels. Scripts publish there as CHANNEL.name; what they say is a hint (rule 10). */
export const CHANNELS = {
  /** ended jobs that somebody waits for */
  events: "events",
  /** running jobs whose cancel was asked for; the beat finds them too */
  cancels: "cancels",
  /** "<worker> <order>" of an operator; the beat finds it too */
  ordered: "ordered",
} as const;

const globals = () => ({
  protocol: `${namespace}:protocol` as Key<"hash">,
  services: `${namespace}:services` as Key<"set">,
  /** worker id → JSON of WorkerInfo; for display and for the clocks, never for a decision on a lease */
  workers: `${namespace}:workers` as Key<"hash">,
  events: `${namespace}:${CHANNELS.events}`,
  cancels: `${namespace}:${CHANNELS.cancels}`,
  /** worker id → "quiet" or "stop"; the beat reads it */
  orders: `${namespace}:orders` as Key<"hash">,
  ordered: `${namespace}:${CHANNELS.ordered}`,
  /** what operators did, JSON, newest first, at most 1,000 */
  audit: `${namespace}:audit` as Key<"list">,
  /** by id of a bulk action that goes on: its entry of the audit, which gets its end */
  auditOpen: `${namespace}:audit-open` as Key<"hash">,
});

/** Keys and channels that belong to no service. */
export const GLOBAL = globals();

/** What the alerts' keys begin with. No service's name holds a colon, so it is nobody's. */
export const alertsRoot = (): Key<"string"> => `${namespace}:{all:alerts}:` as Key<"string">;
const ofAlerts = <N extends ServiceKeyName>(name: N, suffix = "") =>
  `${alertsRoot()}${SERVICE_KEYS[name][1]}${suffix}` as Key<(typeof SERVICE_KEYS)[N][0]>;
export const alertKeys = {
  states: () => ofAlerts("alertStates"),
  log: () => ofAlerts("alertLog"),
  flips: (rule: string) => ofAlerts("alertFlips", rule),
} as const;

/** A batch's own record: s (preparing | committed | aborted), c, ids (JSON), services, done, life, until. */
export const batchKey = (id: BatchId) => `${namespace}:{batch:${id}}` as Key<"hash">;
/** What an Idempotency-Key stands for that came with a batch: "<batch id> <body hash>". */
export const batchNameKey = (hash: string) => `${namespace}:{batch-name:${hash}}` as Key<"string">;
/** The rate of one caller: a key's hash, or "ip:<address>". */
export const rateKey = (caller: string) => `${namespace}:{rate:${caller}}` as Key<"string">;

/** The store's own classes over a real Redis, with the shorthands that its tests share. */
import {
  FIELD,
  type JobId,
  newJobId,
  parseHead,
  type ServiceName,
  serviceOf,
  type WorkerId,
} from "../../shared/jobs.ts";
import { keysOf } from "../../shared/keys.ts";
import type { Connection } from "../../shared/script.ts";
import { type Ask, Consumer, type Settle, type Taken } from "../../shared/store/consume.ts";
import { Inspector } from "../../shared/store/inspect.ts";
import { Maintainer } from "../../shared/store/maintain.ts";
import type { Action, BulkWish } from "../../shared/store/operate.ts";
import { type NewJob, Producer } from "../../shared/store/produce.ts";
import { connect } from "../../shared/store/redis.ts";
import { startRedis, type TestRedis } from "./redis.ts";

export const SERVICE = "work" as ServiceName;
export const KEYS = keysOf(SERVICE);
export const DAY = 86_400_000;
const KNOWN = [
  "work",
  "ifcconvert",
  "ifccsv",
  "ifccsv-import",
  "ifcclash",
  "ifctester",
  "ifcdiff",
  "ifc2json",
  "calculate-qtos",
];
export const ASK: Ask = { slots: 100, concurrency: 0, limits: KNOWN.map((op) => `${op}=3600000`).join(" ") };

export class TestWorker extends Consumer {
  /** Takes what `slots` leave room for, beating first as a worker does. */
  async take(slots = 1, ask: Partial<Ask> = {}): Promise<Taken[]> {
    await this.beat(SERVICE);
    return (await this.turn(SERVICE, [], { ...ASK, slots, ...ask })).jobs;
  }
  async takeIds(slots = 1, ask: Partial<Ask> = {}): Promise<JobId[]> {
    return (await this.take(slots, ask)).map((job) => job.id);
  }
  /** One step of the reaper, as its clock sends it. */
  async reapOf(worker: Consumer, once: string[] = [], leaseMs = 30_000) {
    const maintainer = new Maintainer(this.redis);
    const { now } = await maintainer.leased(SERVICE);
    const [back, failed, left] = await maintainer.reap(SERVICE, worker.worker, {
      leaseMs,
      ttlMs: DAY,
      once,
      seen: now,
    });
    return [back, failed, left] as const;
  }
  /** Settles without taking. @returns the verdicts */
  async settle(...settles: Settle[]) {
    return (await this.turn(SERVICE, settles, { ...ASK, slots: 0 })).verdicts;
  }
}

export type TestStore = {
  redis: TestRedis;
  connection: Connection;
  producer: Producer;
  inspector: Inspector;
  maintainer: Maintainer;
  worker(name: string): TestWorker;
  producerOf(limits: Partial<ConstructorParameters<typeof Producer>[1]>): Producer;
  /** submits one job of `work` a name, in this order; the names are for reading only */
  submit(more?: Partial<NewJob>): Promise<JobId>;
  /** all keys with types, values and whether they expire: equal dumps = nothing was written */
  dump(but?: RegExp): Promise<Record<string, unknown>>;
  field(id: JobId, name: keyof typeof FIELD): Promise<string | null>;
  state(id: JobId): Promise<string | null>;
  /** moves the deadline of a running attempt this many ms back */
  overrun(id: JobId, ms: number): Promise<unknown>;
  /** ms to live of the record; -1 = none, -2 = no record */
  ttl(id: JobId): Promise<number>;
  counts(): ReturnType<Inspector["counts"]>;
  /** makes a worker's last beat this old */
  age(worker: TestWorker, ms: number): Promise<unknown>;
  clear(): Promise<void>;
  stop(): Promise<void>;
};

export const LIMITS = { maxQueued: 0, idempotencyTtlMs: DAY, failureTtlMs: 7 * DAY };

/** A job as a gateway would build it. */
export const job = (more: Partial<NewJob> = {}): NewJob => ({
  id: newJobId(SERVICE),
  operation: "work",
  payload: "{}",
  ...more,
});

export const settle = (taken: Taken, kind: Settle["kind"], more: Partial<Settle> = {}): Settle => ({
  id: taken.id,
  token: taken.token,
  kind,
  started: taken.started,
  operation: taken.operation,
  ttlMs: DAY,
  entry: JSON.stringify({ attempt: taken.attempt, outcome: kind }),
  error: '{"code":"http_error","message":"no","retryable":false}',
  ...(kind === "finish" ? { result: '{"ok":true}', timing: "1,2" } : {}),
  ...more,
});

let wishes = 0;
/** A bulk action of an id of its own. */
export const wish = (action: Action, more: Partial<BulkWish> = {}): BulkWish => ({
  id: `bulk_${String(++wishes).padStart(22, "0")}`,
  action,
  olderMs: 0,
  dry: false,
  ids: [],
  about: { action },
  ...more,
});

export async function startStore(options: Record<string, string> = {}): Promise<TestStore> {
  const redis = await startRedis(options);
  const connection = connect(redis.url, "work", "test");
  const { client } = redis;
  const producer = new Producer(connection, LIMITS);
  const inspector = new Inspector(connection);
  const hash = (id: JobId) => keysOf(serviceOf(id)).job(id);
  const store: TestStore = {
    redis,
    connection,
    producer,
    inspector,
    maintainer: new Maintainer(connection),
    worker: (name) => new TestWorker(connection, name as WorkerId),
    producerOf: (limits) => new Producer(connection, { ...LIMITS, ...limits }),
    async submit(more = {}) {
      return (await producer.submit(job(more))).id;
    },
    async dump(but) {
      const all: Record<string, unknown> = {};
      for (const key of (await client.keys("*")).sort()) {
        if (but?.test(key)) continue;
        all[key] = [await contents(client, key), (await client.pttl(key)) > 0 ? "expires" : "stays"];
      }
      return all;
    },
    field: (id, name) => client.hget(hash(id), FIELD[name]),
    state: async (id) => parseHead(await client.hget(hash(id), FIELD.head))?.state ?? null,
    overrun: async (id, ms) => {
      const head = String(await client.hget(hash(id), FIELD.head));
      const moved = head.replace(/\|(\d+) (\d+) /, (_, started, deadline) => `|${started} ${Number(deadline) - ms} `);
      return client.hset(hash(id), FIELD.head, moved);
    },
    ttl: (id) => client.pttl(hash(id)),
    counts: () => inspector.counts(SERVICE),
    async age(worker, ms) {
      const [seconds] = await client.time();
      return client.zadd(KEYS.leases, Number(seconds) * 1_000 - ms, worker.worker);
    },
    async clear() {
      await client.flushall();
    },
    async stop() {
      connection.disconnect();
      await redis.stop();
    },
  };
  return store;
}

async function contents(client: TestRedis["client"], key: string): Promise<unknown> {
  switch (await client.type(key)) {
    case "hash":
      return client.hgetall(key);
    case "list":
      return client.lrange(key, 0, -1);
    case "set":
      return (await client.smembers(key)).sort();
    case "zset":
      return client.zrange(key, "0", "-1", "WITHSCORES");
    default:
      return client.get(key);
  }
}

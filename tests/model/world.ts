/**
 * What the model test acts on: the store's own classes over a real Redis, through a wire that loses replies and sends
 * scripts twice; and what a process would know in its memory.
 */
import type { BatchId, JobId, WorkerId } from "../../shared/jobs.ts";
import type { Connection } from "../../shared/script.ts";
import { Batches } from "../../shared/store/batches.ts";
import { Consumer, type Taken } from "../../shared/store/consume.ts";
import { Maintainer } from "../../shared/store/maintain.ts";
import { Operator } from "../../shared/store/operate.ts";
import { Producer } from "../../shared/store/produce.ts";
import { Checker, type Look } from "../chaos/checker.ts";
import { newLedger } from "../chaos/clients.ts";
import { DAY, LIMITS, SERVICE, type TestStore } from "../support/store.ts";

/** once: as it should be · twice: sent again after a lost reply · lost: done, but the asker never hears of it */
export type Wire = "once" | "twice" | "lost";
export class Lost extends Error {}

/** `limits`: the operations that it knows; the first lacks one. */
export type Worker = { consumer: Consumer; hand: Map<JobId, Taken>; limits: string };
/** Whether a command may change a record so. */
export type May = (id: JobId, before: Look, after: Look) => boolean;

export const WORKERS = 3;
export const OPERATIONS = ["work", "rare"] as const;
const LIMITS_OF = (index: number) => (index === 0 ? "work=60000" : "work=60000 rare=60000");
let born = 0;

export class World {
  wire: Wire = "once";
  readonly ids: JobId[] = [];
  /** every token that was ever given, for settles that come too late */
  readonly tokens: { id: JobId; token: string; worker: number }[] = [];
  /** tokens of attempts whose deadline has long passed */
  readonly overrun = new Set<string>();
  /** jobs by Idempotency-Key (I9) */
  readonly keys = new Map<string, JobId>();
  readonly batches: { id: BatchId; ids: JobId[]; committed: boolean }[] = [];
  readonly workers: Worker[] = [];
  readonly producer: Producer;
  readonly operator: Operator;
  readonly maintainer: Maintainer;
  readonly batch: Batches;
  readonly checker: Checker;
  private readonly ledger = newLedger();
  private readonly connection: Connection;
  private seen = new Map<string, Look>();

  constructor(readonly store: TestStore) {
    this.connection = this.lossy(store.connection);
    this.producer = new Producer(this.connection, LIMITS);
    this.operator = new Operator(this.connection, LIMITS.failureTtlMs);
    this.maintainer = new Maintainer(this.connection);
    this.batch = new Batches(this.connection, { ...LIMITS, batchTimeoutMs: 0 });
    this.checker = new Checker(store.redis.client, SERVICE, this.ledger, Math.random);
    for (let i = 0; i < WORKERS; i++) this.workers.push(this.newWorker(i));
  }

  /** The same connection, whose scripts fare as `wire` says. */
  private lossy(real: Connection): Connection {
    return new Proxy(real, {
      get: (target, name) => {
        const value = Reflect.get(target, name, target);
        if (typeof value !== "function") return value;
        if (!String(name).startsWith("lh_")) return value.bind(target);
        return async (...args: unknown[]) => {
          const { wire } = this;
          let reply = await value.apply(target, args);
          if (wire === "twice") reply = await value.apply(target, args);
          if (wire === "lost") throw new Lost("the reply was lost");
          return reply;
        };
      },
    });
  }

  private newWorker(index: number): Worker {
    const consumer = new Consumer(this.connection, `m${++born}` as WorkerId);
    return { consumer, hand: new Map(), limits: LIMITS_OF(index) };
  }

  /** Runs what a process sends. @returns undefined when the reply was lost */
  async send<T>(wire: Wire, work: () => Promise<T>): Promise<T | undefined> {
    this.wire = wire;
    try {
      return await work();
    } catch (error) {
      if (error instanceof Lost || wire === "lost") return undefined;
      throw error;
    } finally {
      this.wire = "once";
    }
  }

  accept(id: JobId): void {
    this.ids.push(id);
    this.ledger.accepted.set(id, this.ids.length);
  }

  /** The worker's memory is gone, and its lease runs out. */
  async die(index: number): Promise<void> {
    await this.silence(index);
    this.workers[index] = this.newWorker(index);
  }

  /** Its lease runs out, and it does not know. */
  async silence(index: number): Promise<void> {
    const { consumer } = this.workers[index] as Worker;
    const now = Number((await this.store.redis.client.time())[0]) * 1_000;
    await this.store.redis.client.zadd(`lh:{${SERVICE}}:leases`, "XX", now - 60_000, consumer.worker);
  }

  forget(id: JobId): void {
    this.checker.forget(id);
    this.seen.delete(id);
    for (const [key, job] of this.keys) if (job === id) this.keys.delete(key); // its key starts a new job
    for (const list of [this.ids]) {
      const at = list.indexOf(id);
      if (at >= 0) list.splice(at, 1);
    }
  }

  last(id: JobId): Look | undefined {
    return this.seen.get(id);
  }

  /** Looks at everything: the invariants hold, the counts are right, and only what may have changed did. @throws */
  async check(may: May = () => false): Promise<void> {
    const now = await this.checker.look(this.ids);
    const counts = await this.store.counts();
    await this.checker.indexes();
    for (const [rule, what] of this.checker.broken) throw new Error(`${rule}: ${what.join("\n")}`);
    const by: Record<string, number> = {};
    for (const [id, after] of now) {
      if (after.state) by[after.state] = (by[after.state] ?? 0) + 1;
      const before = this.seen.get(id);
      if (!before || (before.rev === after.rev && before.state === after.state && before.token === after.token))
        continue;
      if (!may(id as JobId, before, after)) {
        throw new Error(`${id} changed, and it may not: ${JSON.stringify(before)} → ${JSON.stringify(after)}`);
      }
    }
    this.seen = now;
    const aside = [...now.values()].filter(({ places }) => places.some((place) => place.startsWith("aside ")));
    const counted = Number((await this.store.redis.client.hget(`lh:{${SERVICE}}:counts`, "aside")) ?? 0);
    if (counted !== aside.length) throw new Error(`${counted} are counted aside, but there are ${aside.length}`);
    for (const state of ["queued", "scheduled", "started", "finished"] as const) {
      if (counts[state] !== (by[state] ?? 0)) {
        throw new Error(`counts says ${counts[state]} ${state}, but there are ${by[state] ?? 0}`);
      }
    }
  }

  /** I8: without further faults all ends; and then nothing is left anywhere. */
  async settleAll(): Promise<void> {
    const { client } = this.store.redis;
    await this.operator.resume(SERVICE);
    await this.batch.tidy(SERVICE);
    await this.operator.carryOut(SERVICE, 1_000);
    for (let i = 0; i < WORKERS; i++) await this.die(i);
    const worker = this.workers[1] as Worker;
    const rules = { leaseMs: 30_000, ttlMs: DAY, once: [] };
    for (let round = 0; round < 20; round++) {
      const { now, workers } = await this.maintainer.leased(SERVICE);
      for (const name of workers) await this.maintainer.reap(SERVICE, name, { ...rules, seen: now });
      const due = await client.zrange(`lh:{${SERVICE}}:scheduled`, "0", "-1");
      for (const id of due) await client.zadd(`lh:{${SERVICE}}:scheduled`, "1", id);
      await this.maintainer.promote(SERVICE);
      await worker.consumer.beat(SERVICE);
      const ask = { slots: 100, concurrency: 0, limits: worker.limits };
      const { jobs } = await worker.consumer.turn(SERVICE, [], ask);
      const done = jobs.map(({ id, token }) => ({ id, token, kind: "finish" as const, ttlMs: DAY, result: "1" }));
      await worker.consumer.turn(SERVICE, done, { ...ask, slots: 0 });
    }
    await this.check(() => true);
    for (const id of this.ids) {
      const state = this.seen.get(id)?.state ?? "";
      if (!["finished", "failed", "canceled"].includes(state)) throw new Error(`I8: ${id} is still ${state}`);
    }
    const names = ["ready", "shelf", "backlog", "scheduled", "cancels", "condemned", "staged", "asides", "aside:rare"];
    const left = await Promise.all(names.map((name) => client.exists(`lh:{${SERVICE}}:${name}`)));
    const stray = names.filter((_, i) => left[i]);
    stray.push(...(await client.keys(`lh:{${SERVICE}}:wake:*`)), ...(await client.keys(`lh:{${SERVICE}}:held:*`)));
    if (stray.length > 0) throw new Error(`all jobs have ended, but something is left: ${stray.join(", ")}`);
    const ghosts = await client.hget(`lh:{${SERVICE}}:counts`, "ghosts");
    if (Number(ghosts ?? 0) !== 0) throw new Error(`${ghosts} ghosts are counted, but all lists are empty`);
  }
}

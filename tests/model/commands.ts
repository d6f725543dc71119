/** What may happen to a queue, in any order. Each command says what it may change; the world checks the rest. */
import fc from "fast-check";
import type { JobId } from "../../shared/jobs.ts";
import { newBatchId } from "../../shared/jobs.ts";
import type { Settle } from "../../shared/store/consume.ts";
import { overrunMs } from "../../shared/store/maintain.ts";
import { reportProgress } from "../../shared/store/progress.ts";
import { DAY, job, KEYS, SERVICE } from "../support/store.ts";
import { type May, OPERATIONS, type Wire, WORKERS, type Worker, type World } from "./world.ts";

export type Step = fc.AsyncCommand<object, World>;

/** A command from what it does; `text` shows it in a counterexample. */
const step = (text: string, act: (world: World) => Promise<May | undefined>): Step => ({
  check: () => true,
  async run(_, world) {
    try {
      await world.check(await act(world));
    } catch (error) {
      throw new Error(`after ${text}: ${error instanceof Error ? error.stack : error}`);
    }
  },
  toString: () => text,
});

const wire = fc.constantFrom<Wire>("once", "once", "once", "twice", "lost");
const which = fc.nat(200);
const who = fc.nat(WORKERS - 1);
const at = <T>(list: T[], n: number): T | undefined => (list.length > 0 ? list[n % list.length] : undefined);
const KINDS = ["finish", "fail", "retry", "redeliver", "return"] as const;
const ASK = { concurrency: 0 };
const TERMINAL = ["finished", "failed", "canceled"];

const settleOf = (id: JobId, token: string, kind: Settle["kind"], delayMs: number): Settle => ({
  ...{ id, token, kind, started: Date.now(), operation: "work", ttlMs: DAY, delayMs, entry: `{"outcome":"${kind}"}` },
  ...(kind === "finish" ? { result: "1" } : { error: '{"code":"http_error","message":"","retryable":true}' }),
});

/** What a settle of this kind may make of a started job. */
const ends: Record<Settle["kind"], string[]> = {
  finish: ["finished", "canceled"],
  fail: ["failed", "canceled"],
  retry: ["queued", "scheduled", "canceled"],
  redeliver: ["queued", "scheduled", "failed", "canceled"],
  return: ["queued", "scheduled", "canceled"],
};

async function held(world: World, { consumer }: Worker): Promise<Set<string>> {
  return new Set(await world.store.redis.client.smembers(KEYS.held(consumer.worker)));
}

const limitsOf = ({ limits }: Worker) => ({ limits });
/** @throws when the worker was given a job whose operation it did not name */
async function knows(world: World, { limits }: Worker, id: JobId): Promise<void> {
  const { operation = "" } = (await world.store.inspector.record(id)) ?? {};
  if (!limits.includes(`${operation}=`)) throw new Error(`${id} of ${operation} was given to a worker of ${limits}`);
}

const submit = fc
  .tuple(
    wire,
    fc.constantFrom(undefined, 1, 5, 9),
    fc.boolean(),
    fc.option(fc.nat(4), { nil: undefined }),
    fc.constantFrom(...OPERATIONS),
  )
  .map(([how, priority, later, key, operation]) =>
    step(`submit ${operation} ${how} pri ${priority} ${later ? "later" : ""} key ${key}`, async (world) => {
      const wish = job({
        ...{ operation, priority, due: later ? Date.now() + 3_600_000 : undefined },
        ...(key === undefined ? {} : { idempotency: { key: `k${key}`, body: "b" } }),
      });
      const told = await world.send(how, () => world.producer.submit(wish));
      // Unknown: the client looks it up.
      const there = (await world.store.state(wish.id)) !== null;
      const first = key === undefined ? undefined : world.keys.get(`k${key}`);
      if (first) {
        if (there) throw new Error(`I9: k${key} stands for ${first}, and yet ${wish.id} is there`);
        if (told && (told.id !== first || !told.replayed)) throw new Error(`I9: k${key} was ${first}, now ${told.id}`);
        return undefined;
      }
      if (!there) throw new Error(`accepted ${wish.id}, but it is not there`);
      if (told && told.id !== wish.id) throw new Error(`another id: ${told.id}`);
      if (key !== undefined) world.keys.set(`k${key}`, wish.id);
      world.accept(wish.id);
      return undefined;
    }),
  );

const take = fc.tuple(wire, who, fc.integer({ min: -1, max: 4 }), fc.nat(3)).map(([how, n, slots, concurrency]) =>
  step(`take ${how} worker ${n} slots ${slots} concurrency ${concurrency}`, async (world) => {
    const worker = world.workers[n] as Worker;
    const paused = (await world.store.redis.client.exists(KEYS.paused)) === 1;
    const before = await held(world, worker);
    const told = await world.send(how, () =>
      worker.consumer.turn(SERVICE, [], { ...ASK, ...limitsOf(worker), slots, concurrency }),
    );
    const after = await held(world, worker);
    const fresh = [...after].filter((id) => !before.has(id)) as JobId[];
    if (fresh.length > 0 && (paused || after.size > slots)) throw new Error(`took ${fresh.length} with slots ${slots}`);
    for (const id of fresh) {
      await knows(world, worker, id);
      const { token } = await worker.consumer.token(SERVICE, id);
      world.tokens.push({ id, token, worker: n });
    }
    // Of a take that was sent twice only the second reply counts: the rest are strangers, which reconcile finds.
    for (const taken of told?.jobs ?? []) worker.hand.set(taken.id, taken);
    return (id, was, is) =>
      was.state === "queued" &&
      is.state === "started" &&
      fresh.includes(id) &&
      Number(is.attempt) === Number(was.attempt) + 1 &&
      is.token.includes(`.${worker.consumer.worker}.`);
  }),
);

const settle = fc
  .tuple(
    wire,
    who,
    fc.array(fc.constantFrom(...KINDS), { minLength: 1, maxLength: 3 }),
    fc.constantFrom(0, 60_000),
    fc.nat(3),
  )
  .map(([how, n, kinds, delay, slots]) =>
    step(`settle ${how} worker ${n} ${kinds} delay ${delay} slots ${slots}`, async (world) => {
      const worker = world.workers[n] as Worker;
      const mine = [...worker.hand.values()].slice(0, kinds.length);
      const settles = mine.map((taken, i) => settleOf(taken.id, taken.token, kinds[i] as Settle["kind"], delay));
      const current = new Map(mine.map((taken) => [taken.id, world.last(taken.id)]));
      const told = await world.send(how, () =>
        worker.consumer.turn(SERVICE, settles, { ...ASK, ...limitsOf(worker), slots }),
      );
      if (told) {
        settles.forEach((s, i) => {
          const ours = current.get(s.id)?.state === "started" && current.get(s.id)?.token === s.token;
          // Sent twice, a job that was queued again may have been taken again by the first sending.
          const anew = how === "twice" && slots > 0 && s.kind !== "finish" && s.kind !== "fail";
          const accepted = ["ok", "canceled", "failed"].includes(told.verdicts[i] as string);
          if (ours && !accepted && !anew) throw new Error(`${s.id}: ${told.verdicts[i]} of the right token`);
          worker.hand.delete(s.id);
        });
        for (const taken of told.jobs) worker.hand.set(taken.id, taken);
      }
      for (const id of (await held(world, worker)) as Set<JobId>) {
        await knows(world, worker, id);
        world.tokens.push({ id, token: (await worker.consumer.token(SERVICE, id)).token, worker: n });
      }
      return (id, was, is) => {
        const s = settles.find((each) => each.id === id && each.token === was.token);
        const taken = is.state === "started" && is.token !== was.token;
        if (was.state === "queued") return taken;
        if (!s || was.state !== "started") return false;
        if (was.asked !== "") return is.state === "canceled";
        return ends[s.kind].includes(is.state) || (taken && s.kind !== "finish" && s.kind !== "fail");
      };
    }),
  );

const late = fc.tuple(which, fc.constantFrom(...KINDS)).map(([n, kind]) =>
  step(`late ${kind} ${n}`, async (world) => {
    const old = at(world.tokens, n);
    const now = old && world.last(old.id);
    if (!old || (now?.state === "started" && now.token === old.token)) return undefined;
    const { consumer } = world.workers[old.worker] as Worker;
    const { verdicts } = await consumer.turn(SERVICE, [settleOf(old.id, old.token, kind, 0)], {
      ...ASK,
      limits: "",
      slots: 0,
    });
    if (verdicts[0] === "ok" && now?.token !== old.token) throw new Error("I4: a stale token was told ok");
    return undefined; // I4: nothing may change
  }),
);

const block = fc.tuple(who, fc.boolean()).map(([n, lost]) =>
  step(`block worker ${n} ${lost ? "lost" : ""}`, async (world) => {
    const { consumer } = world.workers[n] as Worker;
    await consumer.beat(SERVICE);
    await world.store.redis.client.lmove(KEYS.ready, KEYS.wake(consumer.worker), "RIGHT", "LEFT");
    return undefined;
  }),
);

const reconcile = fc.tuple(wire, who).map(([how, n]) =>
  step(`reconcile ${how} worker ${n}`, async (world) => {
    const worker = world.workers[n] as Worker;
    const settles: Settle[] = [];
    for (const id of (await worker.consumer.holding(SERVICE)).held) {
      if (worker.hand.has(id)) continue;
      settles.push(settleOf(id, (await worker.consumer.token(SERVICE, id)).token, "return", 0));
    }
    await world.send(how, () => worker.consumer.turn(SERVICE, settles, { ...ASK, limits: "", slots: 0 }));
    return (id, was, is) =>
      was.state === "started" && settles.some((s) => s.id === id) && ["queued", "canceled"].includes(is.state);
  }),
);

const reap = fc.tuple(wire, who).map(([how, n]) =>
  step(`reap ${how} by ${n}`, async (world) => {
    const { consumer } = world.workers[n] as Worker;
    await consumer.beat(SERVICE);
    const { now, workers } = await world.maintainer.leased(SERVICE);
    const rules = { leaseMs: 30_000, ttlMs: DAY, once: [], seen: now };
    const beats = await world.store.redis.client.zrange(KEYS.leases, "0", "-1", "WITHSCORES");
    const dead = new Set(beats.filter((_, i) => i % 2 === 0 && Number(beats[i + 1]) < now - 30_000));
    for (const worker of workers) await world.send(how, () => world.maintainer.reap(SERVICE, worker, rules));
    return (_, was, is) => {
      const isDead = dead.has(was.token.split(".")[1] ?? "");
      if (was.state !== "started" || !(isDead || world.overrun.has(was.token))) return false;
      if (was.asked !== "") return is.state === "canceled";
      if (is.state === "failed") return true;
      return is.state === "queued" && is.token === "" && Number(is.redeliveries) === Number(was.redeliveries) + 1;
    };
  }),
);

const die = who.map((n) => step(`die worker ${n}`, (world) => world.die(n).then(() => undefined)));
const silence = who.map((n) => step(`silence worker ${n}`, (world) => world.silence(n).then(() => undefined)));
const beat = who.map((n) =>
  step(`beat worker ${n}`, async (world) => {
    await (world.workers[n] as Worker).consumer.beat(SERVICE);
    return undefined;
  }),
);
const overrun = which.map((n) =>
  step(`overrun ${n}`, async (world) => {
    const id = at(world.ids, n);
    if (id && world.last(id)?.state === "started") {
      await world.store.overrun(id, 70_000 + overrunMs(30_000));
      world.overrun.add(world.last(id)?.token ?? "");
    }
    return undefined;
  }),
);

const cancel = fc.tuple(wire, which).map(([how, n]) =>
  step(`cancel ${how} ${n}`, async (world) => {
    const id = at([...world.ids, ...world.batches.flatMap((b) => b.ids)], n);
    if (!id) return undefined;
    await world.send(how, () => world.producer.cancel(id));
    return (changed, was, is) => {
      if (changed !== id || TERMINAL.includes(was.state)) return false;
      return was.state === "started" ? is.state === "started" && is.asked !== "" : is.state === "canceled";
    };
  }),
);

const requeue = fc.tuple(wire, which, fc.nat(1)).map(([how, n, behind]) =>
  step(`requeue ${how} ${n} behind ${behind}`, async (world) => {
    const ended = world.ids.filter((id) => ["failed", "canceled"].includes(world.last(id)?.state ?? ""));
    const id = at(ended, n);
    if (!id) return undefined;
    await world.send(how, () => world.producer.requeue(id, Number(world.last(id)?.rev) - behind));
    if (behind) return undefined; // the record has moved since
    return (changed, was, is) =>
      changed === id && ["failed", "canceled"].includes(was.state) && is.state === "queued" && is.run !== was.run;
  }),
);

const erase = fc.tuple(fc.constantFrom<Wire>("once", "lost", "twice"), which).map(([how, n]) =>
  step(`erase ${how} ${n}`, async (world) => {
    const id = at(world.ids, n);
    const was = id && world.last(id);
    if (!id || !was) return undefined;
    await world.send(how, () => world.producer.erase(id));
    const may = TERMINAL.includes(was.state) && was.listed === "";
    const gone = (await world.store.state(id)) === null;
    if (gone !== may) throw new Error(`erase of ${JSON.stringify(was)}: ${gone ? "gone" : "still there"}`);
    if (gone) world.forget(id);
    return undefined;
  }),
);

const expire = which.map((n) =>
  step(`expire ${n}`, async (world) => {
    const ended = world.ids.filter((id) => TERMINAL.includes(world.last(id)?.state ?? "") && !world.last(id)?.listed);
    const id = at(ended, n);
    if (!id) return undefined;
    await world.store.redis.client.del(KEYS.job(id)); // as its TTL would
    world.forget(id);
    for (const state of TERMINAL) {
      const { entries } = await world.maintainer.expired(SERVICE, state, 0);
      if (entries.length > 0) await world.maintainer.strike(SERVICE, state, entries);
    }
    return undefined;
  }),
);

const progress = which.map((n) =>
  step(`progress ${n}`, async (world) => {
    const old = at(world.tokens, n);
    if (!old) return undefined;
    const { redis } = (world.workers[0] as Worker).consumer;
    await reportProgress(redis, SERVICE, old.id, old.token, "0.5", "");
    return (id, was, is) =>
      id === old.id && was.state === "started" && is.state === "started" && was.token === old.token;
  }),
);

const tick = fc.tuple(wire, fc.boolean()).map(([how, clock]) =>
  step(`promote ${how} ${clock ? "after an hour" : ""}`, async (world) => {
    const { client } = world.store.redis;
    if (clock)
      for (const id of await client.zrange(KEYS.scheduled, "0", "-1")) await client.zadd(KEYS.scheduled, "1", id);
    await world.send(how, () => world.maintainer.promote(SERVICE));
    return (_, was, is) => was.state === "scheduled" && is.state === "queued";
  }),
);

const ghosts = fc.constantFrom("ready" as const, "shelf" as const).map((list) =>
  step(`sweep ghosts of ${list}`, async (world) => {
    await world.maintainer.sweepGhosts(SERVICE, list, 0);
    return undefined;
  }),
);

const canceled: May = (_, was, is) => ["queued", "scheduled"].includes(was.state) && is.state === "canceled";
let nonce = 0;
const operate = fc
  .tuple(wire, fc.constantFrom("pause", "pause", "resume", "resume", "empty", "purge", "purge"))
  .map(([how, verb]) =>
    step(`${verb} ${how}`, async (world) => {
      const { operator } = world;
      if (verb === "pause") await world.send(how, () => operator.pause(SERVICE));
      else if (verb === "resume") await world.send(how, () => operator.resume(SERVICE));
      else if (verb === "empty") await world.send(how, () => operator.empty(SERVICE, `n${++nonce}`));
      else await world.send(how, () => operator.purge(SERVICE));
      return verb === "purge" ? canceled : undefined;
    }),
  );

const bulk = fc
  .tuple(
    wire,
    fc.constantFrom("cancel" as const, "requeue" as const, "delete" as const),
    fc.array(which, { maxLength: 4 }),
  )
  .map(([how, action, picks]) =>
    step(`bulk ${action} ${how} ${picks}`, async (world) => {
      const ids = [...new Set(picks.flatMap((n) => at(world.ids, n) ?? []))];
      // what is listed goes with its entry, whenever that is: then it is no longer looked for
      const mine = action === "delete" ? ids.filter((id) => world.last(id)?.listed === "") : ids;
      const id = `b${++nonce}`;
      const wish = { id, action, olderMs: -60_000, dry: false, ids: mine, about: {} };
      await world.send(how, () => world.operator.startBulk(SERVICE, wish));
      await world.send(how, () => world.operator.stepBulk(SERVICE));
      await world.operator.carryOut(SERVICE, 1_000);
      for (const each of mine) if ((await world.store.state(each)) === null) world.forget(each);
      return (changed, was, is) => {
        if (canceled(changed, was, is)) return true; // carryOut purges too
        if (!mine.includes(changed)) return false;
        if (action === "requeue") return ["failed", "canceled"].includes(was.state) && is.state === "queued";
        return action === "cancel" && (is.state === "canceled" || (is.state === "started" && is.asked !== ""));
      };
    }),
  );

const batchOpen = fc.tuple(wire, fc.integer({ min: 1, max: 3 })).map(([how, size]) =>
  step(`stage ${how} ${size}`, async (world) => {
    const id = newBatchId();
    const jobs = Array.from({ length: size }, () => job({ batch: id, effects: "b" }));
    await world.batch.open(
      id,
      jobs.map((each) => each.id),
      DAY,
    );
    await world.send(how, () => world.batch.stage(SERVICE, id, jobs, size, DAY));
    world.batches.push({ id, ids: jobs.map((each) => each.id), committed: false });
    return undefined;
  }),
);
const batchEnd = fc.tuple(wire, which, fc.boolean()).map(([how, n, commit]) =>
  step(`${commit ? "commit" : "abort"} ${how} ${n}`, async (world) => {
    const batch = at(world.batches, n);
    if (!batch || batch.committed) return undefined;
    await world.send(how, () => world.batch.end(batch.id, commit ? "committed" : "aborted"));
    if (!commit) {
      world.batches.splice(world.batches.indexOf(batch), 1);
      await world.send(how, () => world.batch.discard(SERVICE, batch.id));
      await world.batch.discard(SERVICE, batch.id);
      for (const id of batch.ids)
        if ((await world.store.state(id)) === null) world.forget(id);
        else world.accept(id); // canceled while it was staged: the record stays until it expires
      return undefined;
    }
    batch.committed = true;
    for (const id of batch.ids) world.accept(id);
    await world.send(how, () => world.batch.release(SERVICE, batch.id));
    world.batches.splice(world.batches.indexOf(batch), 1);
    return (id, was, is) => batch.ids.includes(id) && was.state === "deferred" && is.state === "queued";
  }),
);

export const COMMANDS: fc.Arbitrary<Step>[] = [
  ...[submit, submit, submit, take, take, settle, settle, late, block, reconcile, reap, die, silence, beat, overrun],
  ...[cancel, requeue, erase, expire, progress, tick, ghosts, operate, bulk, batchOpen, batchEnd],
];

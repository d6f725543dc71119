/**
 * Batches: accepted whole or not at all, over any number of services (protocol.md §6).
 *
 *   open ──▶ stage, service by service in chunks ──▶ commit: the acceptance ──▶ release, chunk by chunk
 *     └──────────────┴──▶ abort ──▶ discard
 *
 * Crash windows, and who heals each (clocks/batches.ts):
 *   opened, or staged in part          the record says preparing; it is aborted after BATCH_TIMEOUT, then discarded
 *   aborted, not discarded             discarded
 *   committed, not released            released
 *   staged by one who was given up     its commit finds "aborted" or nothing, and what it staged is discarded
 */
import { Fault } from "../faults.ts";
import { type BatchId, type JobId, newBatchId, type ServiceName, serviceOf } from "../jobs.ts";
import { batchKey, batchNameKey, type Key, keysOf, root } from "../keys.ts";
import { type Connection, script } from "../script.ts";
import { jobs as jobCount } from "../words.ts";
import {
  ANSWER_MS,
  BATCH_BYTES,
  BATCH_JOBS,
  groupsOf,
  isRefusal,
  type NewJob,
  neverSent,
  whatNext,
} from "./produce.ts";
import { asFault, within } from "./redis.ts";

type BatchState = "preparing" | "committed" | "aborted";
const openScript = script<{ members: "text"; services: "text"; life: "int"; keep: "int"; patience: "int" }, BatchState>(
  "batch-open",
  { members: "text", services: "text", life: "int", keep: "int", patience: "int" },
);
const endScript = script<{ state: "text"; age: "int" }, BatchState | "gone">("batch-end", {
  state: "text",
  age: "int",
});
const nameScript = script<{ batch: "text"; body: "text"; ttl: "int"; instead: "text" }, string>("batch-name", {
  batch: "text",
  body: "text",
  ttl: "int",
  instead: "text",
});
const noteScript = script<{ service: "text"; ended: "int" }, number>("batch-note", { service: "text", ended: "int" });
const stageScript = script<{ batch: "text"; members: "int"; life: "int"; maxQueued: "int" }, "ok" | "full">(
  "stage",
  { batch: "text", members: "int", life: "int", maxQueued: "int" },
  ["run", "id", "payload"],
);
const releaseScript = script<{ batch: "text" }, number>("release", { batch: "text" });
const discardScript = script<{ batch: "text" }, number>("discard", { batch: "text" });

/** ms; the record of a batch that nobody commits or aborts is gone after this, which is as good as aborted. */
const PATIENCE_MS = 3_600_000;
const MAX_ROUNDS = 100_000;

export type BatchSettings = { maxQueued: number; idempotencyTtlMs: number; batchTimeoutMs: number };

/** Where members of a batch lie. */
export function byService(ids: JobId[]): Map<ServiceName, JobId[]> {
  const map = new Map<ServiceName, JobId[]>();
  for (const id of ids) {
    const list = map.get(serviceOf(id));
    if (list) list.push(id);
    else map.set(serviceOf(id), [id]);
  }
  return map;
}

const rootOf = (id: BatchId) => batchKey(id) as unknown as Key<"string">;

export class Batches {
  constructor(
    readonly redis: Connection,
    private readonly settings: BatchSettings,
  ) {}

  /**
   * Accepts all jobs or none.
   * @param lifeMs  the longest life that any member may have after its end
   * @param name    hashes of API key and Idempotency-Key, and of the body
   * @throws Fault  backlog_full, idempotency_mismatch, in_progress, memory_full: not accepted.
   *                redis_*: not accepted, unless the problem says `accepted: "unknown"` and carries `batch_id`
   */
  async submit(jobs: NewJob[], lifeMs: number, name?: { key: string; body: string }) {
    const id = newBatchId();
    for (const job of jobs) {
      job.batch = id;
      job.effects = `${job.effects ?? ""}b`;
    }
    let ids = jobs.map((job) => job.id);
    try {
      await this.open(id, ids, lifeMs);
      if (name) {
        const other = await this.claim(id, name);
        if (other) {
          await this.end(id, "aborted").catch(() => {});
          ids = await this.ids(other);
          return { id: other, ids, replayed: true };
        }
      }
      await this.stageAll(id, jobs, lifeMs);
    } catch (error) {
      // Never committed, so never accepted. What cannot be tidied up now is tidied up by the clocks.
      await this.giveUp(id, byService(ids)).catch(() => {});
      throw asFault(error, { accepted: "no" });
    }
    await this.commit(id, name !== undefined);
    // Accepted: whatever fails from here on is done by the clocks.
    await Promise.all([...byService(ids).keys()].map((service) => this.release(service, id))).catch(() => {});
    return { id, ids, replayed: false };
  }

  open(id: BatchId, ids: JobId[], lifeMs: number): Promise<BatchState> {
    const { idempotencyTtlMs, batchTimeoutMs } = this.settings;
    return this.ask(
      openScript(this.redis, rootOf(id), {
        members: JSON.stringify(ids),
        services: [...byService(ids).keys()].join(" "),
        life: lifeMs,
        keep: idempotencyTtlMs,
        patience: Math.max(PATIENCE_MS, 2 * batchTimeoutMs),
      }),
    );
  }

  /** Binds the Idempotency-Key. @returns the batch it stands for already; undefined = ours */
  private async claim(id: BatchId, name: { key: string; body: string }): Promise<BatchId | undefined> {
    const { idempotencyTtlMs, batchTimeoutMs } = this.settings;
    let instead = "";
    for (;;) {
      const reply = await this.ask(
        nameScript(this.redis, batchNameKey(name.key), { batch: id, body: name.body, ttl: idempotencyTtlMs, instead }),
      );
      if (reply === "ok") return undefined;
      const other = reply.slice(1) as BatchId;
      // One that was never accepted may be replaced; but it must be given up first, so that it never will be.
      const state = await this.end(other, "aborted", batchTimeoutMs);
      const stands = state === "preparing" || (state === "committed" && !(await this.gone(other)));
      if (stands && reply.startsWith("!")) {
        throw new Fault(
          "idempotency_mismatch",
          "This Idempotency-Key was used with another body. Use a new key for a new batch.",
        );
      }
      if (stands && state === "committed") return other;
      if (stands || other === instead) {
        throw new Fault(
          "in_progress",
          "The first request with this Idempotency-Key is being worked on; send it again.",
          {
            retryAfterS: 1,
          },
        );
      }
      instead = other;
    }
  }

  private async stageAll(id: BatchId, jobs: NewJob[], lifeMs: number): Promise<void> {
    const groups = new Map<ServiceName, NewJob[]>();
    for (const job of jobs) {
      const service = serviceOf(job.id);
      const list = groups.get(service);
      if (list) list.push(job);
      else groups.set(service, [job]);
    }
    await Promise.all(
      [...groups].map(async ([service, members]) => {
        for (const chunk of chunksOf(members)) await this.stage(service, id, chunk, members.length, lifeMs);
      }),
    );
  }

  /** Writes some members of one service, at most BATCH_JOBS. @throws Fault backlog_full */
  async stage(service: ServiceName, id: BatchId, jobs: NewJob[], members: number, lifeMs: number): Promise<void> {
    const { maxQueued } = this.settings;
    const reply = await this.ask(
      stageScript(this.redis, root(service), { batch: id, members, life: lifeMs, maxQueued }, groupsOf(jobs)),
    );
    if (reply === "full") {
      const most = `${jobCount(maxQueued)} may wait for ${service} (MAX_QUEUED); with this batch it would be more`;
      throw new Fault("backlog_full", `${most}. Send it later, or in smaller batches.`, { retryAfterS: 30 });
    }
  }

  /** @param ageMs  a younger one is left alone. @returns see lua/batch-end.lua */
  end(id: BatchId, state: "committed" | "aborted", ageMs = 0): Promise<BatchState | "gone"> {
    return this.ask(endScript(this.redis, rootOf(id), { state, age: ageMs }));
  }

  private async commit(id: BatchId, keyed: boolean): Promise<void> {
    let state: BatchState | "gone";
    try {
      state = await within(ANSWER_MS, endScript(this.redis, rootOf(id), { state: "committed", age: 0 }));
    } catch (error) {
      if (isRefusal(error) || neverSent(error)) throw asFault(error, { accepted: "no" });
      throw new Fault(
        "redis_unreachable",
        `Redis did not answer in time. Whether the batch was accepted is unknown: ${whatNext(`/batches/${id}`, keyed)}`,
        { retryAfterS: 2, members: { batch_id: id, accepted: "unknown" } },
      );
    }
    if (state === "committed") return;
    throw new Fault("redis_unreachable", "Staging the batch took longer than BATCH_TIMEOUT; it was given up.", {
      retryAfterS: 5,
      members: { accepted: "no" },
    });
  }

  private async giveUp(id: BatchId, services: Map<ServiceName, JobId[]>): Promise<void> {
    if ((await this.end(id, "aborted")) === "committed") return;
    await Promise.all([...services.keys()].map((service) => this.discard(service, id)));
  }

  /** Queues what is staged of an accepted batch. */
  release(service: ServiceName, id: BatchId): Promise<void> {
    return this.repeat(() => releaseScript(this.redis, root(service), { batch: id }));
  }
  /** Erases what is staged of a batch that was not accepted. */
  discard(service: ServiceName, id: BatchId): Promise<void> {
    return this.repeat(() => discardScript(this.redis, root(service), { batch: id }));
  }
  private async repeat(step: () => Promise<number>): Promise<void> {
    for (let round = 0; round < MAX_ROUNDS; round++) if ((await this.ask(step())) === 0) return;
  }

  /** The step of the clocks: brings every batch that has staged members to its end. */
  async tidy(service: ServiceName): Promise<void> {
    for (const id of (await this.redis.zrange(keysOf(service).staged, "0", "99")) as BatchId[]) {
      const state = await this.end(id, "aborted", this.settings.batchTimeoutMs);
      if (state === "committed") await this.release(service, id);
      else if (state !== "preparing") await this.discard(service, id);
    }
  }

  /** Tells a batch's record how its members in one service stand. Level, not edge: it may be told late and twice. */
  async note(service: ServiceName, id: BatchId): Promise<void> {
    const left = await this.redis.hget(keysOf(service).batch(id), "left");
    if (left !== null) await noteScript(this.redis, rootOf(id), { service, ended: left === "0" ? 1 : 0 });
  }

  /** Whether every member of an accepted batch was erased, or has expired: then its key stands for nothing. */
  private async gone(id: BatchId): Promise<boolean> {
    for (const [service, ids] of byService(await this.ids(id))) {
      const { job } = keysOf(service);
      for (let i = 0; i < ids.length; i += BATCH_JOBS) {
        const keys = ids.slice(i, i + BATCH_JOBS).map((one) => job(one));
        if ((await this.ask(this.redis.exists(...keys))) > 0) return false;
      }
    }
    return true;
  }

  private async ids(id: BatchId): Promise<JobId[]> {
    return JSON.parse((await this.ask(this.redis.hget(batchKey(id), "ids"))) ?? "[]") as JobId[];
  }

  private async ask<T>(work: Promise<T>): Promise<T> {
    try {
      return await within(ANSWER_MS, work);
    } catch (error) {
      throw asFault(error);
    }
  }
}

/** Jobs in pieces that one script call may carry (rule 1). */
export function* chunksOf(jobs: NewJob[]): Generator<NewJob[]> {
  let chunk: NewJob[] = [];
  let bytes = 0;
  for (const job of jobs) {
    bytes += job.payload.length;
    if (chunk.length > 0 && (chunk.length === BATCH_JOBS || bytes > BATCH_BYTES)) {
      yield chunk;
      chunk = [];
      bytes = job.payload.length;
    }
    chunk.push(job);
  }
  if (chunk.length > 0) yield chunk;
}

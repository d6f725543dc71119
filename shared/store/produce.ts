/**
 * Verbs of those who want work done: submit, cancel, requeue.
 * Submits that come while a call is under way travel in the next one (performance.md §2, gathering.ts).
 */
import { setImmediate } from "node:timers";
import { Fault } from "../faults.ts";
import { FIELD, type JobId, type JobOptions, type ServiceName, serviceOf } from "../jobs.ts";
import { root } from "../keys.ts";
import { type Connection, runsOf, script, wordsOf } from "../script.ts";
import { jobs, wait } from "../words.ts";
import { Gathering } from "./gathering.ts";
import { asFault, within } from "./redis.ts";

const submitScript = script<{ maxQueued: "int"; idemTtl: "int" }, (number | string)[] | 0>(
  "submit",
  { maxQueued: "int", idemTtl: "int" },
  ["run", "id", "payload"],
);
const cancelScript = script<{ id: "text"; ttl: "int" }, "canceled" | "asked" | "ended" | "gone">("cancel", {
  id: "text",
  ttl: "int",
});
const requeueScript = script<
  { id: "text"; rev: "int"; idem: "text"; idemTtl: "int" },
  "ok" | "again" | "changed" | "state" | "gone"
>("requeue", { id: "text", rev: "int", idem: "text", idemTtl: "int" });

const eraseScript = script<{ id: "text" }, "ok" | "listed" | "running" | "gone">("erase", { id: "text" });

/** A job on its way in. Times in ms; 0 and undefined = the operation's own. */
export type NewJob = {
  id: JobId;
  operation: string;
  payload: string;
  options?: JobOptions | undefined;
  priority?: number | undefined;
  /** ms since 1970, compared with Redis's clock */
  due?: number | undefined;
  /** ms; the script adds it to Redis's time */
  delayMs?: number | undefined;
  timeoutMs?: number | undefined;
  ttlMs?: number | undefined;
  /** effects of the end for elsewhere: c = callback, b = batch */
  effects?: string | undefined;
  batch?: string | undefined;
  /** publish the end, because somebody waits from the start */
  watched?: boolean | undefined;
  /** hash of API key, service and Idempotency-Key, with the hash of the body and the options */
  idempotency?: { key: string; body: string } | undefined;
};

/** What became of a submit. `replayed`: the Idempotency-Key stands for this earlier job. */
export type Submitted = { id: JobId; replayed: boolean };

/** ms a client waits for Redis at most; contract: an answer within 2 s. */
export const ANSWER_MS = 1_500;
/** Bounds of one script call: a larger one would hold Redis for too long (rule 1). */
export const BATCH_JOBS = 256;
export const BATCH_BYTES = 1_048_576;

/** What a client does that cannot know whether its request was accepted. @param keyed  whether it sent an Idempotency-Key */
export const whatNext = (path: string, keyed: boolean): string =>
  keyed
    ? `send the request again with the same Idempotency-Key, or look up GET ${path}.`
    : `look up GET ${path} before you send it again, as it had no Idempotency-Key and would run twice. 404 means that it was not accepted.`;

type Waiting = {
  job: NewJob;
  /** performance.now() when it came */
  since: number;
  sent: boolean;
  resolve: (what: Submitted) => void;
  reject: (error: unknown) => void;
};

type Queue = { waiting: Waiting[]; busy: boolean; gathering: Gathering };

export class Producer {
  private readonly queues = new Map<ServiceName, Queue>();

  constructor(
    private readonly redis: Connection,
    private readonly limits: { maxQueued: number; idempotencyTtlMs: number; failureTtlMs: number },
  ) {}

  /**
   * Accepts a job. When it returns, the job is in Redis.
   * @throws Fault  backlog_full, idempotency_mismatch, memory_full: not accepted.
   *                redis_*: if the job was sent its fate is unknown, and the problem carries `job_id`; if it was
   *                never sent it leaves no ghost, and the problem says so.
   */
  submit(job: NewJob): Promise<Submitted> {
    // within ANSWER_MS of its coming, whatever it waited for
    return new Promise((resolve, reject) => {
      this.enqueue(serviceOf(job.id), { job, since: performance.now(), sent: false, resolve, reject });
    });
  }

  private failed({ job, sent }: Waiting, error: unknown): Fault {
    if (!sent || isRefusal(error)) return asFault(error, { accepted: "no" });
    return new Fault(
      "redis_unreachable",
      `Redis did not answer in time. Whether the job was accepted is unknown: ${whatNext(`/jobs/${job.id}`, job.idempotency !== undefined)}`,
      { retryAfterS: 2, members: { job_id: job.id, accepted: "unknown" } },
    );
  }

  private answer(item: Waiting, reply: string): void {
    try {
      item.resolve(this.read(reply, item.job));
    } catch (error) {
      item.reject(error);
    }
  }

  private read(reply: string, job: NewJob): Submitted {
    if (reply === "ok") return { id: job.id, replayed: false };
    if (reply.startsWith("=")) return { id: reply.slice(1) as JobId, replayed: true };
    if (reply === "conflict") {
      const why = "This Idempotency-Key was used with another body or other options. Use a new key for a new job.";
      throw new Fault("idempotency_mismatch", why);
    }
    const { maxQueued } = this.limits;
    const why = `${jobs(maxQueued)} ${wait(maxQueued)} for ${serviceOf(job.id)}, as many as MAX_QUEUED allows. Try again later.`;
    throw new Fault("backlog_full", why, { retryAfterS: 30 });
  }

  private enqueue(service: ServiceName, item: Waiting): void {
    let queue = this.queues.get(service);
    if (!queue) {
      queue = { waiting: [], busy: false, gathering: new Gathering(BATCH_JOBS) };
      this.queues.set(service, queue);
    }
    queue.waiting.push(item);
    queue.gathering.came(queue.waiting.length);
    if (queue.busy) return;
    queue.busy = true;
    // setImmediate, measured: a microtask gathers too little, a timer waits too long.
    setImmediate(() => void this.flush(service, queue));
  }

  /** Sends what waits, one call in flight a service, until nothing waits. */
  private async flush(service: ServiceName, queue: Queue): Promise<void> {
    while (queue.waiting.length > 0) {
      let count = 0;
      const ids = new Set<JobId>();
      for (let bytes = 0; count < Math.min(queue.waiting.length, BATCH_JOBS); count++) {
        const { id, payload } = (queue.waiting[count] as Waiting).job;
        bytes += payload.length;
        // one that is in this call already finds its record by the next
        if ((count > 0 && bytes > BATCH_BYTES) || ids.add(id).size === count) break;
      }
      const gather = count < queue.waiting.length ? 0 : count;
      const batch = queue.waiting.splice(0, count);
      const jobs = batch.map((item) => item.job);
      try {
        const call = this.send(service, jobs);
        for (const item of batch) item.sent = true;
        // The oldest one's time counts: it may have waited behind a slow call before this one.
        const waited = performance.now() - (batch[0] as Waiting).since;
        const replies = await within(Math.max(100, ANSWER_MS - waited), call);
        for (const [i, item] of batch.entries()) this.answer(item, replies[i] as string);
      } catch (error) {
        const unsent = neverSent(error);
        for (const item of batch) {
          if (unsent) item.sent = false;
          item.reject(this.failed(item, error));
        }
        // Redis is away or silent: who waits behind this call gets its answer now, and is never sent.
        if (!isRefusal(error)) for (const item of queue.waiting.splice(0)) item.reject(this.failed(item, error));
      }
      // Answers go out, and what comes in meanwhile goes with the next call.
      await queue.gathering.next(gather, queue.waiting.length);
    }
    queue.busy = false;
  }

  /** Sends jobs of one service in one script. At most BATCH_JOBS, none twice. @returns a word a job, see lua/submit.lua */
  async send(service: ServiceName, jobs: NewJob[]): Promise<string[]> {
    const { maxQueued, idempotencyTtlMs } = this.limits;
    const odd = await submitScript(this.redis, root(service), { maxQueued, idemTtl: idempotencyTtlMs }, groupsOf(jobs));
    return wordsOf<string>(jobs.length, odd || []);
  }

  /** @returns see lua/cancel.lua */
  cancel(id: JobId) {
    return this.ask(cancelScript(this.redis, root(serviceOf(id)), { id, ttl: this.limits.failureTtlMs }));
  }

  /**
   * @param rev   the record's rev that the caller saw
   * @param idem  hash of an Idempotency-Key; "" = none
   * @returns see lua/requeue.lua
   */
  requeue(id: JobId, rev: number, idem = "") {
    const idemTtl = this.limits.idempotencyTtlMs;
    return this.ask(requeueScript(this.redis, root(serviceOf(id)), { id, rev, idem, idemTtl }));
  }

  /** Removes a terminal record before its time. @returns see lua/erase.lua */
  erase(id: JobId) {
    return this.ask(eraseScript(this.redis, root(serviceOf(id)), { id }));
  }

  private async ask<T>(work: Promise<T>): Promise<T> {
    try {
      return await within(ANSWER_MS, work);
    } catch (error) {
      throw asFault(error);
    }
  }
}

/** The operation, and by the names of FIELD what a job has beside its payload; most have nothing. */
function kindOf(job: NewJob): string {
  const { operation, priority = 5, due, delayMs, timeoutMs, ttlMs, effects, batch, watched, idempotency } = job;
  let options: string | undefined;
  for (const _ in job.options) options ??= JSON.stringify(job.options);
  const plain =
    priority === 5 && !due && !delayMs && !timeoutMs && !ttlMs && !effects && !batch && !watched && !idempotency;
  if (plain && !options) return operation;
  const more = {
    [FIELD.options]: options,
    [FIELD.priority]: priority === 5 ? undefined : priority,
    [FIELD.due]: due || undefined,
    delay: delayMs || undefined,
    [FIELD.timeout]: timeoutMs || undefined,
    [FIELD.ttl]: ttlMs || undefined,
    [FIELD.effects]: effects || undefined,
    [FIELD.batch]: batch || undefined,
    [FIELD.watched]: watched ? 1 : undefined,
    idem: idempotency?.key,
    body: idempotency?.body,
  };
  return `${operation} ${JSON.stringify(more)}`;
}

/** New jobs as lua/lib/record.lua and submit.lua read them. */
export const groupsOf = (jobs: NewJob[]) => runsOf(jobs, kindOf, (values, job) => values.push(job.id, job.payload));

/** Redis itself said no, so nothing was written. */
export const isRefusal = (error: unknown) => error instanceof Error && error.name === "ReplyError";
/** ioredis refused to send, because the connection was not there. */
export const neverSent = (error: unknown) =>
  error instanceof Error && /isn't writeable|Cluster isn't ready/.test(error.message);

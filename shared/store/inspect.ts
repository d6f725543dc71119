/** Verbs of those who look: one job's status or record, one service's counts. Nothing scans. */
import { Fault, type JobError } from "../faults.ts";
import {
  type Attempt,
  attemptsOf,
  FIELD,
  isTerminal,
  type JobId,
  type JobOptions,
  type JobRecord,
  parseHead,
  type ResultFile,
  revOf,
  type ServiceName,
  type State,
  serviceOf,
  whyAgain,
} from "../jobs.ts";
import { GLOBAL, keysOf, root } from "../keys.ts";
import { type Connection, script } from "../script.ts";
import { announced, isRecent } from "./presence.ts";
import { ANSWER_MS } from "./produce.ts";
import { asFault, info, within } from "./redis.ts";
import { RedisTime } from "./time.ts";
import { watch } from "./wakes.ts";

type CountsReply = [...numbers: number[], flat: string[]];
const countsScript = script<Record<never, never>, CountsReply>("counts", {});

/** One service in figures. Times in ms since 1970. */
export type Counts = {
  now: number;
  queued: number;
  scheduled: number;
  started: number;
  finished: number;
  failed: number;
  canceled: number;
  paused: boolean;
  oldest: number | undefined;
  seq: number;
  head: number;
  workers: number;
  /** jobs of a priority above the default that wait in the backlog, and entries of the default one's list */
  urgent: number;
  listed: number;
  /** by operation: queued jobs that were set aside, because a worker met them that did not know it; since when the first waits */
  aside: Map<string, { jobs: number; since: number | undefined }>;
  /** running totals since the start, and mean:<operation> in ms */
  totals: Map<string, number>;
};

/** A call in hand: the longest running ones first, at most MOST_RUNS a lane. */
export type RunInfo = { id: string; op: string; since: number };
export const MOST_RUNS = 16;

/** What a worker says of itself with each beat; for display. Times in ms since 1970, by Redis. */
export type WorkerInfo = {
  id: string;
  host: string;
  pid: number;
  version: string;
  runtime: string;
  startedAt: number;
  beatAt: number;
  state: "running" | "quiet" | "draining";
  rssBytes: number;
  /** why large results cannot be written; absent = they can */
  results?: string;
  /** by service: slots, jobs in hand, why it is parked, and the operations that it can run (no list = a 4.0 worker: unknown) */
  lanes: Record<
    string,
    { slots: number; busy: number; parked?: string; since?: number; runs?: RunInfo[]; operations?: string[] }
  >;
};

/** The part of a record that a status answer needs; `result` is the stored text. */
export type Status = {
  id: JobId;
  state: State;
  rev: number;
  result: string | undefined;
  resultType: string;
  resultSize: number | undefined;
  /** where a JSON result lies that is not in the record; undefined = none does */
  resultFile: ResultFile | undefined;
  error: JobError | undefined;
  progress: number | undefined;
  message: string | undefined;
  attempt: number;
  redeliveries: number;
  created: number;
  started: number | undefined;
  ended: number | undefined;
  due: number | undefined;
  sequence: number;
  /** jobs that are taken before a queued one of another priority; undefined = its sequence tells */
  ahead: number | undefined;
  operation: string;
};

const STATUS_FIELDS = [
  FIELD.head,
  FIELD.rev,
  FIELD.resultType,
  FIELD.resultSize,
  FIELD.error,
  FIELD.progress,
  FIELD.message,
  FIELD.attempt,
  FIELD.due,
  FIELD.redeliveries,
  FIELD.priority,
  FIELD.result, // the last: it may be large, and not everybody needs it
];

/** In the order of FIELD's results and what is kept. */
const RESULT_SIZES = [FIELD.resultSize, FIELD.keptSize];
const RESULT_BYTES = [FIELD.result, FIELD.kept];

const numberOf = (text: string | null | undefined) => (text === null || text === undefined ? undefined : Number(text));
const json = <T>(text: string | null | undefined): T | undefined => {
  try {
    return text ? (JSON.parse(text) as T) : undefined;
  } catch {
    return undefined;
  }
};

const keptOf = (type: string | undefined, sizeBytes: number | undefined, bytes: Uint8Array | undefined) =>
  type === undefined ? undefined : { type, sizeBytes: sizeBytes ?? bytes?.length ?? 0 };

/** The attempts that have ended, one a line. */
const attemptsIn = (log: string | null | undefined) =>
  (log ?? "").split("\n").flatMap((line) => json<Attempt>(line) ?? []);

/** @param type  none = JSON */
const resultFileOf = (
  head: NonNullable<ReturnType<typeof parseHead>>,
  type: string | null | undefined,
  bytes: number | undefined,
): ResultFile | undefined =>
  head.state === "finished" && (type ?? JSON_TYPE) === JSON_TYPE && bytes !== undefined
    ? { token: head.start?.token ?? "", bytes }
    : undefined;
const JSON_TYPE = "application/json";

export class Inspector {
  /** Redis's clock: every look at counts or workers sets it */
  readonly time = new RedisTime();

  constructor(readonly redis: Connection) {}

  /** Runs a read within the answer time. @throws Fault redis_* */
  async ask<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await within(ANSWER_MS, work());
    } catch (error) {
      throw asFault(error);
    }
  }

  /**
   * @param withResult  false = all but the result, which then reads as if there were none
   * @returns undefined when there is no such record
   */
  async status(id: JobId, withResult = true): Promise<Status | undefined> {
    const key = keysOf(serviceOf(id)).job(id);
    const names = withResult ? STATUS_FIELDS : STATUS_FIELDS.slice(0, -1);
    const f = await this.ask(() => this.redis.hmget(key, ...names));
    const result = f[STATUS_FIELDS.length - 1] ?? undefined;
    const head = parseHead(f[0]);
    if (!head) return undefined;
    const { state, created, start, sequence, operation } = head;
    const ended = isTerminal(state);
    // what the last attempt reported is over; why there will be another one is asked only here, since few jobs wait for one
    const waits = (state === "scheduled" || state === "queued") && (f[7] !== null || f[6] !== null);
    const reported = state === "started" ? f[6] : undefined; // what the service says while it works
    const message = waits ? whyAgain(attemptsIn(await this.ask(() => this.redis.hget(key, FIELD.log)))) : reported;
    // bytes read as text have another length, so their size is asked for; JSON shows itself and needs none
    const size = f[2] && !f[3] && result ? await this.ask(() => this.redis.hstrlen(key, FIELD.result)) : numberOf(f[3]);
    return {
      id,
      state,
      rev: revOf(head, f[1]),
      result: state === "finished" && !f[2] ? result : undefined,
      resultType: f[2] ?? "application/json",
      resultSize: size,
      resultFile: resultFileOf(head, f[2], numberOf(f[3])),
      error: ended ? json(f[4]) : undefined,
      progress: numberOf(f[5]),
      message: message ?? undefined,
      attempt: attemptsOf(head, f[7]),
      redeliveries: Number(f[9] ?? 0),
      created,
      started: start?.started,
      ended: ended ? head.ended : undefined,
      due: state === "scheduled" ? numberOf(f[8]) : undefined,
      sequence,
      ahead: state === "queued" ? await this.ahead(id, numberOf(f[10])) : undefined,
      operation,
    };
  }

  /** Jobs that are taken before one that waits in the backlog: those of higher priorities, and older ones of its own. */
  private async ahead(id: JobId, priority = 5): Promise<number | undefined> {
    if (priority === 5) return undefined;
    const { backlog, ready } = keysOf(serviceOf(id));
    const [before, listed] = await this.ask(() =>
      Promise.all([this.redis.zrank(backlog, id), priority < 5 ? this.redis.llen(ready) : 0]),
    );
    return before === null ? undefined : before + listed;
  }

  /** State and revision, for those who wait. @returns undefined when there is no such record */
  async glance(id: JobId): Promise<{ state: State; rev: number } | undefined> {
    const key = keysOf(serviceOf(id)).job(id);
    const [h, rev] = await this.ask(() => this.redis.hmget(key, FIELD.head, FIELD.rev));
    const head = parseHead(h);
    return head && { state: head.state, rev: revOf(head, rev) };
  }

  /** As glance, and from now on each change of the record is published. */
  watch(id: JobId): Promise<{ state: State; rev: number } | undefined> {
    return this.ask(() => watch(this.redis, id));
  }

  /** Asks whether the job has ended, or is gone. Only the first asking throws; a Redis that is away ends no wait. */
  ended(id: JobId): () => Promise<boolean> {
    let first = true;
    return async () => {
      const looked = first ? this.watch(id) : this.glance(id).catch(() => ({ state: "queued" as const }));
      first = false;
      const seen = await looked;
      return !seen || isTerminal(seen.state);
    };
  }

  /** What GET /jobs/{id}/result needs. The bytes are there unless they lie in a file. */
  async result(id: JobId) {
    const key = keysOf(serviceOf(id)).job(id);
    const names = [FIELD.head, FIELD.rev, FIELD.error, FIELD.due];
    const f = await this.ask(() =>
      this.redis.hmgetBuffer(key, ...names, ...[FIELD.resultType, FIELD.keptType], ...RESULT_SIZES, ...RESULT_BYTES),
    );
    const [h, rev, error, due, resultType, keptType, resultSize, keptSize] = f
      .slice(0, 8)
      .map((value) => value?.toString());
    const head = parseHead(h);
    if (!head) return undefined;
    const { state, start, sequence, operation } = head;
    const unverified = state === "failed" && keptType !== undefined;
    return {
      id,
      state,
      sequence,
      operation,
      started: start?.started,
      due: state === "scheduled" ? numberOf(due) : undefined,
      rev: revOf(head, rev),
      /** what is here is an unreadable 2xx that a failed job keeps */
      unverified,
      type: (unverified ? keptType : resultType) ?? "application/json",
      /** of the service's answer */
      status: Number(head.timing?.split(",")[2] ?? 200),
      fileBytes: numberOf(unverified ? keptSize : resultSize),
      error: isTerminal(state) ? json<JobError>(error) : undefined,
      token: start?.token ?? "",
      bytes: f[unverified ? 9 : 8] ?? undefined,
    };
  }

  /** The whole record, result bytes and all. @returns undefined when there is none */
  async record(id: JobId): Promise<JobRecord | undefined> {
    const flat = await this.ask(() => this.redis.hgetallBuffer(keysOf(serviceOf(id)).job(id)));
    const text = (field: string) => flat[field]?.toString();
    const head = parseHead(text(FIELD.head));
    if (!head) return undefined;
    const { state, start } = head;
    const log = attemptsIn(text(FIELD.log));
    const ended = isTerminal(state) ? head.ended : undefined;
    if (state === "finished" && start && ended !== undefined) {
      const { attempt, worker = "", started } = start;
      log.push({ attempt, worker, started, ended, outcome: "finished" });
    }
    const timing = head.timing?.split(",");
    const inline = flat[FIELD.result];
    return {
      id,
      service: serviceOf(id),
      operation: head.operation,
      state,
      created: head.created,
      sequence: head.sequence,
      rev: revOf(head, text(FIELD.rev)),
      priority: Number(text(FIELD.priority) ?? 5),
      ahead: state === "queued" ? await this.ahead(id, numberOf(text(FIELD.priority))) : undefined,
      attempt: attemptsOf(head, text(FIELD.attempt)),
      redeliveries: Number(text(FIELD.redeliveries) ?? 0),
      run: Number(text(FIELD.run) ?? 0),
      payload: text(FIELD.payload),
      options: json<JobOptions>(text(FIELD.options)) ?? {},
      worker: start?.worker,
      started: start?.started,
      deadline: state === "started" ? start?.deadline : undefined,
      ended,
      due: state === "scheduled" ? numberOf(text(FIELD.due)) : undefined,
      result: state === "finished" ? inline : undefined,
      resultType: text(FIELD.resultType) ?? "application/json",
      resultSize: numberOf(text(FIELD.resultSize)) ?? inline?.length,
      resultFile: resultFileOf(head, text(FIELD.resultType), numberOf(text(FIELD.resultSize))),
      kept:
        state === "failed" ? keptOf(text(FIELD.keptType), numberOf(text(FIELD.keptSize)), flat[FIELD.kept]) : undefined,
      error: isTerminal(state) ? json<JobError>(text(FIELD.error)) : undefined,
      attempts: log,
      timing: timing ? { firstByte: Number(timing[0]), lastByte: Number(timing[1]) } : undefined,
      cancelAsked: state === "started" ? numberOf(text(FIELD.cancel)) : undefined,
      progress: numberOf(text(FIELD.progress)),
      message: state === "started" ? text(FIELD.message) : ended === undefined ? whyAgain(log) : undefined,
      batch: text(FIELD.batch),
    };
  }

  /** Counts of one service in constant time. */
  async counts(service: ServiceName): Promise<Counts> {
    const r = await this.ask(() => countsScript(this.redis, root(service), {}));
    const flat = r[12] as unknown as string[];
    const totals = new Map<string, number>();
    for (let i = 0; i < flat.length; i += 2) totals.set(flat[i] as string, Number(flat[i + 1]));
    const aside: Counts["aside"] = new Map();
    const flatAside = r[13] as unknown as (string | number)[];
    for (let i = 0; i < flatAside.length; i += 3) {
      aside.set(String(flatAside[i]), { jobs: Number(flatAside[i + 1]), since: Number(flatAside[i + 2]) || undefined });
    }
    const n = r as unknown as number[];
    this.time.heard(Number(n[0]));
    return {
      now: Number(n[0]),
      queued: Number(n[1]),
      scheduled: Number(n[2]),
      started: Number(n[3]),
      finished: Number(n[4]),
      failed: Number(n[5]),
      canceled: Number(n[6]),
      paused: n[7] === 1,
      oldest: Number(n[8]) || undefined,
      seq: Number(n[9]),
      head: Number(n[10]),
      workers: Number(n[11]),
      aside,
      urgent: Number(n[14]),
      listed: Number(n[15]),
      totals,
    };
  }

  /** Every service that Redis has heard of; the registry may not know some of them any more. */
  services(): Promise<string[]> {
    return this.ask(() => this.redis.smembers(GLOBAL.services));
  }

  /** Workers whose last beat is younger than `maxAgeMs`. */
  async workers(maxAgeMs: number): Promise<WorkerInfo[]> {
    const { now, workers } = await this.ask(() => announced(this.redis));
    this.time.heard(now);
    return workers.filter(({ beatAt }) => isRecent(beatAt, now, maxAgeMs));
  }

  /** Redis's memory in bytes; `limit` 0 = none. undefined where INFO is barred. */
  async memory(): Promise<{ used: number; limit: number } | undefined> {
    const section = await this.ask(() => info(this.redis, "memory"));
    if (!section) return undefined;
    return { used: Number(section.get("used_memory")), limit: Number(section.get("maxmemory")) };
  }

  /** Round trip to Redis. @throws Fault redis_* */
  async ping(): Promise<void> {
    await this.ask(() => this.redis.ping());
  }
}

/** The fault for an id that names no record. */
export const noJob = (id: string) =>
  new Fault("unknown_job", `There is no job ${id.slice(0, 120)}. It may have expired, or never existed.`);

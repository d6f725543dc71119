/**
 * What a job is: its states, its id and its record.
 *
 *      batch ────────▶ deferred ──committed──▶ queued | scheduled                stage.lua, release.lua
 *                     delay / backoff                due
 *      submit ──────▶ scheduled | deferred ─────────────────▶ queued
 *         └─────────────────────────────────────────────────▶ queued
 *      queued ──take──▶ started ──2xx──▶ finished                               turn.lua
 *                         │ ├─ final error, attempts spent, poison ─▶ failed     turn.lua, reap.lua
 *                         │ ├─ retryable error ─▶ scheduled (backoff)            turn.lua
 *                         │ └─ orphaned, refused, handed back ─▶ queued          turn.lua, reap.lua
 *      queued | scheduled | deferred ──cancel──▶ canceled                        cancel.lua
 *      started ──cancel──▶ started + cancel asked ──call closed──▶ canceled      cancel.lua, turn.lua
 *      failed | canceled ──requeue──▶ queued, a new run                          requeue.lua
 */
import { Buffer } from "node:buffer";
import type { JobError } from "./faults.ts";

export const STATES = ["scheduled", "deferred", "queued", "started", "finished", "failed", "canceled"] as const;
export type State = (typeof STATES)[number];

/** I3: these change only by an explicit requeue. I6: only these carry a TTL. */
export const TERMINAL = ["finished", "failed", "canceled"] as const satisfies State[];
export type Terminal = (typeof TERMINAL)[number];
export const isTerminal = (state: State): state is Terminal => (TERMINAL as readonly State[]).includes(state);

declare const brand: unique symbol;
type Brand<T extends string> = string & { readonly [brand]: T };
export type JobId = Brand<"job">;
export type BatchId = Brand<"batch">;
export type ServiceName = Brand<"service">;
export type WorkerId = Brand<"worker">;

/** Names of services and operations. They stand in keys, so nothing else may pass. */
export const NAME = /^[a-z0-9-]{1,64}$/;
const JOB_ID = /^[a-z0-9-]{1,64}_(?:[0-9A-Za-z]{22}|cron-[a-z0-9-]{1,64}-[0-9]{1,13})$/;

export const serviceName = (text: string): ServiceName => {
  if (!NAME.test(text)) throw new TypeError(`not a service name: ${JSON.stringify(text)}`);
  return text as ServiceName;
};

/** @returns the id, or undefined when the text cannot be one (so no key is ever made of it) */
export const jobId = (text: string): JobId | undefined => (JOB_ID.test(text) ? (text as JobId) : undefined);
export const serviceOf = (id: JobId): ServiceName => id.slice(0, id.indexOf("_")) as ServiceName;

/**
 * Where the large results of a job lie on the volume: one file an attempt, named by its token. The record's token names
 * the one that counts, so a worker that comes back too late overwrites nothing (I4); the folder goes with the record.
 */
export const resultDir = (resultsDir: string, id: JobId) => `${resultsDir}/${serviceOf(id)}/${id}`;

const BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/** of a random byte; 248 = 4 × 62: a plain modulo of all 256 would favour the first ones */
const CODES = Uint8Array.from({ length: 248 }, (_, byte) => BASE62.charCodeAt(byte % 62));
let pool = "";
let used = 0;

/** Random base62 text, at most 1,000 characters. 22 hold 131 bits: ids cannot be guessed or enumerated. */
export function random62(length: number): string {
  if (used + length > pool.length) {
    const bytes = crypto.getRandomValues(Buffer.alloc(4_096));
    let n = 0;
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i] as number;
      if (byte < 248) bytes[n++] = CODES[byte] as number;
    }
    pool = bytes.toString("latin1", 0, n);
    used = 0;
  }
  used += length;
  return pool.slice(used - length, used);
}

export const newJobId = (service: ServiceName): JobId => `${service}_${random62(22)}` as JobId;
export const newBatchId = (): BatchId => `batch_${random62(22)}` as BatchId;
/** @returns the id, or undefined when the text cannot be one */
export const batchId = (text: string): BatchId | undefined =>
  /^batch_[0-9A-Za-z]{22}$/.test(text) ? (text as BatchId) : undefined;
export const newWorkerId = (): WorkerId => random62(9) as WorkerId;

/**
 * The fields of a record in Redis, short because every job pays for their names (performance.md §2),
 * most of them absent most of the time. Lua and store/ spell them from here; protocol.md lists them.
 */
export const FIELD = {
  /** state, operation, times, token: what every job has, see parseHead */
  head: "h",
  /** revision of the last change that is neither a start nor an end, see revOf */
  rev: "v",
  payload: "p",
  /** JSON of JobOptions, opaque to Lua */
  options: "o",
  /** 0–9, absent = 5 */
  priority: "pri",
  /** attempts of this run that were spent before the one that runs, or ended the job */
  attempt: "a",
  /** redeliveries in this run: more than 3 are poison */
  redeliveries: "d",
  /** of a job that may be called once: the token of the attempt that was called */
  calledOnce: "one",
  /** requeues so far */
  run: "g",
  /** due time of a scheduled job, ms */
  due: "due",
  /** set when a scheduled job rejoins at the taking end */
  near: "nr",
  /** the answer, as received */
  result: "r",
  /** its content type, absent = application/json */
  resultType: "rt",
  /** bytes of an answer that lies in RESULTS_DIR */
  resultSize: "rf",
  /** the bytes of an unreadable 2xx, kept with a failed job, and their type; `kf` bytes when they lie in RESULTS_DIR */
  kept: "k",
  keptType: "kt",
  keptSize: "kf",
  /** JSON of JobError */
  error: "err",
  /** earlier attempts, one JSON object a line */
  log: "log",
  /** cancel asked for, ms */
  cancel: "x",
  /** a canceled job whose list entry is still there (rule 8): ms it lives once the entry is dropped */
  listed: "l",
  progress: "pg",
  message: "pm",
  /** somebody waits: publish the end */
  watched: "w",
  /** effects of the end for elsewhere: c = callback, b = batch */
  effects: "ef",
  /** batch id */
  batch: "b",
  /** ms, only when the job has its own time limit or its own life of the result */
  timeout: "to",
  ttl: "tt",
} as const;

/**
 * The field `h`. Its form is told in lua/lib/head.lua; times in ms since 1970 by Redis TIME.
 * - `sequence`: order within the service; its distance from counts.head estimates the position
 * - `ended`: the last end, also of a canceled job that is still listed
 * - `timing`: ms from start to the answer's first byte and to its last one, "12,40", and its status if it is not 200, "12,40,201"
 * - `start`: the last one; its token is attempt.worker.random, or "attempt." once void
 */
export function parseHead(h: string | null | undefined) {
  if (!h) return undefined;
  const [first = "", start, end = ""] = h.split("|");
  const words = first.split(" ");
  const state = words.length > 3 ? words[0] : end ? "finished" : start ? "started" : "queued";
  const [sequence, created, operation] = words.slice(-3);
  const [ended, timing] = end.split(" ");
  return {
    state: state as State,
    sequence: Number(sequence),
    created: Number(created),
    operation: operation as string,
    start: start ? parseStart(start) : undefined,
    ended: ended ? Number(ended) : undefined,
    timing: timing || undefined,
  };
}
export type Head = NonNullable<ReturnType<typeof parseHead>>;

function parseStart(text: string) {
  const [started, deadline, rev, token = ""] = text.split(" ");
  const [attempt, worker] = token.split(".");
  return {
    started: Number(started),
    deadline: Number(deadline),
    rev: Number(rev),
    token,
    attempt: Number(attempt),
    worker: worker || undefined,
  };
}

/** The revision, raised by every change that a client can see: ETag and id of an event. As lua/lib/head.lua has it. */
export const revOf = ({ state, start }: Head, v: string | null | undefined) =>
  Math.max(Number(v ?? 0), start?.rev ?? 0) + (isTerminal(state) ? 1 : 0);

/** Attempts of this run that were spent, the running one among them. */
export const attemptsOf = ({ state, start }: Head, a: string | null | undefined) =>
  start && (state === "started" || state === "finished" || state === "failed") ? start.attempt : Number(a ?? 0);

/** What a client may ask of one job beside its payload. Times in ms; absent = the operation's default. */
export type JobOptions = {
  retries?: number;
  backoff?: number;
  tags?: string[];
  callback?: string;
  trace?: string;
  traceState?: string;
  /** the client asked for another time limit or life of the result: for display, the truth is in `to` and `tt` */
  timeout?: number;
  resultTtl?: number;
  /** headers of the client that are passed on. Secrets, and always the last key: a search leaves out what follows (cards.lua) */
  headers?: Record<string, string>;
};

/** One ended attempt. Times in ms since 1970. */
export type Attempt = {
  attempt: number;
  worker: string;
  started: number;
  ended: number;
  outcome: string;
  message?: string;
  http_status?: number;
};

/** Why a job waits for another attempt, from those that have ended; undefined when none has failed yet. */
export function whyAgain(attempts: readonly Attempt[]): string | undefined {
  const last = attempts.at(-1);
  if (!last) return undefined;
  const { attempt, outcome, message } = last;
  return `waits to be tried again: attempt ${attempt} ${message ? `ended with: ${message}` : `was ${outcome}`}`;
}

/** A result in RESULTS_DIR: the token of the attempt names the file. */
export type ResultFile = { token: string; bytes: number };

/** A record, read. Absent fields are undefined; payload and result stay text or bytes. */
export type JobRecord = {
  id: JobId;
  service: ServiceName;
  operation: string;
  state: State;
  created: number;
  sequence: number;
  rev: number;
  priority: number;
  /** jobs that are taken before a queued one of another priority; undefined = its sequence tells */
  ahead: number | undefined;
  attempt: number;
  redeliveries: number;
  run: number;
  payload: string | undefined;
  options: JobOptions;
  worker: string | undefined;
  started: number | undefined;
  deadline: number | undefined;
  ended: number | undefined;
  due: number | undefined;
  result: Uint8Array | undefined;
  resultType: string;
  /** bytes, wherever they lie; undefined = no result */
  resultSize: number | undefined;
  /** where a JSON result lies that is not in the record; undefined = none does */
  resultFile: ResultFile | undefined;
  /** an unreadable 2xx that a failed job keeps: its bytes are at /jobs/{id}/result */
  kept: { type: string; sizeBytes: number } | undefined;
  error: JobError | undefined;
  attempts: Attempt[];
  /** ms from start to first and last byte of the answer */
  timing: { firstByte: number; lastByte: number } | undefined;
  cancelAsked: number | undefined;
  progress: number | undefined;
  message: string | undefined;
  batch: string | undefined;
};

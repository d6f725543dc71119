/**
 * The limit of working with a job's own call: its headers, its time limit, its cancel, its answer checked, but no queue.
 * What a worker of these packages could reach if Redis and its turns cost nothing. SERVICE_URL, JOBS, CONCURRENCY → calls a second.
 */
import { Abort } from "../../shared/abort.ts";
import { call } from "../../shared/call.ts";
import { newJobId, type ServiceName } from "../../shared/jobs.ts";
import type { Taken } from "../../shared/store/consume.ts";
import { headersOf } from "../../shared/told.ts";

const body = process.env.BODY as string;
const jobs = Number(process.env.JOBS);
const started = Date.now();
const accepts: string[] = [];
const make = async () => {
  const id = newJobId("noop" as ServiceName);
  const job = { id, token: "", operation: "noop", attempt: 1, run: 0, redeliveries: 0, payload: body, options: "" };
  const taken: Taken = { ...job, started, created: started, deadline: started + 3_600_000 };
  const outcome = await call({
    service: "noop",
    url: `${process.env.SERVICE_URL}/noop`,
    body,
    headers: headersOf(taken, {}, undefined),
    timeoutMs: 3_600_000,
    abort: new Abort(),
    accepts,
    maxResultBytes: 1e9,
    retry500: false,
    freshConnection: false,
    keepAlive: false,
    connectTimeoutMs: 10_000,
    log: console.log,
  });
  if (outcome.kind !== "finished") throw new Error(`the call came to ${outcome.kind}`);
};
let left = jobs;
const start = performance.now();
await Promise.all(
  Array.from({ length: Number(process.env.CONCURRENCY) }, async () => {
    while (left-- > 0) await make();
  }),
);
console.log(Math.round(jobs / ((performance.now() - start) / 1_000)));

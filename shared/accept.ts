/** Takes one job in and answers: 202 with where to look and when, or its end for a client that waits for it. */

import { type Gateway, jsonText, matches, revised, tagOf } from "./app.ts";
import { baseOf } from "./base-path.ts";
import { checkCallbackNames } from "./callback.ts";
import { Fault } from "./faults.ts";
import { withResultFile } from "./inline-result.ts";
import { type JobId, serviceOf } from "./jobs.ts";
import { serviceAnswer } from "./service-answer.ts";
import { againOf, againS, forecast, type Shown, statusText, statusWord } from "./show.ts";
import { etaS, type Snapshot } from "./snapshot.ts";
import { noJob } from "./store/inspect.ts";
import type { NewJob } from "./store/produce.ts";

/** From 80 % of maxmemory on nothing new comes in, so that what is running can still end (protocol.md §4). */
export function refuseWhenFull({ snapshots }: Gateway): void {
  const memory = snapshots.peek()?.memory;
  if (memory && memory.limit > 0 && memory.used > 0.8 * memory.limit) {
    throw new Fault(
      "memory_full",
      "Redis has used 80 % of its memory; results must expire before more jobs are taken.",
      { retryAfterS: 30 },
    );
  }
}

/** of the last snapshot, by operation: every submit asks, and within a second the answer is the same */
let lasts: { of: Snapshot; etaS: Map<string, number> } | undefined;

/** s until a job that comes now is likely to be done; 1 while nothing is known. */
function etaOfLast({ snapshots }: Gateway, { id, operation }: NewJob): number {
  const snapshot = snapshots.peek();
  if (!snapshot) return 1;
  if (lasts?.of !== snapshot) lasts = { of: snapshot, etaS: new Map() };
  let eta = lasts.etaS.get(operation);
  if (eta === undefined) {
    const service = serviceOf(id);
    const state = snapshot.services.find((s) => s.service === service);
    eta = state ? etaS(state, operation, state.counts.queued) : 1;
    lasts.etaS.set(operation, eta);
  }
  return eta;
}

/**
 * Submits a checked job.
 * @param replyWaitMs  of an operation that replies with its result: how long it waits for the end when the request says nothing of waiting
 * @param waits  whether the client's wait is still to come
 * @throws Fault, see Producer.submit
 */
export async function accept(
  gateway: Gateway,
  request: Request,
  job: NewJob,
  replyWaitMs?: number,
  waits = true,
): Promise<Response> {
  refuseWhenFull(gateway);
  if (job.options?.callback) await checkCallbackNames([job], gateway.config);
  const { id, replayed } = await gateway.producer.submit(job);
  const headers: Record<string, string> = { location: `/jobs/${id}` };
  if (replayed) headers["idempotent-replayed"] = "true";
  // A job that is to run later is not waited for, unless the request asks for it.
  const ownWaitMs = (job.due || job.delayMs) && !replayed ? 0 : replyWaitMs;
  // A fault of the wait ends no submit that was accepted: whoever cannot wait polls.
  const wait = waits ? gateway.hold?.(request, id, gateway.inspector.ended(id), ownWaitMs) : undefined;
  const held = wait && (await wait.catch(() => undefined));
  Object.assign(headers, held?.headers);
  if (held?.ended) {
    try {
      if (replyWaitMs !== undefined) return await serviceAnswer(gateway, id, new URL(request.url).pathname, headers);
      return await showStatus(gateway, request, id, headers);
    } catch (error) {
      if (!(error instanceof Fault) || error.code !== "unknown_job") throw error;
      // Erased while we waited. The key of an earlier job stands for nothing then, and starts this one.
      if (replayed) return accept(gateway, request, job, replyWaitMs, false);
    }
  }
  // The one that an Idempotency-Key stands for may be due before this one would be.
  const dueMs = job.delayMs ?? (job.due === undefined ? 0 : job.due - gateway.snapshots.now());
  const waitS = dueMs > 0 && !replayed ? againS(null, dueMs) : etaOfLast(gateway, job);
  headers["retry-after"] = String(waitS);
  // an id has nothing that JSON escapes
  // A new job is as it was sent; another may have gone on since, and so may one that was waited for.
  const seen = wait || replayed ? await gateway.inspector.glance(id).catch(() => undefined) : undefined;
  const state = seen ? statusWord(seen.state) : dueMs > 0 ? "scheduled" : "queued";
  return jsonText(`{"job_id":"${id}","status":"${state}"}`, 202, headers);
}

/**
 * The status in its old shape.
 * @param links  whether a result that lies in a file is named instead of being there
 * @throws Fault unknown_job
 */
export async function showStatus(
  gateway: Gateway,
  request: Request,
  id: JobId,
  headers: Record<string, string> = {},
  links = false,
): Promise<Response> {
  // Who has a revision most likely has this one: its result, which may be large, is read only when it has not.
  const had = request.headers.get("if-none-match");
  let status = await gateway.inspector.status(id, had === null);
  if (status && had !== null && !matches(had, tagOf(status.rev))) status = await gateway.inspector.status(id);
  if (!status) throw noJob(id);
  const again = againOf(gateway, status);
  const shown = status;
  const all = { ...headers, ...(again === undefined ? {} : { "retry-after": String(again) }) };
  const text = (result?: Shown) => statusText(shown, forecast(gateway, shown), baseOf(request), result);
  const { rev, resultFile: file } = status;
  if (file && !links) return withResultFile(gateway, request, { id, rev, file }, text, all);
  return revised(request, rev, text, all);
}

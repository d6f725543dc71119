/** Takes one job in and answers: 202 with where to look and when, or its end for a client that waits for it. */
import { type Gateway, jsonText, matches, revised, tagOf } from "./app.ts";
import { Fault } from "./faults.ts";
import { isTerminal, type JobId, serviceOf } from "./jobs.ts";
import { againS, estimate, forecast, statusText } from "./show.ts";
import { etaS } from "./snapshot.ts";
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

/** Submits a checked job. @throws Fault, see Producer.submit */
export async function accept(gateway: Gateway, request: Request, job: NewJob): Promise<Response> {
  refuseWhenFull(gateway);
  const { id, replayed } = await gateway.producer.submit(job);
  const headers = { location: `/jobs/${id}`, ...(replayed ? { "idempotent-replayed": "true" } : {}) };
  // A fault of the wait ends no submit that was accepted: whoever cannot wait polls.
  const held = await gateway.hold?.(request, id, gateway.inspector.ended(id))?.catch(() => undefined);
  if (held?.ended) return showStatus(gateway, request, id, { ...headers, ...held.headers });
  const service = serviceOf(id);
  const state = gateway.snapshots.peek()?.services.find((s) => s.service === service);
  const etaOfLast = state ? etaS(state, job.operation, state.counts.queued) : 1;
  // The one that an Idempotency-Key stands for may be due before this one would be.
  const waitS = job.due && !replayed ? againS(null, job.due) : etaOfLast;
  // an id has nothing that JSON escapes
  return jsonText(`{"job_id":"${id}","status":"${job.due ? "scheduled" : "queued"}"}`, 202, {
    ...headers,
    ...held?.headers,
    "retry-after": String(waitS),
  });
}

/** The status in its old shape. @throws Fault unknown_job */
export async function showStatus(
  gateway: Gateway,
  request: Request,
  id: JobId,
  headers: Record<string, string> = {},
): Promise<Response> {
  // Who has a revision most likely has this one: its result, which may be large, is read only when it has not.
  const had = request.headers.get("if-none-match");
  let status = await gateway.inspector.status(id, had === null);
  if (status && had !== null && !matches(had, tagOf(status.rev))) status = await gateway.inspector.status(id);
  if (!status) throw noJob(id);
  const again = isTerminal(status.state)
    ? {}
    : { "retry-after": String(againS(estimate(gateway, status).eta_s, status.due)) };
  const shown = status;
  return revised(request, status.rev, () => statusText(shown, forecast(gateway, shown)), { ...headers, ...again });
}

/** GET /batches/{id}: counts by state and the failed ids; with a wait it answers when all members have ended. */
import { allow, type Gateway, jsonText, newApp } from "../app.ts";
import { Fault } from "../faults.ts";
import { type BatchId, batchId, type ServiceName } from "../jobs.ts";
import { iso } from "../show.ts";
import { type Batch, BatchView } from "../store/batch-view.ts";

/** ms; who asks for the same batch within it gets the same look, so that viewers cost nothing. */
const SHARED_MS = 1_000;
const MAX_SHARED = 1_000;

export function batches(gateway: Gateway) {
  const view = new BatchView(gateway.inspector.redis);
  const shared = new Map<string, { until: number; look: Promise<Batch | undefined> }>();
  const none = (text: string) =>
    new Fault("unknown_batch", `There is no batch ${text.slice(0, 120)}. It may have expired, or was never accepted.`);

  const app = newApp();
  app.get("/batches/:id", async (c) => {
    allow(gateway, c, "read");
    const id = batchId(c.req.param("id"));
    if (!id) throw none(c.req.param("id"));
    const services = await view.services(id);
    if (!services) throw none(id);
    const held = await gateway.hold?.(c.req.raw, id, async () => !(await view.left(id, services)));
    if (held?.ended) shared.delete(id);
    const batch = await look(id, services);
    if (!batch) throw none(id);
    return jsonText(
      JSON.stringify({ ...shown(batch), ...(c.req.query("ids") === undefined ? {} : { job_ids: await view.ids(id) }) }),
      200,
      {
        "cache-control": "private, no-cache",
        ...(batch.left > 0 ? { "retry-after": "1" } : {}),
        ...held?.headers,
      },
    );
  });

  function look(id: BatchId, services: ServiceName[]): Promise<Batch | undefined> {
    const now = performance.now();
    const known = shared.get(id);
    if (known && known.until > now) return known.look;
    if (shared.size >= MAX_SHARED) shared.clear();
    const fresh = view.read(id, services);
    shared.set(id, { until: now + SHARED_MS, look: fresh });
    fresh.catch(() => shared.delete(id));
    return fresh;
  }
  return app;
}

const shown = (batch: Batch) => ({
  batch_id: batch.id,
  status: batch.left === 0 ? "done" : "running",
  done: batch.left === 0,
  total: batch.total,
  counts: batch.counts,
  progress: (batch.total - batch.left) / batch.total,
  created_at: iso(batch.created),
  ended_at: iso(batch.ended),
  failed_ids: batch.failed,
});

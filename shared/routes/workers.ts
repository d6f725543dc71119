/** GET /workers: who works, on what, and since when. */
import { allow, type Gateway, jsonText, newApp } from "../app.ts";
import { iso } from "../show.ts";
import type { WorkerInfo } from "../store/inspect.ts";

export function workers(gateway: Gateway) {
  const app = newApp();
  app.get("/workers", async (c) => {
    allow(gateway, c, "read");
    const { workers } = await gateway.snapshots.get();
    return jsonText(JSON.stringify({ workers: workers.map(shown) }), 200, { "cache-control": "private, no-cache" });
  });
  return app;
}

const shown = ({
  id,
  host,
  pid,
  version,
  runtime,
  startedAt,
  beatAt,
  state,
  rssBytes,
  results,
  lanes,
}: WorkerInfo) => ({
  worker: id,
  host,
  pid,
  version,
  runtime,
  state,
  started_at: iso(startedAt),
  beat_at: iso(beatAt),
  rss_bytes: rssBytes,
  // why it cannot keep large results
  results_fault: results ?? null,
  services: Object.fromEntries(
    Object.entries(lanes).map(([service, { slots, busy, operations, parked, since, runs = [] }]) => [
      service,
      {
        slots,
        busy,
        operations: operations ?? null,
        parked: parked === undefined ? null : { reason: parked, since: iso(since) },
        runs: runs.map((run) => ({ job_id: run.id, operation: run.op, started_at: iso(run.since) })),
      },
    ]),
  ),
});

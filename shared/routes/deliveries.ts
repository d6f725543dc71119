/** GET /jobs/{id}/deliveries: the last tries of a job's callback, and when the next one is due. */
import { allow, type Gateway, idOf, jsonText, newApp } from "../app.ts";
import { iso } from "../show.ts";
import { noJob } from "../store/inspect.ts";
import { Outbox } from "../store/outbox.ts";

export function deliveries(gateway: Gateway) {
  const { inspector } = gateway;
  const box = new Outbox(inspector.redis);
  const app = newApp();
  app.get("/jobs/:id/deliveries", async (c) => {
    allow(gateway, c, "read");
    const id = idOf(c.req.param("id"));
    const record = await inspector.record(id);
    if (!record) throw noJob(id);
    const [tries, next] = await inspector.ask(() => Promise.all([box.deliveries(id), box.nextTry(id)]));
    const body = {
      job_id: id,
      callback_url: record.options.callback ?? null,
      delivered: tries.some((line) => line.ok && line.rev === record.rev),
      next_at: iso(next),
      deliveries: tries.map(({ at, rev, gaveUp, ...line }) => ({
        at: iso(at),
        webhook_id: `${id}.${rev}`,
        ...line,
        ...(gaveUp ? { gave_up: true } : {}),
      })),
    };
    return jsonText(JSON.stringify(body), 200, { "cache-control": "private, no-cache" });
  });
  return app;
}

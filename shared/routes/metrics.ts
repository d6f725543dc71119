/** What machines read: Prometheus text, and how many workers there should be. */
import { allow, type Gateway, newApp } from "../app.ts";
import { autoscale, Metrics } from "../metrics.ts";

export function metrics(gateway: Gateway) {
  const app = newApp();
  const all = new Metrics();
  app.get("/metrics", async (c) => {
    allow(gateway, c, "read");
    // a scrape is not refused because Redis is away: that is what longhaul_redis_up tells
    const snapshot = await gateway.snapshots.get().catch(() => undefined);
    return c.body(await all.text(snapshot), 200, { "content-type": all.contentType, "cache-control": "no-store" });
  });
  app.get("/autoscale", async (c) => {
    allow(gateway, c, "read");
    return c.json(autoscale(await gateway.snapshots.get(), gateway.config), 200, { "cache-control": "no-store" });
  });
  return app;
}

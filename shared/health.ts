/** /health in its old shape, /livez and /readyz. Never slower than 2 s, never an error because Redis is down. */
import { type Gateway, newApp } from "./app.ts";
import { problem, toFault } from "./problem.ts";
import { within } from "./store/redis.ts";

export function health(gateway: Gateway, warnings: () => string[]) {
  const app = newApp();
  app.get("/livez", (c) => c.json({ status: "alive" }));
  app.get("/readyz", async (c) => {
    try {
      await gateway.inspector.ping();
      return c.json({ status: "ready" });
    } catch (error) {
      return problem(toFault(error), "/readyz");
    }
  });
  app.get("/health", async (c) => {
    try {
      const snapshot = await within(1_800, gateway.snapshots.get(0));
      const services: Record<string, string> = { "api-gateway": "healthy", redis: "healthy" };
      if (warnings().length) services.redis = `degraded (${warnings().join("; ")})`;
      const memory = snapshot.memory;
      if (memory && memory.limit > 0 && memory.used > 0.8 * memory.limit) {
        services.redis = `degraded (${Math.round((100 * memory.used) / memory.limit)} % of its memory used; submits are refused)`;
      }
      for (const { service, standing } of snapshot.services) {
        if (standing.word !== "not deployed") services[service] = standing.text;
      }
      const well = Object.values(services).every((text) => /^(healthy|waiting)/.test(text));
      return c.json({ status: well ? "healthy" : "degraded", services });
    } catch {
      return c.json({
        status: "unhealthy",
        services: { "api-gateway": "healthy", redis: "unhealthy (it does not answer)" },
      });
    }
  });
  return app;
}

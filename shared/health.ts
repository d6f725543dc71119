/** /health in its old shape, /livez and /readyz. Never slower than 2 s, never an error because Redis is down. */
import { access, constants } from "node:fs/promises";
import { unwritable } from "./alerts.ts";
import { type Gateway, newApp } from "./app.ts";
import { Fault } from "./faults.ts";
import { problem, toFault } from "./problem.ts";
import { whyNotWritten } from "./result-file.ts";
import type { Snapshot } from "./snapshot.ts";
import { within } from "./store/redis.ts";

export function health(gateway: Gateway, warnings: () => string[]) {
  const app = newApp();
  app.get("/livez", (c) => c.json({ status: "alive" }));
  app.get("/readyz", async (c) => {
    if (gateway.leaving.aborted) {
      const why = "This gateway has been told to stop. Send new requests to another one, or come again in a moment.";
      return problem(new Fault("stopping", why, { retryAfterS: 2 }), "/readyz");
    }
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
      const own = gateway.leaving.aborted ? "stopping" : "healthy";
      const services: Record<string, string> = { "api-gateway": own, redis: "healthy" };
      if (warnings().length) services.redis = `degraded (${warnings().join("; ")})`;
      const memory = snapshot.memory;
      if (memory && memory.limit > 0 && memory.used > 0.8 * memory.limit) {
        services.redis = `degraded (${Math.round((100 * memory.used) / memory.limit)} % of its memory used; submits are refused)`;
      }
      for (const { service, standing } of snapshot.services) {
        if (standing.word !== "not deployed") services[service] = standing.text;
      }
      const results = await unfitResults(gateway.config.resultsDir, snapshot.workers);
      if (results) services.RESULTS_DIR = `degraded (${results})`; // in capitals, as no service can be named
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

/** Why large results are not kept or not found; undefined = all is well. Workers say whether they can write, this gateway whether it can read. */
async function unfitResults(resultsDir: string, workers: Snapshot["workers"]): Promise<string | undefined> {
  const unwritten = unwritable(workers);
  if (unwritten !== undefined) return unwritten;
  try {
    // A network volume that is away lets its callers wait for ever, and /health answers within 2 s.
    await within(500, access(resultsDir, constants.R_OK | constants.X_OK));
    return undefined;
  } catch (error) {
    if (error instanceof Fault) return "this gateway cannot read RESULTS_DIR: no answer for 500 ms";
    // A worker makes the directory at its start; before that there is nothing to read.
    if (workers.length === 0 && (error as { code?: string }).code === "ENOENT") return undefined;
    return `this gateway cannot read RESULTS_DIR: ${whyNotWritten(error)}; it must be the one that the workers write`;
  }
}

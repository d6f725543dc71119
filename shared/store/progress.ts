/** What a microservice says of its own work while a call runs. */
import type { JobId, ServiceName } from "../jobs.ts";
import { root } from "../keys.ts";
import { type Connection, script } from "../script.ts";

const progressScript = script<{ id: "text"; token: "text"; progress: "text"; message: "text" }, "ok" | "lost" | "gone">(
  "progress",
  { id: "text", token: "text", progress: "text", message: "text" },
);

/** Notes it; any process may, the token decides. @param progress  0–1 as text, "" = unchanged @param message  "" = unchanged */
export function reportProgress(
  redis: Connection,
  service: ServiceName,
  id: JobId,
  token: string,
  progress: string,
  message: string,
) {
  return progressScript(redis, root(service), { id, token, progress, message });
}

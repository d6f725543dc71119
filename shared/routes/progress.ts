/** What the microservice is given as X-Progress-Url. The attempt's token in it is the authorization. */
import { z } from "zod";
import { type Gateway, idOf, jsonText, newApp } from "../app.ts";
import { Fault } from "../faults.ts";
import { serviceOf } from "../jobs.ts";
import { parseJson } from "../json.ts";
import { noJob } from "../store/inspect.ts";
import { reportProgress } from "../store/progress.ts";
import { fit, readBody } from "../submit.ts";

/** The body of POST /jobs/{id}/progress. */
export const PROGRESS = z.strictObject({
  progress: z.number().min(0).max(1).optional(),
  message: z.string().max(500).optional(),
});

/** Bytes. The token is looked at after the body is read, so that whoever has none can make us hold this much only. */
const MAX_BYTES = 8_192;

export function progress({ config, inspector }: Gateway) {
  const app = newApp();
  app.post("/jobs/:id/progress", async (c) => {
    const id = idOf(c.req.param("id"));
    const token = c.req.query("t") ?? "";
    const body = parseJson(await readBody(c.req.raw, MAX_BYTES, ""), config.maxJsonDepth);
    const { progress, message } = fit(PROGRESS, body, "The progress");
    const reply = await inspector.ask(() =>
      reportProgress(
        inspector.redis,
        serviceOf(id),
        id,
        token,
        progress === undefined ? "" : String(progress),
        message ?? "",
      ),
    );
    if (reply === "gone") throw noJob(id);
    if (reply === "lost") throw new Fault("wrong_state", "That attempt is over; nothing was noted.");
    return jsonText(JSON.stringify({ job_id: id }));
  });
  return app;
}

/** GET /jobs/{id}/result: the microservice's answer as it was, its type and its bytes. */
import { stat } from "node:fs/promises";
import { allow, type Gateway, idOf, newApp } from "../app.ts";
import { Fault } from "../faults.ts";
import { resultDir } from "../jobs.ts";
import { answer } from "../range.ts";
import { fileBody } from "../runtime.ts";
import { againOf } from "../show.ts";
import { noJob } from "../store/inspect.ts";

export function result(gateway: Gateway) {
  const { config, inspector } = gateway;
  const app = newApp();
  app.get("/jobs/:id/result", async (c) => {
    allow(gateway, c, "read");
    const id = idOf(c.req.param("id"));
    const held = await gateway.hold?.(c.req.raw, id, inspector.ended(id));
    const found = await inspector.result(id);
    if (!found) throw noJob(id);
    const { state, bytes, fileBytes } = found;
    if (state !== "finished") {
      const again = againOf(gateway, found);
      const why = found.error ? `: ${found.error.message}` : "";
      throw new Fault("wrong_state", `Job ${id} is ${state}${why}; only a finished job has a result.`, {
        members: { state },
        ...(again === undefined ? {} : { retryAfterS: again }),
      });
    }
    // Nothing of a microservice may act in a browser in the gateway's name, an HTML report least of all.
    const headers = {
      "content-type": found.type,
      "content-security-policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
      "cache-control": "private, no-cache",
      ...held?.headers,
    };
    const etag = `"${found.rev}"`; // strong: a result changes only by a requeue, which is a new revision
    if (fileBytes === undefined) {
      const whole = bytes ?? new Uint8Array(0);
      return answer(c.req.raw, {
        sizeBytes: whole.length,
        etag,
        headers,
        body: (start, end) => whole.subarray(start, end) as Uint8Array<ArrayBuffer>,
      });
    }
    // Built from the id, whose form was checked, and the record's token: no text of a client reaches the path.
    const path = `${resultDir(config.resultsDir, id)}/${found.token}`;
    const file = await stat(path).catch(() => undefined);
    if (!file || file.size !== fileBytes) {
      throw new Fault(
        "unknown_file",
        `The result of ${id} (${fileBytes} bytes) is not in RESULTS_DIR of this gateway.`,
      );
    }
    return answer(c.req.raw, { sizeBytes: fileBytes, etag, headers, body: (start, end) => fileBody(path, start, end) });
  });
  return app;
}

/** GET /jobs/{id}/result: the microservice's answer as it was, its type and its bytes. */
import { stat } from "node:fs/promises";
import { allow, type Gateway, idOf, newApp } from "../app.ts";
import { Fault } from "../faults.ts";
import { resultDir } from "../jobs.ts";
import { answer, type Content } from "../range.ts";
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
    const { state, bytes, fileBytes, unverified } = found;
    if (state !== "finished" && !unverified) {
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
    // What nobody could read is told by the status, and no browser shows it as a page.
    const request = unverified ? new Request(c.req.raw.url, { method: c.req.method }) : c.req.raw;
    const send = (content: Content) => (unverified ? unreadable(answer(request, content)) : answer(request, content));
    const etag = `"${found.rev}"`; // strong: a result changes only by a requeue, which is a new revision
    if (fileBytes === undefined) {
      const whole = bytes ?? new Uint8Array(0);
      return send({
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
    return send({ sizeBytes: fileBytes, etag, headers, body: (start, end) => fileBody(path, start, end) });
  });
  return app;
}

/** The kept bytes of an answer that was no result. Whole, as they have no ranges: a 206 would read like success. */
function unreadable(whole: Response): Response {
  const headers = new Headers(whole.headers);
  headers.delete("accept-ranges");
  headers.set("x-longhaul-unverified", "1");
  headers.set("content-disposition", "attachment");
  return new Response(whole.body, { status: 422, headers });
}

/** GET /jobs/{id}/result: the microservice's answer as it was, its type and its bytes. */
import { allow, type Gateway, idOf, newApp } from "../app.ts";
import { Fault } from "../faults.ts";
import { answer, type Content } from "../range.ts";
import { ANSWER_HEADERS, resultBytes } from "../service-answer.ts";
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
    const { state, unverified } = found;
    if (state !== "finished" && !unverified) {
      const again = againOf(gateway, found);
      const why = found.error ? `: ${found.error.message}` : "";
      throw new Fault("wrong_state", `Job ${id} is ${state}${why}; only a finished job has a result.`, {
        members: { state },
        ...(again === undefined ? {} : { retryAfterS: again }),
      });
    }
    const headers = { ...ANSWER_HEADERS, "content-type": found.type, ...held?.headers };
    const etag = `"${found.rev}"`; // strong: a result changes only by a requeue, which is a new revision
    const content: Content = { ...(await resultBytes(config, found)), etag, headers };
    if (!unverified) return answer(c.req.raw, content);
    // What nobody could read is told by the status, and no browser shows it as a page.
    return unreadable(answer(new Request(c.req.raw.url, { method: c.req.method }), content));
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

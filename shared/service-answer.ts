/** The service's answer as it was, for those who get it instead of the job: its type, its bytes, and for a POST its status. */
import { stat } from "node:fs/promises";
import type { Config } from "./config.ts";
import { Fault } from "./faults.ts";
import { type JobId, resultDir } from "./jobs.ts";
import { problem } from "./problem.ts";
import { fileBody } from "./runtime.ts";
import { type Inspector, noJob } from "./store/inspect.ts";
import { sizeText } from "./units.ts";

type Result = NonNullable<Awaited<ReturnType<Inspector["result"]>>>;

/** Nothing of a microservice may act in a browser in the gateway's name, an HTML report least of all. */
export const ANSWER_HEADERS = {
  "content-security-policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
  "cache-control": "private, no-cache",
  "x-content-type-options": "nosniff",
};

/** The bytes of a result, wherever they lie. @throws Fault unknown_file when they are gone */
export async function resultBytes({ resultsDir }: Config, { id, token, bytes, fileBytes }: Result) {
  if (fileBytes === undefined) {
    const whole = bytes ?? new Uint8Array(0);
    const body = (start: number, end: number): BodyInit => whole.subarray(start, end) as Uint8Array<ArrayBuffer>;
    return { sizeBytes: whole.length, body };
  }
  // Built from the id, whose form was checked, and the record's token: no text of a client reaches the path.
  const path = `${resultDir(resultsDir, id)}/${token}`;
  const file = await stat(path).catch(() => undefined);
  if (!file || file.size !== fileBytes) {
    const why = `The result of ${id} (${sizeText(fileBytes)}) is not in RESULTS_DIR of this gateway`;
    throw new Fault("unknown_file", `${why}; gateways and workers must share that directory.`);
  }
  return { sizeBytes: fileBytes, body: (start: number, end: number): BodyInit => fileBody(path, start, end) };
}

/** Statuses whose answers have no body. */
const BODILESS = new Set([204, 205, 304]);

/**
 * What an ended job comes to, as the service itself would have answered: its status, type and body. A failure without an answer of the
 * service is a problem.
 * @param instance  path of the request
 * @param headers   further ones
 * @throws Fault unknown_job, unknown_file, redis_*
 */
export async function serviceAnswer(
  { config, inspector }: { config: Config; inspector: Inspector },
  id: JobId,
  instance: string,
  headers: Record<string, string>,
): Promise<Response> {
  const found = await inspector.result(id);
  if (!found) throw noJob(id);
  const { state, error, type, status } = found;
  if (state === "finished") {
    const { sizeBytes, body } = await resultBytes(config, found);
    const all = { ...ANSWER_HEADERS, ...headers, "content-type": type, "content-length": String(sizeBytes) };
    if (BODILESS.has(status)) return new Response(null, { status, headers: { ...ANSWER_HEADERS, ...headers } });
    return new Response(body(0, sizeBytes), { status, headers: all });
  }
  const sent = error?.http_status ?? 0;
  if (error?.answer && sent >= 400)
    return new Response(error.answer.body, {
      status: sent,
      headers: { ...ANSWER_HEADERS, ...headers, "content-type": error.answer.type || "text/plain" },
    });
  return problem(failure(id, state, error, sent), instance, headers);
}

function failure(id: JobId, state: string, error: Result["error"], sent: number): Fault {
  const extra = { members: { job_id: id, ...(error ? { error: error.code } : {}) } };
  if (state === "canceled") return new Fault("wrong_state", `Job ${id} was canceled.`, extra);
  const message = `${error?.message ?? `Job ${id} failed`}.`.replace(/\.\.$/, ".");
  if (error?.code === "timeout") return new Fault("job_timeout", message, extra);
  return new Fault("job_failed", message, sent >= 400 ? { ...extra, status: sent } : extra);
}

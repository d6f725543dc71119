/**
 * The gateway's routes under /api, for the dashboard's page: with the session's caller, secrets hidden in what jobs
 * say, and every action written down with who did it.
 */
import type { Context } from "hono";
import type { Env, Gateway } from "../app.ts";
import type { Caller } from "../auth.ts";
import { auditLog } from "../log.ts";
import { redactJson, secretKeys } from "../redact.ts";
import { Operator } from "../store/operate.ts";

export type Api = { fetch(request: Request, env: Env["Bindings"]): Response | Promise<Response> };

/** What jobs say: payloads, results, errors. A result's own route gives the microservice's bytes as they were. */
const JOBS = /^\/(?:jobs|batches)(?:\/(?!.*\/result$)|$)/;
/** Verbs that their own route writes down (routes/operate.ts). */
const NOTED = /^\/(?:queues|workers)\/|^\/jobs\/bulk(?:\/|$)/;
/** What is done with files, by route. */
const FILES: Record<string, string> = {
  upload: "upload",
  "download-from-url": "fetch file",
  create_download_link: "download",
};
/** Nothing of a microservice or a file may act in the dashboard's name when a browser opens it. */
const SANDBOX = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'";

export function relay(gateway: Gateway, api: Api) {
  const secret = secretKeys(gateway.config.redactKeys);
  const operator = new Operator(gateway.inspector.redis, gateway.config.failureTtlMs, gateway.inspector.time);

  async function note(caller: Caller, method: string, path: string, answer: Response): Promise<void> {
    const { status } = answer;
    if (status >= 400) {
      const { name: who, scope, ip } = caller;
      auditLog.info("refused on the dashboard", { who, scope, ip, method, path, status });
      return;
    }
    if (NOTED.test(path)) return;
    const [, kind = "", id, verb] = path.split("/");
    const ofJob = kind === "jobs" && id;
    const action = ofJob ? (verb ?? method.toLowerCase()) : (FILES[kind] ?? "submit");
    const target = ofJob ? id : (answer.headers.get("location")?.split("/").pop() ?? path.slice(1));
    await operator.note({ who: caller.name, ip: caller.ip, action, target });
  }

  /** Sends a request on to the gateway's app. @param path  of the gateway */
  async function forward(c: Context<Env>, caller: Caller, path: string, request: Request): Promise<Response> {
    const answer = await api.fetch(request, { ip: c.env?.ip ?? "", caller, links: true });
    if (request.method !== "GET" && request.method !== "HEAD") await note(caller, request.method, path, answer);
    const type = answer.headers.get("content-type") ?? "";
    const headers = new Headers(answer.headers);
    headers.set("content-security-policy", SANDBOX);
    // CORS_ORIGINS is for clients with a key: nobody's page reads with a session
    for (const name of [...headers.keys()]) if (name.startsWith("access-control-")) headers.delete(name);
    const isEvents = type.startsWith("text/event-stream");
    if (
      answer.body &&
      !isEvents &&
      !/^application\/(?:[\w.+-]+\+)?json\b/.test(type) &&
      !headers.has("content-disposition")
    ) {
      headers.set("content-disposition", "attachment");
    }
    const init = { status: answer.status, headers };
    if (!JOBS.test(path) || !answer.body) return new Response(answer.body, init);
    headers.delete("content-length");
    if (isEvents) return new Response(answer.body.pipeThrough(hideInEvents(secret)), init);
    return new Response(redactJson(await answer.text(), secret), init);
  }

  return {
    forward,
    /** Answers /api/… */
    answer(c: Context<Env>, caller: Caller): Promise<Response> {
      const url = new URL(c.req.url);
      url.pathname = url.pathname.slice("/api".length);
      const { method, body, signal } = c.req.raw;
      const headers = new Headers(c.req.raw.headers);
      headers.delete("cookie"); // the session is the dashboard's own: no operation may pass it on
      // Bun would read the whole body of a request that is copied, an upload of 2 GiB too: its stream is handed on
      const init = { method, headers, signal, ...(body ? { body, duplex: "half" } : {}) };
      return forward(c, caller, url.pathname, new Request(url, init as RequestInit));
    },
  };
}

/** Hides secrets in a stream of server-sent events. An event's data may lie on several lines; a text never does. */
function hideInEvents(secret: (key: string) => boolean): TransformStream<Uint8Array, Uint8Array> {
  const decoder = new TextDecoder();
  const encoder = new TextEncoder();
  let held = "";
  return new TransformStream({
    transform(chunk, out) {
      held += decoder.decode(chunk, { stream: true });
      for (let end = held.indexOf("\n\n"); end >= 0; end = held.indexOf("\n\n")) {
        out.enqueue(encoder.encode(`${hidden(held.slice(0, end))}\n\n`));
        held = held.slice(end + 2);
      }
    },
  });
  function hidden(event: string): string {
    const lines = event.split("\n");
    const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
    if (data.length === 0) return event;
    const rest = lines.filter((line) => !line.startsWith("data: "));
    const shown = redactJson(data.join("\n"), secret).split("\n");
    return [...shown.map((line) => `data: ${line}`), ...rest].join("\n");
  }
}

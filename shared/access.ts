/** The access log: a line a request, with ACCESS_LOG=1. */
import type { Env, Seen } from "./app.ts";
import { accessLog } from "./log.ts";

type Handler = (request: Request, env: Env["Bindings"]) => Response | Promise<Response>;

/** A download's token is its key, and a route finds it under an encoded name too. */
const DOWNLOAD = /(\/download\/)[^/]+/gi;

/** The path of a request, without its query: there stand tokens (`?t=`), cursors and search texts. */
export function pathOf(url: string): string {
  const [path = ""] = url.replace(/^[a-z]+:\/\/[^/?#]*/i, "").split(/[?#]/, 1);
  let plain = path;
  try {
    plain = decodeURIComponent(path);
  } catch {} // as it was sent
  return plain.replace(DOWNLOAD, "$1…").slice(0, 500);
}

/**
 * A server's handler that writes a line when the head of an answer is made; a stream may go on after it.
 * @param server  "gateway" or "dashboard"
 */
export function accessLogged(handler: Handler, server: string): Handler {
  return async (request, env) => {
    const began = performance.now();
    const seen: Seen = {};
    const response = await handler(request, { ...env, seen });
    const job = /^\/(?:jobs|batches)\/([\w-]+)$/.exec(response.headers.get("location") ?? "")?.[1];
    accessLog.info("request", {
      server,
      method: request.method,
      path: pathOf(request.url),
      status: response.status,
      ms: Math.round((performance.now() - began) * 10) / 10,
      caller: seen.caller?.name,
      ip: seen.caller?.ip ?? env.ip,
      job,
      user_agent: request.headers.get("user-agent")?.slice(0, 200),
    });
    return response;
  };
}

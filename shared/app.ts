/** What the gateway's routes share: the deployment's parts, who may ask, and how an answer is made. */
import { Hono } from "hono";
import type { Caller, Guard } from "./auth.ts";
import { baseOf, type basePaths, withBase } from "./base-path.ts";
import type { History } from "./board/history.ts";
import type { Config, Scope } from "./config.ts";
import { Fault } from "./faults.ts";
import { type JobId, jobId } from "./jobs.ts";
import { problem, toFault } from "./problem.ts";
import type { Connection } from "./script.ts";
import type { Snapshots } from "./snapshot.ts";
import { type Inspector, noJob } from "./store/inspect.ts";
import type { Producer } from "./store/produce.ts";

/** The parts of a running gateway. */
export type Gateway = {
  config: Config;
  producer: Producer;
  inspector: Inspector;
  snapshots: Snapshots;
  /** what happened in the last hour, day and week */
  history: History;
  guard: Guard;
  /** opens a further connection to Redis, for what may not share the first: subscriptions */
  open(name: string): Connection;
  /** aborted at the first SIGTERM: not ready any more, though everything is served for SHUTDOWN_DELAY */
  leaving: AbortSignal;
  /** aborted when the gateway stops: whoever waits answers with what it has */
  stopping: AbortSignal;
  /**
   * Long polls, set when routes/follow.ts is mounted: rings at news of `topic` and asks `ended` until it holds or the
   * wait that the request asks for is over. undefined, at once, when it asks for none.
   * @param otherwiseMs  how long it waits when it says nothing of waiting
   */
  hold?: (
    request: Request,
    topic: string,
    ended: () => Promise<boolean>,
    otherwiseMs?: number,
  ) => Promise<Held> | undefined;
};

/** How a wait went. */
export type Held = { ended: boolean; headers: Record<string, string> };

/**
 * A Hono app whose environment carries the socket's address, and the caller where this process has checked it
 * already (the dashboard's session). Clients cannot set it: it never comes from the request.
 */
/** `links`: a large result is named by its link, also where clients get it inline; the dashboard shows no megabytes. */
export type Env = { Bindings: { ip: string; caller?: Caller; seen?: Seen; links?: boolean } };
/** Where the access log reads who asked; there only with ACCESS_LOG=1. */
export type Seen = { caller?: Caller };

/** A new app that answers every fault as a problem. A slash at the end of a path does not count. */
export function newApp(): Hono<Env> {
  const app = new Hono<Env>({ strict: false });
  app.onError((error, c) => faultAnswer(error, c.req.url, c.req.path));
  return app;
}

const METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/**
 * Why an app has no answer: the path has other methods (405, with Allow), or there is no such path (404).
 * @param hint  what to say of a path that there is not
 */
export function noRoute(app: Hono<Env>, method: string, path: string, hint = ""): Fault {
  // layers (`use`) match every method, and the dashboard's files every path: neither is a route
  const has = (name: string) =>
    app.router.match(name, path)[0].some(([[, route]]) => route.method === name && route.path !== "/*");
  const allowed = METHODS.filter(has).flatMap((name) => (name === "GET" ? ["GET", "HEAD"] : [name]));
  const shown = `${method} ${path.slice(0, 200)}`;
  if (allowed.length === 0) return new Fault("unknown_route", `There is no ${shown}.${hint}`);
  const use = allowed.filter((name) => name !== "HEAD").join(" or ");
  return new Fault("wrong_method", `There is no ${shown}; use ${use}.`, { headers: { allow: allowed.join(", ") } });
}

/** A fault as a problem. @param path  of the request, for one whose Host cannot be read */
export const faultAnswer = (error: unknown, url: string, path: string) =>
  URL.canParse(url) ? problem(toFault(error), new URL(url).pathname) : noHost(path);

const noHost = (path: string) =>
  problem(
    new Fault("bad_request", "The header Host cannot be read; send the name or address of the gateway in it."),
    path,
  );

type Handler = (request: Request, env: Env["Bindings"]) => Response | Promise<Response>;
/** What a server does with each answer before it goes out: it is counted, and sealed where it is not yet. */
export type End = (method: string, response: Response) => Response;

/**
 * Routes that are found by their whole path, before Hono looks: with its context and its promises a submit takes a seventh
 * more of the gateway's time (docs/performance.md). Each is a route of the app too, for what comes with a query, and for
 * an app that has layers before its routes: none of them would be asked here. It answers its own faults and ends its own
 * answers: what else would be a promise each.
 */
export type Direct = ReadonlyMap<string, (request: Request, env: Env["Bindings"], end?: End) => Promise<Response>>;

/**
 * An app as a server's handler. Bun gives a request without a Host, as HTTP/1.0 allows it, a bare path for its URL, and
 * likewise one whose Host is none: the first is meant for this machine, the second is refused.
 */
export function served(
  app: Pick<Hono<Env>, "fetch">,
  posts: Direct = new Map(),
  end?: End,
  findBase?: ReturnType<typeof basePaths>,
): Handler {
  const answer = servedAtRoot(app, posts, end);
  if (!findBase) return answer;
  return (given, env) => {
    const request = findBase(given, env.ip);
    if (request instanceof Response) return request;
    const base = baseOf(request);
    const made = answer(request, env);
    if (base === "") return made;
    return made instanceof Promise ? made.then((response) => withBase(response, base)) : withBase(made, base);
  };
}

function servedAtRoot(app: Pick<Hono<Env>, "fetch">, posts: Direct, end?: End): Handler {
  const ended = (method: string, made: Response | Promise<Response>) => {
    if (!end) return made;
    return made instanceof Promise ? made.then((response) => end(method, response)) : end(method, made);
  };
  return (request, env) => {
    const { url, method } = request;
    if (!url.startsWith("/")) {
      const direct = method === "POST" ? posts.get(url.slice(url.indexOf("/", 8))) : undefined; // "https://".length
      return direct ? direct(request, env, end) : ended(method, app.fetch(request, env));
    }
    if (request.headers.get("host")) return ended(method, noHost(url.split("?", 1)[0] as string));
    const { headers, body, signal } = request;
    const init = { method, headers, signal, ...(body ? { body, duplex: "half" } : {}) };
    return ended(method, app.fetch(new Request(`http://localhost${url}`, init as RequestInit), env));
  };
}

/** Checks the caller. @throws Fault no_key, wrong_key, wrong_scope, foreign_origin */
export const allow = (gateway: Gateway, c: { req: { raw: Request }; env: Env["Bindings"] }, need: Scope): Caller =>
  allowed(gateway, c.req.raw, c.env, need);

/** The same, of a request that has no context. @param env  undefined in an app that is asked without a server */
export const allowed = (
  { guard }: Gateway,
  request: Request,
  env: Env["Bindings"] | undefined,
  need: Scope,
): Caller => {
  const caller = env?.caller ? guard.demand(env.caller, need) : guard.check(request, env?.ip ?? "", need);
  if (env?.seen) env.seen.caller = caller;
  return caller;
};

/** The id in a path. @throws Fault unknown_job when it cannot be one */
export function idOf(text: string): JobId {
  const id = jobId(text);
  if (!id) throw noJob(text);
  return id;
}

/** What every answer of a gateway carries, unless its route says otherwise. */
export const SEAL: Record<string, string> = {
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
};

/** Marks an answer that has SEAL: to look into each answer's headers again costs more than to make it. */
const whole = Symbol("whole");
type Marked = Response & { [whole]?: true };

/** Adds SEAL to an answer that was made elsewhere. */
export function sealed(response: Marked): Response {
  if (response[whole]) return response;
  try {
    for (const name in SEAL) if (!response.headers.has(name)) response.headers.set(name, SEAL[name] as string);
    // a cache in between knows Authorization, but not that X-API-Key makes an answer one caller's own
    if (!response.headers.has("cache-control")) response.headers.set("cache-control", "no-store");
    return response;
  } catch {
    return sealed(new Response(response.body, response)); // a redirect's headers cannot be changed
  }
}

/** Copied with each answer, at a third of the price of reading the same from an object. */
const JSON_HEADERS = new Headers({ "content-type": "application/json", ...SEAL });

/** A JSON answer of ready text, sealed. */
export function jsonText(text: string, status = 200, headers?: Record<string, string>): Response {
  const response: Marked = new Response(text, { status, headers: JSON_HEADERS });
  if (headers) for (const name in headers) response.headers.set(name, headers[name] as string);
  response[whole] = true;
  return response;
}

/**
 * A JSON answer that carries the record's revision, or 304 when the client has that revision.
 * The tag is weak: estimates move without a new revision.
 */
export function revised(request: Request, rev: number, text: () => string, headers: Record<string, string> = {}) {
  const tag = tagOf(rev);
  const all = { ...headers, etag: tag, "cache-control": "private, no-cache" };
  if (matches(request.headers.get("if-none-match"), tag)) return new Response(null, { status: 304, headers: all });
  return jsonText(text(), 200, all);
}

/**
 * 304 for a client that has the record's present revision, told from a glance: the rest of the record is not read.
 * undefined when it has not, or asks without If-None-Match.
 */
export async function unchanged(
  request: Request,
  glance: () => Promise<{ rev: number } | undefined>,
  headers: Record<string, string> = {},
): Promise<Response | undefined> {
  const given = request.headers.get("if-none-match");
  const seen = given ? await glance() : undefined;
  return seen && matches(given, tagOf(seen.rev)) ? revised(request, seen.rev, () => "", headers) : undefined;
}

/** The ETag of a record's revision. */
export const tagOf = (rev: number) => `W/"${rev}"`;

/** Whether an If-None-Match names the tag; weakly compared, as RFC 9110 asks for it. */
export function matches(header: string | null, tag: string): boolean {
  if (!header) return false;
  const plain = (text: string) => text.trim().replace(/^W\//, "");
  return header.trim() === "*" || header.split(",").some((item) => plain(item) === plain(tag));
}

/** The operation of a body. @throws Fault unknown_operation, naming those there are */
export function operationOf(gateway: Gateway, name: string) {
  const op = gateway.config.registry.byName.get(name);
  if (!op) {
    const known = [...gateway.config.registry.byName.keys()].join(", ");
    throw new Fault(
      "unknown_operation",
      `There is no operation ${JSON.stringify(name.slice(0, 100))}; there are ${known}.`,
      {
        errors: [{ path: "operation", message: `must be one of ${known}` }],
      },
    );
  }
  return op;
}

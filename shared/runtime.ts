/**
 * The few places where Bun and Deno differ. Everything else in shared/ is the same on both.
 */
import { createReadStream } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import process from "node:process";
import { Readable } from "node:stream";

type Fetch = (request: Request, env: { ip: string }) => Response | Promise<Response>;
export type Server = { port: number; stop(closeActive: boolean): Promise<void> };

type BunLike = {
  serve(options: Record<string, unknown>): {
    port: number;
    stop(force?: boolean): Promise<void>;
    requestIP(request: Request): { address: string } | null;
  };
  file(path: string): { slice(start: number, end: number): Blob };
  version: string;
};
type DenoLike = {
  serve(
    options: Record<string, unknown>,
    handler: (request: Request, info: { remoteAddr: { hostname?: string } }) => Response | Promise<Response>,
  ): { addr: { port: number }; shutdown(): Promise<void>; finished: Promise<void> };
  version: { deno: string };
};
const globals = globalThis as unknown as { Bun?: BunLike; Deno?: DenoLike };
// Deno's node compatibility has no Bun, and Bun has no Deno: either global tells.
const bun = globals.Bun;
const deno = bun ? undefined : globals.Deno;

export const RUNTIME = bun ? `bun ${bun.version}` : deno ? `deno ${deno.version.deno}` : `node ${process.version}`;

/** This machine's own services are not a proxy's to reach. Bun and Deno would send them there unless NO_PROXY names them. */
const LOOPBACK = ["localhost", "127.0.0.1", "::1"];
const named = (protocol: string) =>
  [`${protocol}_proxy`, "all_proxy"].some((name) => process.env[name] || process.env[name.toUpperCase()]);
if (named("http") || named("https")) {
  const given = [process.env.NO_PROXY, process.env.no_proxy].flatMap((list) => list?.split(",") ?? []);
  const names = [...new Set([...given.map((name) => name.trim()).filter(Boolean), ...LOOPBACK])].join(",");
  process.env.NO_PROXY = process.env.no_proxy = names; // read at each fetch, under Deno when a client is made
}

/** Whether the environment names a proxy for such addresses, which both runtimes' fetch goes by. @param protocol  "http:" */
export const proxied = (protocol: string, host: string) => !LOOPBACK.includes(host) && named(protocol.slice(0, -1));

/** Part of a file as a body; `end` is exclusive. Bun sends it from the kernel, without reading it. */
export function fileBody(path: string, start: number, end: number): BodyInit {
  if (bun) return bun.file(path).slice(start, end);
  if (start >= end) return "";
  return Readable.toWeb(createReadStream(path, { start, end: end - 1 })) as unknown as BodyInit;
}

/** ms after which Bun has surely opened what an answer names: it does so when the handler has returned. */
const OPENED_MS = 2_000;

/**
 * Part of an open file as a body; closes the file. `end` is exclusive.
 * Bun tells the length only of a file that it opens itself, so it gets the open file's own name: were the path
 * swapped for another in the meantime, the answer would still be the file that was judged.
 * @param path  where the file lies, for systems without /proc
 * @param whole  in no case a part: given a file, Bun looks at Range and If-Range itself, and takes a date there for proof enough
 */
export function openBody(handle: FileHandle, path: string, start: number, end: number, whole = false): BodyInit {
  if (bun && !whole) {
    setTimeout(() => handle.close().catch(() => {}), OPENED_MS);
    return bun.file(process.platform === "linux" ? `/proc/self/fd/${handle.fd}` : path).slice(start, end);
  }
  let at = start;
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const buffer = new Uint8Array(Math.min(262_144, end - at));
        const { bytesRead } = buffer.length > 0 ? await handle.read(buffer, 0, buffer.length, at) : { bytesRead: 0 };
        at += bytesRead;
        if (bytesRead > 0) controller.enqueue(buffer.subarray(0, bytesRead));
        if (bytesRead > 0 && at < end) return;
        await handle.close();
        if (at < end) controller.error(new Error(`${path} became shorter while it was sent`));
        else controller.close();
      },
      cancel: () => handle.close(),
    },
    { highWaterMark: 0 },
  );
}

/** A listening port is taken: told to a person as such. */
export class PortBusy extends Error {}

/**
 * Serves HTTP. Bodies of any size come in: each route reads as much as it wants and tells its own limit, while the
 * runtime holds the sender back or throws away what nobody reads.
 * @param port  0 = a free one
 * @throws PortBusy
 */
export function serve(fetch: Fetch, port: number, hostname: string): Server {
  // Nobody but this machine reaches 127.0.0.1, so there is no address to ask the socket for: a system call a request.
  const only = hostname === "127.0.0.1" ? { ip: hostname } : undefined;
  try {
    if (bun) {
      const server = bun.serve({
        port,
        hostname,
        idleTimeout: 0, // Bun's 10 s would cut long polls, events and uploads in the middle of a handler
        maxRequestBodySize: Number.MAX_SAFE_INTEGER, // Bun's own 413 has no problem in it; each route has its limit
        development: false, // otherwise an exception's page shows source code
        reusePort: false, // without development it is on: two would share a port, and each get some of the requests
        fetch: (request: Request, self: { requestIP(r: Request): { address: string } | null }) =>
          fetch(request, only ?? { ip: self.requestIP(request)?.address ?? "" }),
      });
      return { port: server.port, stop: (force) => server.stop(force) };
    }
    if (deno) {
      const stopped = new AbortController();
      /** requests with a body that have no answer yet: Deno's shutdown takes what they have still to read away */
      let inHand = 0;
      const server = deno.serve(
        { port, hostname, signal: stopped.signal, onListen: () => {} },
        async (request, info) => {
          const hasBody = request.body !== null;
          if (hasBody) inHand++;
          try {
            return await fetch(request, only ?? { ip: info.remoteAddr.hostname ?? "" });
          } finally {
            if (hasBody) inHand--;
          }
        },
      );
      return {
        port: server.addr.port,
        stop: async (force) => {
          while (!force && inHand > 0) await new Promise((done) => setTimeout(done, 20));
          if (force) stopped.abort();
          else await server.shutdown();
          await server.finished;
        },
      };
    }
  } catch (error) {
    const { code, name } = error as { code?: string; name?: string };
    if (code === "EADDRINUSE" || name === "AddrInUse") throw new PortBusy(`${hostname}:${port}`);
    throw error;
  }
  throw new Error("Longhaul runs under Bun or Deno");
}

/** What Bun reads once, before a process begins. A deployment's own values win. @see docs/performance.md */
export const BUN_START = {
  /** calls in flight: 256, silently, unless told otherwise */
  BUN_CONFIG_MAX_HTTP_REQUESTS: "65000",
  /** The first two compilers at a fifth and a third of the usual counts: a gateway is fast after some hundred requests. */
  BUN_JSC_thresholdForJITAfterWarmUp: "100",
  BUN_JSC_thresholdForOptimizeAfterWarmUp: "300",
  BUN_JSC_thresholdForOptimizeAfterLongWarmUp: "300",
  BUN_JSC_thresholdForOptimizeSoon: "300",
  /** The last compiler at ten times the usual count: for code that mostly waits it costs more than it gives. */
  BUN_JSC_thresholdForFTLOptimizeAfterWarmUp: "1000000",
  BUN_JSC_thresholdForFTLOptimizeSoon: "10000",
  /** ms between two collections for their own sake: Bun's own second stops all work for 2 ms, each second */
  BUN_GC_TIMER_INTERVAL: "20000",
  /** No thread that touches fresh pages of the heap ahead: without it a gateway has half of the page faults, or an eighth. */
  BUN_JSC_useWarmUpMarkedBlocks: "0",
  /** ms before freed memory goes back to the system, which otherwise is busy with giving it out again */
  MIMALLOC_PURGE_DELAY: "10000",
  /** ms between two looks, at rest, for free memory inside of pages in use: at Bun's own 100 each is paid for with page faults */
  MIMALLOC_PURGE_HOLES_MIN_INTERVAL: "10000",
} as const;

/** These settings, with a deployment's own values where it has them. */
export const bunStart = (env: NodeJS.ProcessEnv): Record<string, string> =>
  Object.fromEntries(Object.entries(BUN_START).map(([name, value]) => [name, env[name] || value]));

/**
 * Begins a worker anew with these settings where one of them is missing: the process replaces itself and keeps its pid. A
 * gateway does not, since it would start in twice the time: `up` and the images set them before it begins.
 * @returns how many calls may be in flight
 */
export function tuned(): number {
  if (!bun) return Number(BUN_START.BUN_CONFIG_MAX_HTTP_REQUESTS);
  const { env } = process;
  const { execve } = process as unknown as { execve?: (file: string, args: string[], env: object) => void };
  if (execve && Object.keys(BUN_START).some((name) => !env[name])) {
    execve(process.execPath, process.argv, { ...env, ...bunStart(env) });
  }
  return Number(env.BUN_CONFIG_MAX_HTTP_REQUESTS || 256);
}

/** A reverse proxy of a test's own before a dashboard or a gateway. */
import type { Server } from "bun";

export type TestProxy = {
  url: string;
  /** requests that are under way now, by path */
  open: string[];
  stop(): Promise<void>;
};

/**
 * @param target  where it passes requests on to
 * @param answer  what it answers itself; undefined = what the target answers
 */
export function startProxy(
  target: string,
  answer: (request: Request) => Response | Promise<Response> | undefined = () => undefined,
): TestProxy {
  const open: string[] = [];
  const server: Server<undefined> = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    idleTimeout: 0,
    async fetch(request) {
      const { pathname, search } = new URL(request.url);
      open.push(pathname);
      const over = () => {
        if (open.includes(pathname)) open.splice(open.indexOf(pathname), 1);
      };
      const own = await answer(request);
      if (own) {
        over();
        return own;
      }
      const { method, headers, body, signal } = request;
      const passed = await fetch(target + pathname + search, {
        ...{ method, headers, signal, redirect: "manual", decompress: false },
        ...(body ? { body, duplex: "half" } : {}),
      } as RequestInit).catch(() => undefined);
      if (!passed?.body) over();
      if (!passed) return new Response(null, { status: 502 });
      const counted = passed.body?.pipeThrough(new TransformStream({ flush: over }));
      signal.addEventListener("abort", over, { once: true });
      return new Response(counted, { status: passed.status, headers: passed.headers });
    },
  });
  return { url: `http://127.0.0.1:${server.port}`, open, stop: () => server.stop(true) };
}

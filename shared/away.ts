/** A Redis that does not answer is told in the log: a process that waits without a word looks as if it hung. */
import type { Connection } from "./script.ts";

/** ms without Redis before it is told at all, and between two lines. */
const FIRST_MS = 2_000;
const AGAIN_MS = 60_000;

/** Where a REDIS_URL leads, for people: its hosts, never what could be a password. */
export function redisAddress(url: string): string {
  const m = /^(rediss?)(\+\w+)?:\/\/(?:[^@/?#]*@)?([\w.,:[\]-]+)(?:[/?#][^@]*)?$/i.exec(url);
  if (!m) return "the address in REDIS_URL";
  const [, , kind, hosts] = m as unknown as [string, string, string | undefined, string];
  return kind || /:\d+$/.test(hosts) ? hosts : `${hosts}:6379`;
}

/** Watches a connection, and says so when it has not been ready for a while; then again each minute, and when it is back. */
export function tellAway(
  redis: Pick<Connection, "on" | "status">,
  url: string,
  log: (line: string) => void,
  { firstMs = FIRST_MS, againMs = AGAIN_MS } = {},
): void {
  const where = redisAddress(url);
  let why = "";
  let timer: ReturnType<typeof setTimeout> | undefined;
  let toldAt = -Infinity;
  let isTold = false;
  const wait = () => {
    timer ??= setTimeout(tell, Math.max(firstMs, toldAt + againMs - performance.now()));
  };
  const tell = () => {
    const refused = /^[A-Z]+ /.test(why); // Redis's own words: WRONGPASS …, NOAUTH …
    const reason = refused ? ` refuses the connection (${why})` : ` does not answer${why && ` (${why})`}`;
    log(`Redis at ${where}${reason}; waiting for it. REDIS_URL says where it is.`);
    toldAt = performance.now();
    isTold = true;
    timer = undefined;
    wait();
  };
  redis.on("error", (error: NodeJS.ErrnoException & { lastNodeError?: NodeJS.ErrnoException }) => {
    const { code, message } = error.lastNodeError ?? error;
    why = code ?? message.slice(0, 200);
  });
  redis.on("close", wait);
  redis.on("ready", () => {
    clearTimeout(timer);
    timer = undefined;
    why = "";
    if (isTold) log(`Redis at ${where} answers.`);
    isTold = false;
  });
  if (redis.status !== "ready") wait();
}

/** A Redis that does not answer is told in the log: a process that waits without a word looks as if it hung. */
import type { Log } from "./log.ts";
import { parseRedisUrl, redisAddress } from "./redis-url.ts";
import type { Connection } from "./script.ts";

/** ms without Redis before it is told at all, and between two lines. */
const FIRST_MS = 2_000;
const AGAIN_MS = 60_000;

/** What cures an error of a connection, by its code or by Redis's own words. */
const CURES: [RegExp, string][] = [
  [/sentinel.*(WRONGPASS|NOAUTH)/, "the sentinels ask for another login: add ?sentinel_password=… to REDIS_URL"],
  [/^WRONGPASS/, "user or password in REDIS_URL is wrong"],
  [/^NOAUTH/, "it asks for a password: redis://user:password@host in REDIS_URL"],
  [/^NOPERM/, "the user in REDIS_URL lacks a right, docs/operating.md has the ACL rule"],
  [/^DENIED/, "it is in protected mode: give it a password and name that in REDIS_URL"],
  [/max number of clients/, "it has no room for another connection: raise its maxclients"],
  [/cluster support disabled/, "it is no Cluster: redis:// instead of redis+cluster://"],
  [/unknown command '?sentinel/i, "it is no Sentinel: redis:// instead of redis+sentinel://"],
  [/no such master/i, "REDIS_URL must name the master as the sentinels do: redis+sentinel://host:26379/master"],
  [/ALTNAME/, "its certificate is for another name: REDIS_URL must have a name that the certificate has"],
  [
    /SELF_SIGNED|UNABLE_TO_|CERT_(?!HAS)/,
    "its certificate's authority is unknown here: NODE_EXTRA_CA_CERTS=/path/ca.pem, or ?ca=/path/ca.pem in REDIS_URL",
  ],
  [/CERT_HAS_EXPIRED/, "its certificate has expired"],
  [/WRONG_VERSION|PACKET_LENGTH|InvalidContentType/i, "it speaks no TLS there: redis:// instead of rediss://"],
  [
    /CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE|certificate required/i,
    "it asks for a client's certificate: ?cert=/path/a.crt&key=/path/a.key in REDIS_URL",
  ],
  [/ENOTFOUND|EAI_AGAIN/, "there is no such host name"],
];

/** What cures a silence that looks as if one end spoke TLS. */
const MUTE = {
  tls: "if it speaks no TLS there, REDIS_URL begins with redis:// and not with rediss://",
  plain:
    "if it speaks TLS there, REDIS_URL begins with rediss://; or it has no room for another connection, then raise its maxclients",
};

/** Watches a connection, and says so when it has not been ready for a while; then again each minute, and when it is back. */
export function tellAway(
  redis: Pick<Connection, "on" | "status">,
  url: string,
  log: Pick<Log, "info" | "warn">,
  { firstMs = FIRST_MS, againMs = AGAIN_MS } = {},
): void {
  const where = redisAddress(url);
  const { password, sentinelPassword, master, tls } = parseRedisUrl(url);
  let why = "";
  let timer: ReturnType<typeof setTimeout> | undefined;
  let toldAt = -Infinity;
  let isTold = false;
  const wait = () => {
    timer ??= setTimeout(tell, Math.max(firstMs, toldAt + againMs - performance.now()));
  };
  const tell = () => {
    const refused = /^[A-Z]+ /.test(why); // Redis's own words: WRONGPASS …, NOAUTH …
    // A Redis without TLS waits for the end of what it takes for a command; one with TLS hangs up on what is none.
    const mute = tls ? /^$|ETIMEDOUT/.test(why) : /^Connection is closed|ECONNRESET|EPIPE/.test(why);
    const cure = mute ? MUTE[tls ? "tls" : "plain"] : CURES.find(([pattern]) => pattern.test(why))?.[1];
    const reason = `${refused ? " refuses the connection" : " does not answer"}${why && ` (${why})`}${cure ? `: ${cure}` : ""}`;
    log.warn(`Redis at ${where}${reason}; waiting for it. REDIS_URL says where it is.`);
    toldAt = performance.now();
    isTold = true;
    timer = undefined;
    wait();
  };
  /** What follows from an error that is known already says less than it. */
  const note = (text: string) => {
    if (why !== "" && /^Connection is closed|^All sentinels|^None of startup/.test(text)) return;
    why = [password, sentinelPassword].reduce<string>(
      (all, secret) => (secret ? all.replaceAll(secret, "…") : all),
      text,
    );
  };
  const noteError = (error: NodeJS.ErrnoException) => note(error.code ?? error.message.slice(0, 200));
  redis.on("error", (error: NodeJS.ErrnoException & { lastNodeError?: NodeJS.ErrnoException }) =>
    noteError(error.lastNodeError ?? error),
  );
  redis.on("node error", noteError);
  redis.on("sentinelError", ({ message }: Error) => {
    const reply = /^failed to connect to (sentinel .*) because (.*)$/s.exec(message);
    if (reply) note(`${reply[1]}: ${reply[2]}`.slice(0, 200));
    else if (/invalid reply/.test(message)) note(`no such master as ${master}`);
  });
  redis.on("close", wait);
  redis.on("ready", () => {
    clearTimeout(timer);
    timer = undefined;
    why = "";
    if (isTold) log.info(`Redis at ${where} answers.`);
    isTold = false;
  });
  if (redis.status !== "ready") wait();
}

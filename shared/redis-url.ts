/**
 * REDIS_URL, read once and strictly: what is not understood is refused at start and never passed on.
 * No message repeats a part of the URL that may be a password.
 */
import { nearest } from "./nearest.ts";

/**
 * `server` is one Redis by host and port, `socket` one by a path of this machine.
 * `nodes` are the servers, sentinels or nodes of the Cluster that are asked first.
 */
export type RedisTarget = {
  kind: "server" | "socket" | "sentinel" | "cluster";
  tls: boolean;
  nodes: { host: string; port: number }[];
  path?: string;
  username?: string;
  password?: string;
  db: number;
  /** the name that the sentinels know the master by */
  master?: string;
  sentinelUsername?: string;
  sentinelPassword?: string;
  /** files of TLS: who signed Redis's certificate, and this client's own */
  ca?: string;
  cert?: string;
  key?: string;
  family?: number;
};

const SCHEMES: Record<string, Pick<RedisTarget, "kind" | "tls">> = {
  redis: { kind: "server", tls: false },
  rediss: { kind: "server", tls: true },
  valkey: { kind: "server", tls: false },
  valkeys: { kind: "server", tls: true },
  unix: { kind: "socket", tls: false },
  "redis+unix": { kind: "socket", tls: false },
  "redis+sentinel": { kind: "sentinel", tls: false },
  "rediss+sentinel": { kind: "sentinel", tls: true },
  "redis+cluster": { kind: "cluster", tls: false },
  "rediss+cluster": { kind: "cluster", tls: true },
};
const FORMS =
  "redis://host:6379, rediss://host:6380, redis+sentinel://host:26379,host:26379/master, redis+cluster://host:7000,host:7001 or unix:///path/redis.sock";
const OPTIONS: Record<RedisTarget["kind"], string[]> = {
  server: ["db", "family"],
  socket: ["db"],
  sentinel: ["db", "sentinel_username", "sentinel_password"],
  cluster: [],
};
const TLS_OPTIONS = ["ca", "cert", "key"];

const ENCODED =
  "a user or password holds a character that must be percent-encoded: / is %2F, ? is %3F, # is %23, @ is %40, % is %25";

const decoded = (text: string) => {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new Error(ENCODED);
  }
};

/** Reads a REDIS_URL. @throws Error with a sentence that says what is wrong and names no password */
export function parseRedisUrl(given: string): RedisTarget {
  const url = given.trim();
  if (url.startsWith("/")) return { kind: "socket", tls: false, nodes: [], path: url, db: 0 };
  const scheme = /^([\w+.-]+):\/\//.exec(url)?.[1]?.toLowerCase();
  const base = SCHEMES[scheme ?? ""];
  if (!base) throw new Error(`must be such as ${FORMS}`);
  const { kind, tls } = base;
  const [beforeQuery, query = ""] = cutAt(url.slice((scheme as string).length + 3), "?");
  const [authority, path = ""] = kind === "socket" ? socketParts(beforeQuery) : cutAt(beforeQuery, "/");
  const cut = authority.lastIndexOf("@");
  const hosts = authority.slice(cut + 1);
  if (cut < 0 && /[@#]/.test(path + query) && !query.startsWith("sentinel_")) throw new Error(ENCODED);
  if (/#/.test(url)) throw new Error(/#.*@/.test(url) ? ENCODED : "must have no # and nothing behind it");
  const target: RedisTarget = { kind, tls, nodes: [], db: 0, ...login(authority.slice(0, Math.max(cut, 0))) };
  if (kind === "socket") target.path = decoded(path);
  else target.nodes = hosts.split(",").map((host) => node(host, kind));
  if (kind === "server" && target.nodes.length > 1)
    throw new Error("names several hosts: that is redis+sentinel:// or redis+cluster://");
  const options = optionsOf(query, kind, tls);
  Object.assign(target, place(kind, path, options.get("db")));
  return Object.assign(target, further(options));
}

const cutAt = (text: string, mark: string): [string, string | undefined] => {
  const at = text.indexOf(mark);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
};

/** `user:password@/path` or `/path`. */
function socketParts(text: string): [string, string] {
  const at = text.indexOf("@");
  const path = text.slice(at + 1);
  if (!/^\/./.test(path)) throw new Error("must name a socket by its full path: unix:///path/redis.sock");
  return [text.slice(0, at + 1), path];
}

function login(text: string): Pick<RedisTarget, "username" | "password"> {
  if (text === "") return {};
  const [user, password] = cutAt(text, ":");
  if (password === undefined)
    throw new Error("has a user without a password: redis://user:password@host, or :password@");
  return { ...(user ? { username: decoded(user) } : {}), ...(password ? { password: decoded(password) } : {}) };
}

function node(text: string, kind: RedisTarget["kind"]): RedisTarget["nodes"][number] {
  const m = /^(?:\[([0-9a-f:.]+(?:%\w+)?)\]|([^:[\]]*))(?::(.*))?$/i.exec(text);
  if (!m || (!m[1] && text.split(":").length > 2))
    throw new Error("has an IPv6 address without brackets, or a broken host: write redis://[::1]:6379");
  const [, v6, name, port] = m;
  const host = v6 ?? name ?? "";
  if (host === "") throw new Error(`names no host: write ${FORMS}`);
  if (!v6 && !/^[\w.-]+$/.test(host)) throw new Error("has a host with characters that no host name has");
  const number = Number(port ?? (kind === "sentinel" ? 26379 : 6379));
  if (port !== undefined && (!/^\d{1,5}$/.test(port) || number < 1 || number > 65_535))
    throw new Error("must have a port from 1 to 65535 behind the host and a colon");
  return { host, port: number };
}

function optionsOf(query: string, kind: RedisTarget["kind"], tls: boolean): Map<string, string> {
  const allowed = [...OPTIONS[kind], ...(tls ? TLS_OPTIONS : [])];
  const options = new Map<string, string>();
  for (const part of query.split("&").filter(Boolean)) {
    const [name, value = ""] = cutAt(part, "=");
    if (!allowed.includes(name)) throw new Error(unknownOption(name, allowed));
    if (options.has(name)) throw new Error(`has the option ${name} twice`);
    if (value === "") throw new Error(`has the option ${name} without a value`);
    options.set(name, decoded(value));
  }
  return options;
}

function unknownOption(name: string, allowed: string[]): string {
  if (/^(ssl|tls|verify)/i.test(name))
    return "cannot switch the check of certificates off: name the authority by ?ca=/path/ca.pem, or by NODE_EXTRA_CA_CERTS";
  const here = allowed.length ? `there are ${allowed.join(", ")}` : "it takes none";
  if (TLS_OPTIONS.includes(name)) return `has the option ${name}, which needs TLS: rediss://`;
  // A name that is none may be the rest of a password with a raw question mark.
  if (!/^[a-z_]{1,24}$/i.test(name)) return ENCODED;
  const near = nearest(name, allowed);
  return `has the unknown option ${name}; ${near ? `did you mean ${near}?` : here}`;
}

/** The master's name, and the database: behind the last slash, or `?db=`. */
function place(kind: RedisTarget["kind"], path: string, option?: string): Pick<RedisTarget, "db" | "master"> {
  const parts = kind === "socket" ? [] : path.split("/").filter(Boolean);
  const named = kind === "sentinel" ? { master: decoded(parts.shift() ?? "mymaster") } : {};
  const text = parts[0] ?? option ?? "0";
  if (parts.length > 1 || (parts[0] !== undefined && option !== undefined && parts[0] !== option))
    throw new Error("must have one database, behind the host or as ?db=1");
  if (!/^\d{1,9}$/.test(text)) throw new Error("must have a number as database, such as redis://host:6379/1");
  if (kind === "cluster" && Number(text) !== 0)
    throw new Error("names a database, but a Cluster has database 0 only: set NAMESPACE to part deployments");
  return { ...named, db: Number(text) };
}

function further(options: Map<string, string>): Partial<RedisTarget> {
  const [family, cert, key] = ["family", "cert", "key"].map((name) => options.get(name));
  if (family !== undefined && !/^[046]$/.test(family)) throw new Error("must have 0, 4 or 6 as family");
  if ((cert === undefined) !== (key === undefined)) throw new Error("must have cert and key together, or neither");
  const [ca, sentinelUsername, sentinelPassword] = ["ca", "sentinel_username", "sentinel_password"].map((name) =>
    options.get(name),
  );
  if (sentinelUsername !== undefined && sentinelPassword === undefined)
    throw new Error("has a sentinel_username without a sentinel_password");
  return {
    ...(family !== undefined ? { family: Number(family) } : {}),
    ...(ca !== undefined ? { ca } : {}),
    ...(cert !== undefined && key !== undefined ? { cert, key } : {}),
    ...(sentinelUsername !== undefined ? { sentinelUsername } : {}),
    ...(sentinelPassword !== undefined ? { sentinelPassword } : {}),
  };
}

/** Where a REDIS_URL leads, for people: hosts or a socket's path, and nothing else of it. */
export function redisAddress(url: string): string {
  try {
    const { kind, path, nodes } = parseRedisUrl(url);
    if (kind === "socket") return path as string;
    return nodes.map(({ host, port }) => `${host.includes(":") ? `[${host}]` : host}:${port}`).join(",");
  } catch {
    return "the address in REDIS_URL";
  }
}

/** REDIS_URL: what it may look like, and what is said about one that cannot be meant so. */
import { expect, test } from "bun:test";
import { ConfigError, readConfig } from "../shared/config.ts";
import { parseRedisUrl, redisAddress } from "../shared/redis-url.ts";

const server = { kind: "server", tls: false, db: 0, nodes: [{ host: "db", port: 6379 }] };
const READ: [string, Record<string, unknown>][] = [
  ["redis://db", server],
  ["redis://db/", server],
  ["  redis://db:6379\n", server],
  ["valkey://db", server],
  ["rediss://db:7/3", { kind: "server", tls: true, db: 3, nodes: [{ host: "db", port: 7 }] }],
  ["redis://db?db=2", { ...server, db: 2 }],
  ["redis://db/2?db=2", { ...server, db: 2 }],
  ["redis://db?family=6", { ...server, family: 6 }],
  ["redis://:p%40%2Fss@db", { ...server, password: "p@/ss" }],
  ["redis://me:pw@db", { ...server, username: "me", password: "pw" }],
  ["redis://:p@ss@db", { ...server, password: "p@ss" }],
  ["redis://me:a:b@db", { ...server, username: "me", password: "a:b" }],
  ["redis://[::1]:7", { ...server, nodes: [{ host: "::1", port: 7 }] }],
  ["redis://[::1]", { ...server, nodes: [{ host: "::1", port: 6379 }] }],
  ["/run/redis.sock", { kind: "socket", tls: false, db: 0, nodes: [], path: "/run/redis.sock" }],
  ["unix:///run/redis.sock?db=4", { kind: "socket", tls: false, db: 4, nodes: [], path: "/run/redis.sock" }],
  [
    "unix://me:p%3Fw@/run/redis.sock",
    { kind: "socket", tls: false, db: 0, nodes: [], path: "/run/redis.sock", username: "me", password: "p?w" },
  ],
  [
    "redis+sentinel://:p@a,[::1]:7/main/2?sentinel_password=s%26s",
    {
      kind: "sentinel",
      tls: false,
      db: 2,
      master: "main",
      password: "p",
      sentinelPassword: "s&s",
      nodes: [
        { host: "a", port: 26379 },
        { host: "::1", port: 7 },
      ],
    },
  ],
  [
    "rediss+cluster://u:p@a:1,b:2/0?ca=/ca.pem&cert=/c.pem&key=/k.pem",
    {
      kind: "cluster",
      tls: true,
      db: 0,
      username: "u",
      password: "p",
      ca: "/ca.pem",
      cert: "/c.pem",
      key: "/k.pem",
      nodes: [
        { host: "a", port: 1 },
        { host: "b", port: 2 },
      ],
    },
  ],
];

test("every form of REDIS_URL is read: hosts, ports, IPv6, sockets, logins, database, options", () => {
  for (const [url, target] of READ) expect([url, parseRedisUrl(url) as unknown]).toEqual([url, target]);
});

const REFUSED: [string, string][] = [
  ["redis://:hu/sh@db:6379", "must be percent-encoded"],
  ["redis://:hu?sh@db:6379", "must be percent-encoded"],
  ["redis://:hu#sh@db:6379", "must be percent-encoded"],
  ["redis://me:hu#sh@db/1", "must be percent-encoded"],
  ["redis://:50%hush@db", "must be percent-encoded"],
  ["redis+sentinel://:hu/sh@a,b/main", "must be percent-encoded"],
  ["redis+cluster://:hu?sh@a,b", "must be percent-encoded"],
  ["redis://db/zero", "must have a number as database"],
  ["redis://db/-1", "must have a number as database"],
  ["redis://db/1/2", "must have one database"],
  ["redis://db/1?db=2", "must have one database"],
  ["redis+cluster://a,b/1", "a Cluster has database 0 only: set NAMESPACE"],
  ["redis+cluster://a,b?db=1", "has the unknown option db; it takes none"],
  ["redis://db?sentinel_password=hush", "has the unknown option sentinel_password"],
  ["redis+sentinel://a/main?sentinel_pasword=hush", "did you mean sentinel_password?"],
  ["redis+sentinel://a/main?sentinel_username=hush", "without a sentinel_password"],
  ["redis://db?db=", "has the option db without a value"],
  ["redis://db?db=1&db=1", "has the option db twice"],
  ["redis://db?ca=/ca.pem", "needs TLS: rediss://"],
  ["rediss://db?ssl_cert_reqs=none", "cannot switch the check of certificates off"],
  ["rediss://db?cert=/c.pem", "must have cert and key together"],
  ["redis://db?family=5", "must have 0, 4 or 6 as family"],
  ["redis://hush@db", "has a user without a password"],
  ["redis://a,b", "names several hosts: that is redis+sentinel:// or redis+cluster://"],
  ["redis://::1:6379", "has an IPv6 address without brackets"],
  ["redis://", "names no host"],
  ["redis+cluster://a,,b", "names no host"],
  ["redis://db:0", "must have a port from 1 to 65535"],
  ["redis://db:6379x", "must have a port from 1 to 65535"],
  ["redis://my db", "has a host with characters that no host name has"],
  ["unix://run/redis.sock", "must name a socket by its full path"],
  ["localhost:6379", "must be such as redis://host:6379"],
  ["http://db", "must be such as redis://host:6379"],
  ["redis+sentinal://a/main", "must be such as redis://host:6379"],
];

test("a REDIS_URL that cannot be meant is refused at start with its cure, and no password is shown", () => {
  for (const [url, sentence] of REFUSED) {
    let said = "";
    try {
      readConfig({ REDIS_URL: url });
    } catch (error) {
      expect(error).toBeInstanceOf(ConfigError);
      said = (error as Error).message;
    }
    expect([url, said]).toEqual([url, expect.stringContaining(sentence)]);
    expect([url, said]).toEqual([url, expect.stringMatching(/- REDIS_URL: /)]);
    expect([url, /hu.?sh/.test(said)]).toEqual([url, false]);
  }
});

test("a file of TLS that REDIS_URL names and nobody can read is told at start", () => {
  expect(() => readConfig({ REDIS_URL: "rediss://db?ca=/no/such/ca.pem" })).toThrow(
    "REDIS_URL: ca=/no/such/ca.pem cannot be read (ENOENT)",
  );
});

test("the address of a Redis for people is its hosts and ports or its socket, never a login", () => {
  for (const [url, address] of [
    ["redis://localhost", "localhost:6379"],
    ["rediss://u:p@[::1]:7/0", "[::1]:7"],
    ["redis+sentinel://:p@h1:26379,h2/master", "h1:26379,h2:26379"],
    ["redis://:a@b@host", "host:6379"],
    ["/run/redis.sock", "/run/redis.sock"],
    ["redis://:a?b@host", "the address in REDIS_URL"],
    ["redis://host/0?password=x@y", "the address in REDIS_URL"],
    ["redis://:a/b@host", "the address in REDIS_URL"],
  ] as const)
    expect([url, redisAddress(url)]).toEqual([url, address]);
});

/** Who may ask: the table of contract.md §1, on the guard itself. */
import { expect, test } from "bun:test";
import { containerGateways, type FileReader, isLoopback, plainIp, subnetOf } from "../shared/addresses.ts";
import { guard } from "../shared/auth.ts";
import { type Config, readConfig } from "../shared/config.ts";

const READ = "readreadread";
const SUBMIT = "submitsubmit";
const ADMIN = "adminadminadmin";
const KEYS = `${READ}:read,${SUBMIT}:submit,${ADMIN}`;
const guardOf = (env: Record<string, string>, gateways: string[] = []) => guard(readConfig(env), gateways);
const ask = (headers: Record<string, string> = {}, url = "http://localhost:8000/") => new Request(url, { headers });
type Need = "read" | "submit" | "admin";
/** The scope that was given, or the code of the refusal. */
const verdict = (g: ReturnType<typeof guard>, request: Request, ip: string, need: Need = "read") => {
  try {
    return g.check(request, ip, need).scope;
  } catch (error) {
    return (error as { code: string }).code;
  }
};

test("keys by X-API-Key and by Authorization: Bearer; each scope does what it may", () => {
  const g = guardOf({ API_KEYS: KEYS });
  const scopes = { [READ]: 0, [SUBMIT]: 1, [ADMIN]: 2 };
  for (const [key, rank] of Object.entries(scopes)) {
    for (const headers of [
      { "x-api-key": key },
      { authorization: `Bearer ${key}` },
      { authorization: `bearer   ${key} ` },
    ]) {
      (["read", "submit", "admin"] as const).forEach((need, i) => {
        const got = verdict(g, ask(headers as Record<string, string>), "9.9.9.9", need);
        expect([key, need, got === "wrong_scope"]).toEqual([key, need, i > rank]);
      });
    }
  }
});

test("no key is 401, an unknown one 403, wherever the caller is", () => {
  const g = guardOf({ API_KEYS: KEYS });
  for (const ip of ["127.0.0.1", "9.9.9.9"]) {
    expect(verdict(g, ask(), ip)).toBe("no_key");
    expect(verdict(g, ask({ authorization: "Basic abc" }), ip)).toBe("no_key");
    expect(verdict(g, ask({ "x-api-key": `${ADMIN}x` }), ip)).toBe("wrong_key");
    expect(verdict(g, ask({ "x-api-key": ADMIN.slice(1) }), ip)).toBe("wrong_key");
    expect(verdict(g, ask({ "x-api-key": ADMIN.toUpperCase() }), ip)).toBe("wrong_key");
  }
});

test("a caller is known by a hash of its key that is no part of it, the same for each of its requests", () => {
  const g = guardOf({ API_KEYS: KEYS });
  const who = g.check(ask({ "x-api-key": ADMIN }), "9.9.9.9", "read");
  expect(who.key).toMatch(/^[0-9a-f]{16}$/);
  expect(g.check(ask({ authorization: `Bearer ${ADMIN}` }), "8.8.8.8", "read").key).toBe(who.key);
  expect(g.check(ask({ "x-api-key": READ }), "9.9.9.9", "read").key).not.toBe(who.key);
});

test("ALLOWED_IP_RANGES reads and submits, never administers; v4, v6 and mapped", () => {
  const g = guardOf({ API_KEYS: KEYS, ALLOWED_IP_RANGES: "10.1.0.0/16,fd00::/8" });
  for (const ip of ["10.1.2.3", "::ffff:10.1.2.3", "::FFFF:10.1.2.3", "fd12::1", "fd12::1%eth0"]) {
    expect([ip, verdict(g, ask(), ip, "submit")]).toEqual([ip, "submit"]);
    expect([ip, verdict(g, ask(), ip, "admin")]).toEqual([ip, "wrong_scope"]);
  }
  for (const ip of ["10.2.0.1", "::ffff:10.2.0.1", "fe80::1", "", "nonsense"]) {
    expect([ip, verdict(g, ask(), ip)]).toEqual([ip, "no_key"]);
  }
  expect(verdict(g, ask({ "x-api-key": ADMIN }), "10.1.2.3", "admin")).toBe("admin");
});

test("X-Forwarded-For counts from TRUSTED_PROXIES only, and then its rightmost untrusted hop", () => {
  const g = guardOf({ API_KEYS: KEYS, ALLOWED_IP_RANGES: "10.1.0.0/16", TRUSTED_PROXIES: "192.168.0.0/24, ::1" });
  const from = (socket: string, forwarded: string) => g.clientIp(socket, forwarded);
  expect(from("9.9.9.9", "10.1.1.1")).toBe("9.9.9.9");
  expect(from("192.168.0.1", "10.1.1.1")).toBe("10.1.1.1");
  expect(from("192.168.0.1", "10.1.1.1, 9.9.9.9")).toBe("9.9.9.9"); // the left part is the client's to write
  expect(from("192.168.0.1", "10.1.1.1, 9.9.9.9, 192.168.0.7")).toBe("9.9.9.9");
  expect(from("::ffff:192.168.0.1", "::ffff:10.1.1.1")).toBe("10.1.1.1");
  expect(from("::1", "[2001:db8::5]:443")).toBe("2001:db8::5");
  expect(from("192.168.0.1", "10.1.1.1:5555")).toBe("10.1.1.1");
  expect(from("192.168.0.1", "unknown")).toBe("192.168.0.1");
  expect(from("192.168.0.1", "10.1.1.1, unknown")).toBe("192.168.0.1");
  expect(from("192.168.0.1", "")).toBe("192.168.0.1");
  expect(verdict(g, ask({ "x-forwarded-for": "10.1.1.1" }), "9.9.9.9")).toBe("no_key");
  expect(verdict(g, ask({ "x-forwarded-for": "10.1.1.1" }), "192.168.0.1")).toBe("submit");
});

test("without a key only loopback may ask, by a loopback name, from no other site", () => {
  const g = guardOf({});
  for (const ip of ["127.0.0.1", "::1", "::ffff:127.0.0.1", "127.9.9.9"])
    expect(verdict(g, ask(), ip, "admin")).toBe("admin");
  for (const url of ["http://127.0.0.1/", "http://[::1]:8000/", "http://LOCALHOST/"]) {
    expect([url, verdict(g, ask({}, url), "127.0.0.1")]).toEqual([url, "admin"]);
  }
  for (const url of ["http://evil.example/", "http://127.0.0.1.evil.example/", "http://localhost.evil.example/"]) {
    expect([url, verdict(g, ask({}, url), "127.0.0.1")]).toEqual([url, "foreign_origin"]); // DNS rebinding
  }
  // a request line with a host of its own: Deno's URL is made of that, whatever Host says
  for (const host of ["evil.example", "localhost.evil.example:8000", "a b<>", "[", "localhost@evil.example"]) {
    expect([host, verdict(g, ask({ host }), "127.0.0.1")]).toEqual([host, "foreign_origin"]);
  }
  for (const host of ["localhost:8000", "127.0.0.1", "[::1]:8000"]) {
    expect([host, verdict(g, ask({ host }), "127.0.0.1")]).toEqual([host, "admin"]);
  }
  for (const origin of ["https://evil.example", "null", "http://localhost.evil.example", "file://"]) {
    expect([origin, verdict(g, ask({ origin }), "127.0.0.1")]).toEqual([origin, "foreign_origin"]);
  }
  for (const origin of ["http://localhost:9181", "http://127.0.0.1:3000"]) {
    expect([origin, verdict(g, ask({ origin }), "127.0.0.1")]).toEqual([origin, "admin"]);
  }
});

test("without a key a caller from outside stays out, whatever Host it writes", () => {
  for (const env of [{}, { ALLOWED_IP_RANGES: "10.0.0.0/8" }]) {
    const g = guardOf(env);
    for (const ip of ["9.9.9.9", "2001:db8::1", ""]) expect(verdict(g, ask(), ip)).toBe("no_key");
  }
  // through a proxy on this machine the caller is whom the proxy names
  const g = guardOf({ TRUSTED_PROXIES: "127.0.0.1" });
  expect(verdict(g, ask({ "x-forwarded-for": "9.9.9.9" }), "127.0.0.1")).toBe("no_key");
});

test("a proxy that TRUSTED_PROXIES does not name lets nobody in by its own address", () => {
  const claims = (from: string): Record<string, string>[] => [
    { "x-forwarded-for": from },
    { "x-forwarded-for": `127.0.0.1, 10.1.1.1, ${from}` },
    { "x-real-ip": from },
    { forwarded: `for=127.0.0.1, for="${from.includes(":") ? `[${from}]` : from}:5555";proto=https` },
  ];
  const open = guardOf({});
  const ranged = guardOf({ API_KEYS: KEYS, ALLOWED_IP_RANGES: "10.1.0.0/16" });
  for (const from of ["203.0.113.9", "2001:db8::9", "unknown", "_hidden"]) {
    for (const headers of claims(from)) {
      expect([headers, verdict(open, ask(headers), "127.0.0.1")]).toEqual([headers, "no_key"]);
      expect([headers, verdict(ranged, ask(headers), "10.1.0.2")]).toEqual([headers, "no_key"]);
      expect([headers, verdict(ranged, ask({ ...headers, "x-api-key": READ }), "10.1.0.2")]).toEqual([headers, "read"]);
    }
  }
  // for one who may ask himself it may ask
  for (const headers of claims("127.0.0.1").filter((one) => !one["x-forwarded-for"]?.includes("10.1.1.1")))
    expect([headers, verdict(open, ask(headers), "127.0.0.1")]).toEqual([headers, "admin"]);
  expect(verdict(ranged, ask({ "x-forwarded-for": "10.1.7.7" }), "10.1.0.2")).toBe("submit");
  // a trusted one is believed, but for what cannot be read, and where it says who asks in another header only
  const trusting = guardOf({ API_KEYS: KEYS, ALLOWED_IP_RANGES: "10.1.0.0/16", TRUSTED_PROXIES: "10.1.0.2" });
  expect(verdict(trusting, ask({ "x-forwarded-for": "203.0.113.9, 10.1.7.7" }), "10.1.0.2")).toBe("submit");
  expect(verdict(trusting, ask({ "x-forwarded-for": "unknown" }), "10.1.0.2")).toBe("no_key");
  expect(verdict(trusting, ask({ "x-real-ip": "203.0.113.9" }), "10.1.0.2")).toBe("no_key");
  expect(verdict(trusting, ask(), "10.1.0.2")).toBe("submit");
});

test("addresses of one IPv6 customer are one subnet", () => {
  for (const ip of ["2001:db8:1:2::1", "2001:DB8:1:2:ffff:1:2:3", "2001:0db8:0001:0002::"])
    expect([ip, subnetOf(ip)]).toEqual([ip, "2001:db8:1:2::/64"]);
  expect(subnetOf("2001:db8::1")).toBe("2001:db8:0:0::/64");
  expect(subnetOf("::1")).toBe("0:0:0:0::/64");
  expect(subnetOf("1:2:3:4:5:6::")).toBe("1:2:3:4::/64");
  for (const text of ["10.1.2.3", "", "nonsense"]) expect(subnetOf(text)).toBe(text);
});

// ---- containers

const ROUTES = `Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
`;
const ROUTES6 = `00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
`;
const files = (content: Record<string, string>): FileReader => ({
  exists: (path) => path in content,
  read: (path) => {
    if (!(path in content)) throw new Error("ENOENT");
    return content[path] as string;
  },
});

test("containerGateways reads the default routes, in a container only", () => {
  const tables = { "/proc/net/route": ROUTES, "/proc/net/ipv6_route": ROUTES6 };
  expect(containerGateways(files(tables))).toEqual([]);
  const both = ["172.17.0.1", "fd00:0000:0000:0000:0000:0000:0000:0001"];
  expect(containerGateways(files({ ...tables, "/.dockerenv": "" }))).toEqual(both);
  expect(containerGateways(files({ ...tables, "/run/.containerenv": "" }))).toEqual(both);
  expect(containerGateways(files({ "/.dockerenv": "" }))).toEqual([]);
  expect(containerGateways(files({ "/.dockerenv": "", "/proc/net/route": "garbage\n\n" }))).toEqual([]);
});

test("a container's own gateway address never passes without a key", () => {
  const g = guardOf({ API_KEYS: KEYS, ALLOWED_IP_RANGES: "172.16.0.0/12,fd00::/8" }, ["172.17.0.1", "fd00::1"]);
  for (const ip of ["172.17.0.1", "::ffff:172.17.0.1", "fd00::1"])
    expect([ip, verdict(g, ask(), ip)]).toEqual([ip, "no_key"]);
  expect(verdict(g, ask(), "172.17.0.2")).toBe("submit"); // another container
  expect(verdict(g, ask({ "x-api-key": ADMIN }), "172.17.0.1", "admin")).toBe("admin");
});

test("plainIp and isLoopback", () => {
  expect(["1.2.3.4", " 1.2.3.4:80 ", "[::1]:80", "::ffff:1.2.3.4", "fe80::1%en0"].map(plainIp)).toEqual(
    ["1.2.3.4", "1.2.3.4", "::1", "1.2.3.4", "fe80::1"], // biome-ignore format: side by side
  );
  for (const host of ["localhost", "127.0.0.1", "127.255.0.1", "::1", "[::1]"]) expect(isLoopback(host)).toBe(true);
  for (const host of ["0.0.0.0", "::", "127.0.0.1.x", "localhost.x", "", "1270.0.0.1", "128.0.0.1"])
    expect(isLoopback(host)).toBe(false);
});

test("the guard of a configuration needs no more than its settings", () => {
  const config: Config = readConfig({ API_KEYS: KEYS });
  expect(guard(config).find(ADMIN)?.scope).toBe("admin");
  expect(guard(config).find("")).toBeUndefined();
});

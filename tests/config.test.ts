/** The environment: every mistake at once, the edges of durations and sizes, a SERVICES file, the registry. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { assemble, gatewayApp } from "../gateway.ts";
import { ConfigError, readConfig } from "../shared/config.ts";
import { RESERVED } from "../shared/services-file.ts";
import { connect } from "../shared/store/redis.ts";
import { durationMs, sizeBytes } from "../shared/units.ts";

const dir = mkdtempSync(join(tmpdir(), "longhaul-config-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const mistakes = (env: Record<string, string>): string[] => {
  try {
    readConfig(env);
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.mistakes;
    throw error;
  }
};
let files = 0;
const servicesFile = (content: unknown): string => {
  const path = join(dir, `services-${files++}.json`);
  writeFileSync(path, typeof content === "string" ? content : JSON.stringify(content));
  return path;
};
const withFile = (operations: unknown, env = {}) => ({ SERVICES: servicesFile({ operations }), ...env });

test("readConfig without any variable has the defaults of the issue", () => {
  const c = readConfig({});
  expect(c).toMatchObject({
    port: 8000,
    dashboardPort: 9181,
    host: "127.0.0.1",
    dashboardHost: "127.0.0.1",
    resultTtlMs: 86_400_000,
    failureTtlMs: 7 * 86_400_000,
    resultInlineBytes: 262_144,
    maxResultBytes: 16_777_216,
    maxBodyBytes: 1_048_576,
    maxJsonDepth: 64,
    leaseMs: 30_000,
    drainMs: 30_000,
    parkLimitMs: 86_400_000,
    allowVolatile: false,
    uploadsDir: "/uploads",
    dataDir: resolve(".data"),
    resultsDir: resolve(".data/results"),
  });
  expect(c.registry.deployed()).toEqual([]);
});

test("readConfig tells every mistake at once, each by its name", () => {
  const told = mistakes({
    PORT: "80000",
    LEASE: "500ms",
    RESULT_TTL: "soon",
    MAX_BODY_BYTES: "-1",
    API_KEYS: "changeme",
    ALLOWED_IP_RANGES: "10.0.0.0/33,nonsense",
    TRUSTED_PROXIES: "localhost",
    GATEWAY_URL: "ftp://x",
    ALLOW_VOLATILE: "maybe",
    WORKER_SLOTS: "ifcclash:0",
    WORKER_SERVICES: "nosuch",
    IFCCONVERT_URL: "ifcconvert",
    SERVICES: "/nowhere/services.json",
  });
  const names = told.map((line) => /^[A-Z0-9_]+/.exec(line)?.[0]);
  expect(new Set(names)).toEqual(
    new Set([
      ...["PORT", "LEASE", "RESULT_TTL", "MAX_BODY_BYTES", "API_KEYS", "ALLOWED_IP_RANGES", "TRUSTED_PROXIES"],
      ...["GATEWAY_URL", "ALLOW_VOLATILE", "WORKER_SLOTS", "WORKER_SERVICES", "IFCCONVERT_URL", "SERVICES"],
    ]),
  );
  expect(names.filter((name) => name === "ALLOWED_IP_RANGES")).toHaveLength(2);
});

test("durations: what is one, in ms, and what is none", () => {
  const good = {
    "30s": 30_000,
    "5m": 300_000,
    "2h": 7_200_000,
    "1d": 86_400_000,
    "250ms": 250,
    "30": 30_000,
    "1.5s": 1_500,
  };
  for (const [text, ms] of Object.entries(good)) expect([text, durationMs(text)]).toEqual([text, ms]);
  for (const text of ["", "s", "-1s", "1 s", "1w", "1e3", "0x10", "NaN", "Infinity", "1s1m", "1.s", "١s"]) {
    expect([text, durationMs(text)]).toEqual([text, undefined]);
  }
});

test("sizes: what is one, in bytes, and what is none", () => {
  const good = {
    "0": 0,
    "1000": 1_000,
    "1KB": 1_000,
    "1KiB": 1_024,
    "16MiB": 16_777_216,
    "2GiB": 2_147_483_648,
    "1.5 kib": 1_536,
    "7B": 7,
  };
  for (const [text, bytes] of Object.entries(good)) expect([text, sizeBytes(text)]).toEqual([text, bytes]);
  for (const text of ["", "-1", "1TB", "1e3", "MiB", "1 0", "1K"])
    expect([text, sizeBytes(text)]).toEqual([text, undefined]);
});

test("a life of 0 is refused: Redis would lose the record in the step that writes it", () => {
  for (const name of ["RESULT_TTL", "FAILURE_TTL", "IDEMPOTENCY_TTL", "LEASE"]) {
    for (const text of ["0", "0s", "999ms", "31d"]) expect(mistakes({ [name]: text })).toHaveLength(1);
    for (const text of ["1s", "30d"]) expect(mistakes({ [name]: text })).toEqual([]);
  }
});

test("without keys a gateway listens on loopback only, told beside the other mistakes; a worker listens nowhere", () => {
  const told = (env: Record<string, string>) => {
    try {
      readConfig(env, { listens: true });
      return [];
    } catch (error) {
      return (error as ConfigError).mistakes;
    }
  };
  const host = expect.stringMatching(/^HOST is 0\.0\.0\.0, but there are no API_KEYS: .* or HOST=127\.0\.0\.1$/);
  const board = expect.stringContaining("DASHBOARD_HOST is ::, but there are no API_KEYS");
  const wrong = expect.stringContaining("LEASE: must be");
  expect(told({ HOST: "0.0.0.0" })).toEqual([host]);
  expect(told({ HOST: "0.0.0.0", DASHBOARD_HOST: "::", LEASE: "soon" })).toEqual([wrong, host, board]);
  expect(told({ HOST: "0.0.0.0", DASHBOARD_HOST: "127.0.0.1" })).toEqual([host]);
  expect(told({ DASHBOARD_HOST: "::" })).toEqual([board]);
  expect(told({ DASHBOARD_HOST: "::", DASHBOARD_PORT: "0" })).toEqual([]);
  expect(told({ HOST: "0.0.0.0", API_KEYS: "short" })).toEqual([expect.stringContaining("API_KEYS: key 1 has fewer")]);
  expect(told({ HOST: "0.0.0.0", API_KEYS: "goodgoodgood" })).toEqual([]);
  expect(told({ HOST: "0.0.0.0", ALLOWED_IP_RANGES: "10.0.0.0/8" })).toEqual([host]);
  expect(told({ HOST: "0.0.0.0", IFC_PIPELINE_API_KEY: "goodgoodgood" })).toEqual([]);
  expect(mistakes({ HOST: "0.0.0.0" })).toEqual([]);
});

test("numbers: the edges pass, one more does not", () => {
  for (const text of ["0", "65535"]) expect(mistakes({ PORT: text })).toEqual([]);
  for (const text of ["65536", "-1", "80.5", "8e3", "http", " "]) expect(mistakes({ PORT: text })).toHaveLength(1);
});

test("an empty variable counts as unset", () => {
  expect(readConfig({ PORT: "", API_KEYS: "", RESULTS_DIR: "" })).toMatchObject({ port: 8000, apiKeys: [] });
});

test("the old gateway's names work; the new ones win", () => {
  const old = { IFC_PIPELINE_API_KEY: "oldoldoldold", IFC_PIPELINE_ALLOWED_IP_RANGES: "10.0.0.0/8, 192.168.1.7" };
  expect(readConfig(old)).toMatchObject({
    apiKeys: [{ key: "oldoldoldold" }],
    allowedRanges: ["10.0.0.0/8", "192.168.1.7"],
  });
  expect(readConfig({ ...old, API_KEYS: "newnewnewnew" }).apiKeys).toEqual([{ key: "newnewnewnew", scope: "admin" }]);
});

test("ranges: addresses and CIDR of both families, and nothing else", () => {
  for (const item of ["10.0.0.1", "10.0.0.0/8", "0.0.0.0/0", "::1", "fd00::/8", "::/0", "2001:db8::1/128"]) {
    expect([item, mistakes({ ALLOWED_IP_RANGES: item })]).toEqual([item, []]);
  }
  for (const item of [
    "10.0.0",
    "10.0.0.0/",
    "10.0.0.0/33",
    "10.0.0.0/-1",
    "::1/129",
    "10.0.0.0/8/8",
    "host",
    "10.0.0.0-10.0.0.9",
  ]) {
    expect([item, mistakes({ TRUSTED_PROXIES: item }).length]).toEqual([item, 1]);
  }
});

test("each built-in service has its URL variable; the slash at its end does not count", () => {
  const names = ["IFCCONVERT", "IFCCSV", "IFCCLASH", "IFCTESTER", "IFCDIFF", "IFC2JSON", "IFC5D"];
  const { registry } = readConfig(
    Object.fromEntries(names.map((name) => [`${name}_URL`, `http://${name.toLowerCase()}/`])),
  );
  expect(registry.deployed().sort()).toEqual(names.map((name) => name.toLowerCase()).sort());
  for (const op of registry.operations) expect(op.url).toBe(`http://${op.service}`);
});

test("WORKER_SLOTS: one service, all others, and mistakes", () => {
  expect([...readConfig({ WORKER_SLOTS: "ifcclash:1, *:8" }).workerSlots]).toEqual([
    ["ifcclash", 1],
    ["*", 8],
  ]);
  for (const text of ["ifcclash", "ifcclash:", "ifcclash:-1", ":3", "ifcclash:1.5", "nosuch:2", "IFC:1"]) {
    expect([text, mistakes({ WORKER_SLOTS: text }).length]).toEqual([text, 1]);
  }
});

// ---- SERVICES

test("SERVICES: an operation of one's own has the defaults, and its routes and lane follow", () => {
  const { registry } = readConfig(withFile({ thumbnail: { url: "http://thumbs:9000/" } }));
  expect(registry.byName.get("thumbnail")).toMatchObject({
    service: "thumbnail",
    route: "/thumbnail",
    path: "/thumbnail",
    url: "http://thumbs:9000",
    timeoutMs: 3_600_000,
    retries: 2,
    onOrphan: "retry",
    retry500: false,
    accepts: ["application/json"],
  });
  expect(registry.deployed()).toEqual(["thumbnail"]);
});

test("SERVICES: a built-in operation is overridden field by field and keeps the rest", () => {
  const { registry } = readConfig(
    withFile({ ifcclash: { timeout: "3h", concurrency: 2 } }, { IFCCLASH_URL: "http://c" }),
  );
  expect(registry.byName.get("ifcclash")).toMatchObject({
    timeoutMs: 10_800_000,
    concurrency: 2,
    slots: 1,
    url: "http://c",
    files: ["clash_sets.*.a.*.file", "clash_sets.*.b.*.file", "output_filename"],
  });
});

test("SERVICES: a JSON Schema is used; unknown fields pass", () => {
  const { registry } = readConfig(
    withFile({ t: { url: "http://t", schema: { properties: { width: { type: "integer" } }, required: ["width"] } } }),
  );
  const { check } = registry.byName.get("t")!.jsonSchema!;
  expect(check({})).toEqual([{ path: "width", message: "is required" }]);
  expect(check({ width: 3, extra: [1] })).toEqual([]);
});

test("keep_alive vouches for one operation, and is off without it; CONNECT_TIMEOUT is 10 s", () => {
  const config = readConfig(withFile({ a: { url: "http://a", keep_alive: true }, b: { url: "http://b" } }));
  const vouched = ["a", "b", "ifcconvert"].map((name) => config.registry.byName.get(name)?.keepAlive);
  expect([vouched, config.connectTimeoutMs]).toEqual([[true, false, false], 10_000]);
  expect(mistakes(withFile({ a: { url: "http://a", keep_alive: "yes" } })).join()).toContain("operations.a.keep_alive");
  expect(mistakes({ CONNECT_TIMEOUT: "soon" }).join()).toContain("CONNECT_TIMEOUT");
});

test("SERVICES: every mistake of a file at once, with its place", () => {
  const told = mistakes(
    withFile({
      "Bad Name": { url: "http://x" },
      a: { url: "http://a", timeout: "eternal", slots: 0, on_orphan: "perhaps", unknown_key: 1 },
      b: { url: "javascript:alert(1)" },
    }),
  );
  const text = told.join("\n");
  for (const place of ["Bad Name", "operations.a.slots", "operations.a.on_orphan", "unknown_key", "operations.b.url"]) {
    expect(text).toContain(place);
  }
});

test("SERVICES: what is wrong with a file is told in words that name the cure, all of it at one start", () => {
  const told = mistakes(
    withFile(
      {
        Thumb_nail: { url: "http://x" },
        a: { url: "127.0.0.1:9001", timout: "5m", timeout: "soon", backoff: "later", schema: { type: 7 }, slots: 2 },
        b: { url: "ftp://me:hush-hush@host/", frobnicate: 1 },
        c: { timeout: "1m", route: "/jobs" },
      },
      { WORKER_SERVICES: "a,b,c", GATEWAY_URL: "gateway:8000", IFC5D_URL: "//u:hush-hush@ifc5d" },
    ),
  );
  for (const words of [
    'IFC5D_URL: must be an http(s) URL such as http://127.0.0.1:9001, not "…@ifc5d"',
    'GATEWAY_URL: must be an http(s) URL such as http://gateway:8000, not "gateway:8000"',
    "SERVICES.operations.Thumb_nail: a name may have a–z, 0–9 and - only, at most 64",
    'SERVICES.operations.a: there is no key "timout", did you mean timeout?',
    'SERVICES.operations.a.url: must be an http(s) URL such as http://127.0.0.1:9001, not "127.0.0.1:9001"',
    "SERVICES.operations.a.timeout: must be a duration",
    "SERVICES.operations.a.backoff: must be a duration",
    "SERVICES.operations.a.schema.type: a payload always is an object",
    'SERVICES.operations.b: there is no key "frobnicate"; there are service, route, url,',
    'SERVICES.operations.b.url: must be an http(s) URL such as http://127.0.0.1:9001, not "ftp://…@host/"',
    "SERVICES.operations.c.url: is needed for a new operation",
    "SERVICES.operations.c.route: is /jobs, one of the gateway's own routes; set another",
  ]) {
    expect([words, told.filter((line) => line.startsWith(words)).length, told]).toEqual([words, 1, told]);
  }
  expect(told).toHaveLength(12);
  for (const content of [{ operations: [] }, {}, [], null, 7]) {
    expect(mistakes({ SERVICES: servicesFile(content) })).toEqual([
      expect.stringContaining("needs an object `operations`"),
    ]);
  }
});

test("SERVICES: durations of 0 and no address are told", () => {
  const text = mistakes(withFile({ a: { timeout: 0, result_ttl: "0s" } })).join("\n");
  for (const place of ["operations.a.timeout", "operations.a.result_ttl", "operations.a.url"])
    expect(text).toContain(place);
});

test("SERVICES: not JSON, not there, two operations on one route", () => {
  expect(mistakes({ SERVICES: servicesFile("{") })[0]).toContain("is not JSON");
  expect(mistakes({ SERVICES: join(dir, "none.json") })[0]).toContain("does not exist");
  const same = withFile({ a: { url: "http://a", route: "/x" }, b: { url: "http://b", route: "/x" } });
  expect(mistakes(same)[0]).toContain("same route /x");
});

test("SERVICES: a route may not hide one of the gateway's own", () => {
  for (const route of ["/jobs", "/jobs/:id/cancel", "/health", "/livez", "/x/*"]) {
    expect([route, mistakes(withFile({ a: { url: "http://a", route } })).length > 0]).toEqual([route, true]);
  }
});

test("SERVICES: an operation's name alone may not hide one either: each first part of a real route is reserved", () => {
  for (const name of ["jobs", "batches", "health", "audit", "alerts", "upload", "docs"]) {
    const told = mistakes(withFile({ [name]: { url: "http://a" } }));
    expect(told).toEqual([expect.stringContaining(`SERVICES.operations.${name}.route: is /${name} if left out`)]);
    expect(mistakes(withFile({ [name]: { url: "http://a", route: `/my-${name}` } }))).toEqual([]);
  }
  const config = readConfig({});
  const redis = connect("redis://127.0.0.1:9", "request", "never-asked");
  const app = gatewayApp(assemble(config, redis));
  redis.disconnect();
  const first = (path: string) => path.split("/")[1] as string;
  // GET /ifc2json/… stands beside the operation of that name
  const operations = new Set(config.registry.operations.map((op) => first(op.route)));
  const own = new Set(app.routes.map(({ path }) => first(path)).filter((part) => part && !operations.has(part)));
  const later = "schedules"; // contract.md keeps it free
  expect([...own, later].sort()).toEqual([...RESERVED].sort());
});

test("alerts: shares, durations and an address of the operator's own; a user or a password in it is refused", () => {
  const { alertWebhook, alerts } = readConfig({
    ALERT_WEBHOOK: "http://relay:9000/x",
    ALERT_FAILURE_RATE: "12.5%",
    ALERT_MEMORY: "100 %",
    ALERT_NO_WORKER: "0",
  });
  expect(alertWebhook).toBe("http://relay:9000/x");
  expect(alerts).toMatchObject({ failureRate: 0.125, memory: 1, noWorkerMs: 0 });
  for (const url of ["relay:9000", "ftp://a/b", "http://u:p@a/", "/x"]) {
    expect([url, mistakes({ ALERT_WEBHOOK: url }).join()]).toEqual([url, expect.stringContaining("ALERT_WEBHOOK")]);
  }
  for (const share of ["0.5", "101%", "-1%", "half", "%"]) {
    expect([share, mistakes({ ALERT_MEMORY: share }).join()]).toEqual([share, expect.stringContaining("20%")]);
  }
});

test("ALERT_WEBHOOK with a fragment stops the start: the fragment would never be sent", () => {
  expect(mistakes({ ALERT_WEBHOOK: "http://relay:9000/#/hooks/7" })).toEqual([
    expect.stringMatching(/^ALERT_WEBHOOK.*the URL has a fragment, which no request carries/),
  ]);
});

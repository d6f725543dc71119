/** compose.yaml as it reads the environment, and the worker's healthcheck. tests/compose.sh runs all of it on an engine. */
import { afterEach, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { readConfig, VARIABLES } from "../shared/config.ts";
import { limit } from "./support/patience.ts";
import { freePort, startRedis, type TestRedis } from "./support/redis.ts";
import { type Process, startProcess, until } from "./support/stack.ts";

const ROOT = new URL("..", import.meta.url).pathname;
const read = (path: string) => readFileSync(join(ROOT, path), "utf8");
const COMPOSE = read("compose.yaml");

type Service = { environment: Record<string, string>; volumes: (string | Record<string, unknown>)[] };
/** compose.yaml as compose fills it in: `${NAME:-fallback}`. */
function services(env: Record<string, string> = {}): Record<string, Service> {
  const text = COMPOSE.replace(/\$\{(\w+)(?::[-?]([^}]*))?\}/g, (_, name, fallback = "") => env[name] || fallback);
  return (Bun.YAML.parse(text) as { services: Record<string, Service> }).services;
}
const passed = (name: "gateway" | "worker") => Object.keys(services()[name]?.environment ?? {});

/** What the image sets once for all, and why .env does not: a container's own addresses and folders. */
const FIXED = [
  "HOST",
  "DASHBOARD_HOST",
  "DASHBOARD_PORT",
  "UPLOADS_DIR",
  "OUTPUT_DIR",
  "EXAMPLES_DIR",
  "DATA_DIR",
  "RESULTS_DIR",
];
/** What .env says of the host, and not of the process. */
const OF_HOST = ["PORT", "DASHBOARD_PORT", "SERVICES"];

// ---- who reads what

const code = (path: string) =>
  read(path)
    .replace(/\/\*[\s\S]*?\*\//g, "")
    .replace(/^\s*\/\/.*$/gm, "");

/** Every file that an entry runs. */
function filesOf(entry: string): string[] {
  const files = new Set<string>();
  const add = (path: string) => {
    if (files.has(path)) return;
    files.add(path);
    const imports = read(path).matchAll(/^(?:import|export) (?!type\b)[^;]*? from "(\.[^"]+)"/gm);
    for (const [, target] of imports) add(join(path, "..", target as string));
  };
  add(entry);
  return [...files].filter((path) => !path.startsWith("shared/config"));
}

/** Variables whose values an entry's files read, by the names they have in Config. */
function readBy(entry: string): string[] {
  const names = [...code("shared/config.ts").matchAll(/^ +(\w+): .*?\be\.([A-Z_0-9]+)/gm)].map((m) => m.slice(1, 3));
  expect(names.length).toBeGreaterThan(VARIABLES.length - 20);
  const text = filesOf(entry).map(code).join("\n");
  const isRead = (field: string) =>
    new RegExp(`\\b(?:config|settings|alerts)!?\\.${field}\\b|[{,] *${field}\\b[^(;]*\\} = `).test(text);
  return names.filter(([field]) => isRead(field as string)).map(([, name]) => name as string);
}

test.each(["gateway", "worker"] as const)("compose.yaml passes to the %s each variable that it reads", (name) => {
  const reads = readBy(`${name}.ts`).filter((variable) => !FIXED.includes(variable) && variable !== "PORT");
  expect(reads.length).toBeGreaterThan(20);
  const got = passed(name);
  expect(reads.filter((variable) => !got.includes(variable))).toEqual([]);
  // read by both entries through the registry and the log, and not by a name of Config
  for (const variable of ["SERVICES", "IFCCONVERT_URL", "IFC5D_URL", "LOG_LEVEL", "LOG_FORMAT"])
    expect(got).toContain(variable);
});

test("each variable of README's table reaches a container, but for those that the image sets", () => {
  const all = new Set([...passed("gateway"), ...passed("worker"), ...FIXED, "IFC_PIPELINE_API_KEY"]); // compose asks for API_KEYS (docs/migrate.md)
  expect(VARIABLES.filter((name) => !all.has(name))).toEqual([]);
  for (const name of [...passed("gateway"), ...passed("worker")]) expect(VARIABLES).toContain(name);
  expect(passed("worker")).not.toContain("API_KEYS"); // a worker knows no client's key
});

test("a value in .env reaches the process as it is", () => {
  for (const name of new Set([...passed("gateway"), ...passed("worker")])) {
    if (OF_HOST.includes(name)) continue;
    const { gateway, worker } = services({ [name]: "the-value" });
    const values = [gateway, worker].flatMap((service) => service?.environment[name] ?? []);
    expect([name, new Set(values)]).toEqual([name, new Set(["the-value"])]);
  }
});

test("compose.yaml's own values are a configuration that starts", () => {
  for (const name of ["gateway", "worker"] as const) {
    const environment = Object.fromEntries(
      Object.entries(services({ API_KEYS: "0123456789abcdef" })[name]?.environment ?? {}).map(([key, value]) => [
        key,
        key === "SERVICES" ? join(ROOT, "examples/no-services.json") : String(value ?? ""),
      ]),
    );
    const config = readConfig(environment, { listens: name === "gateway" });
    expect(config.registry.deployed().sort()).toEqual(["ifc2json", "ifcclash", "ifcconvert"]);
  }
});

test("the file that SERVICES names is mounted where gateway and worker read it", () => {
  for (const [given, source] of [
    [{}, "./examples/no-services.json"],
    [{ SERVICES: "./mine.json" }, "./mine.json"],
  ] as const) {
    const { gateway, worker } = services(given);
    for (const service of [gateway, worker]) {
      const target = service?.environment.SERVICES as string;
      expect(service?.volumes).toContainEqual({ type: "bind", source, target, read_only: true });
    }
  }
});

test(".env.example shows each variable that compose.yaml reads, and no other", () => {
  const used = [COMPOSE, read("compose.pipeline.yaml")].flatMap((text) =>
    [...text.matchAll(/\$\{(\w+)/g)].map((m) => m[1] as string),
  );
  const shown = [...read(".env.example").matchAll(/^#?([A-Z][A-Z0-9_]+)=/gm)].map((m) => m[1] as string);
  expect([...new Set(shown)].sort()).toEqual([...new Set(used)].sort());
  expect(shown.length).toBe(new Set(shown).size);
});

// ---- the healthcheck

let redis: TestRedis | undefined;
let worker: Process | undefined;
afterEach(async () => {
  worker?.kill("SIGKILL");
  await worker?.exited;
  await redis?.stop();
  redis = undefined;
});

/** The healthcheck's exit code, and what it says. */
async function health(env: Record<string, string>): Promise<[code: number, said: string]> {
  const check = startProcess("worker.ts --health", env);
  const code = await check.exited;
  return [code, check.output()];
}

test.each(["redis", "redis+cluster"])(
  "the worker's healthcheck is well while the worker beats: %s://",
  async (scheme) => {
    redis = await startRedis(
      scheme === "redis" ? {} : { "cluster-enabled": "yes", "cluster-announce-ip": "127.0.0.1" },
    );
    if (scheme !== "redis") {
      await redis.client.call("CLUSTER", "ADDSLOTSRANGE", "0", "16383");
      await until(async () => String(await redis?.client.call("CLUSTER", "INFO")).includes("cluster_state:ok"));
    }
    const env = { REDIS_URL: `${scheme}://127.0.0.1:${redis.port}`, IFCCONVERT_URL: "http://127.0.0.1:9", LEASE: "2s" };
    expect((await health(env))[0]).toBe(1); // nobody has beaten yet
    worker = startProcess("worker.ts", env);
    await worker.says(/ready under/);
    expect(await health(env)).toEqual([0, ""]);
    worker.kill("SIGSTOP"); // it lives, and does nothing
    await until(async () => (await health(env))[0] === 1, 20_000);
    expect((await health(env))[1]).toMatch(/^Redis at 127\.0\.0\.1:\d+ has heard of no worker on \S+ for 2 s\n$/);
  },
);

test("the worker's healthcheck fails within its 10 s while Redis is away, and names no password", async () => {
  const env = { REDIS_URL: `redis://:hush-hush@127.0.0.1:${await freePort()}`, IFCCONVERT_URL: "http://127.0.0.1:9" };
  const began = performance.now();
  const [code, said] = await health(env);
  expect(code).toBe(1);
  expect(performance.now() - began).toBeLessThan(limit(10_000));
  expect(said).toContain("Redis does not answer");
  expect(said).not.toContain("hush-hush");
});

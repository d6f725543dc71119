/**
 * The environment, parsed once. All mistakes are told at once, each with what is allowed.
 * README.md has the table of names; a test holds it and this file together.
 */
import { existsSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { z } from "zod";
import { NAME } from "./jobs.ts";
import { BUILT_IN, type Operation, operation, Registry } from "./services.ts";
import { allowance } from "./ssrf.ts";

const UNITS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** "30s", "5m", "2h", "1d", "250ms", or a number of seconds → ms; undefined when it is none. */
export function durationMs(text: string): number | undefined {
  const m = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)?$/.exec(text.trim());
  return m ? Math.round(Number(m[1]) * (UNITS[m[2] ?? "s"] as number)) : undefined;
}

/** "16MiB", "2GiB", "512KiB", "1000" → bytes; undefined when it is none. */
export function sizeBytes(text: string): number | undefined {
  const m = /^(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|KB|MB|GB)?$/i.exec(text.trim());
  if (!m) return undefined;
  const power = { b: 0, k: 1, m: 2, g: 3 }[(m[2] ?? "B").charAt(0).toLowerCase()] as number;
  const base = (m[2] ?? "").toLowerCase().includes("ib") ? 1024 : 1000;
  return Math.round(Number(m[1]) * base ** power);
}

const parsed =
  <T>(read: (text: string) => T | undefined, expected: string) =>
  (fallback: string) =>
    z
      .string()
      .default(fallback)
      .transform((text, ctx) => {
        const value = read(text);
        if (value !== undefined) return value;
        ctx.addIssue(`must be ${expected}, not ${JSON.stringify(text)}`);
        return z.NEVER;
      });

export const MAX_DURATION_MS = 30 * 86_400_000;
const duration = parsed((text) => {
  const ms = durationMs(text);
  return ms !== undefined && ms <= MAX_DURATION_MS ? ms : undefined;
}, "a duration such as 30s, 5m or 2h, at most 30d");
const size = parsed(sizeBytes, "a size such as 256KiB, 16MiB or 2GiB");
const int = (min: number, max: number) =>
  parsed((text) => {
    const n = Number(text);
    return /^\d+$/.test(text.trim()) && n >= min && n <= max ? n : undefined;
  }, `a whole number from ${min} to ${max}`);
const number = (min: number, max: number) =>
  parsed((text) => {
    const n = Number(text);
    return /^\d+(\.\d+)?$/.test(text.trim()) && n >= min && n <= max ? n : undefined;
  }, `a number from ${min} to ${max}`);
const flag = parsed(
  (text) => ({ "1": true, true: true, "0": false, false: false, "": false })[text.toLowerCase()],
  "1 or 0",
);
const list = (fallback = "") =>
  z
    .string()
    .default(fallback)
    .transform((text) =>
      text
        .split(",")
        .map((item) => item.trim())
        .filter(Boolean),
    );
/** Hosts, addresses and ranges that a guarded request may reach beside public ones. */
const allowed = (variable: string) =>
  list().transform((items, ctx) => {
    try {
      return allowance(items, variable);
    } catch (error) {
      ctx.addIssue((error as Error).message.replace(`${variable}: `, ""));
      return z.NEVER;
    }
  });
const path = (fallback: string) =>
  z
    .string()
    .default(fallback)
    .transform((text) => resolve(text));

const SCOPES = ["read", "submit", "admin"] as const;
export type Scope = (typeof SCOPES)[number];
const PLACEHOLDERS = /^(changeme|change-me|secret|password|your[-_ ]?(api[-_ ]?)?key.*|xxx+|test|example|<.*>)$/i;

const apiKeys = list().transform((items, ctx) =>
  items.map((item) => {
    const cut = item.lastIndexOf(":");
    const scope = cut > 0 ? item.slice(cut + 1) : "";
    const scoped = (SCOPES as readonly string[]).includes(scope);
    const key = scoped ? item.slice(0, cut) : item;
    if (PLACEHOLDERS.test(key)) ctx.addIssue("holds a placeholder; make a real key, for example: openssl rand -hex 24");
    else if (key.length < 8) ctx.addIssue("holds a key of fewer than 8 characters; make one: openssl rand -hex 24");
    return { key, scope: (scoped ? scope : "admin") as Scope };
  }),
);

/** `ifcclash:1,*:8` → slots by service; "*" is every other. */
const slots = list().transform((items, ctx) => {
  const map = new Map<string, number>();
  for (const item of items) {
    const m = /^([a-z0-9-]{1,64}|\*):(\d{1,5})$/.exec(item);
    if (m && Number(m[2]) > 0) map.set(m[1] as string, Number(m[2]));
    else ctx.addIssue(`must look like ifcclash:1,*:8, not ${JSON.stringify(item)}`);
  }
  return map;
});

const ENVIRONMENT = z.object({
  PORT: int(0, 65535)("8000"),
  DASHBOARD_PORT: int(0, 65535)("9181"),
  HOST: z.string().default("127.0.0.1"),
  DASHBOARD_HOST: z.string().optional(),
  REDIS_URL: z.string().default("redis://127.0.0.1:6379"),
  API_KEYS: apiKeys,
  ALLOWED_IP_RANGES: list(),
  TRUSTED_PROXIES: list(),
  UPLOADS_DIR: path("/uploads"),
  OUTPUT_DIR: path("/output"),
  EXAMPLES_DIR: path("/examples"),
  DATA_DIR: path(".data"),
  RESULTS_DIR: z.string().optional(),
  GATEWAY_URL: z.url({ protocol: /^https?$/, error: "must be an http(s) URL" }).optional(),
  SERVICES: z.string().optional(),
  WORKER_SERVICES: list(),
  WORKER_SLOTS: slots,
  RESULT_TTL: duration("24h"),
  FAILURE_TTL: duration("7d"),
  IDEMPOTENCY_TTL: duration("24h"),
  RESULT_INLINE_BYTES: size("256KiB"),
  MAX_RESULT_BYTES: size("16MiB"),
  MAX_BODY_BYTES: size("1MiB"),
  MAX_BATCH_BYTES: size("64MiB"),
  MAX_BATCH_JOBS: int(1, 10_000)("10000"),
  BATCH_TIMEOUT: duration("60s"),
  MAX_JSON_DEPTH: int(1, 1000)("64"),
  MAX_UPLOAD_BYTES: size("2GiB"),
  DOWNLOAD_TTL: duration("30m"),
  DOWNLOAD_ALLOW: allowed("DOWNLOAD_ALLOW"),
  DOWNLOAD_TIMEOUT: duration("1h"),
  MAX_WAITS: int(0, 1_000_000)("10000"),
  EVENTS_HEARTBEAT: duration("15s"),
  MAX_QUEUED: int(0, 1_000_000_000)("1000000"),
  PARK_LIMIT: duration("24h"),
  DRAIN_TIMEOUT: duration("30s"),
  LEASE: duration("30s"),
  ALLOW_VOLATILE: flag("0"),
  AUTOSCALE_MIN: int(0, 10_000)("1"),
  AUTOSCALE_MAX: int(1, 10_000)("10"),
  AUTOSCALE_TARGET: number(0.01, 10_000)("1"),
  IFCCONVERT_URL: z.string().optional(),
  IFCCSV_URL: z.string().optional(),
  IFCCLASH_URL: z.string().optional(),
  IFCTESTER_URL: z.string().optional(),
  IFCDIFF_URL: z.string().optional(),
  IFC2JSON_URL: z.string().optional(),
  IFC5D_URL: z.string().optional(),
});

/** Names of every variable that is read. */
export const VARIABLES = Object.keys(ENVIRONMENT.shape);

/** Names of the old gateway that still work. */
const ALIASES: Record<string, string> = {
  IFC_PIPELINE_API_KEY: "API_KEYS",
  IFC_PIPELINE_ALLOWED_IP_RANGES: "ALLOWED_IP_RANGES",
};

/** Thrown with every mistake at once, a line each. */
export class ConfigError extends Error {
  constructor(readonly mistakes: string[]) {
    super(`The configuration cannot be used:\n${mistakes.map((line) => `  - ${line}`).join("\n")}`);
  }
}

const serviceFile = z.object({
  operations: z.record(
    z.string().regex(NAME, "a name may have a–z, 0–9 and - only, at most 64"),
    z.strictObject({
      service: z.string().regex(NAME, "a name may have a–z, 0–9 and - only, at most 64").optional(),
      route: z.string().startsWith("/").optional(),
      url: z.url({ protocol: /^https?$/, error: "must be an http(s) URL" }).optional(),
      path: z.string().startsWith("/").optional(),
      summary: z.string().optional(),
      timeout: z.union([z.string(), z.number()]).optional(),
      slots: z.int().min(1).max(65_000).optional(),
      concurrency: z.int().min(0).optional(),
      retries: z.int().min(0).max(100).optional(),
      backoff: z.union([z.string(), z.number()]).optional(),
      retry500: z.boolean().optional(),
      retry_timeout: z.boolean().optional(),
      on_orphan: z.enum(["retry", "fail"]).optional(),
      result_ttl: z.union([z.string(), z.number()]).optional(),
      files: z.array(z.string()).optional(),
      accepts: z.array(z.string()).optional(),
      schema: z.record(z.string(), z.unknown()).optional(),
    }),
  ),
});

/** What a person would call the place of a zod issue: `operations.thumbnail.timeout: …`. */
const told = (issue: { path: PropertyKey[]; message: string }, prefix = "") =>
  `${[prefix, ...issue.path].filter((part) => part !== "").join(".")}: ${issue.message}`;

/** Operations of a SERVICES file laid over the built-in ones. Mistakes are added to `mistakes`. */
function withServicesFile(builtIn: Operation[], name: string, mistakes: string[]): Operation[] {
  let given: unknown;
  try {
    given = JSON.parse(readFileSync(name, "utf8"));
  } catch (error) {
    mistakes.push(
      `SERVICES: ${name} ${existsSync(name) ? `is not JSON: ${(error as Error).message}` : "does not exist"}`,
    );
    return builtIn;
  }
  const checked = serviceFile.safeParse(given);
  if (!checked.success) {
    for (const issue of checked.error.issues) mistakes.push(told(issue, "SERVICES"));
    return builtIn;
  }
  const all = new Map(builtIn.map((op) => [op.name, op]));
  for (const [key, entry] of Object.entries(checked.data.operations)) {
    const base = all.get(key);
    const ms = (value: string | number | undefined, field: string) => {
      if (value === undefined) return undefined;
      const read = durationMs(String(value));
      if (read === undefined || read > MAX_DURATION_MS) {
        mistakes.push(`SERVICES.operations.${key}.${field}: must be a duration such as 30s or 2h, at most 30d`);
      }
      return read;
    };
    let schema = base?.schema ?? (z.looseObject({}) as Operation["schema"]);
    if (entry.schema) {
      try {
        schema = z.fromJSONSchema({ type: "object", ...entry.schema } as never) as Operation["schema"];
      } catch (error) {
        mistakes.push(`SERVICES.operations.${key}.schema: ${(error as Error).message}`);
      }
    }
    if (!base && !entry.url) mistakes.push(`SERVICES.operations.${key}.url: is needed for a new operation`);
    const changes = {
      service: entry.service,
      route: entry.route,
      path: entry.path,
      url: entry.url?.replace(/\/+$/, ""),
      summary: entry.summary,
      timeoutMs: ms(entry.timeout, "timeout"),
      slots: entry.slots,
      concurrency: entry.concurrency,
      retries: entry.retries,
      backoffMs: ms(entry.backoff, "backoff"),
      retry500: entry.retry500,
      retryTimeout: entry.retry_timeout,
      onOrphan: entry.on_orphan,
      resultTtlMs: ms(entry.result_ttl, "result_ttl"),
      files: entry.files,
      accepts: entry.accepts,
    };
    const set = Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== undefined));
    const start =
      base ?? operation({ name: key, service: key, route: `/${key}`, path: `/${key}`, summary: key, schema });
    all.set(key, { ...start, ...set, schema });
  }
  return [...all.values()];
}

/** The address of a built-in service: IFC5D_URL for ifc5d. */
const variableOf = (service: string) => `${service.toUpperCase().replaceAll("-", "_")}_URL`;

/**
 * Reads the environment.
 * @param env  variables by name; an empty text counts as unset
 * @throws ConfigError with every mistake
 */
export function readConfig(env: Record<string, string | undefined>) {
  const given: Record<string, string> = {};
  for (const [name, value] of Object.entries(env)) {
    if (value === undefined || value === "") continue;
    const target = ALIASES[name] ?? name;
    if (target !== name && env[target]) continue; // the new name wins
    given[target] = value;
  }
  const result = ENVIRONMENT.safeParse(given);
  const mistakes = result.success ? [] : result.error.issues.map((issue) => told(issue));
  let operations = BUILT_IN.map((op) => {
    const url = given[variableOf(op.service)]?.replace(/\/+$/, "");
    if (url && !/^https?:\/\/[^/]/.test(url))
      mistakes.push(`${variableOf(op.service)}: must be an http(s) URL, not ${url}`);
    return { ...op, url };
  });
  if (given.SERVICES) operations = withServicesFile(operations, given.SERVICES, mistakes);
  let registry = new Registry([]);
  try {
    registry = new Registry(operations);
  } catch (error) {
    mistakes.push(`SERVICES: ${(error as Error).message}`);
  }
  if (!result.success || mistakes.length) throw new ConfigError(mistakes);
  const e = result.data;
  for (const name of [...e.WORKER_SERVICES, ...e.WORKER_SLOTS.keys()]) {
    if (name !== "*" && !registry.services.has(name)) {
      mistakes.push(
        `WORKER_SERVICES, WORKER_SLOTS: no such service ${name}; there are ${[...registry.services.keys()].join(", ")}`,
      );
    }
  }
  if (e.LEASE < 1_000) mistakes.push("LEASE: must be at least 1s");
  if (mistakes.length) throw new ConfigError(mistakes);
  return {
    port: e.PORT,
    dashboardPort: e.DASHBOARD_PORT,
    host: e.HOST,
    dashboardHost: e.DASHBOARD_HOST ?? e.HOST,
    redisUrl: e.REDIS_URL,
    apiKeys: e.API_KEYS,
    allowedRanges: e.ALLOWED_IP_RANGES,
    trustedProxies: e.TRUSTED_PROXIES,
    uploadsDir: e.UPLOADS_DIR,
    outputDir: e.OUTPUT_DIR,
    examplesDir: e.EXAMPLES_DIR,
    dataDir: e.DATA_DIR,
    resultsDir: resolve(e.RESULTS_DIR ?? `${e.DATA_DIR}/results`),
    gatewayUrl: e.GATEWAY_URL?.replace(/\/+$/, ""),
    registry,
    workerServices: e.WORKER_SERVICES,
    workerSlots: e.WORKER_SLOTS,
    resultTtlMs: e.RESULT_TTL,
    failureTtlMs: e.FAILURE_TTL,
    idempotencyTtlMs: e.IDEMPOTENCY_TTL,
    resultInlineBytes: e.RESULT_INLINE_BYTES,
    maxResultBytes: e.MAX_RESULT_BYTES,
    maxBodyBytes: e.MAX_BODY_BYTES,
    maxBatchBytes: e.MAX_BATCH_BYTES,
    maxBatchJobs: e.MAX_BATCH_JOBS,
    batchTimeoutMs: e.BATCH_TIMEOUT,
    maxJsonDepth: e.MAX_JSON_DEPTH,
    maxUploadBytes: e.MAX_UPLOAD_BYTES,
    downloadTtlMs: e.DOWNLOAD_TTL,
    downloadAllow: e.DOWNLOAD_ALLOW,
    downloadTimeoutMs: e.DOWNLOAD_TIMEOUT,
    maxWaits: e.MAX_WAITS,
    heartbeatMs: Math.max(100, e.EVENTS_HEARTBEAT),
    maxQueued: e.MAX_QUEUED,
    parkLimitMs: e.PARK_LIMIT,
    drainMs: e.DRAIN_TIMEOUT,
    leaseMs: e.LEASE,
    allowVolatile: e.ALLOW_VOLATILE,
    autoscaleMin: e.AUTOSCALE_MIN,
    autoscaleMax: e.AUTOSCALE_MAX,
    autoscaleTarget: e.AUTOSCALE_TARGET,
  };
}

export type Config = ReturnType<typeof readConfig>;

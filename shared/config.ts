/**
 * The environment, parsed once. All mistakes are told at once, each with what is allowed.
 * README.md has the table of names; a test holds it and this file together.
 */
import { resolve } from "node:path";
import { z } from "zod";
import "./issue-words.ts";
import { isLoopback } from "./addresses.ts";
import { apiKeys, oneKey } from "./api-keys.ts";
import { readBaseUrl, splitCredentials } from "./base-url.ts";
import {
  addresses,
  allowed,
  basePath,
  duration,
  flag,
  hosts,
  int,
  life,
  list,
  namespace,
  number,
  oneOf,
  origins,
  path,
  rate,
  redisUrl,
  share,
  size,
  slots,
  webhook,
  webhookSecrets,
} from "./config-fields.ts";
import { FORMATS, LEVELS } from "./log.ts";
import { mistypedVariables } from "./nearest.ts";
import { BUILT_IN, type Operation, Registry } from "./services.ts";
import { httpUrl, told, withServicesFile } from "./services-file.ts";

export type { ApiKey, Scope } from "./api-keys.ts";

const ENVIRONMENT = z.object({
  PORT: int(0, 65535)("8000"),
  DASHBOARD_PORT: int(0, 65535)("9181"),
  HOST: z.string().default("127.0.0.1"),
  DASHBOARD_HOST: z.string().optional(),
  REDIS_URL: redisUrl("redis://127.0.0.1:6379"),
  NAMESPACE: namespace("lh"),
  API_KEYS: apiKeys,
  IFC_PIPELINE_API_KEY: oneKey,
  ALLOWED_IP_RANGES: addresses,
  ALLOWED_HOSTS: hosts,
  TRUSTED_PROXIES: addresses,
  RATE_LIMIT: rate("0"),
  CORS_ORIGINS: origins,
  UPLOADS_DIR: path("/uploads"),
  OUTPUT_DIR: path("/output"),
  EXAMPLES_DIR: path("/examples"),
  DATA_DIR: path(".data"),
  RESULTS_DIR: z.string().optional(),
  BASE_PATH: basePath,
  GATEWAY_URL: httpUrl("http://gateway:8000").optional(),
  SERVICES: z.string().optional(),
  WORKER_SERVICES: list(),
  WORKER_SLOTS: slots,
  RESULT_TTL: life("24h"),
  FAILURE_TTL: life("7d"),
  IDEMPOTENCY_TTL: life("24h"),
  RESULT_INLINE_BYTES: size("256KiB"),
  MAX_RESULT_BYTES: size("16MiB"),
  RESULT_WRITE_RETRY: duration("10m"),
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
  WEBHOOK_SECRET: webhookSecrets,
  CALLBACK_ALLOW: allowed("CALLBACK_ALLOW"),
  CALLBACK_TIMEOUT: duration("15s"),
  CALLBACK_RETRY_FOR: duration("24h"),
  ALERT_WEBHOOK: webhook,
  ALERT_OLDEST_WAIT: duration("30m"),
  ALERT_NO_WORKER: duration("2m"),
  ALERT_PARKED: duration("2m"),
  ALERT_FAILURE_RATE: share("50%"),
  ALERT_FAILURE_JOBS: int(1, 1_000_000)("10"),
  ALERT_MEMORY: share("75%"),
  ALERT_RESULTS_DIR: duration("2m"),
  ALERT_HOLD: duration("30s"),
  PARK_LIMIT: duration("24h"),
  CONNECT_TIMEOUT: duration("10s"),
  DRAIN_TIMEOUT: duration("30s"),
  SHUTDOWN_DELAY: duration("0s"),
  LEASE: life("30s"),
  ALLOW_VOLATILE: flag("0"),
  AUTOSCALE_MIN: int(0, 10_000)("1"),
  AUTOSCALE_MAX: int(1, 10_000)("10"),
  AUTOSCALE_TARGET: number(0.01, 10_000)("1"),
  LOG_FORMAT: oneOf(FORMATS)("text"),
  LOG_LEVEL: oneOf(LEVELS)("info"),
  ACCESS_LOG: flag("0"),
  REDACT_KEYS: list("password,passwd,secret,token,authorization,cookie,api_key,access_key,private_key,credentials"),
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
  IFC_PIPELINE_ALLOWED_IP_RANGES: "ALLOWED_IP_RANGES",
};

/** Names that compose.yaml and its override read, and no process. */
const OF_COMPOSE = [
  "REDIS_MAXMEMORY",
  "REDIS_MEMORY_LIMIT",
  "GATEWAY_PORT",
  "GATEWAY_ALIAS",
  "PIPELINE_DIR",
  "PIPELINE_NETWORK",
];

/** Thrown with every mistake at once, a line each. */
export class ConfigError extends Error {
  constructor(readonly mistakes: string[]) {
    super(`The configuration cannot be used:\n${mistakes.map((line) => `  - ${line}`).join("\n")}`);
  }
}

/** The address of a built-in service: IFC5D_URL for ifc5d. */
const variableOf = (service: string) => `${service.toUpperCase().replaceAll("-", "_")}_URL`;

/** A user and a password in a service's address become a header: so both transports send them, and no sentence shows them. */
function withoutCredentials(op: Operation): Operation {
  if (!op.url) return op;
  const { url, authorization } = splitCredentials(op.url);
  return authorization ? { ...op, url, headers: { authorization, ...op.headers } } : op;
}

/** Addresses that others could reach without a key. Each variable is read by itself: another one may be wrong. */
function exposed(given: Record<string, string>): string[] {
  const { API_KEYS, IFC_PIPELINE_API_KEY, DASHBOARD_PORT, HOST } = ENVIRONMENT.shape;
  const isNone = (list: { data?: unknown[] | undefined }) => list.data?.length === 0;
  if (!isNone(API_KEYS.safeParse(given.API_KEYS))) return [];
  if (!isNone(IFC_PIPELINE_API_KEY.safeParse(given.IFC_PIPELINE_API_KEY))) return [];
  const host = HOST.parse(given.HOST);
  const hasBoard = DASHBOARD_PORT.safeParse(given.DASHBOARD_PORT).data !== 0;
  const hosts = { HOST: host, ...(hasBoard && given.DASHBOARD_HOST ? { DASHBOARD_HOST: given.DASHBOARD_HOST } : {}) };
  return Object.entries(hosts)
    .filter(([, address]) => !isLoopback(address))
    .map(
      ([name, address]) =>
        `${name} is ${address}, but there are no API_KEYS: without keys the gateway listens on loopback only. Set API_KEYS, or ${name}=127.0.0.1`,
    );
}

/**
 * Reads the environment.
 * @param env      variables by name; blanks around a value do not count, an empty text counts as unset
 * @param listens  whether it is for a gateway, which without keys may listen on loopback only
 * @throws ConfigError with every mistake
 */
export function readConfig(env: Record<string, string | undefined>, { listens = false } = {}) {
  const given: Record<string, string> = {};
  for (const [name, value] of Object.entries(env)) {
    if (value === undefined || value === "") continue;
    const target = ALIASES[name] ?? name;
    if (target !== name && env[target]) continue; // the new name wins
    given[target] = value.trim() || value; // a blank or a carriage return at the end of a line of .env belongs to no value
  }
  const result = ENVIRONMENT.safeParse(given);
  const mistakes = result.success ? [] : result.error.issues.map((issue) => told(issue));
  const urls = new Map<string, string>();
  for (const service of new Set(BUILT_IN.map((op) => op.service))) {
    const url = given[variableOf(service)];
    const read = url === undefined ? undefined : readBaseUrl(url, "http://127.0.0.1:9001");
    if (read && "url" in read) urls.set(service, read.url);
    else if (read) mistakes.push(`${variableOf(service)}: ${read.mistake}`);
  }
  let operations: Operation[] = BUILT_IN.map((op) => {
    return { ...op, url: urls.get(op.service) };
  });
  const used = new Set<string>();
  if (given.SERVICES) operations = withServicesFile(operations, given.SERVICES, { mistakes, env, used });
  let registry = new Registry([]);
  try {
    registry = new Registry(operations.map(withoutCredentials));
  } catch (error) {
    mistakes.push(`SERVICES: ${(error as Error).message}`);
  }
  // Looked at although another variable is wrong: all mistakes are told at once.
  for (const name of ["WORKER_SERVICES", "WORKER_SLOTS"] as const) {
    const read = ENVIRONMENT.shape[name].safeParse(given[name]).data ?? [];
    const unknown = [...(Array.isArray(read) ? read : read.keys())].filter(
      (service) => service !== "*" && registry.operations.length > 0 && !registry.services.has(service),
    );
    if (unknown.length > 0) {
      const known = [...registry.services.keys()].join(", ");
      mistakes.push(`${name}: no such service ${unknown.join(", ")}; there are ${known}`);
    }
  }
  if (listens) mistakes.push(...exposed(given));
  if (!result.success || mistakes.length) throw new ConfigError(mistakes);
  const e = result.data;
  return {
    port: e.PORT,
    dashboardPort: e.DASHBOARD_PORT,
    host: e.HOST,
    dashboardHost: e.DASHBOARD_HOST ?? e.HOST,
    redisUrl: e.REDIS_URL,
    namespace: e.NAMESPACE,
    apiKeys: e.API_KEYS.length > 0 ? e.API_KEYS : e.IFC_PIPELINE_API_KEY,
    allowedRanges: e.ALLOWED_IP_RANGES,
    allowedHosts: e.ALLOWED_HOSTS,
    trustedProxies: e.TRUSTED_PROXIES,
    rateLimit: e.RATE_LIMIT,
    corsOrigins: e.CORS_ORIGINS,
    uploadsDir: e.UPLOADS_DIR,
    outputDir: e.OUTPUT_DIR,
    examplesDir: e.EXAMPLES_DIR,
    dataDir: e.DATA_DIR,
    resultsDir: resolve(e.RESULTS_DIR ?? `${e.DATA_DIR}/results`),
    basePath: e.BASE_PATH,
    gatewayUrl: e.GATEWAY_URL,
    registry,
    workerServices: e.WORKER_SERVICES,
    workerSlots: e.WORKER_SLOTS,
    resultTtlMs: e.RESULT_TTL,
    failureTtlMs: e.FAILURE_TTL,
    idempotencyTtlMs: e.IDEMPOTENCY_TTL,
    resultInlineBytes: e.RESULT_INLINE_BYTES,
    maxResultBytes: e.MAX_RESULT_BYTES,
    resultWriteRetryMs: e.RESULT_WRITE_RETRY,
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
    webhookSecrets: e.WEBHOOK_SECRET,
    callbackAllow: e.CALLBACK_ALLOW,
    callbackTimeoutMs: e.CALLBACK_TIMEOUT,
    callbackRetryMs: e.CALLBACK_RETRY_FOR,
    alertWebhook: e.ALERT_WEBHOOK,
    alerts: {
      oldestWaitMs: e.ALERT_OLDEST_WAIT,
      noWorkerMs: e.ALERT_NO_WORKER,
      parkedMs: e.ALERT_PARKED,
      failureRate: e.ALERT_FAILURE_RATE,
      failureJobs: e.ALERT_FAILURE_JOBS,
      memory: e.ALERT_MEMORY,
      resultsDirMs: e.ALERT_RESULTS_DIR,
      holdMs: e.ALERT_HOLD,
    },
    parkLimitMs: e.PARK_LIMIT,
    connectTimeoutMs: e.CONNECT_TIMEOUT,
    drainMs: e.DRAIN_TIMEOUT,
    shutdownMs: e.SHUTDOWN_DELAY,
    leaseMs: e.LEASE,
    allowVolatile: e.ALLOW_VOLATILE,
    autoscaleMin: e.AUTOSCALE_MIN,
    autoscaleMax: e.AUTOSCALE_MAX,
    autoscaleTarget: e.AUTOSCALE_TARGET,
    accessLog: e.ACCESS_LOG,
    redactKeys: e.REDACT_KEYS,
    /** variables that nobody reads, though they look like one of these: name → a sentence for the log at start */
    mistyped: mistypedVariables(
      Object.keys(env).filter((name) => env[name]),
      [...VARIABLES, ...Object.keys(ALIASES), ...OF_COMPOSE],
      used,
    ),
  };
}

export type Config = ReturnType<typeof readConfig>;

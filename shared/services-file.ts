/** The SERVICES file: operations of a deployment's own, laid over the built-in ones. */
import { readFileSync } from "node:fs";
import { z } from "zod";
import { pathMistake, readBaseUrl } from "./base-url.ts";
import { MAX_FORWARDED, nameMistake, valueMistake } from "./call-headers.ts";
import "./issue-words.ts";
import { NAME } from "./jobs.ts";
import { readJsonFile } from "./json-file.ts";
import { readJsonSchema } from "./json-schema.ts";
import { nearest } from "./nearest.ts";
import { ANY, MAX_REPLY_WAIT_MS, type Operation, operation } from "./services.ts";
import { durationMs, MAX_DURATION_MS } from "./units.ts";

/** First parts of the gateway's own routes, whatever their method: an operation there would hide them. */
export const RESERVED: ReadonlySet<string> = new Set([
  ...["jobs", "batches", "schedules", "queues", "workers", "alerts", "audit"],
  ...["health", "livez", "readyz", "metrics", "autoscale", "docs", "openapi.json"],
  ...["upload", "download", "download-from-url", "create_download_link", "list_directories"],
]);

const route = z
  .string()
  .regex(/^(?:\/[\w.~-]+)+$/, "must look like /thumbnail: parts of letters, digits and _ . ~ -, no parameters");

const A_NAME = "a name may have a–z, 0–9 and - only, at most 64";

/** A base URL, see readBaseUrl. */
export const httpUrl = (example: string) =>
  z.string().transform((text, ctx) => {
    const read = readBaseUrl(text, example);
    if ("url" in read) return read.url;
    ctx.addIssue(read.mistake);
    return z.NEVER;
  });

/** A path on the microservice, with a query or without. */
const callPath = z.string().transform((text, ctx) => {
  const path = text.trim();
  const mistake = pathMistake(path);
  if (mistake) ctx.addIssue(mistake);
  return path;
});

/** @param minMs  0 would lose a record in the step that writes it */
const duration = (minMs = 1_000) =>
  z.union([z.string(), z.number()]).transform((value, ctx) => {
    const ms = durationMs(String(value));
    if (ms !== undefined && ms >= minMs && ms <= MAX_DURATION_MS) return ms;
    const least = minMs > 0 ? "at least 1s, " : "";
    ctx.addIssue(`must be a duration such as 30s or 2h, ${least}at most 30d, not ${JSON.stringify(value)}`);
    return z.NEVER;
  });

const jsonSchema = z.record(z.string(), z.unknown()).transform((schema, ctx) => {
  const read = readJsonSchema(schema);
  if ("schema" in read) return read.schema;
  for (const { path, message } of read.faults)
    ctx.addIssue({ code: "custom", path: path === "" ? [] : [path], message });
  return z.NEVER;
});

/** How long a POST waits for its job's end. */
const replyWait = z.union([z.string(), z.number()]).transform((value, ctx) => {
  const ms = durationMs(String(value));
  if (ms !== undefined && ms > 0 && ms <= MAX_REPLY_WAIT_MS) return ms;
  const most = MAX_REPLY_WAIT_MS / 1_000;
  ctx.addIssue(`must be a duration such as 30s, more than 0, at most ${most}s, not ${JSON.stringify(value)}`);
  return z.NEVER;
});
const REPLY_WAIT_MS = 30_000;

/** By name in lower case. No message shows a value: it may be a secret. */
const callHeaders = z.record(z.string(), z.string({ error: "must be a text" })).transform((given, ctx) => {
  const headers: Record<string, string> = {};
  for (const [key, value] of Object.entries(given)) {
    const name = key.trim().toLowerCase();
    const mistake = nameMistake(name) ?? valueMistake(value) ?? (name in headers ? "stands twice" : undefined);
    if (mistake) ctx.addIssue({ code: "custom", path: [key], message: mistake });
    else headers[name] = value.trim();
  }
  return headers;
});

const forwardHeaders = z
  .array(z.string())
  .max(MAX_FORWARDED)
  .transform((given, ctx) => {
    const names = given.map((name) => name.trim().toLowerCase());
    names.forEach((name, i) => {
      const mistake = nameMistake(name) ?? (names.indexOf(name) < i ? "stands twice" : undefined);
      if (mistake) ctx.addIssue({ code: "custom", path: [i], message: `${JSON.stringify(name)} ${mistake}` });
    });
    return names;
  });

const ENTRY = z.strictObject({
  service: z.string().regex(NAME, A_NAME).optional(),
  route: route.optional(),
  url: httpUrl("http://127.0.0.1:9001").optional(),
  path: callPath.optional(),
  summary: z.string().optional(),
  timeout: duration().optional(),
  slots: z.int().min(1).max(65_000).optional(),
  concurrency: z.int().min(0).optional(),
  retries: z.int().min(0).max(100).optional(),
  backoff: duration(0).optional(),
  retry500: z.boolean().optional(),
  retry_timeout: z.boolean().optional(),
  on_orphan: z.enum(["retry", "fail"]).optional(),
  keep_alive: z.boolean().optional(),
  result_ttl: duration().optional(),
  files: z.array(z.string()).optional(),
  accepts: z.array(z.string()).optional(),
  reply: z.enum(["job", "result"]).optional(),
  wait: replyWait.optional(),
  headers: callHeaders.optional(),
  forward_headers: forwardHeaders.optional(),
  schema: jsonSchema.optional(),
});
/** `$schema` is for editors, and not read. */
const FILE_KEYS = ["operations", "services", "$schema"];
type Entry = z.output<typeof ENTRY>;
/** What operations of one service share; an operation's own keys come before it. */
const SHARED = ENTRY.pick({ url: true, headers: true, forward_headers: true, keep_alive: true });
type Shared = z.output<typeof SHARED>;
/** Keys of an operation in a SERVICES file. */
export const ENTRY_KEYS = Object.keys(ENTRY.shape);

/** What a person would call the place of a zod issue: `operations.thumbnail.timeout: …`. */
export const told = (issue: { path: PropertyKey[]; message: string }, prefix = "") =>
  `${[prefix, ...issue.path].filter((part) => part !== "").join(".")}: ${issue.message}`;

function readFile(name: string): ReturnType<typeof readJsonFile> {
  try {
    return readJsonFile(readFileSync(name));
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? String(error);
    const why = code === "ENOENT" ? "does not exist" : code === "EISDIR" ? "is a directory" : `cannot be read: ${code}`;
    return { mistakes: [why] };
  }
}

/** Where the reading of a file leaves what it finds. */
export type Findings = {
  /** added to, a line each */
  mistakes: string[];
  /** variables of the environment, for `${NAME}` in a url or a header */
  env: Record<string, string | undefined>;
  /** added to: the names of those that were used */
  used: Set<string>;
};

/** Operations of a SERVICES file laid over the built-in ones. */
export function withServicesFile(builtIn: Operation[], name: string, findings: Findings): Operation[] {
  const { mistakes } = findings;
  const read = readFile(name);
  if ("mistakes" in read) {
    for (const text of read.mistakes) mistakes.push(`SERVICES: ${name} ${text}`);
    return builtIn;
  }
  const given = isObject(read.value) ? read.value : {};
  const unknown = Object.keys(given).filter((key) => !FILE_KEYS.includes(key));
  for (const key of unknown) mistakes.push(`SERVICES: ${unknownKey(key, FILE_KEYS)}`);
  const { operations = given.services === undefined ? undefined : {}, services = {} } = given;
  if (!isObject(operations) || !isObject(services)) {
    const which = isObject(operations) ? "services" : "operations";
    if (unknown.length === 0 || which === "services")
      mistakes.push(
        `SERVICES: ${name} needs an object \`${which}\`, as in {"operations": {"thumbnail": {"url": "http://127.0.0.1:9001"}}}`,
      );
    return builtIn;
  }
  const shared = new Map<string, Shared>();
  for (const [service, raw] of Object.entries(services)) {
    shared.set(
      service,
      check(`SERVICES.services.${service}`, SHARED, expanded(raw, `SERVICES.services.${service}`, findings), mistakes),
    );
  }
  const all = new Map(builtIn.map((op) => [op.name, op]));
  const entries = new Map<string, Entry>();
  for (const [key, raw] of Object.entries(operations)) {
    const place = `SERVICES.operations.${key}`;
    if (!NAME.test(key)) mistakes.push(`${place}: ${A_NAME}`);
    const entry = check(place, ENTRY, expanded(raw, place, findings), mistakes);
    const op = merged(all.get(key), key, entry);
    const hasUrl =
      all.has(key) || (isObject(raw) && raw.url !== undefined) || shared.get(op.service)?.url !== undefined;
    if (!hasUrl && isObject(raw)) mistakes.push(`${place}.url: is needed for a new operation`);
    if (entry.wait !== undefined && entry.reply !== "result")
      mistakes.push(`${place}.wait: is for "reply": "result" only; set that too, or leave wait out`);
    // of what comes out: a name alone makes a route too
    if (RESERVED.has(op.route.split("/")[1] as string)) {
      const leftOut = isObject(raw) && raw.route === undefined ? " if left out" : "";
      mistakes.push(`${place}.route: is ${op.route}${leftOut}, one of the gateway's own routes; set another`);
    }
    all.set(key, op);
    entries.set(key, entry);
  }
  const running = new Set([...all.values()].map((op) => op.service));
  for (const service of shared.keys()) {
    if (!running.has(service))
      mistakes.push(`SERVICES.services.${service}: no operation runs on it; there are ${[...running].join(", ")}`);
  }
  return [...all.values()].map((op) => withShared(op, shared.get(op.service), entries.get(op.name)));
}

/** What a service's operations share, beneath what an operation says itself. */
function withShared(op: Operation, shared: Shared | undefined, own: Entry | undefined): Operation {
  if (!shared) return op;
  return {
    ...op,
    url: own?.url ?? shared.url ?? op.url,
    headers: { ...shared.headers, ...op.headers },
    forwardHeaders: own?.forward_headers ?? shared.forward_headers ?? op.forwardHeaders,
    keepAlive: own?.keep_alive ?? shared.keep_alive ?? op.keepAlive,
  };
}

/** Reads an entry; its mistakes are added. Its good fields count all the same, so that nothing else is told to be missing because of it. */
function check<S extends z.ZodRawShape>(place: string, schema: z.ZodObject<S>, raw: unknown, mistakes: string[]) {
  const checked = schema.safeParse(raw);
  for (const issue of checked.error?.issues ?? []) {
    if (issue.code === "unrecognized_keys")
      for (const key of issue.keys) mistakes.push(`${place}: ${unknownKey(key, Object.keys(schema.shape))}`);
    else mistakes.push(told(issue, place));
  }
  return checked.data ?? (goodFields(raw, schema) as z.output<typeof schema>);
}

/** The entry with `${NAME}` in its url and headers replaced by the environment's value. */
function expanded(raw: unknown, place: string, { mistakes, env, used }: Findings): unknown {
  if (!isObject(raw)) return raw;
  const replaced = (value: unknown, where: string): unknown => {
    if (typeof value !== "string") return value;
    return value.replace(/\$\{([^}]*)\}/g, (whole, variable: string) => {
      used.add(variable);
      const found = env[variable]?.trim();
      if (found) return found;
      mistakes.push(`${place}.${where}: the variable ${variable} is not set; set it, or leave ${whole} out`);
      return "unset";
    });
  };
  const entry = { ...raw };
  if ("url" in raw) entry.url = replaced(raw.url, "url");
  if (isObject(raw.headers))
    entry.headers = Object.fromEntries(
      Object.entries(raw.headers).map(([header, value]) => [header, replaced(value, `headers.${header}`)]),
    );
  return entry;
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function unknownKey(key: string, known: string[]): string {
  const near = nearest(key, known);
  return `there is no key ${JSON.stringify(key)}${near ? `, did you mean ${near}?` : `; there are ${known.join(", ")}`}`;
}

function goodFields(raw: unknown, { shape }: z.ZodObject): unknown {
  if (!isObject(raw)) return {};
  return Object.fromEntries(
    Object.entries(shape).map(([field, schema]) => [field, (schema as z.ZodType).safeParse(raw[field]).data]),
  );
}

/** An entry laid over the operation of its name, or over the defaults. */
function merged(base: Operation | undefined, key: string, entry: Entry): Operation {
  const schema = entry.schema ? ANY : (base?.schema ?? ANY);
  const changes = {
    service: entry.service,
    route: entry.route,
    path: entry.path,
    url: entry.url,
    summary: entry.summary,
    timeoutMs: entry.timeout,
    slots: entry.slots,
    concurrency: entry.concurrency,
    retries: entry.retries,
    backoffMs: entry.backoff,
    retry500: entry.retry500,
    retryTimeout: entry.retry_timeout,
    onOrphan: entry.on_orphan,
    keepAlive: entry.keep_alive,
    resultTtlMs: entry.result_ttl,
    files: entry.files,
    accepts: entry.accepts,
    headers: entry.headers && { ...base?.headers, ...entry.headers },
    forwardHeaders: entry.forward_headers,
    jsonSchema: entry.schema,
    replyWaitMs: entry.reply === "result" ? (entry.wait ?? REPLY_WAIT_MS) : undefined,
  };
  const set = Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== undefined));
  const start = base ?? operation({ name: key, service: key, route: `/${key}`, path: `/${key}`, summary: key, schema });
  return { ...start, ...set, schema };
}

/** The SERVICES file: operations of a deployment's own, laid over the built-in ones. */
import { readFileSync } from "node:fs";
import { z } from "zod";
import { pathMistake, readBaseUrl } from "./base-url.ts";
import "./issue-words.ts";
import { NAME } from "./jobs.ts";
import { readJsonFile } from "./json-file.ts";
import { nearest } from "./nearest.ts";
import { ANY, type Operation, operation } from "./services.ts";
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
  try {
    return z.fromJSONSchema({ type: "object", ...schema } as never) as Operation["schema"];
  } catch (error) {
    ctx.addIssue((error as Error).message);
    return z.NEVER;
  }
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
  result_ttl: duration().optional(),
  files: z.array(z.string()).optional(),
  accepts: z.array(z.string()).optional(),
  schema: jsonSchema.optional(),
});
/** `$schema` is for editors, and not read. */
const FILE_KEYS = ["operations", "$schema"];
type Entry = z.output<typeof ENTRY>;
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

/** Operations of a SERVICES file laid over the built-in ones. Mistakes are added to `mistakes`. */
export function withServicesFile(builtIn: Operation[], name: string, mistakes: string[]): Operation[] {
  const read = readFile(name);
  if ("mistakes" in read) {
    for (const text of read.mistakes) mistakes.push(`SERVICES: ${name} ${text}`);
    return builtIn;
  }
  const given = read.value;
  const unknown = isObject(given) ? Object.keys(given).filter((key) => !FILE_KEYS.includes(key)) : [];
  for (const key of unknown) mistakes.push(`SERVICES: ${unknownKey(key, FILE_KEYS)}`);
  const operations = isObject(given) ? given.operations : undefined;
  if (!isObject(operations)) {
    if (unknown.length > 0) return builtIn;
    mistakes.push(
      `SERVICES: ${name} needs an object \`operations\`, as in {"operations": {"thumbnail": {"url": "http://127.0.0.1:9001"}}}`,
    );
    return builtIn;
  }
  const all = new Map(builtIn.map((op) => [op.name, op]));
  for (const [key, raw] of Object.entries(operations)) {
    const say = (text: string, field = "") =>
      mistakes.push(`SERVICES.operations.${key}${field && `.${field}`}: ${text}`);
    if (!NAME.test(key)) say(A_NAME);
    const checked = ENTRY.safeParse(raw);
    for (const issue of checked.error?.issues ?? []) {
      if (issue.code === "unrecognized_keys") for (const other of issue.keys) say(unknownKey(other, ENTRY_KEYS));
      else mistakes.push(told(issue, `SERVICES.operations.${key}`));
    }
    const base = all.get(key);
    if (!base && isObject(raw) && raw.url === undefined) say("is needed for a new operation", "url");
    // The good fields of a bad entry count, so that nothing else is told to be missing because of it.
    const op = merged(base, key, checked.data ?? goodFields(raw));
    // of what comes out: a name alone makes a route too
    if (RESERVED.has(op.route.split("/")[1] as string)) {
      const leftOut = isObject(raw) && raw.route === undefined ? " if left out" : "";
      say(`is ${op.route}${leftOut}, one of the gateway's own routes; set another`, "route");
    }
    all.set(key, op);
  }
  return [...all.values()];
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function unknownKey(key: string, known: string[]): string {
  const near = nearest(key, known);
  return `there is no key ${JSON.stringify(key)}${near ? `, did you mean ${near}?` : `; there are ${known.join(", ")}`}`;
}

function goodFields(raw: unknown): Entry {
  if (!isObject(raw)) return {};
  const read = Object.entries(ENTRY.shape).map(([field, schema]) => [field, schema.safeParse(raw[field]).data]);
  return Object.fromEntries(read) as Entry;
}

/** An entry laid over the operation of its name, or over the defaults. */
function merged(base: Operation | undefined, key: string, entry: Entry): Operation {
  const schema = entry.schema ?? base?.schema ?? ANY;
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
    resultTtlMs: entry.result_ttl,
    files: entry.files,
    accepts: entry.accepts,
  };
  const set = Object.fromEntries(Object.entries(changes).filter(([, value]) => value !== undefined));
  const start = base ?? operation({ name: key, service: key, route: `/${key}`, path: `/${key}`, summary: key, schema });
  return { ...start, ...set, schema };
}

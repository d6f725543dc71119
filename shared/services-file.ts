/** The SERVICES file: operations of a deployment's own, laid over the built-in ones. */
import { existsSync, readFileSync } from "node:fs";
import { z } from "zod";
import { NAME } from "./jobs.ts";
import { type Operation, operation } from "./services.ts";
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

const serviceFile = z.object({
  operations: z.record(
    z.string().regex(NAME, "a name may have a–z, 0–9 and - only, at most 64"),
    z.strictObject({
      service: z.string().regex(NAME, "a name may have a–z, 0–9 and - only, at most 64").optional(),
      route: route.optional(),
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
export const told = (issue: { path: PropertyKey[]; message: string }, prefix = "") =>
  `${[prefix, ...issue.path].filter((part) => part !== "").join(".")}: ${issue.message}`;

/** Operations of a SERVICES file laid over the built-in ones. Mistakes are added to `mistakes`. */
export function withServicesFile(builtIn: Operation[], name: string, mistakes: string[]): Operation[] {
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
    const ms = (value: string | number | undefined, field: string, minMs = 1_000) => {
      if (value === undefined) return undefined;
      const read = durationMs(String(value));
      if (read === undefined || read < minMs || read > MAX_DURATION_MS) {
        const least = minMs > 0 ? "at least 1s, " : "";
        mistakes.push(
          `SERVICES.operations.${key}.${field}: must be a duration such as 30s or 2h, ${least}at most 30d, not ${JSON.stringify(value)}`,
        );
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
      backoffMs: ms(entry.backoff, "backoff", 0),
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
    const op = { ...start, ...set, schema };
    // of what comes out: a name alone makes a route too
    if (RESERVED.has(op.route.split("/")[1] as string)) {
      const told = entry.route === undefined ? `is ${op.route} if left out` : `is ${op.route}`;
      mistakes.push(`SERVICES.operations.${key}.route: ${told}, one of the gateway's own routes; set another`);
    }
    all.set(key, op);
  }
  return [...all.values()];
}

/**
 * The registry: one entry an operation. Routes, worker lanes, the OpenAPI document and the dashboard's rows
 * follow from it. It knows neither Redis nor the environment: config.ts gives each service its address.
 */
import { z } from "zod";
import type { JsonSchema } from "./json-schema.ts";

/** Durations in ms, sizes in bytes. */
export type Operation = {
  /** what a client asks for; unique */
  name: string;
  /** the queue that it runs on and the microservice that does it; several operations may share one */
  service: string;
  /** POST route of the gateway */
  route: string;
  /** path on the microservice */
  path: string;
  /** base URL of the microservice; undefined = not deployed */
  url: string | undefined;
  summary: string;
  timeoutMs: number;
  /** jobs that one worker runs at once on the service */
  slots: number;
  /** jobs that all workers together run at once on the service; 0 = no limit */
  concurrency: number;
  /** further attempts after a retryable failure */
  retries: number;
  /** ms, the first backoff's ceiling; doubles with each attempt, with full jitter */
  backoffMs: number;
  /** whether a 500 is retried; mostly it is a fault of the input */
  retry500: boolean;
  /** whether a call that ran into its time limit is tried again */
  retryTimeout: boolean;
  /** what becomes of a job whose worker died: run again, or fail because it may not run twice */
  onOrphan: "retry" | "fail";
  /** whether its connections serve further calls though its answers do not name their jobs (pool.ts) */
  keepAlive: boolean;
  /** life of a finished record; undefined = RESULT_TTL */
  resultTtlMs: number | undefined;
  /** paths in the payload that name files: "clash_sets.*.a.*.file" */
  files: string[];
  /** content types of an answer that are kept as bytes; JSON always is checked and kept */
  accepts: string[];
  /** the POST itself answers with the service's answer if it comes within so many ms; undefined = with the job */
  replyWaitMs: number | undefined;
  /** sent with each call, by name in lower case; secrets */
  headers: Record<string, string>;
  /** headers of the client that are stored with the job and sent with each call, in lower case */
  forwardHeaders: string[];
  /** of the payload; ANY where `jsonSchema` is what it is checked with */
  schema: z.ZodType<Record<string, unknown>>;
  /** of a SERVICES file; the payload passes as it came */
  jsonSchema?: JsonSchema | undefined;
};

/** Any JSON object: of an operation that nobody described, and whose payload so needs no look. */
export const ANY: Operation["schema"] = z.looseObject({});

export const HOUR = 3_600_000;
/** Longest that a request waits for a job's end. Proxies cut silent requests after about as long. */
export const MAX_REPLY_WAIT_MS = 60_000;
const DEFAULTS = {
  url: undefined,
  timeoutMs: HOUR,
  slots: 4,
  concurrency: 0,
  retries: 2,
  backoffMs: 2_000,
  retry500: false,
  retryTimeout: false,
  onOrphan: "retry",
  keepAlive: false,
  resultTtlMs: undefined,
  replyWaitMs: undefined,
  files: [] as string[],
  accepts: ["application/json"],
} as const;

/** An operation with the defaults of every option that `given` leaves out. Its name and its schema keep their types. */
export function operation<const N extends string, S extends Operation["schema"]>(
  given: Pick<Operation, "service" | "route" | "path" | "summary"> & Partial<Operation> & { name: N; schema: S },
): Operation & { name: N; schema: S } {
  return { ...DEFAULTS, accepts: [...DEFAULTS.accepts], files: [], headers: {}, forwardHeaders: [], ...given };
}

// The old gateway (pydantic) took "true" for true and "0.01" for 0.01; its clients send such texts.
const TRUTHS = new Map<unknown, boolean>([
  ...["true", "t", "1", "yes", "y", "on", 1].map((word) => [word, true] as const),
  ...["false", "f", "0", "no", "n", "off", 0].map((word) => [word, false] as const),
]);
const truth = (value: unknown) => TRUTHS.get(typeof value === "string" ? value.toLowerCase() : value) ?? value;
// the types tell what to send, not what else is understood
const bool = (fallback: boolean) => z.preprocess<unknown, z.ZodBoolean, boolean>(truth, z.boolean()).default(fallback);
const asNumber = (text: string) => (text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text);
const number = (fallback: number, schema: z.ZodNumber = z.number()) =>
  // json.ts keeps digits that a double cannot hold as a raw number; here a double is what the service gets
  z
    .preprocess<unknown, z.ZodNumber, number>(
      (value: unknown) =>
        typeof value === "string"
          ? asNumber(value)
          : value !== null && typeof value === "object" && "rawJSON" in value
            ? Number(value.rawJSON)
            : value,
      schema,
    )
    .default(fallback);

/** A text; a number is one as it is written. */
const asText = (value: unknown) =>
  typeof value === "number"
    ? String(value)
    : value !== null && typeof value === "object" && "rawJSON" in value
      ? value.rawJSON
      : value;
const text = <S extends z.ZodType<string | null> = z.ZodString>(schema?: S) =>
  z.preprocess<unknown, S, z.input<S>>(asText, schema ?? (z.string() as unknown as S));

const file = (description: string, example: string) =>
  z
    .string()
    .min(1)
    .meta({ description, examples: [example] });
/** May be left out, and null counts as left out: the microservice never sees it. */
const absent = <T extends z.ZodType>(schema: T) =>
  z
    .preprocess<unknown, z.ZodOptional<T>, z.input<T> | null | undefined>(
      (value) => (value === null ? undefined : value),
      schema.optional(),
    )
    .optional();
const nullable = <T extends z.ZodType>(schema: T) => schema.nullable().default(null as never);
const body = <S extends z.ZodRawShape>(shape: S) => z.looseObject(shape);

const clashItem = z.looseObject({
  file: file("an IFC file", "model.ifc"),
  selector: text(z.string().nullable()).default(null),
  mode: text().default("e"),
});

/** The eight operations of the pipeline, as the old gateway had them. */
export const BUILT_IN = [
  operation({
    name: "ifcconvert",
    service: "ifcconvert",
    route: "/ifcconvert",
    path: "/ifcconvert",
    summary: "Convert an IFC file to GLB, OBJ and others",
    files: ["input_filename", "output_filename", "log_file"],
    schema: body({
      input_filename: file("the IFC file, relative or /uploads/…", "model.ifc"),
      output_filename: file("where the result goes; its extension names the format", "model.glb"),
      verbose: bool(true),
      plan: bool(false),
      model: bool(true),
      weld_vertices: bool(false),
      use_world_coords: bool(false),
      convert_back_units: bool(false),
      sew_shells: bool(false),
      merge_boolean_operands: bool(false),
      disable_opening_subtractions: bool(false),
      bounds: nullable(text()),
      include: nullable(z.array(z.string())),
      exclude: nullable(z.array(z.string())),
      log_file: nullable(z.string()),
    }),
  }),
  operation({
    name: "ifccsv",
    service: "ifccsv",
    route: "/ifccsv",
    path: "/ifccsv",
    summary: "Export elements of an IFC file as a table",
    files: ["filename", "output_filename"],
    schema: body({
      filename: file("the IFC file", "model.ifc"),
      output_filename: file("where the table goes", "table.csv"),
      format: z.enum(["csv", "xlsx", "ods"]).default("csv"),
      delimiter: text().default(","),
      null: text().default("-"),
      query: text().default("IfcProduct"),
      attributes: z.array(z.string()).default(["Name", "Description"]),
    }),
  }),
  operation({
    name: "ifccsv-import",
    service: "ifccsv",
    route: "/ifccsv/import",
    path: "/ifccsv/import",
    summary: "Write the changes of a table back into an IFC file",
    files: ["ifc_filename", "csv_filename", "output_filename"],
    schema: body({
      ifc_filename: file("the IFC file", "model.ifc"),
      csv_filename: file("the table", "table.csv"),
      output_filename: absent(file("where the changed IFC file goes", "changed.ifc")),
    }),
  }),
  operation({
    name: "ifcclash",
    service: "ifcclash",
    route: "/ifcclash",
    path: "/ifcclash",
    summary: "Find clashes between two sets of IFC files",
    timeoutMs: 2 * HOUR,
    slots: 1,
    concurrency: 1,
    files: ["clash_sets.*.a.*.file", "clash_sets.*.b.*.file", "output_filename"],
    schema: body({
      clash_sets: z.array(
        z.looseObject({ name: text(), a: z.array(clashItem).min(1), b: z.array(clashItem).default([]) }),
      ),
      output_filename: file("where the clash JSON goes", "clashes.json"),
      tolerance: number(0.01),
      smart_grouping: bool(false),
      max_cluster_distance: number(5.0),
      mode: z.enum(["intersection", "collision", "clearance"]).default("intersection"),
      clearance: number(0.0),
      check_all: bool(false),
      allow_touching: bool(false),
    }),
  }),
  operation({
    name: "ifctester",
    service: "ifctester",
    route: "/ifctester",
    path: "/ifctester",
    summary: "Check an IFC file against an IDS",
    files: ["ifc_filename", "ids_filename", "output_filename"],
    schema: body({
      ifc_filename: file("the IFC file", "model.ifc"),
      ids_filename: file("the IDS file", "rules.ids"),
      output_filename: file("where the report goes", "report.json"),
      report_type: z.enum(["json", "html"]).default("json"),
    }),
  }),
  operation({
    name: "ifcdiff",
    service: "ifcdiff",
    route: "/ifcdiff",
    path: "/ifcdiff",
    summary: "Compare two IFC files",
    files: ["old_file", "new_file", "output_file"],
    schema: body({
      old_file: file("the older IFC file", "old.ifc"),
      new_file: file("the newer IFC file", "new.ifc"),
      output_file: z.string().default("diff.json"),
      relationships: nullable(z.array(z.string())),
      is_shallow: bool(true),
      filter_elements: nullable(text()),
    }),
  }),
  operation({
    name: "ifc2json",
    service: "ifc2json",
    route: "/ifc2json",
    path: "/ifc2json",
    summary: "Write the entities of an IFC file as JSON",
    files: ["filename", "output_filename"],
    schema: body({
      filename: file("the IFC file", "model.ifc"),
      output_filename: file("where the JSON goes", "model.json"),
    }),
  }),
  operation({
    name: "calculate-qtos",
    service: "ifc5d",
    route: "/calculate-qtos",
    path: "/calculate-qtos",
    summary: "Calculate quantities and write them into the IFC file",
    files: ["input_file", "output_file"],
    schema: body({ input_file: file("the IFC file", "model.ifc"), output_file: z.string().nullish() }),
  }),
] satisfies Operation[];

/** What to send to each of them. */
export type Payloads = { [O in (typeof BUILT_IN)[number] as O["name"]]: z.input<O["schema"]> };

/** All operations of a deployment, by name and by service. */
export class Registry {
  readonly byName = new Map<string, Operation>();
  readonly services = new Map<string, Operation[]>();

  constructor(readonly operations: Operation[]) {
    const routes = new Map<string, string>();
    for (const op of operations) {
      const other = routes.get(op.route);
      if (other) throw new Error(`operations ${other} and ${op.name} have the same route ${op.route}`);
      routes.set(op.route, op.name);
      this.byName.set(op.name, op);
      this.services.set(op.service, [...(this.services.get(op.service) ?? []), op]);
    }
  }

  /** Services that have an address, hence a worker may run a lane for them. */
  deployed(): string[] {
    return [...this.services].filter(([, ops]) => ops.some((op) => op.url)).map(([service]) => service);
  }

  /** The narrowest limits of a service's operations: they share its lane. */
  lane(service: string): { slots: number; concurrency: number } {
    const ops = this.services.get(service) ?? [];
    const limits = ops.map((op) => op.concurrency).filter((n) => n > 0);
    return { slots: Math.min(...ops.map((op) => op.slots)), concurrency: limits.length ? Math.min(...limits) : 0 };
  }
}

/**
 * The OpenAPI document, made of the schemas that requests are checked with: the registry's, the options' and the
 * routes' own. tests/openapi.test.ts holds its paths against the routes that there really are.
 */
import { setImmediate } from "node:timers";
import { z } from "zod";
import { type CreateDocumentOptions, createSchema } from "zod-openapi";
import { FAULTS, type FaultCode } from "./faults.ts";
import { asComponents } from "./json-schema.ts";
import { ANSWERS } from "./openapi-answers.ts";
import {
  type Answer,
  type Asked,
  HEADERS,
  ownRoutes,
  type Route,
  SUBMIT_ANSWERS,
  SUBMIT_FAULTS,
  SUBMIT_TAKES,
  TAGS,
  TAKEN,
} from "./openapi-routes.ts";
import type { Operation, Registry } from "./services.ts";
import { OPTIONS } from "./submit.ts";
import { VERSION } from "./version.ts";

type Schema = Record<string, unknown>;

/** What zod says of a request too widely: it tells what is let through, a client wants to know what to send. */
const override: NonNullable<CreateDocumentOptions["override"]> = ({ zodSchema, jsonSchema, io }) => {
  if (io !== "input") return;
  const { def } = zodSchema._zod;
  const become = (schema: z.core.$ZodType) => {
    for (const key of Object.keys(jsonSchema)) delete jsonSchema[key as keyof typeof jsonSchema];
    const { $schema, ...rest } = z.toJSONSchema(schema);
    Object.assign(jsonSchema, rest);
  };
  // a default beyond a lax reading ("true" for true) is left out by zod
  if (def.type === "default" && jsonSchema.default === undefined) jsonSchema.default = def.defaultValue as never;
  // texts that are read as a number or a list: the number, the list
  if (def.type === "pipe" && def.in._zod.def.type === "union" && def.out._zod.def.type !== "transform") become(def.out);
  if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
  if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
  if (jsonSchema.format === "date-time") delete jsonSchema.pattern;
};

type Made = { schema: Schema; components: Record<string, Schema> };

/** Schemas of zod as they stand in the document, by name. Operations share most of them, and each takes milliseconds to make. */
const known = new WeakMap<z.ZodType, Map<string, Made>>();
function once(schema: z.ZodType, name: string, make: () => Made): Made {
  const names = known.get(schema) ?? new Map<string, Made>();
  known.set(schema, names);
  const made = names.get(name) ?? make();
  names.set(name, made);
  return made;
}

/** A request's schema, and parts that refer to themselves, under names of their own: two may call them alike. */
const requested = (schema: z.ZodType, name: string) => once(schema, name, () => makeRequested(schema, name));
function makeRequested(schema: z.ZodType, name: string): Made {
  const made = createSchema(schema, {
    ...{ io: "input", openapiVersion: "3.1.0", schemaRefPath: `#/components/schemas/${name}.` },
    opts: { override, allowEmptySchema: anything() },
  }) as unknown as Made;
  const components = Object.entries(made.components).map(([key, part]) => [`${name}.${key}`, part] as const);
  return { schema: made.schema, components: Object.fromEntries(components) };
}

/** An answer's schema; parts that have an id are added to `components`. */
function shown(schema: z.ZodType, components: Record<string, Schema>): Schema {
  const made = once(schema, "", () => {
    const opts = { override, allowEmptySchema: anything() };
    return createSchema(schema, { io: "output", openapiVersion: "3.1.0", opts }) as unknown as Made;
  });
  Object.assign(components, made.components);
  return made.schema;
}

/** The payload of an operation. A schema of a deployment's own that cannot be told as JSON Schema is any object. */
function payloadOf(op: Operation): Made {
  if (op.jsonSchema) {
    const made = asComponents(op.jsonSchema.document, op.name);
    // Unknown fields pass where a schema says nothing of them. Generators of types have to be told.
    const isOpen = !["additionalProperties", "unevaluatedProperties", "$ref"].some((key) => key in made.schema);
    return isOpen && made.schema.type === "object"
      ? { ...made, schema: { ...made.schema, additionalProperties: {} } }
      : made;
  }
  try {
    return requested(op.schema, op.name);
  } catch {
    return { schema: { type: "object" }, components: {} };
  }
}

/** Schemas that say nothing are allowed: the service knows what it takes. */
const anything = () => ({ custom: true, transform: true, unknown: true, any: true }) as never;

const headersOf = (names: (keyof typeof HEADERS)[] = []) =>
  Object.fromEntries(names.map((name) => [name, plain(HEADERS[name])]));
const plain = (schema: z.ZodType) => {
  const { description, ...rest } = requested(schema, "header").schema;
  return { ...(description ? { description } : {}), schema: rest } as { schema: never };
};

function answered({ is, schema, types = [], headers }: Answer, components: Record<string, Schema>) {
  const content = Object.fromEntries(
    types.map((type) => [type, { schema: { type: type === "application/json" ? "object" : "string" } as const }]),
  );
  return {
    description: is,
    ...(schema || types.length > 0
      ? { content: { ...content, ...(schema ? { "application/json": { schema: shown(schema, components) } } : {}) } }
      : {}),
    ...(headers ? { headers: headersOf(headers) } : {}),
  };
}

/** Faults by their status; each says which codes it may carry. */
function refusals(codes: FaultCode[], components: Record<string, Schema>) {
  const by = new Map<number, FaultCode[]>();
  for (const code of new Set(codes)) by.set(FAULTS[code][0], [...(by.get(FAULTS[code][0]) ?? []), code]);
  return Object.fromEntries(
    [...by].map(([status, all]) => [
      String(status),
      {
        description: all.map((code) => `${FAULTS[code][1]} (${code})`).join(" · "),
        content: { "application/problem+json": { schema: shown(ANSWERS.Problem, components) } },
        ...(status === 429 || status === 503 ? { headers: headersOf(["Retry-After"]) } : {}),
      },
    ]),
  );
}

/** Faults that whoever needs a key may meet anywhere. */
const KEYED: FaultCode[] = [
  "no_key",
  "wrong_key",
  "wrong_scope",
  "foreign_origin",
  "rate_limited",
  "redis_unreachable",
];

/** Query parameters from the object that the query is checked with. */
function queryOf(schema: z.ZodType): object[] {
  const { properties = {}, required = [] } = requested(schema, "query").schema as {
    properties?: Record<string, Schema>;
    required?: string[];
  };
  return Object.entries(properties).map(([name, { description, ...rest }]) => ({
    ...{ name, in: "query", required: required.includes(name), ...(description ? { description } : {}), schema: rest },
    ...(rest.type === "array" ? { style: "form", explode: false } : {}),
  }));
}

/**
 * @param body        the request's schema as it stands in the document
 * @param components  added to: what the answers refer to
 */
function operationOf(path: string, route: Route, body: Schema | undefined, components: Record<string, Schema>) {
  const named = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name as string);
  const parameters = [
    ...named.map((name) => ({ name, in: "path", required: true, ...plain(route.path?.[name] ?? z.string()) })),
    ...(route.query ? queryOf(route.query) : []),
    ...(route.takes ?? []).map((name) => ({ name, in: "header", required: false, ...plain(TAKEN[name]) })),
  ];
  const form = { type: "object", required: ["file"], properties: { file: { type: "string", format: "binary" } } };
  const content = route.form ? { "multipart/form-data": { schema: form } } : { "application/json": { schema: body } };
  return {
    operationId: route.id,
    tags: [route.tag],
    summary: route.summary,
    description: route.scope ? `Needs an API key of scope ${route.scope}.` : "Open without an API key.",
    ...(route.scope ? { "x-scope": route.scope } : { security: [] }),
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(body || route.form ? { requestBody: { required: true, content } } : {}),
    responses: merged(
      Object.fromEntries(
        Object.entries(route.answers).map(([status, answer]) => [status, answered(answer, components)]),
      ),
      refusals([...(route.scope ? KEYED : []), ...(route.faults ?? []), "bad_request"], components),
    ),
  };
}

type Response = { description: string; content?: object; headers?: object };

/** A status that is an answer and a refusal as well has both bodies. */
function merged(answers: Record<string, Response>, refused: Record<string, Response>) {
  const both = { ...answers, ...refused };
  for (const [status, answer] of Object.entries(answers)) {
    const other = refused[status];
    if (!other) continue;
    const description = `${answer.description} · ${other.description}`;
    both[status] = { ...other, ...answer, description, content: { ...other.content, ...answer.content } };
  }
  return both;
}

/** Options without those that are refused so far. */
const TAKEN_OPTIONS = OPTIONS.omit({ after: true, on_dependency_failure: true });

const ofOperation = (op: Operation): Route => ({
  ...{ id: op.name, tag: "operations", summary: op.summary, scope: "submit", query: TAKEN_OPTIONS },
  ...{ takes: [...SUBMIT_TAKES], answers: answersOf(op), faults: SUBMIT_FAULTS },
});

/** Of an operation that replies with its result: the service's own answers. */
function answersOf(op: Operation): Route["answers"] {
  if (op.replyWaitMs === undefined) return SUBMIT_ANSWERS;
  const within = `within ${op.replyWaitMs / 1_000} s, or the wait of Prefer`;
  return {
    200: {
      is: `The service's own answer, if the job finished ${within}; its own status, if that is another 2xx.`,
      schema: z.unknown(),
      types: op.accepts.filter((type) => type !== "application/json"),
      headers: ["Location"],
    },
    202: { ...(SUBMIT_ANSWERS[202] as Answer), is: "Accepted; it takes longer." },
    default: {
      is: `The job failed ${within}: the service's own status and body, or a problem where there is none.`,
      types: ["*/*"],
      headers: ["Location"],
    },
  };
}

/**
 * The body of POST /jobs: one schema an operation, with its own payload and the options, and the choice of them. Each is whole
 * in itself: generators of types take the members of a choice one by one.
 */
function anyJob(operations: Operation[]): Record<string, Schema> {
  const { properties } = requested(TAKEN_OPTIONS, "options").schema as { properties: Schema };
  const members = operations.map(({ name }) => [
    `Job.${name}`,
    {
      type: "object",
      required: ["operation", "payload"],
      properties: {
        operation: { type: "string", const: name },
        payload: { $ref: `#/components/schemas/${name}` },
        ...properties,
      },
      additionalProperties: false,
    },
  ]);
  const refs = operations.map(({ name }) => ({ $ref: `#/components/schemas/Job.${name}` }));
  const mapping = Object.fromEntries(operations.map(({ name }) => [name, `#/components/schemas/Job.${name}`]));
  const discriminator = { propertyName: "operation", mapping };
  return { AnyJob: { oneOf: refs, discriminator }, ...Object.fromEntries(members) };
}

/** Other requests have their turn after so many parts, or ms if those come first. */
const SLICE_PARTS = 25;
const SLICE_MS = 10;

/** Called after each part. */
function pauses(): () => Promise<void> {
  let since = performance.now();
  let parts = 0;
  return async () => {
    if (++parts < SLICE_PARTS && performance.now() - since < SLICE_MS) return;
    await new Promise<void>((next) => setImmediate(next));
    since = performance.now();
    parts = 0;
  };
}

/** The members of an object as JSON text, made in pieces. */
async function membersText(object: Record<string, unknown>, pause: () => Promise<void>): Promise<string> {
  const members: string[] = [];
  for (const [name, value] of Object.entries(object)) {
    members.push(`${JSON.stringify(name)}:${JSON.stringify(value)}`);
    await pause();
  }
  return members.join(",");
}

/** The document of a deployment, as JSON text. It is made in pieces: a registry may be large, and other requests go on meanwhile. */
export async function documentText(registry: Registry, asked: Asked, maxBatchJobs: number): Promise<string> {
  const pause = pauses();
  for (const answer of Object.values(ANSWERS)) {
    shown(answer, {}); // what operations share, each a part of its own
    await pause();
  }
  const schemas = anyJob(registry.operations);
  const paths: Record<string, Record<string, unknown>> = {};
  const put = (method: string, path: string, route: Route, body: Schema | undefined) => {
    paths[path] = { ...paths[path], [method]: operationOf(path, route, body, schemas) };
  };
  for (const op of registry.operations) {
    const { schema, components } = payloadOf(op);
    Object.assign(schemas, components, { [op.name]: schema });
    put("post", op.route, ofOperation(op), { $ref: `#/components/schemas/${op.name}` });
    await pause();
  }
  const submit = { $ref: "#/components/schemas/AnyJob" };
  const batch = { type: "array", items: submit, minItems: 1, maxItems: maxBatchJobs };
  for (const [name, route] of Object.entries(ownRoutes(asked))) {
    const [method, path] = name.split(" ") as [string, string];
    const body = route.body && requested(route.body, route.id).schema;
    put(method, path, route, name === "post /jobs" ? { oneOf: [submit, batch] } : body);
    await pause();
  }
  const head = {
    openapi: "3.1.0",
    info: {
      title: "Longhaul",
      version: VERSION,
      description:
        "A durable queue in front of slow HTTP services. A submit answers 202 with the job's id; poll its status, wait for it, or give a callback_url.",
      contact: { name: "The operators of this deployment" },
      license: { name: "MIT", identifier: "MIT" },
    },
    servers: [{ url: "/" }],
    tags: Object.entries(TAGS).map(([name, description]) => ({ name, description })),
    security: [{ apiKey: [] }, { bearer: [] }],
  };
  const securitySchemes = {
    apiKey: { type: "apiKey", in: "header", name: "X-API-Key" },
    bearer: { type: "http", scheme: "bearer", description: "The same key as a bearer token." },
  };
  const parts = [await membersText(paths, pause), await membersText(schemas, pause), JSON.stringify(securitySchemes)];
  return `${JSON.stringify(head).slice(0, -1)},"paths":{${parts[0]}},"components":{"schemas":{${parts[1]}},"securitySchemes":${parts[2]}}}`;
}

/**
 * JSON Schema of an operation, as a SERVICES file has it: read strictly at start, so that every word of it is obeyed or refused, and
 * checked against payloads that pass untouched.
 */
import { createRequire } from "node:module";
import type { ErrorObject, ValidateFunction } from "ajv";
import type { FieldFault } from "./faults.ts";
import { describeKeyword } from "./issue-words.ts";
import { plainNumber } from "./json.ts";
import { nearest } from "./nearest.ts";

type Json = Record<string, unknown>;
export type JsonSchema = {
  /** as it stands in the file, with `type: object` */
  document: Json;
  /** what is wrong with a payload, at most 100 faults; none = it fits */
  check(payload: unknown): FieldFault[];
};

const MAX_FAULTS = 100;
/** Words that say nothing of what fits, beside those that JSON Schema itself has; and any that begins with x-. */
const NOTES = ["example", "externalDocs", "xml", "discriminator"];
/** Below these stand values, not schemas. */
const VALUES = new Set(["const", "default", "enum", "example", "examples"]);
/** The keys below these are names that the author gave, not words of JSON Schema. */
const NAMED = new Set(["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"]);
const DRAFT = /^https?:\/\/json-schema\.org\/(?:draft\/)?([\w-]+)\/schema#?$/;

type Ajv = import("ajv").Ajv;
const OPTIONS = {
  allErrors: true,
  verbose: true,
  strictTypes: false, // a word without its type is obeyed where it fits
  strictTuples: false,
  strictRequired: false,
  addUsedSchema: false, // two operations may use one $id
  logger: false as const,
};

const readers = new Map<string, Ajv>();
/** By draft. Loaded when a schema needs it: most deployments have none, and it takes longer than the rest of the start. */
function readerOf(draft: string): Ajv | undefined {
  const require = createRequire(import.meta.url);
  const make = {
    "2020-12": () => new (require("ajv/dist/2020.js") as typeof import("ajv/dist/2020.js")).Ajv2020(OPTIONS),
    "2019-09": () => new (require("ajv/dist/2019.js") as typeof import("ajv/dist/2019.js")).Ajv2019(OPTIONS),
    "draft-07": () => new (require("ajv") as typeof import("ajv")).Ajv(OPTIONS),
  }[draft];
  let reader = readers.get(draft);
  if (!reader && make) {
    reader = make();
    (require("ajv-formats") as unknown as (ajv: Ajv) => void)(reader);
    reader.addVocabulary(NOTES);
    readers.set(draft, reader);
  }
  return reader;
}

/** Every schema within a schema, with the path to it. @param named  whether the keys are names, not words */
function* places(schema: unknown, path: string[] = [], named = false): Generator<[Json, string[]]> {
  if (typeof schema !== "object" || schema === null) return;
  const isList = Array.isArray(schema);
  if (!isList && !named) yield [schema as Json, path];
  for (const [key, part] of Object.entries(schema)) {
    if (isList || named) yield* places(part, [...path, key]);
    else if (!VALUES.has(key)) yield* places(part, [...path, key], NAMED.has(key));
  }
}

/** Patterns that cannot be read: the runtimes' own words name neither the pattern nor the place. */
function patternFaults(schema: Json): FieldFault[] {
  return [...places(schema)].flatMap(([part, path]) => {
    const keys = part.patternProperties && typeof part.patternProperties === "object" ? part.patternProperties : {};
    const patterns = [...(typeof part.pattern === "string" ? [part.pattern] : []), ...Object.keys(keys)];
    return patterns.flatMap((pattern) => {
      try {
        new RegExp(pattern, "u");
        return [];
      } catch (error) {
        const why = (error as Error).message.replace(/^Invalid regular expression: /, "");
        const message = `the pattern ${JSON.stringify(pattern)} cannot be read with the flag u: ${why}`;
        return [{ path: path.join("."), message }];
      }
    });
  });
}

/**
 * Reads a schema.
 * @returns what is wrong with it, by its place in the schema, where it cannot be obeyed as it stands
 */
export function readJsonSchema(given: Json): { schema: JsonSchema } | { faults: FieldFault[] } {
  const draft = given.$schema === undefined ? "2020-12" : (DRAFT.exec(String(given.$schema))?.[1] ?? "");
  const ajv = readerOf(draft);
  if (!ajv)
    return {
      faults: [{ path: "$schema", message: "must name the draft 2020-12, 2019-09 or draft-07; 2020-12 if left out" }],
    };
  if (given.type !== undefined && ![given.type].flat().includes("object"))
    return {
      faults: [{ path: "type", message: "a payload always is an object; leave type out, or set it to object" }],
    };
  const document = { type: "object", ...given };
  const patterns = patternFaults(document);
  if (patterns.length > 0) return { faults: patterns };
  for (const [part] of places(document))
    for (const key of Object.keys(part)) if (key.startsWith("x-") && !ajv.getKeyword(key)) ajv.addKeyword(key);
  if (!ajv.validateSchema(document)) return { faults: faultsOf(ajv.errors ?? []) };
  let validate: ValidateFunction;
  try {
    validate = ajv.compile(document);
  } catch (error) {
    return { faults: [unobeyed((error as Error).message, document, ajv)] };
  }
  const check = (payload: unknown) => (validate(plainNumbers(payload)) ? [] : faultsOf(validate.errors ?? []));
  return { schema: { document, check } };
}

/** Why a valid schema is not obeyed: a word that nobody knows, one that says nothing where it stands, a reference to elsewhere. */
function unobeyed(message: string, schema: Json, ajv: Ajv): FieldFault {
  const word = /unknown keyword: "(.*)"$/.exec(message)?.[1];
  if (word !== undefined) {
    const [, path = []] = [...places(schema)].find(([part]) => Object.hasOwn(part, word)) ?? [];
    const words = Object.keys(ajv.RULES.all).concat("properties", "definitions", "$defs", "title", "description");
    const near = nearest(word, words);
    const hint = near ? `, did you mean ${near}?` : "; a note of your own begins with x-";
    return { path: path.join("."), message: `JSON Schema has no keyword ${JSON.stringify(word)}${hint}` };
  }
  const format = /unknown format "(.*)" ignored in schema at path "#?\/?(.*)"/.exec(message);
  if (format) {
    const path = (format[2] as string).split("/").filter(Boolean).join(".");
    return {
      path,
      message: `JSON Schema has no format ${JSON.stringify(format[1])}; leave it out, or write a pattern`,
    };
  }
  const reference = /can't resolve reference (\S+)/.exec(message)?.[1];
  if (reference !== undefined)
    return { path: "", message: `refers to ${reference}, which is not in it; files and addresses are not read` };
  const idle = /^strict mode: (.*) is ignored$/.exec(message)?.[1];
  return { path: "", message: idle ? `${idle} does nothing; leave it out` : message.replace(/^strict mode: /, "") };
}

/** "/a/0/b~1c" → "a.0.b/c" */
const pathOf = (pointer: string, more?: unknown) =>
  [...pointer.split("/").slice(1), ...(more === undefined ? [] : [String(more)])]
    .map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"))
    .join(".");

/** The field that an error is about: of a missing or a surplus one, that one. */
function faultOf({ keyword, instancePath, params, data, propertyName }: ErrorObject): FieldFault {
  const { missingProperty, additionalProperty, unevaluatedProperty } = params;
  const field = missingProperty ?? additionalProperty ?? unevaluatedProperty ?? propertyName;
  return { path: pathOf(instancePath, field), message: describeKeyword(keyword, params, data) };
}

/** Errors as a client reads them. Those below a choice (anyOf, oneOf) become one: none of them alone is true. */
function faultsOf(errors: ErrorObject[]): FieldFault[] {
  let rest = errors.filter(({ keyword }) => keyword !== "if" && keyword !== "propertyNames");
  if (rest.length === 0) rest = errors;
  const choices = rest.filter(
    ({ keyword, params }) => keyword === "anyOf" || (keyword === "oneOf" && !params.passingSchemas),
  );
  for (const choice of choices) {
    if (!rest.includes(choice)) continue; // it lies below another one
    const below = rest.filter(({ schemaPath }) => schemaPath.startsWith(`${choice.schemaPath}/`));
    rest = rest.filter((error) => !below.includes(error));
    choice.params = {
      branches: below.map((error) => ({ ...error, path: faultOf(error).path })),
      at: pathOf(choice.instancePath),
    };
  }
  return rest.slice(0, MAX_FAULTS).map(faultOf);
}

/** The value with plain numbers in place of those that json.ts keeps as they were written: a copy, and only where there are any. */
function plainNumbers(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  const number = plainNumber(value);
  if (number !== undefined) return number;
  let copy: Json | unknown[] | undefined;
  for (const [key, part] of Object.entries(value)) {
    const plain = plainNumbers(part);
    if (plain === part) continue;
    copy ??= Array.isArray(value) ? [...value] : { ...value };
    (copy as Json)[key] = plain;
  }
  return copy ?? value;
}

/** What a component of an OpenAPI document may be called. */
const COMPONENT = /^[\w.-]+$/;

/**
 * The schema as a component of an OpenAPI document. Its definitions become components of their own, `<name>.<definition>`, because
 * generators of clients follow references to components only. All else stays as it was written.
 */
export function asComponents(document: Json, name: string): { schema: Json; components: Record<string, Json> } {
  if (typeof document.$id === "string") return { schema: document, components: {} }; // its references are its own
  const leads = (reference: string) => {
    const [, definition, rest] = /^#\/(?:\$defs|definitions)\/([^/]+)(.*)$/.exec(reference) ?? [];
    if (definition !== undefined && COMPONENT.test(definition))
      return `#/components/schemas/${name}.${definition}${rest}`;
    return `#/components/schemas/${name}${reference.slice(1)}`;
  };
  const moved = (value: unknown, named = false): unknown => {
    if (Array.isArray(value)) return value.map((item) => moved(item));
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, part]) => {
        if (named) return [key, moved(part)];
        if (VALUES.has(key)) return [key, part];
        const isReference = key === "$ref" && typeof part === "string" && /^#(?:\/|$)/.test(part);
        return [key, isReference ? leads(part as string) : moved(part, NAMED.has(key))];
      }),
    );
  };
  const schema = moved(document) as Json;
  const components: Record<string, Json> = {};
  for (const word of ["$defs", "definitions"]) {
    const left = Object.entries((schema[word] ?? {}) as Record<string, Json>).filter(([key, part]) => {
      if (!COMPONENT.test(key)) return true;
      components[`${name}.${key}`] = part;
      return false;
    });
    if (left.length > 0) schema[word] = Object.fromEntries(left);
    else delete schema[word];
  }
  return { schema, components };
}

// biome-ignore-all lint/suspicious/noThenProperty: JSON Schema has a keyword of that name
/** JSON Schema of an operation: all of it is obeyed or refused at start, and what fits passes untouched. */
import { expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ConfigError, readConfig } from "../shared/config.ts";
import { parseJson } from "../shared/json.ts";
import { asComponents, readJsonSchema } from "../shared/json-schema.ts";
import { startGatewayApp, stored } from "./support/gateway.ts";
import { startRedis } from "./support/redis.ts";
import { startProcess } from "./support/stack.ts";

const schemaOf = (schema: object) => {
  const read = readJsonSchema(schema as never);
  if ("faults" in read) throw new Error(JSON.stringify(read.faults));
  return read.schema;
};
const parsed = (text: string) => parseJson(new TextEncoder().encode(text), 64);
/** What is wrong with a payload, given as JSON: "path: message" each. */
const wrong = (schema: object, payload: string) =>
  schemaOf(schema)
    .check(parsed(payload))
    .map(({ path, message }) => (path === "" ? message : `${path}: ${message}`));
const refused = (schema: object) => {
  const read = readJsonSchema(schema as never);
  return "faults" in read ? read.faults.map(({ path, message }) => `${path}: ${message}`) : [];
};

test("every keyword is obeyed, also without properties or a type beside it", () => {
  for (const [schema, payload, expected] of [
    [{ required: ["a"] }, "{}", ["a: is required"]],
    [
      { properties: { a: {} }, anyOf: [{ required: ["b"] }, { required: ["c"] }] },
      '{"a":1}',
      ["has none of the allowed forms: b is required; or c is required"],
    ],
    [
      { properties: { a: { minLength: 2, pattern: "^x" } } },
      '{"a":"y"}',
      ["a: must have 2 characters at least", 'a: must match the pattern ^x, not "y"'],
    ],
    [{ properties: { a: { minimum: 5 } } }, '{"a":4}', ["a: must be at least 5, not 4"]],
    [{ minProperties: 2 }, '{"a":4}', ["must have 2 fields at least"]],
    [
      { additionalProperties: false, properties: { a: {} } },
      '{"a":1,"b":2}',
      ["b: is no field that is known here; leave it out"],
    ],
    [
      { properties: { a: {} }, unevaluatedProperties: false },
      '{"b":2}',
      ["b: is no field that is known here; leave it out"],
    ],
    [{ dependentRequired: { a: ["b"] } }, '{"a":1}', ["b: is required beside a"]],
    [{ if: { required: ["a"] }, then: { required: ["b"] } }, '{"a":1}', ["b: is required"]],
    [{ not: { required: ["a"] } }, '{"a":1}', ["is of a form that is not allowed"]],
    [
      { oneOf: [{ required: ["a"] }, { required: ["b"] }] },
      '{"a":1,"b":1}',
      ["fits more than one of the forms that exclude each other"],
    ],
    [{ propertyNames: { pattern: "^[a-z]+$" } }, '{"A":1}', ['A: must match the pattern ^[a-z]+$, not "A"']],
    [{ patternProperties: { "^n": { type: "integer" } } }, '{"n1":"x"}', ['n1: must be of type integer, not "x"']],
    [{ properties: { a: { type: ["string", "null"] } } }, '{"a":1}', ["a: must be of type string or null, not 1"]],
    [
      { properties: { a: { anyOf: [{ type: "string" }, { type: "null" }] } } },
      '{"a":1}',
      ["a: must be of type string or null, not 1"],
    ],
    [{ properties: { a: { enum: ["x", 2] } } }, '{"a":3}', ['a: must be one of "x", 2, not 3']],
    [{ properties: { a: { const: "x" } } }, '{"a":3}', ['a: must be "x", not 3']],
    [{ properties: { a: { multipleOf: 5 } } }, '{"a":7}', ["a: must be a multiple of 5, not 7"]],
    [{ properties: { a: { exclusiveMaximum: 5 } } }, '{"a":5}', ["a: must be less than 5, not 5"]],
    [
      { properties: { a: { format: "date-time" } } },
      '{"a":"x"}',
      ['a: must be an ISO 8601 time such as 2026-01-31T08:00:00Z, not "x"'],
    ],
    [{ properties: { a: { uniqueItems: true } } }, '{"a":[1,2,1]}', ["a: must not have equal items; 0 and 2 are"]],
    [
      { properties: { a: { contains: { const: 1 } } } },
      '{"a":[2]}',
      ["a.0: must be 1, not 2", "a: must have 1 or more items of the kind that is asked for"],
    ],
    [
      { properties: { a: { prefixItems: [{ type: "string" }], items: false } } },
      '{"a":["x",1]}',
      ["a: may have 1 item at most"],
    ],
    [
      { properties: { "a/b": { items: { $ref: "#/$defs/n" } } }, $defs: { n: { type: "number" } } },
      '{"a/b":[1,"x"]}',
      ['a/b.1: must be of type number, not "x"'],
    ],
    [
      { $schema: "http://json-schema.org/draft-07/schema#", properties: { a: { items: [{ type: "string" }] } } },
      '{"a":[1]}',
      ["a.0: must be of type string, not 1"],
    ],
    [{ properties: { a: false } }, '{"a":1}', ["a: is not allowed"]],
    [{ properties: { a: { nullable: true, type: "string" } }, "x-note": 1, example: {} }, '{"a":null}', []],
  ] as [object, string, string[]][]) {
    expect([schema, wrong(schema, payload)]).toEqual([schema, expected]);
  }
});

test("patterns have the flag u: classes of Unicode and characters beyond the first plane", () => {
  const schema = { properties: { a: { pattern: "^\\p{L}+$" }, b: { pattern: "^.$" } } };
  expect(wrong(schema, '{"a":"Größe","b":"😀"}')).toEqual([]);
  expect(wrong(schema, '{"a":"x1"}')).toEqual(['a: must match the pattern ^\\p{L}+$, not "x1"']);
});

test("numbers with more digits than a double are checked as numbers", () => {
  const schema = { properties: { a: { type: "integer", minimum: 1 }, b: { items: { type: "number" } } } };
  expect(wrong(schema, '{"a":12345678901234567890,"b":[0.10000000000000000001]}')).toEqual([]);
  expect(wrong(schema, '{"a":-12345678901234567890}')).toEqual(["a: must be at least 1, not -12345678901234567000"]);
  expect(wrong(schema, '{"b":[1e999]}')[0]).toContain("b.0: must be of type number");
  expect(wrong({ properties: { a: { type: "object" } } }, '{"a":12345678901234567890}')[0]).toContain(
    "must be of type object",
  );
});

test("what is not obeyed is refused at start, with its place and a cure", () => {
  for (const [schema, words] of [
    [
      { properties: { a: { requird: ["b"] } } },
      'properties.a: JSON Schema has no keyword "requird", did you mean required?',
    ],
    [{ frobnicate: 1 }, ': JSON Schema has no keyword "frobnicate"; a note of your own begins with x-'],
    [{ properties: { a: { format: "colour" } } }, 'properties.a: JSON Schema has no format "colour"; leave it out'],
    [{ properties: { a: { type: "int" } } }, 'properties.a.type: must be one of "array", "boolean", "integer"'],
    [{ properties: { a: { minimum: "1" } } }, 'properties.a.minimum: must be of type number, not "1"'],
    [{ properties: { a: { pattern: "(" } } }, 'properties.a: the pattern "(" cannot be read with the flag u'],
    [
      { properties: { default: { patternProperties: { "\\-": {} } } } },
      'properties.default: the pattern "\\\\-" cannot be',
    ],
    [{ properties: { a: { $ref: "#/$defs/none" } } }, ": refers to #/$defs/none, which is not in it"],
    [
      { properties: { a: { $ref: "https://example.com/s.json" } } },
      ": refers to https://example.com/s.json, which is not",
    ],
    [{ then: { required: ["a"] } }, ': "then" without "if" does nothing; leave it out'],
    [{ type: "array" }, "type: a payload always is an object"],
    [
      { $schema: "http://json-schema.org/draft-04/schema#" },
      "$schema: must name the draft 2020-12, 2019-09 or draft-07",
    ],
    [{ properties: { a: { items: [{}] } } }, "properties.a.items: must be of type object or boolean"],
  ] as [object, string][]) {
    const said = refused(schema);
    expect([schema, said.length > 0, said[0]?.slice(0, words.length)]).toEqual([schema, true, words]);
  }
  for (const schema of [
    { properties: { frobnicate: { default: { frobnicate: 1 }, enum: [{ type: "int" }] } } },
    { properties: { properties: { properties: { enum: { type: "string" } } } } },
    { $id: "https://example.com/one" },
  ])
    for (let twice = 0; twice < 2; twice++) expect([schema, refused(schema)]).toEqual([schema, []]);
});

test("a schema that cannot be obeyed stops the start and names its place in the file", () => {
  const dir = mkdtempSync(join(tmpdir(), "longhaul-schema-"));
  try {
    const file = join(dir, "s.json");
    writeFileSync(
      file,
      JSON.stringify({ operations: { a: { url: "http://a", schema: { properties: { b: { type: 7 } } } } } }),
    );
    readConfig({ SERVICES: file });
    expect.unreachable();
  } catch (error) {
    expect((error as ConfigError).mistakes?.[0]).toStartWith(
      "SERVICES.operations.a.schema.properties.b.type: must be ",
    );
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});

test("definitions of a schema become components of the document; what only looks like a reference stays", () => {
  const document = {
    $defs: { n: { type: "number" }, "a b": { type: "string" }, list: { items: { $ref: "#/$defs/n" } } },
    properties: { $ref: { $ref: "#/$defs/n" }, self: { $ref: "#" }, default: { items: { $ref: "#/$defs/a b" } } },
    default: { $ref: "#/$defs/n" },
  };
  expect(asComponents(document, "op")).toEqual({
    schema: {
      $defs: { "a b": { type: "string" } },
      properties: {
        $ref: { $ref: "#/components/schemas/op.n" },
        self: { $ref: "#/components/schemas/op" },
        default: { items: { $ref: "#/components/schemas/op/$defs/a b" } },
      },
      default: { $ref: "#/$defs/n" },
    },
    components: { "op.n": { type: "number" }, "op.list": { items: { $ref: "#/components/schemas/op.n" } } },
  });
});

test("a payload that fits its JSON Schema passes untouched: digits, order, unknown fields, no defaults", async () => {
  const redis = await startRedis();
  const dir = mkdtempSync(join(tmpdir(), "longhaul-schema-"));
  const schema = {
    properties: { n: { type: "integer" }, size: { $ref: "#/$defs/size" }, gone: { type: "string", default: "x" } },
    required: ["n"],
    $defs: { size: { type: "number", maximum: 9 } },
  };
  writeFileSync(join(dir, "s.json"), JSON.stringify({ operations: { a: { url: "http://127.0.0.1:9", schema } } }));
  const gateway = await startGatewayApp(redis.url, { SERVICES: join(dir, "s.json") });
  try {
    const text = '{"z":[1.0],"n":12345678901234567890,"size":0.12345678901234567890,"a":{}}';
    expect(await stored(gateway.redis, await gateway.submit("/a", text))).toBe(
      '{"z":[1.0],"n":12345678901234567890,"size":0.12345678901234567890,"a":{}}',
    );
    const answer = await gateway.post("/jobs", [{ operation: "a", payload: { size: 10 } }]);
    const body = await answer.json();
    expect([answer.status, body.errors]).toEqual([
      422,
      [
        { path: "0.payload.n", message: "is required" },
        { path: "0.payload.size", message: "must be at most 9, not 10" },
      ],
    ]);
    const single = await (await gateway.post("/a", {})).json();
    expect(single.detail).toBe("/a: n: is required.");
    const { components } = await gateway.json("/openapi.json");
    const { $defs, ...rest } = schema;
    expect(components.schemas.a).toEqual({
      additionalProperties: {}, // said outright, for generators of types
      type: "object",
      ...rest,
      properties: { ...schema.properties, size: { $ref: "#/components/schemas/a.size" } },
    });
    expect(components.schemas["a.size"]).toEqual($defs.size);
  } finally {
    gateway.close();
    await redis.stop();
    rmSync(dir, { recursive: true, force: true });
  }
}, 60_000);

test.skipIf(!Bun.which("deno"))(
  "under Deno a JSON Schema is read and refused likewise",
  async () => {
    const dir = mkdtempSync(join(tmpdir(), "longhaul-schema-"));
    const schema = { properties: { a: { requird: [] } } };
    writeFileSync(join(dir, "s.json"), JSON.stringify({ operations: { a: { url: "http://a", schema } } }));
    const run = startProcess("worker.ts", { SERVICES: join(dir, "s.json"), REDIS_URL: "redis://127.0.0.1:9" }, "deno");
    try {
      await run.says(/schema\.properties\.a: JSON Schema has no keyword "requird", did you mean required\?/);
    } finally {
      run.kill("SIGKILL");
      rmSync(dir, { recursive: true, force: true });
    }
  },
  60_000,
);

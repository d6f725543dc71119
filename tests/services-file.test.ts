/** A SERVICES file and addresses as people write them: URLs, byte order marks, broken JSON, words that name the cure. */
import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { joinUrl } from "../shared/base-url.ts";
import { ConfigError, readConfig } from "../shared/config.ts";
import { describeIssue } from "../shared/issue-words.ts";
import { parseJson } from "../shared/json.ts";
import { headersOf } from "../shared/told.ts";
import { startProcess } from "./support/stack.ts";

const dir = mkdtempSync(join(tmpdir(), "longhaul-services-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

let files = 0;
const fileOf = (content: string | Uint8Array) => {
  const path = join(dir, `services-${files++}.json`);
  writeFileSync(path, content);
  return path;
};
const mistakes = (env: Record<string, string>): string[] => {
  try {
    readConfig(env);
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.mistakes;
    throw error;
  }
};
/** Mistakes of a file, without its path. */
const wrong = (content: string | Uint8Array) => {
  const path = fileOf(content);
  return mistakes({ SERVICES: path }).map((line) => line.replace(`${path} `, ""));
};
const withUrl = (url: string, more = {}) => ({
  SERVICES: fileOf(JSON.stringify({ operations: { a: { url, ...more } } })),
});
/** Where a call of the operation `a` goes. */
const called = (env: Record<string, string>) => {
  const op = readConfig(env).registry.byName.get("a")!;
  return joinUrl(op.url as string, op.path);
};

// ---- addresses

test("a service's URL: blanks and slashes at its end do not count, its query stands behind the path", () => {
  for (const [url, expected] of [
    [" http://s:9001 ", "http://s:9001/a"],
    ["http://s:9001/\r\n", "http://s:9001/a"],
    ["http://s/api//", "http://s/api/a"],
    ["http://s?key=abc", "http://s/a?key=abc"],
    ["http://s/api/?key=abc", "http://s/api/a?key=abc"],
    ["HTTP://S:80/", "http://s/a"],
    ["http://[::1]:9001", "http://[::1]:9001/a"],
    ["http://ifc_clash:80", "http://ifc_clash/a"],
  ] as const) {
    expect([url, called(withUrl(url))]).toEqual([url, expected]);
  }
  expect(called(withUrl("http://s?key=abc", { path: " /run?mode=fast " }))).toBe("http://s/run?mode=fast&key=abc");
});

test("variables with an address are read like the url of an operation", () => {
  const { registry, gatewayUrl } = readConfig({
    IFC5D_URL: " http://5d:80/x/?k=1 ",
    GATEWAY_URL: "http://gw:8000/queue/?k=1\r",
  });
  const { url, path } = registry.byName.get("calculate-qtos")!;
  expect(joinUrl(url as string, path)).toBe("http://5d/x/calculate-qtos?k=1");
  expect(gatewayUrl).toBe("http://gw:8000/queue?k=1");
  const job = { id: "a_1", attempt: 1, run: 0, deadline: 0, token: "1.w.n" } as never;
  expect(headersOf(job, {}, gatewayUrl)["x-progress-url"]).toBe("http://gw:8000/queue/jobs/a_1/progress?t=1.w.n&k=1");
});

test("an address that no call can use is refused at start, with the reason and without its password", () => {
  for (const [url, reason] of [
    ["http://s#x", "has a fragment, which no request carries"],
    ["http://u:hush@s/#x", "has a fragment, which no request carries"],
    ["http://s/a b", "has a blank or a backslash inside"],
    ["http://a b/", "must be an http(s) URL such as"],
    ["http://s\\x", "must be an http(s) URL such as"],
    ["http://s:99999", "must be an http(s) URL such as"],
    ["http://$(hostname):80", "must be an http(s) URL such as"],
    ["http:///x", "must be an http(s) URL such as"],
    ["http://u:hush@", "must be an http(s) URL such as"],
    ["s:9001", "must be an http(s) URL such as"],
  ] as const) {
    for (const [env, place] of [
      [withUrl(url), "SERVICES.operations.a.url"],
      [{ IFC5D_URL: url }, "IFC5D_URL"],
      [{ GATEWAY_URL: url }, "GATEWAY_URL"],
    ] as [Record<string, string>, string][]) {
      const told = mistakes(env);
      expect([url, told]).toEqual([url, [expect.stringContaining(`${place}: ${reason}`)]]);
      expect(told.join()).not.toContain("hush");
    }
  }
  for (const path of ["x", "/x#y", "/x y", "/x\\y", ""])
    expect([path, mistakes(withUrl("http://s", { path }))]).toEqual([
      path,
      [expect.stringContaining("SERVICES.operations.a.path: ")],
    ]);
});

// ---- the file

const GOOD = '{"operations": {"a": {"url": "http://a"}}}';

test("a SERVICES file: a byte order mark is read over, another encoding is named", () => {
  expect(wrong(`\uFEFF${GOOD}`)).toEqual([]);
  expect(wrong(Buffer.from(`\uFEFF${GOOD}`, "utf16le"))).toEqual(["SERVICES: is UTF-16; save it as UTF-8"]);
  expect(wrong(Buffer.from('{"operations": {"ä": {}}}', "latin1"))).toEqual([
    "SERVICES: is not UTF-8; save it as UTF-8",
  ]);
  expect(wrong(" \n")).toEqual(["SERVICES: is empty"]);
  mkdirSync(join(dir, "folder"));
  expect(mistakes({ SERVICES: join(dir, "folder") })).toEqual([expect.stringMatching(/is a directory$/)]);
  expect(mistakes({ SERVICES: join(dir, "none") })).toEqual([expect.stringMatching(/does not exist$/)]);
});

test("a SERVICES file: broken JSON is told with line, column and cure", () => {
  for (const [text, words] of [
    ['{\n  "operations": {\n    "a": {"url": "http://a",}\n  }\n}', "line 3, column 28: a comma stands before }"],
    ['{"operations": {"a": {"url": "http://a"}}', "line 1, column 42: it ends too early"],
    ["{'operations': {}}", "line 1, column 2: texts stand in double quotes"],
    ["{operations: {}}", 'line 1, column 2: "operations" is no key'],
    ['{\r\n// mine\r\n"operations": {}}', "line 2, column 1: JSON has no comments"],
    ['{"operations" {}}', 'line 1, column 15: a colon is missing behind the key "operations"'],
    ['{"operations": {"a": {"slots": 4 "retries": 1}}}', 'line 1, column 34: a comma or } is missing before "\\""'],
    ['{"operations": {"a": {"slots": 04}}}', 'line 1, column 32: "04" is no value'],
    ['{"operations": {"a": {"url": "http://a\n"}}}', "line 1, column 30: this text goes on over the end of the line"],
    ['{"operations": {"a": {"summary": "C:\\x"}}}', "line 1, column 34: this text holds a control character, or a"],
    [`${GOOD}\n}`, 'line 2, column 1: "}" stands behind the end'],
    ['{"operations": {"a": {"accepts": ["a", "b"}}}', 'line 1, column 43: a comma or ] is missing before "}"'],
    ["[".repeat(500), "line 1, column 202: more than 200 brackets"],
    ['{"operations": True}', 'line 1, column 16: "True" is no value'],
  ] as const) {
    expect([text, wrong(text)]).toEqual([text, [expect.stringContaining(`SERVICES: is not JSON at ${words}`)]]);
  }
});

test("a SERVICES file: a key that an object has twice is refused, at any level, with both places", () => {
  const text = `{"operations": {
  "a": {"url": "http://a", "schema": {"properties": {"x": {"type": "string"}, "x": {"type": "number"}}}},
  "b": {"url": "http://b", "url": "http://c"},
  "a": {"url": "http://d"}
}}`;
  expect(wrong(text)).toEqual([
    "SERVICES: has the key operations.a.schema.properties.x twice, at line 2, column 54 and at line 2, column 79; leave one out",
    "SERVICES: has the key operations.b.url twice, at line 3, column 9 and at line 3, column 28; leave one out",
    "SERVICES: has the key operations.a twice, at line 2, column 3 and at line 4, column 3; leave one out",
  ]);
  expect(wrong('{"operations": {"a": {"url": "http://a", "\\u0075rl": "http://b"}}}')).toHaveLength(1);
});

test("a SERVICES file: an unknown key beside operations is refused with the nearest one", () => {
  expect(wrong('{"operation": {}}')).toEqual(['SERVICES: there is no key "operation", did you mean operations?']);
  expect(wrong('{"operations": {}, "defaults": {}}')).toEqual([
    expect.stringContaining('SERVICES: there is no key "defaults"; there are operations'),
  ]);
  expect(wrong('{"$schema": "./services.schema.json", "operations": {}}')).toEqual([]);
});

test("a request's broken JSON is told with line, column and cure as well", () => {
  for (const [text, words] of [
    ['{"a": 1,}', "line 1, column 8: a comma stands before }; leave it out"],
    ["{'a': 1}", "line 1, column 2: texts stand in double quotes"],
    ['{"a": NaN}', 'line 1, column 7: "NaN" is no value'],
    ['{\n"a": [1, 2\n}', "line 3, column 1: a comma or ] is missing"],
    ['{"a": "x\ny"}', "line 1, column 7: this text goes on over the end of the line; write \\n for a line break"],
  ] as const) {
    expect(() => parseJson(new TextEncoder().encode(text), 64)).toThrow(`The body is not JSON: ${words}`);
  }
  expect(() => parseJson(new TextEncoder().encode(`[${"1,".repeat(40_000)}`), 64)).toThrow("The body is not JSON: ");
});

// ---- words

test("no message of zod leaks: each of its issues has plain words that name what is allowed", () => {
  const shape = z.strictObject({
    text: z.string(),
    long: z.string().max(3),
    empty: z.string().min(1),
    few: z.array(z.string()).min(2),
    many: z.array(z.string()).max(1),
    none: z.array(z.string()).min(1),
    int: z.int(),
    small: z.number().min(1),
    over: z.number().lt(5),
    step: z.number().multipleOf(5),
    word: z.enum(["x", "y"]),
    either: z.union([z.string(), z.number()]),
    form: z.union([z.object({ a: z.string() }), z.string()]),
    mail: z.email(),
    shape: z.string().regex(/^a$/),
    start: z.string().startsWith("/"),
    map: z.record(z.string().regex(/^[a-z]$/), z.number()),
    own: z.string().refine(() => false),
    never: z.never(),
    missing: z.string(),
    absent: z.union([z.string(), z.number()]),
  });
  const given = {
    ...{
      text: 1,
      long: "abcd",
      empty: "",
      few: ["a"],
      many: ["a", "b"],
      none: [],
      int: 1.5,
      small: 0,
      over: 5,
      step: 7,
    },
    ...{ word: "z", either: true, form: { a: 1 }, mail: "x", shape: "b", start: "x", map: { A: 1 }, own: "", never: 1 },
    more: 1,
  };
  const said = Object.fromEntries(
    (shape.safeParse(given).error?.issues ?? []).map((issue) => [issue.path.join("."), issue.message]),
  );
  expect(said).toEqual({
    text: "must be of type string, not 1",
    long: "may have 3 characters at most",
    empty: "must not be empty",
    few: "must have 2 items at least",
    many: "may have 1 item at most",
    none: "must not be empty",
    int: "must be of type int, not 1.5",
    small: "must be at least 1, not 0",
    over: "must be less than 5, not 5",
    step: "must be a multiple of 5, not 7",
    word: 'must be one of "x", "y", not "z"',
    either: "must be of type string or number, not true",
    form: 'has none of the allowed forms, not {"a":1}',
    mail: 'must be an e-mail address, not "x"',
    shape: 'must match the pattern /^a$/, not "b"',
    start: 'must begin with "/", not "x"',
    "map.A": "has a key that is not allowed",
    own: 'is not allowed, not ""',
    never: "must be of type never, not 1",
    missing: "is required (a value of type string)",
    absent: "is required",
    "": "there is no more here",
  });
  expect(z.config().localeError).toBe(describeIssue);
});

// ---- variables that nobody reads

test("a variable that is nearly one of ours is warned of; others' variables are not", () => {
  const { mistyped } = readConfig({
    ...{ RESULT_TLL: "1h", result_ttl: "1h", "RESULT-TTL": "1h", WORKER_SLOT: "*:2", GATEWAY_URI: "x", API_KEY: "x" },
    ...{
      PATH: "/bin",
      HOME: "/",
      HOSTNAME: "x",
      SHELL: "x",
      LESS: "x",
      TERM: "x",
      RELEASE: "1",
      REDIS_PORT: "tcp://x",
    },
    ...{ REDIS_MAXMEMORY: "1gb", npm_config_port: "1", IFC_PIPELINE_API_KEY: "key-of-eight", MAX_QUEUE: "", PWD: "/" },
  });
  expect(Object.fromEntries(mistyped)).toEqual({
    RESULT_TLL: "The variable RESULT_TLL is not read; did you mean RESULT_TTL?",
    result_ttl: "The variable result_ttl is not read; did you mean RESULT_TTL?",
    "RESULT-TTL": "The variable RESULT-TTL is not read; did you mean RESULT_TTL?",
    WORKER_SLOT: "The variable WORKER_SLOT is not read; did you mean WORKER_SLOTS?",
    GATEWAY_URI: "The variable GATEWAY_URI is not read; did you mean GATEWAY_URL?",
    API_KEY: "The variable API_KEY is not read; did you mean API_KEYS?",
  });
});

test("gateway, worker and up name a mistyped variable when they start", async () => {
  const env = { RESULT_TLL: "1h", IFC5D_URL: "http://127.0.0.1:9", REDIS_URL: "redis://127.0.0.1:9", PORT: "0" };
  const words = /The variable RESULT_TLL is not read; did you mean RESULT_TTL\?/;
  const runs = ["gateway.ts", "worker.ts", "up/settings.ts"].map((file) =>
    startProcess(file, { ...env, DASHBOARD_PORT: "0" }),
  );
  try {
    for (const run of runs) await run.says(words);
  } finally {
    for (const run of runs) run.kill("SIGKILL");
  }
});

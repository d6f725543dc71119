/** API_KEYS: names, keys and scopes; what is refused at start, and what the audit shows. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { guard } from "../shared/auth.ts";
import { type ConfigError, readConfig } from "../shared/config.ts";
import { startGatewayApp, type TestGateway } from "./support/gateway.ts";
import { startRedis, type TestRedis } from "./support/redis.ts";

const mistakes = (env: Record<string, string>): string[] => {
  try {
    readConfig(env);
    return [];
  } catch (error) {
    return (error as ConfigError).mistakes;
  }
};
const keysOf = (API_KEYS: string) => readConfig({ API_KEYS }).apiKeys;

test("API_KEYS: scopes, rotation, blanks around a key", () => {
  expect(keysOf(" aaaaaaaaaa , bbbbbbbbbb:read,cccccccccc:submit,dddddddddd:admin,eeee:eeee33")).toEqual([
    { key: "aaaaaaaaaa", scope: "admin" },
    { key: "bbbbbbbbbb", scope: "read" },
    { key: "cccccccccc", scope: "submit" },
    { key: "dddddddddd", scope: "admin" },
    { key: "eeee:eeee33", scope: "admin" },
  ]);
});

test("API_KEYS: a name in front is read; base64 and colons in a key are part of it", () => {
  expect(keysOf("n8n=aaaaaaaaaa:submit")).toEqual([{ key: "aaaaaaaaaa", scope: "submit", name: "n8n" }]);
  expect(keysOf("a=bbbbbbbbbb,a=cccccccccc")).toHaveLength(2); // rotation of one client's key
  expect(keysOf("on-call_2=user:pass1234:read")).toEqual([{ key: "user:pass1234", scope: "read", name: "on-call_2" }]);
  for (const key of ["c2VjcmV0cw==", "c2vjcmv0czE=", "abcdefgh=", "abcdefgh==", "Abc=defghijk", "9abc=defghijk"]) {
    expect([key, keysOf(key)]).toEqual([key, [{ key, scope: "admin" }]]);
    expect([key, keysOf(`${key}:read`)]).toEqual([key, [{ key, scope: "read" }]]);
    expect([key, keysOf(`ci=${key}:read`)]).toEqual([key, [{ key, scope: "read", name: "ci" }]]);
  }
  expect(keysOf(`${"a".repeat(32)}=bbbbbbbbbb`)[0]).toMatchObject({ key: "bbbbbbbbbb" });
  expect(keysOf(`${"a".repeat(33)}=bbbbbbbbbb`)[0]).toEqual({ key: `${"a".repeat(33)}=bbbbbbbbbb`, scope: "admin" });
});

test("API_KEYS: a word behind the last colon that is no scope stops the start", () => {
  for (const [word, guess] of [
    ["readonly", ""],
    ["read-only", ""],
    ["reed", "did you mean read?"],
    ["Read", "did you mean read?"],
    ["ADMIN", "did you mean admin?"],
    ["submt", "did you mean submit?"],
    ["write", ""],
    ["", ""],
    ["read|submit", ""],
  ] as const) {
    for (const key of [`aaaaaaaaaa:${word}`, `name=aaaaaaaaaa:${word}`, `user:aaaaaaaaaa:${word}`]) {
      const told = mistakes({ API_KEYS: key });
      expect([key, told]).toEqual([key, [expect.stringContaining("has no scope behind its last colon")]]);
      expect([key, told[0]]).toEqual([key, expect.stringContaining(guess)]);
      expect(told[0]).not.toContain("aaaaaaaaaa");
    }
  }
});

test("API_KEYS: placeholders and short keys are refused, with a name, a scope and in a list too", () => {
  for (const key of [
    "changeme",
    "CHANGE-ME",
    "change-me-to-a-secure-random-string",
    "change_me_please",
    "USE_ENV_VAR",
    "use-env-var",
    "replace-with-a-key",
    "secret",
    "password",
    "password123",
    "api-key",
    "API_KEY",
    "secret-key",
    "super-secret-key",
    "my-secret-key",
    "your-api-key",
    "your_key_here",
    "your-secret-key-here",
    "insert-key-here",
    "xxxxxxxxxx",
    "1234567890",
    "00000000",
    "********",
    "<your key>",
    // biome-ignore lint/suspicious/noTemplateCurlyInString: as a template leaves it
    "${API_KEY}",
    "$API_KEYS",
    "{{ api_key }}",
    "%API_KEY%",
    "placeholder",
    "short",
  ]) {
    for (const item of [key, `${key}:read`, `goodgoodgood,${key}:read`, `ci=${key}`, `ci=${key}:submit`]) {
      expect([item, mistakes({ API_KEYS: item })]).toEqual([item, [expect.stringMatching(/^API_KEYS: key [12]\b/)]]);
    }
    expect([key, mistakes({ IFC_PIPELINE_API_KEY: key }).length]).toEqual([key, 1]);
  }
  // made by openssl rand -hex 24, -base64 24, uuidgen
  for (const key of [
    "3f786850e387550fdab836ed7e6dc881de23001b3f786850",
    "Xn9vQ2l0bGVzc25lc3Npc3Rlc3Q1Z2Vy",
    "test-key-7f3a",
    "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
  ]) {
    expect([key, mistakes({ API_KEYS: key })]).toEqual([key, []]);
  }
});

test("API_KEYS: all mistakes at once, each by its place or name, none with a key in it", () => {
  const told = mistakes({
    API_KEYS: "hush-hush-1:reed, changeme, n8n=hush, hush-hush-2, hush-hush-2:read, hush-schlüssel, LEASE",
    LEASE: "soon",
  });
  expect(told).toEqual([
    expect.stringMatching(/^API_KEYS: key 1 has no scope .*did you mean read/),
    expect.stringMatching(/^API_KEYS: key 2 is a placeholder; make one: openssl rand -hex 24$/),
    expect.stringMatching(/^API_KEYS: key 3, named n8n, has fewer than 8 characters/),
    "API_KEYS: key 5 is the same as key 4: which scope should it have?",
    expect.stringMatching(/^API_KEYS: key 6 has characters that a header cannot carry/),
    expect.stringMatching(/^API_KEYS: key 7 has fewer than 8 characters/),
    expect.stringMatching(/^LEASE: must be a duration/),
  ]);
  expect(told.join()).not.toMatch(/hush/);
});

test("IFC_PIPELINE_API_KEY is one key as it stands: commas, colons and names are part of it", () => {
  for (const key of ["one,two,three", "whatever:readonly", "whatever1:read", "n8n=whatever"]) {
    expect(readConfig({ IFC_PIPELINE_API_KEY: key }).apiKeys).toEqual([{ key, scope: "admin" }]);
    const g = guard(readConfig({ IFC_PIPELINE_API_KEY: key }), []);
    expect(g.check(new Request("http://x/", { headers: { "x-api-key": key } }), "9.9.9.9", "admin").scope).toBe(
      "admin",
    );
  }
  const both = { IFC_PIPELINE_API_KEY: "one,two,three", API_KEYS: "newnewnewnew:read" };
  expect(readConfig(both).apiKeys).toEqual([{ key: "newnewnewnew", scope: "read" }]);
});

// ---- what the audit shows

let redis: TestRedis;
let gateway: TestGateway;
beforeAll(async () => {
  redis = await startRedis();
  gateway = await startGatewayApp(redis.url, { API_KEYS: "on-call=admin-key-1,admin-key-2,n8n=submit-key-1:submit" });
});
afterAll(async () => {
  gateway?.close();
  await redis?.stop();
});

test("the audit shows a key's name, and a hash for a key without one", async () => {
  for (const key of ["admin-key-1", "admin-key-2"]) {
    const pause = await gateway.ask("POST", "/queues/ifcdiff/pause", { headers: { "x-api-key": key } });
    expect(pause.status).toBe(200);
  }
  const bulk = { filter: { state: "failed" }, action: "delete" };
  const started = await gateway.post("/jobs/bulk", bulk, { "x-api-key": "admin-key-1" });
  expect(((await started.json()) as { by: string }).by).toBe("on-call");
  const audit = await gateway.ask("GET", "/audit", { headers: { "x-api-key": "admin-key-1" } });
  const { entries } = (await audit.json()) as { entries: { who: string }[] };
  expect(entries.map(({ who }) => who)).toEqual(["on-call", expect.stringMatching(/^[0-9a-f]{16}$/), "on-call"]);
});

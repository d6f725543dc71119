/** Hiding secrets in JSON as text, and putting them back. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { HIDDEN, masked, redactJson, restore, secretKeys } from "../shared/redact.ts";

const secret = secretKeys(["password", "token", "api_key"]);

test("secretKeys takes a name in any spelling, and as the end of a longer one", () => {
  for (const key of [
    "password",
    "PASSWORD",
    "db_password",
    "dbPassword",
    "apiKey",
    "API-KEY",
    "X-Api-Key",
    "accessToken",
  ])
    expect([key, secret(key)]).toEqual([key, true]);
  for (const key of ["passwords_changed", "max_tokens", "tokens", "key", ""])
    expect([key, secret(key)]).toEqual([key, false]);
  expect(secretKeys([])("password")).toBe(false);
});

test("redactJson hides values of every kind and leaves every other byte as it was", () => {
  const text = `{ "a": 1.0, "token":"x\\"y", "big": 12345678901234567890, "n": {"password" : {"deep": ["p", 1]}, "z": [1,2]},
 "api_key": [1, {"b": 2}], "list": [{"token": true}, {"token": -1.5e3 }], "token": null, "password": "", "text": "\\"token\\": \\"no\\"" }`;
  expect(redactJson(text, secret)).toBe(
    `{ "a": 1.0, "token":"•••", "big": 12345678901234567890, "n": {"password" : "•••", "z": [1,2]},
 "api_key": "•••", "list": [{"token": "•••"}, {"token": "•••" }], "token": null, "password": "", "text": "\\"token\\": \\"no\\"" }`,
  );
  expect(redactJson('{"pass\\u0077ord": "x"}', secret)).toBe('{"pass\\u0077ord": "•••"}');
  expect(redactJson("plain text", secret)).toBe("plain text");
});

test("redactJson hides in a text that was cut anywhere", () => {
  const text = '{"a": 1, "token": "s3cr3t", "n": {"password": {"x": ["s3cr3t"]}}, "b": 2}';
  for (let cut = 0; cut <= text.length; cut++) expect(redactJson(text.slice(0, cut), secret)).not.toContain("s3cr");
});

test("redactJson of any value equals hiding in the value; restore undoes it; masked finds what is left", () => {
  const key = fc.oneof(fc.string(), fc.constantFrom("password", "token", "a.token", "x"));
  const { tree } = fc.letrec((tie) => ({
    tree: fc.oneof(
      { depthSize: "small" },
      fc.string(),
      fc.integer(),
      fc.boolean(),
      fc.constant(null),
      fc.array(tie("tree"), { maxLength: 4 }),
      fc.dictionary(key, tie("tree"), { maxKeys: 4 }),
    ),
  }));
  const hide = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(hide);
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(
      Object.entries(value).map(([k, v]) => [k, secret(k) && v !== null && v !== "" ? HIDDEN : hide(v)]),
    );
  };
  fc.assert(
    fc.property(tree, fc.constantFrom(0, 2), (value, indent) => {
      const shown = JSON.parse(redactJson(JSON.stringify(value, null, indent), secret));
      expect(shown).toEqual(hide(value) as never);
      expect(restore(shown, value, secret)).toEqual(value as never);
      expect(masked(shown, secret)).toBe(JSON.stringify(shown) !== JSON.stringify(value));
    }),
    { numRuns: 500 },
  );
});

test("restore takes nothing from another place than the mask's own", () => {
  const original = { a: { token: "s3cr3t" }, text: "plain" };
  expect(restore({ token: HIDDEN, b: { token: HIDDEN }, text: HIDDEN }, original, secret)).toEqual({
    token: HIDDEN,
    b: { token: HIDDEN },
    text: HIDDEN,
  });
});

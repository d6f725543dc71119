/**
 * API_KEYS: `[name=]key[:read|submit|admin]`, separated by commas. A mistake that would let somebody in is refused: a
 * mistyped scope would otherwise be an administrator's key, and an example's key is known to all.
 */
import { z } from "zod";
import { nearest } from "./nearest.ts";

const SCOPES = ["read", "submit", "admin"] as const;
export type Scope = (typeof SCOPES)[number];
export type ApiKey = { key: string; scope: Scope; name?: string };

const MIN_LENGTH = 8;
const MAKE_ONE = "make one: openssl rand -hex 24";

/** Keys of examples, documents and templates, and what a template leaves when its variable is not set. */
const PLACEHOLDER = new RegExp(
  `^(${[
    "change[-_ ]?(me|it|this).*",
    "replace[-_ ]?(me|it|this|with).*",
    "(use|set|insert|enter|put|add|fill)[-_ ].*(env|key|token|secret|here).*",
    "(your|my)[-_ ].*(key|token|secret|password|here).*",
    "(secret|private|super[-_ ]?secret|api|access|auth|admin|master|default)?[-_ ]?(key|token|secret|password)",
    "(to[-_ ]?do|fix[-_ ]?me|placeholder|example|sample|dummy|test|none|null|undefined|default|secret)s?",
    "passw[o0]rd\\d*",
    "x{3,}|\\*{3,}|\\.{3,}|0{8,}|1{8,}|1234567890?|0123456789",
    "<.*>|\\$\\{?.*|\\{\\{.*|%\\w+%",
  ].join("|")})$`,
  "i",
);

const asScope = (text: string): Scope | undefined => SCOPES.find((scope) => scope === text);

/** One item of API_KEYS. @returns what is wrong with it, or the key */
function readItem(item: string): ApiKey | string {
  const cut = item.lastIndexOf(":");
  const word = item.slice(cut + 1);
  const scope = cut > 0 ? asScope(word) : undefined;
  // Keys are made of random characters: text without a digit behind a colon is a scope that somebody mistyped.
  if (cut > 0 && !scope && /^\D*$/.test(word)) {
    const meant = word === "" ? undefined : nearest(word.toLowerCase(), SCOPES);
    const guess = meant ? ` (did you mean ${meant}?)` : "";
    return `has no scope behind its last colon${guess}; scopes are ${SCOPES.join(", ")}. Is the colon a part of the key, write the scope behind it: …:admin`;
  }
  const whole = scope ? item.slice(0, cut) : item;
  // Base64 has = at its end only
  const named = /^([a-z][a-z0-9_-]{0,31})=(?!=)(.+)$/.exec(whole);
  const key = named ? (named[2] as string) : whole;
  return checkKey(key) ?? { key, scope: scope ?? "admin", ...(named ? { name: named[1] as string } : {}) };
}

/** Why a text may not be a key. The text itself is a secret, or nearly: it is never shown. */
function checkKey(key: string): string | undefined {
  if (PLACEHOLDER.test(key)) return `is a placeholder; ${MAKE_ONE}`;
  if (key.length < MIN_LENGTH) return `has fewer than ${MIN_LENGTH} characters; ${MAKE_ONE}`;
  if (!/^[\x20-\x7e]+$/.test(key)) return `has characters that a header cannot carry; ${MAKE_ONE}`;
  return undefined;
}

/** A key as a mistake names it: by its place, and by its name where it has one. */
const placeOf = (item: string, at: number) => {
  const name = /^([a-z][a-z0-9_-]{0,31})=[^=]/.exec(item)?.[1];
  return name ? `key ${at + 1}, named ${name},` : `key ${at + 1}`;
};

export const apiKeys = z
  .string()
  .default("")
  .transform((text, ctx): ApiKey[] => {
    const items = text
      .split(",")
      .map((item) => item.trim())
      .filter(Boolean);
    const places = new Map<string, string>();
    return items.flatMap((item, at) => {
      const read = readItem(item);
      const place = placeOf(item, at);
      if (typeof read === "string") {
        ctx.addIssue(`${place} ${read}`);
        return [];
      }
      const earlier = places.get(read.key);
      if (earlier) ctx.addIssue(`${place} is the same as ${earlier}: which scope should it have?`);
      places.set(read.key, place.replace(/,$/, ""));
      return [read];
    });
  });

/** The old gateway's variable holds one key, whatever characters it has. */
export const oneKey = z
  .string()
  .default("")
  .transform((text, ctx): ApiKey[] => {
    const key = text.trim();
    if (key === "") return [];
    const wrong = checkKey(key);
    if (wrong) ctx.addIssue(wrong);
    return [{ key, scope: "admin" }];
  });

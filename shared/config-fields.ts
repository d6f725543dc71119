/**
 * Readers of single environment variables: a text → a value, or a sentence that says what is allowed. config.ts lists which variable is
 * read by which.
 */
import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { z } from "zod";
import { rangeFault } from "./addresses.ts";
import { BASE_PATH } from "./base-path.ts";
import { parseRedisUrl } from "./redis-url.ts";
import { allowance, NOTHING, receiverOf } from "./ssrf.ts";
import { durationMs, MAX_DURATION_MS, sizeBytes, UNITS } from "./units.ts";

const parsed =
  <T>(read: (text: string) => T | undefined, expected: string) =>
  (fallback: string) =>
    z
      .string()
      .default(fallback)
      .transform((text, ctx) => {
        const value = read(text);
        if (value !== undefined) return value;
        ctx.addIssue(`must be ${expected}, not ${JSON.stringify(text)}`);
        return z.NEVER;
      });

const durationFrom = (minMs: number, least: string) =>
  parsed((text) => {
    const ms = durationMs(text);
    return ms !== undefined && ms >= minMs && ms <= MAX_DURATION_MS ? ms : undefined;
  }, `a duration such as 30s, 5m or 2h, ${least}at most 30d`);
export const duration = durationFrom(0, "");
/** What Redis is to keep for a while, or a lease: 0 would lose it in the step that writes it. */
export const life = durationFrom(1_000, "at least 1s, ");
export const size = parsed(sizeBytes, "a size such as 256KiB, 16MiB or 2GiB");
export const int = (min: number, max: number) =>
  parsed((text) => {
    const n = Number(text);
    return /^\d+$/.test(text.trim()) && n >= min && n <= max ? n : undefined;
  }, `a whole number from ${min} to ${max}`);
export const number = (min: number, max: number) =>
  parsed((text) => {
    const n = Number(text);
    return /^\d+(\.\d+)?$/.test(text.trim()) && n >= min && n <= max ? n : undefined;
  }, `a number from ${min} to ${max}`);
/** No colon, no brace: it stands before both in every key. */
export const namespace = parsed(
  (text) => (/^[a-z0-9-]{1,32}$/.test(text) ? text : undefined),
  "1 to 32 of a-z, 0-9 and -",
);
/** `/queue`: the path below which a proxy serves the deployment; the slash at its end does not count. */
export const basePath = parsed((text) => {
  const path = text.trim().replace(/\/+$/, "");
  return path === "" || BASE_PATH.test(path) ? path : undefined;
}, "a path such as /queue, of letters, digits and _ . ~ -")("");
/** Trimmed; its files of TLS can be read now. */
export const redisUrl = (fallback: string) =>
  z
    .string()
    .default(fallback)
    .transform((text, ctx) => {
      try {
        const target = parseRedisUrl(text);
        for (const name of ["ca", "cert", "key"] as const) {
          const file = target[name];
          if (file === undefined) continue;
          try {
            readFileSync(file);
          } catch (error) {
            ctx.addIssue(`${name}=${file} cannot be read (${(error as NodeJS.ErrnoException).code})`);
          }
        }
      } catch (error) {
        ctx.addIssue((error as Error).message);
      }
      return text.trim();
    });
/** `20%` → 0.2 */
export const share = parsed((text) => {
  const n = Number(text.trim().replace(/ *%$/, ""));
  return /^\d+(\.\d+)? *%$/.test(text.trim()) && n <= 100 ? n / 100 : undefined;
}, "a share such as 20%, at most 100%");
export const flag = parsed(
  (text) => ({ "1": true, true: true, "0": false, false: false, "": false })[text.toLowerCase()],
  "1 or 0",
);
export const oneOf = (words: readonly string[]) =>
  parsed((text) => words.find((word) => word === text), words.join(", "));
export const list = (fallback = "") =>
  z
    .string()
    .default(fallback)
    .transform((text) =>
      text
        .split(",")
        .map((item) => item.trim())
        .filter(Boolean),
    );
export const addresses = list().superRefine((items, ctx) => {
  for (const item of items) {
    const fault = rangeFault(item);
    if (fault) ctx.addIssue(fault);
  }
});
export const path = (fallback: string) =>
  z
    .string()
    .default(fallback)
    .transform((text) => resolve(text));

/** Secrets of Standard Webhooks: whsec_ and base64 of 24 to 64 bytes. Several while one replaces another. */
export const webhookSecrets = list().transform((items, ctx) =>
  items.map((item) => {
    const text = item.startsWith("whsec_") ? item.slice("whsec_".length) : "";
    const bytes = Buffer.from(text, "base64");
    if (!/^[A-Za-z0-9+/]+={0,2}$/.test(text) || bytes.length < 24 || bytes.length > 64) {
      ctx.addIssue('must be whsec_ and base64 of 24 to 64 bytes; make one: echo "whsec_$(openssl rand -base64 32)"');
    }
    return new Uint8Array(bytes);
  }),
);

/** The operator's own address, so it may be private; a user or a password in it would be told to whoever reads logs. */
export const webhook = z
  .string()
  .optional()
  .transform((text, ctx) => {
    if (text === undefined) return undefined;
    try {
      return receiverOf(text).href;
    } catch (error) {
      ctx.addIssue(`must be an http(s) URL: ${(error as Error).message}`);
      return z.NEVER;
    }
  });

/** `100/s`, `1000/m`: requests of one key. */
export const rate = parsed((text) => {
  const m = /^(\d{1,9})\s*\/\s*(s|m|h)$/.exec(text.trim());
  if (text.trim() === "" || text.trim() === "0") return null;
  return m && Number(m[1]) > 0 ? { requests: Number(m[1]), perMs: UNITS[m[2] as string] as number } : undefined;
}, "a rate such as 100/s, 1000/m or 5000/h, or 0 for none");

export const origins = list().transform((items, ctx) => {
  for (const item of items) {
    if (URL.canParse(item) && /^https?:\/\//.test(item) && new URL(item).origin === item) continue;
    ctx.addIssue(`must be origins such as https://app.example.com, not ${JSON.stringify(item)}`);
  }
  return items;
});

/** Host names, as a Host header has them. A port does not count. */
export const hosts = list().transform((items, ctx) => {
  for (const item of items) {
    if (/^(\[[0-9a-f:.]+\]|[\w.-]+)(:\d{1,5})?$/i.test(item)) continue;
    ctx.addIssue(
      `must be host names such as queue.example.com, without scheme, path or *, not ${JSON.stringify(item)}`,
    );
  }
  return items;
});

export const allowed = (variable: string) =>
  list().transform((items, ctx) => {
    try {
      return allowance(items, variable);
    } catch (error) {
      ctx.addIssue((error as Error).message.replace(`${variable}: `, ""));
      return NOTHING;
    }
  });

/** `ifcclash:1,*:8` → slots by service; "*" is every other. */
export const slots = list().transform((items, ctx) => {
  const map = new Map<string, number>();
  for (const item of items) {
    const m = /^([a-z0-9-]{1,64}|\*):(\d{1,5})$/.exec(item);
    if (m && Number(m[2]) > 0) map.set(m[1] as string, Number(m[2]));
    else ctx.addIssue(`must look like ifcclash:1,*:8, not ${JSON.stringify(item)}`);
  }
  return map;
});

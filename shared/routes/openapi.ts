/** GET /openapi.json, and /docs: a page that shows it. Both are open, and ask no other host for anything. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { type Gateway, jsonText, matches, newApp } from "../app.ts";
import { baseOf } from "../base-path.ts";
import { Fault } from "../faults.ts";
import { documentText } from "../openapi.ts";
import type { Asked } from "../openapi-routes.ts";

const PAGE = new URL("../../dashboard/docs/", import.meta.url);
const FILES: Record<string, string> = {
  "index.html": "text/html; charset=utf-8",
  "docs.js": "text/javascript; charset=utf-8",
  "docs.css": "text/css; charset=utf-8",
};
const HEADERS = {
  "cache-control": "no-cache",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
};
const tagOf = (text: string) => `"${createHash("sha256").update(text).digest("base64url").slice(0, 22)}"`;

/** What whoever opens the bare address is told. */
const start = (base: string) =>
  JSON.stringify({ name: "Longhaul", docs: `${base}/docs`, openapi: `${base}/openapi.json`, health: `${base}/health` });

export function openapi({ config }: Gateway, asked: Asked) {
  let making: Promise<{ text: string; etag: string }> | undefined;
  async function make() {
    const text = await documentText(config.registry, asked, config.maxBatchJobs);
    return { text, etag: tagOf(text) };
  }
  const app = newApp();
  app.get("/", (c) => jsonText(start(baseOf(c.req.raw)), 200, { "cache-control": "no-cache" }));
  app.get("/openapi.json", async (c) => {
    making ??= make();
    const made = await making;
    const base = baseOf(c.req.raw);
    const etag = base ? tagOf(made.etag + base) : made.etag;
    const headers = { etag, "cache-control": "no-cache" };
    if (matches(c.req.header("if-none-match") ?? null, etag)) return new Response(null, { status: 304, headers });
    return jsonText(made.text.replace('"servers":[{"url":"/"}]', `"servers":[{"url":"${base}/"}]`), 200, headers);
  });

  const file = async (request: Request, name: string) => {
    const type = Object.hasOwn(FILES, name) ? FILES[name] : undefined;
    if (!type) throw new Fault("unknown_route", "There is no such file; see /docs.");
    const text = await readFile(new URL(name, PAGE), "utf8");
    const headers = { ...HEADERS, etag: tagOf(text), "content-type": type };
    if (matches(request.headers.get("if-none-match"), headers.etag)) {
      return new Response(null, { status: 304, headers });
    }
    return new Response(text, { headers });
  };
  app.get("/docs", (c) => file(c.req.raw, "index.html"));
  app.get("/docs/:file", (c) => file(c.req.raw, c.req.param("file")));
  return app;
}

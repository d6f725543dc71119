/**
 * The dashboard's files: its own from dashboard/, and the few packages of others from node_modules under /vendor/.
 * No build step. A browser cannot read `import … from "preact"`, and an import map would be an inline script, which
 * the content security policy forbids: so the four names are replaced by addresses as a file is served.
 */
import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { brotliCompress, gzip } from "node:zlib";

const ROOT = fileURLToPath(new URL("../../dashboard/", import.meta.url));
const TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};
const packed = { br: promisify(brotliCompress), gzip: promisify(gzip) };

/** Packages of others: the file in the package, and what is added so that it is a module. */
const VENDOR: Record<string, { pkg: string; file: string; tail?: string }> = {
  preact: { pkg: "preact", file: "dist/preact.mjs" },
  "preact/hooks": { pkg: "preact", file: "hooks/dist/hooks.mjs" },
  htm: { pkg: "htm", file: "dist/htm.module.js" },
  uplot: { pkg: "uplot", file: "dist/uPlot.iife.min.js", tail: "\nexport default uPlot;\n" },
  "uplot.css": { pkg: "uplot", file: "dist/uPlot.min.css" },
};

const require = createRequire(import.meta.url);
type Vendor = { path: string; file: string; tail: string };

/** Each package's address carries its version, so a browser may keep it for ever. */
async function vendors(): Promise<Map<string, Vendor>> {
  const found = new Map<string, Vendor>();
  for (const [name, { pkg, file, tail = "" }] of Object.entries(VENDOR)) {
    const folder = await folderOf(pkg);
    const { version } = JSON.parse(await readFile(join(folder, "package.json"), "utf8")) as { version: string };
    const base = `${name.replace("/", "-").replace(".css", "")}${extname(file) === ".css" ? ".css" : ".js"}`;
    found.set(name, { path: `/vendor/${version}/${base}`, file: join(folder, file), tail });
  }
  return found;
}

/** A package's folder. Its main file is resolved, because not every package exports its package.json. */
async function folderOf(pkg: string): Promise<string> {
  let at = dirname(require.resolve(pkg));
  while (!(await stat(join(at, "package.json")).catch(() => undefined)) && at !== dirname(at)) at = dirname(at);
  return at;
}

type Asset = { type: string; etag: string; forms: Partial<Record<"br" | "gzip" | "plain", Uint8Array>> };

export class Assets {
  private readonly known = new Map<string, { stamp: string; asset: Promise<Asset> }>();
  private readonly vendors = vendors();

  /**
   * Answers a GET. @param path  of the URL
   * @returns undefined when there is no such file
   */
  async answer(path: string, request: Request): Promise<Response | undefined> {
    const vendor = path.startsWith("/vendor/")
      ? [...(await this.vendors).values()].find((one) => one.path === path)
      : undefined;
    const name = path === "/" ? "index.html" : path.slice(1);
    // a plain name below dashboard/: no dots but the extension's, so nothing above it can be named
    if (!vendor && !/^(?:[a-z0-9-]+\/)*[a-z0-9-]+\.[a-z]+$/.test(name)) return undefined;
    const file = vendor?.file ?? join(ROOT, name);
    const type = TYPES[extname(file)];
    const found = type ? await stat(file).catch(() => undefined) : undefined;
    if (!type || !found?.isFile()) return undefined;
    const asset = await this.read(file, type, path, vendor?.tail ?? "", `${found.mtimeMs} ${found.size}`);
    const headers: Record<string, string> = {
      "content-type": type,
      etag: asset.etag,
      vary: "accept-encoding",
      "cache-control": vendor ? "public, max-age=31536000, immutable" : "no-cache",
    };
    if (request.headers.get("if-none-match")?.includes(asset.etag)) return new Response(null, { status: 304, headers });
    const accepts = request.headers.get("accept-encoding") ?? "";
    const form = /\bbr\b/.test(accepts) ? "br" : /\bgzip\b/.test(accepts) ? "gzip" : "plain";
    const plain = asset.forms.plain as Uint8Array;
    if (form !== "plain") asset.forms[form] ??= await packed[form](plain);
    if (form !== "plain") headers["content-encoding"] = form;
    return new Response(new Uint8Array(asset.forms[form] ?? plain), { headers });
  }

  private read(file: string, type: string, path: string, tail: string, stamp: string): Promise<Asset> {
    const known = this.known.get(file);
    if (known?.stamp === stamp) return known.asset;
    const asset = this.make(file, type, path, tail);
    this.known.set(file, { stamp, asset });
    asset.catch(() => this.known.delete(file));
    return asset;
  }

  /** @param path  that it is served at: addresses in it are relative, as the dashboard may lie at any path of a proxy */
  private async make(file: string, type: string, path: string, tail: string): Promise<Asset> {
    let text = (await readFile(file, "utf8")) + tail;
    const named = await this.vendors;
    const address = (all: string, before: string, name: string) => {
      const vendor = named.get(name);
      const up = "../".repeat(path.split("/").length - 2) || "./";
      return vendor ? `${before}"${up}${vendor.path.slice(1)}"` : all;
    };
    if (type.startsWith("text/javascript")) {
      text = text
        .replace(/(\bfrom\s*)"([a-z/]+)"/g, address)
        .replace(/(\bimport\s*\(\s*)"([a-z/]+)"/g, address)
        .replace(/\n?\/\/# sourceMappingURL=.*\s*$/, "\n");
    }
    if (type.startsWith("text/html")) text = text.replace(/(href=)"vendor:([a-z/.]+)"/g, address);
    const plain = new TextEncoder().encode(text);
    const etag = `W/"${createHash("sha256").update(plain).digest("base64url").slice(0, 22)}"`;
    return { type, etag, forms: { plain } };
  }
}

/** What lies in the volumes: the listing, links to files, and the JSON that ifc2json wrote. */

import { z } from "zod";
import { allow, type Gateway, jsonText, newApp } from "../app.ts";
import { baseOf } from "../base-path.ts";
import { Fault } from "../faults.ts";
import { parseJson } from "../json.ts";
import { pathFault } from "../paths.ts";
import { sendFile } from "../send-file.ts";
import { iso } from "../show.ts";
import { keepToken } from "../store/tokens.ts";
import { fit, readBody } from "../submit.ts";
import { fullPath, listFiles, openFile } from "../volumes.ts";

const MOST_FILES = 10_000;
export const LIST = z.object({ limit: z.coerce.number().int().min(1).max(MOST_FILES).default(MOST_FILES) });
export const LINK = z.strictObject({ file_path: z.string().min(1).max(1_024) });
const JSON_DIR = "/output/json";

export function files(gateway: Gateway) {
  const { config, inspector } = gateway;
  const app = newApp();

  app.get("/list_directories", async (c) => {
    allow(gateway, c, "read");
    const { limit } = fit(LIST, c.req.query(), "The query");
    const { files, structure, truncated } = await listFiles(config, limit);
    const body = { files, directory_structure: structure, ...(truncated ? { truncated, limit } : {}) };
    return jsonText(JSON.stringify(body), 200, { "cache-control": "private, no-cache" });
  });

  app.post("/create_download_link", async (c) => {
    allow(gateway, c, "read");
    const body = parseJson(await readBody(c.req.raw, config.maxBodyBytes), config.maxJsonDepth);
    const path = fullPath(fit(LINK, body, "The body").file_path);
    // Judged now, to tell at once, and again at each download: what the path means may change.
    const { handle } = await openFile(config, path);
    await handle.close();
    const token = await keepToken(inspector, path, config.downloadTtlMs);
    const expiry = iso(inspector.time.now() + config.downloadTtlMs);
    return jsonText(
      JSON.stringify({ download_token: token, token, expiry, url: `${baseOf(c.req.raw)}/download/${token}` }),
    );
  });

  // The rest of the raw path: an absolute name begins with a slash of its own, /ifc2json//output/json/x.json
  app.get("/ifc2json/:name{.+}", async (c) => {
    allow(gateway, c, "read");
    const raw = new URL(c.req.url).pathname.slice("/ifc2json/".length);
    let name: string;
    try {
      name = decodeURIComponent(raw);
    } catch {
      throw new Fault("bad_request", "The path is not valid percent-encoding.");
    }
    const why = pathFault(name);
    if (why) throw new Fault("invalid", `The path ${JSON.stringify(name.slice(0, 200))} ${why}.`);
    const path = name.startsWith("/") ? fullPath(name) : fullPath(`${JSON_DIR}/${name}`);
    if (!path.startsWith("/output/")) {
      throw new Fault("invalid", `The path ${path} lies outside /output; ifc2json writes to ${JSON_DIR}.`);
    }
    return sendFile(c.req.raw, await openFile(config, path), { "content-type": "application/json" });
  });
  return app;
}

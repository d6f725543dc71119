/** GET /download/{token}: a file, to whoever has the link. The token is the authorization. */
import { create as disposition } from "content-disposition";
import { getMimeType } from "hono/utils/mime";
import { type Gateway, newApp } from "../app.ts";
import { Fault } from "../faults.ts";
import { answer } from "../range.ts";
import { openBody } from "../runtime.ts";
import { readToken } from "../store/tokens.ts";
import { type OpenFile, openFile } from "../volumes.ts";

export function download(gateway: Gateway) {
  const { config, inspector } = gateway;
  const app = newApp();
  app.get("/download/:token", async (c) => {
    const path = await readToken(inspector, c.req.param("token"));
    if (path === undefined) {
      throw new Fault("unknown_file", "This download link is unknown or has expired; create a new one.");
    }
    const file = await openFile(config, path);
    return sendFile(c.req.raw, file, {
      "content-type": typeOf(file.name),
      "content-disposition": disposition(file.name),
    });
  });
  return app;
}

/** By the name's end. Hono looks it up in a plain object, so `x.constructor` finds something that is no type. */
function typeOf(name: string): string {
  const type: unknown = getMimeType(name);
  return typeof type === "string" ? type : "application/octet-stream";
}

/** Answers with an open file, in whole or in part, and sees that it is closed. @throws Fault range */
export function sendFile(request: Request, file: OpenFile, type: Record<string, string>): Response {
  const headers = {
    ...type,
    "last-modified": new Date(file.mtimeMs).toUTCString(),
    // Somebody else's file: nothing in it may act in a browser in the gateway's name.
    "content-security-policy": "sandbox; default-src 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "private, no-cache",
  };
  let sent = false;
  try {
    if (notModified(request, file))
      return new Response(null, { status: 304, headers: { ...headers, etag: file.etag } });
    return answer(request, {
      sizeBytes: file.sizeBytes,
      etag: file.etag,
      headers,
      body(start, end) {
        sent = true;
        return openBody(file.handle, file.realPath, start, end);
      },
    });
  } finally {
    if (!sent) void file.handle.close();
  }
}

/** By date, in whole seconds, where the client has no tag (RFC 9110 §13.1.3). */
function notModified(request: Request, file: OpenFile): boolean {
  if (request.headers.get("if-none-match") !== null) return false;
  const since = Date.parse(request.headers.get("if-modified-since") ?? "");
  return since >= Math.floor(file.mtimeMs / 1_000) * 1_000;
}

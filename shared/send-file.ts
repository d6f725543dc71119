/** An open file as an answer: ranges, tags, dates, and headers that keep it harmless in a browser. */
import { answer } from "./range.ts";
import { openBody } from "./runtime.ts";
import type { OpenFile } from "./volumes.ts";

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
      body(start, end, whole) {
        sent = true;
        return openBody(file.handle, file.realPath, start, end, whole);
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

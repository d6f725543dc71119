/** A body with a known size, whole or in part: ETag, Range and If-Range (RFC 9110 §13, §14), for results and files. */
import { matches } from "./app.ts";
import { Fault } from "./faults.ts";

export type Content = {
  sizeBytes: number;
  /** strong: the same tag is the same bytes */
  etag: string;
  /** type, disposition and the like */
  headers: Record<string, string>;
  /**
   * Bytes from start up to, without, end; not called for HEAD and 304.
   * @param whole  the request has a Range that does not hold: the runtime must not go by it either
   */
  body(start: number, end: number, whole: boolean): BodyInit;
};

/** A longer header is no range of ours, and its spaces would cost the square of their number. */
const MAX_RANGE = 100;

/**
 * The range that a header asks for; end is exclusive.
 * @returns undefined when the whole is to be sent: no range, several of them, or one that cannot be read
 *          "outside" when it holds no byte of the content
 */
export function rangeOf(header: string | null, size: number): { start: number; end: number } | "outside" | undefined {
  if (header === null || header.length > MAX_RANGE) return undefined;
  const m = /^\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*$/i.exec(header);
  if (!m || (m[1] === "" && m[2] === "")) return undefined;
  if (m[1] === "") {
    const last = Number(m[2]);
    return last === 0 || size === 0 ? "outside" : { start: Math.max(0, size - last), end: size };
  }
  const start = Number(m[1]);
  const end = m[2] === "" ? size : Math.min(size, Number(m[2]) + 1);
  if (m[2] !== "" && Number(m[2]) < start) return undefined;
  return start >= size ? "outside" : { start, end };
}

/** The answer to a GET or HEAD of `content`. @throws Fault range */
export function answer(request: Request, content: Content): Response {
  const { sizeBytes, etag } = content;
  const headers = { ...content.headers, etag, "accept-ranges": "bytes", "x-content-type-options": "nosniff" };
  if (matches(request.headers.get("if-none-match"), etag)) return new Response(null, { status: 304, headers });
  const ifRange = request.headers.get("if-range");
  // A date, or a weak tag, never equals a strong one: then the whole is sent.
  const range = ifRange === null || ifRange === etag ? rangeOf(request.headers.get("range"), sizeBytes) : undefined;
  if (range === "outside") {
    throw new Fault("range", `The content has ${sizeBytes} bytes; the range lies outside.`, {
      headers: { "content-range": `bytes */${sizeBytes}` },
    });
  }
  const { start, end } = range ?? { start: 0, end: sizeBytes };
  const refused = !range && request.headers.has("range");
  const body = request.method === "HEAD" ? null : content.body(start, end, refused);
  return new Response(body, {
    status: range ? 206 : 200,
    headers: {
      ...headers,
      "content-length": String(end - start),
      ...(range ? { "content-range": `bytes ${start}-${end - 1}/${sizeBytes}` } : {}),
    },
  });
}

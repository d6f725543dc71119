/**
 * What an answer's type, bytes and headers say. Only reading: no socket, no outcome.
 */

const MAX_RETRY_AFTER_MS = 3_600_000;
const MAX_DETAIL_CHARS = 2_000;
export const MAX_EXCERPT_CHARS = 200;

/** "text/html; charset=utf-8" → "text/html" */
export const essence = (type: string) => (type.split(";", 1)[0] as string).trim().toLowerCase();
/** "application/json, application/json", as some frameworks and proxies send it, says application/json. */
export function oneType(type: string): string {
  if (!type.includes(",")) return type;
  const types = type.split(/,\s*(?=[\w.+-]+\/[\w.+-]+\s*(?:;|,|$))/);
  return new Set(types.map(essence)).size === 1 ? (types[0] as string) : type;
}
const isJson = (type: string) =>
  type === "application/json" || /^(?:(?:application|text)\/json|.+\/.+\+json)$/.test(essence(type));
const accepted = new WeakMap<string[], string>();
/** @param accepts  an operation's own list: its header is made once */
export function acceptHeader(accepts: string[]): string {
  let header = accepted.get(accepts);
  if (header === undefined) {
    header = [...new Set(["application/json", ...accepts])].join(", ");
    accepted.set(accepts, header);
  }
  return header;
}

/** How a 2xx of this type is kept; undefined = not at all. No type at all is read as JSON, unless all types are welcome. */
export function keptAs(type: string, accepts: string[]): "json" | "bytes" | undefined {
  if (isJson(type)) return "json";
  const given = essence(type);
  const fits = (wanted: string) =>
    wanted === "*/*" || wanted === given || (wanted.endsWith("/*") && given.startsWith(wanted.slice(0, -1)));
  if (accepts.some((wanted) => fits(essence(wanted)))) return "bytes";
  return given === "" ? "json" : undefined;
}

/** A byte order mark is read over: JSON has none, and the text stands inside other JSON. */
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: false });

/** Strict: UTF-8 without repair, one JSON value. The parsed value is dropped: the text is kept, digits and spaces included. */
export function checkedJson(bytes: Uint8Array): { text: string } | { fault: string } {
  try {
    const text = utf8.decode(bytes);
    JSON.parse(text);
    return { text };
  } catch (error) {
    return { fault: `with broken JSON (${(error as Error).message})` };
  }
}

/**
 * Seconds or an HTTP date → ms from now, at most an hour; undefined when it is neither.
 * @param date  the answer's header Date: when it is there, a date counts from it, since both are by the sender's clock
 */
export function parsedRetryAfter(header: string | null, date: string | null | undefined): number | undefined {
  const text = header?.trim() ?? "";
  const ms = /^\d+$/.test(text)
    ? Number(text) * 1_000
    : /[a-z]/i.test(text)
      ? Date.parse(text) - (Date.parse(date ?? "") || Date.now())
      : Number.NaN;
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), MAX_RETRY_AFTER_MS);
}

/**
 * The service's own words: FastAPI's {"detail": "…"} or {"detail": [{"loc", "msg"}]}, {"error"}, {"message"}, {"title"},
 * else the text as it is. Of a page of HTML the text, marked.
 */
export function detail(bytes: Uint8Array, type: string, max = MAX_DETAIL_CHARS): string {
  const text = new TextDecoder().decode(bytes);
  if (essence(type) === "text/html" || /^\s*<(?:!doctype|html)/i.test(text)) {
    const plain = text.replace(/<(script|style)\b.*?(?:<\/\1\s*>|$)/gis, " ").replace(/<[^>]*>?/g, " ");
    return short(`(a page of HTML) ${plain.replace(/\s+/g, " ").trim()}`, max);
  }
  try {
    return short(words(JSON.parse(text)) || text, max);
  } catch {
    return short(text, max);
  }
}
export const excerpt = (bytes: Uint8Array, type: string) => detail(bytes.subarray(0, 4_096), type, MAX_EXCERPT_CHARS);

function words(value: unknown): string {
  if (typeof value === "string") return value;
  if (Array.isArray(value)) return value.map(words).filter(Boolean).join("; ");
  if (typeof value !== "object" || value === null) return "";
  const { detail, error, message, title, loc, msg } = value as Record<string, unknown>;
  if (typeof msg === "string") return Array.isArray(loc) ? `${loc.join(".")}: ${msg}` : msg;
  return words(detail) || words(error) || words(message) || words(title);
}

/** Without control characters other than line ends and tabs, at most `max` characters. */
export function short(text: string, max: number): string {
  const clean = text.replace(/[\u0000-\u0008\u000b-\u001f\u007f]/g, "").trim();
  return clean.length > max ? `${clean.slice(0, max - 1).toWellFormed()}…` : clean;
}

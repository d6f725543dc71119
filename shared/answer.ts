/**
 * What an answer's type, bytes and headers say. Only reading: no socket, no outcome.
 */

/** of a longer text so much is kept at each end: a traceback names the error in its last line */
const MAX_END_CHARS = 2_048;
/** of a page of HTML that is looked at */
const MAX_PAGE_CHARS = 65_536;
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

/** "application/json; charset=iso-8859-1" → a decoder of that charset; undefined where none is named, or nobody here knows it */
function charsetOf(type: string, fatal: boolean): TextDecoder | undefined {
  const name = /;\s*charset\s*=\s*"?([\w.:-]+)/i.exec(type)?.[1];
  try {
    return name === undefined ? undefined : new TextDecoder(name, { fatal });
  } catch {
    return undefined;
  }
}

/** by a byte order mark */
const marked = ([first, second]: Uint8Array): string =>
  first === 0xff && second === 0xfe ? "utf-16le" : first === 0xfe && second === 0xff ? "utf-16be" : "utf-8";

/**
 * Strict: one JSON value in UTF-8 without repair, else in the charset that the type or a byte order mark names. The parsed value is
 * dropped: the text is kept, digits and spaces included.
 * @returns `recoded`: the bytes were no UTF-8, so that the type's charset is theirs no longer
 */
export function checkedJson(bytes: Uint8Array, type = ""): { text: string; recoded?: true } | { fault: string } {
  try {
    return { text: parsed(utf8, bytes) };
  } catch (error) {
    try {
      const other = charsetOf(type, true) ?? new TextDecoder(marked(bytes), { fatal: true });
      return { text: parsed(other, bytes), recoded: true };
    } catch {}
    return { fault: `with broken JSON (${(error as Error).message})` };
  }
}

function parsed(decoder: TextDecoder, bytes: Uint8Array): string {
  const text = decoder.decode(bytes);
  JSON.parse(text);
  return text;
}

/** Whether JSON cannot be the beginning of longer JSON, as 12 is that of 123. */
export const isWhole = (json: string) => /^\s*[[{"]/.test(json);

/**
 * Seconds or an HTTP date → ms from now, never below 0; undefined when it is neither. The caller bounds it.
 * @param date  the answer's header Date: when it is there, a date counts from it, since both are by the sender's clock
 */
export function parsedRetryAfter(header: string | null, date: string | null | undefined): number | undefined {
  const text = header?.trim() ?? "";
  const ms = /^\d+$/.test(text)
    ? Number(text) * 1_000
    : /[a-z]/i.test(text)
      ? Date.parse(text) - (Date.parse(date ?? "") || Date.now())
      : Number.NaN;
  return Number.isNaN(ms) ? undefined : Math.max(ms, 0);
}

/**
 * The service's own words: FastAPI's {"detail": "…"} or {"detail": [{"loc", "msg"}]}, {"error"}, {"message"}, {"title"}, else the text as it
 * is. Of a page of HTML the title and the text, marked, and no file paths. A long text keeps its first and its last 2 KB.
 */
export const detail = (bytes: Uint8Array, type: string) => bothEnds(said(bytes, type), MAX_END_CHARS);
export const excerpt = (bytes: Uint8Array, type: string) =>
  short(said(bytes.subarray(0, 4_096), type), MAX_EXCERPT_CHARS);

/** In UTF-8 where it is that, cut at its end or not, else in the type's charset. */
function textOf(bytes: Uint8Array, type: string): string {
  const text = new TextDecoder().decode(bytes);
  return text.includes("\ufffd") ? (charsetOf(type, false) ?? new TextDecoder(marked(bytes))).decode(bytes) : text;
}

function said(bytes: Uint8Array, type: string): string {
  const text = textOf(bytes, type);
  if (essence(type) === "text/html" || /^\s*<(?:!doctype|html)/i.test(text)) {
    return `(a page of HTML) ${pageText(text.slice(0, MAX_PAGE_CHARS))}`;
  }
  try {
    return words(JSON.parse(text)) || text;
  } catch {
    return text;
  }
}

/** Directories of servers and frameworks in an error page, such as /usr/lib/python3/site-packages/flask/app.py: the last part says enough. */
const FILE_PATH = /(?:[A-Za-z]:\\|\/)(?:[\w.@+~-]+[\\/])+(?=[\w.@+~-]+\.\w{1,5}\b)/g;
const ENTITIES: Record<string, string> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'", nbsp: " " };

/** Title and text of a page of HTML, in one line. */
function pageText(html: string): string {
  const plain = (part: string) =>
    part
      .replace(/<(script|style|title)\b.*?(?:<\/\1\s*>|$)/gis, " ")
      .replace(/<[^>]*>?/g, " ")
      .replace(/&(?:#(\d{1,6})|#x([\da-f]{1,5})|(\w{2,6}));/gi, (whole, tens, hex, name: string | undefined) => {
        if (name !== undefined) return ENTITIES[name.toLowerCase()] ?? whole;
        const code = tens === undefined ? Number.parseInt(hex, 16) : Number(tens);
        return code > 31 && code <= 0x10ffff ? String.fromCodePoint(code) : " ";
      })
      .replace(FILE_PATH, "")
      .replace(/\s+/g, " ")
      .trim();
  const at = html.search(/<title[\s>]/i);
  const title = at < 0 ? "" : plain(/^<title[^>]*>([^<]*)/i.exec(html.slice(at))?.[1] ?? "");
  const text = plain(html);
  if (title === "" || text.startsWith(title)) return text;
  return text === "" ? title : `${title}: ${text}`;
}

/** A text for a line of a list: of a Python traceback what stands before it, and its last line, which names the error. */
export function headline(text: string): string {
  const at = text.search(/Traceback \(most recent call last\):|^ *File "[^"\n]*", line \d+/m);
  if (at < 0) return text;
  return text.slice(0, at) + (text.trimEnd().split("\n").at(-1) ?? "").trim();
}

function words(value: unknown): string {
  if (typeof value === "string") return value;
  if (Array.isArray(value)) return value.map(words).filter(Boolean).join("; ");
  if (typeof value !== "object" || value === null) return "";
  const { detail, error, message, title, loc, msg } = value as Record<string, unknown>;
  if (typeof msg === "string") return Array.isArray(loc) ? `${loc.join(".")}: ${msg}` : msg;
  return words(detail) || words(error) || words(message) || words(title);
}

/** Without control characters other than line ends and tabs. */
const clean = (text: string) => text.replace(/[\u0000-\u0008\u000b-\u001f\u007f]/g, "").trim();

/** The beginning of a text, at most `max` characters. */
export function short(text: string, max: number): string {
  const whole = clean(text);
  return whole.length > max ? `${whole.slice(0, max - 1).toWellFormed()}…` : whole;
}

/** A text, or its first and its last `max` characters, and how many stood between. */
export function bothEnds(text: string, max: number): string {
  const whole = clean(text);
  const left = whole.length - 2 * max;
  if (left <= 0) return whole;
  const between = `\n… ${left.toLocaleString("en-US")} character${left === 1 ? "" : "s"} …\n`;
  return `${whole.slice(0, max).toWellFormed()}${between}${whole.slice(-max).toWellFormed()}`;
}

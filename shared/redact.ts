/**
 * Hides the values of secret keys in JSON, as text: digits, order and spaces of everything else stay as they were.
 * It works on a text that was cut, too, because pages show beginnings.
 */

/** What stands in the place of a hidden value. */
export const HIDDEN = "•••";
const MASK = JSON.stringify(HIDDEN);

/** `apiKey`, `api_key` and `API-KEY` are one name. */
const plain = (name: string) => name.toLowerCase().replace(/[-_\s]/g, "");

/** Whether a key holds a secret: it is one of the names, or ends in one (`db_password`, `accessToken`). */
export function secretKeys(names: string[]): (key: string) => boolean {
  const list = names.map(plain).filter(Boolean);
  return (key) => {
    const text = plain(key);
    return list.some((name) => text.endsWith(name));
  };
}

const BACKSLASH = 0x5c;
const QUOTE = 0x22;
const isSpace = (code: number) => code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09;

/** The index behind the string that begins at `at`; the end of the text when it was cut. */
function afterString(text: string, at: number): number {
  for (let i = at + 1; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === BACKSLASH) i++;
    else if (code === QUOTE) return i + 1;
  }
  return text.length;
}

/** The index behind the value that begins at `at`, whatever it is. */
function afterValue(text: string, at: number): number {
  let depth = 0;
  for (let i = at; i < text.length; i++) {
    const c = text[i] as string;
    if (c === '"') {
      i = afterString(text, i) - 1;
      if (depth === 0) return i + 1;
    } else if (c === "{" || c === "[") depth++;
    else if (c === "}" || c === "]") {
      if (depth === 0) return i; // the end of what holds the value
      if (--depth === 0) return i + 1;
    } else if (depth === 0 && (c === "," || isSpace(c.charCodeAt(0)))) return i;
  }
  return text.length;
}

const keyOf = (quoted: string): string => {
  try {
    return JSON.parse(quoted) as string;
  } catch {
    return quoted;
  }
};

/** The text with the value of every secret key replaced. null and empty texts stay: they hide nothing. */
export function redactJson(text: string, secret: (key: string) => boolean): string {
  let out = "";
  let kept = 0;
  for (let i = text.indexOf('"'); i >= 0; i = text.indexOf('"', i)) {
    const end = afterString(text, i);
    let at = end;
    while (isSpace(text.charCodeAt(at))) at++;
    if (text[at] !== ":" || !secret(keyOf(text.slice(i, end)))) {
      i = end;
      continue;
    }
    at++;
    while (isSpace(text.charCodeAt(at))) at++;
    const over = afterValue(text, at);
    const value = text.slice(at, over);
    if (value !== "null" && value !== '""' && value !== "") {
      out += text.slice(kept, at) + MASK;
      kept = over;
    }
    i = over;
  }
  return kept === 0 ? text : out + text.slice(kept);
}

/**
 * Puts the hidden values of `original` back where `edited` still shows the mask at the same place.
 * @returns a copy; a mask without an original stays, and the caller refuses it
 */
export function restore(edited: unknown, original: unknown, secret: (key: string) => boolean): unknown {
  if (Array.isArray(edited)) {
    return edited.map((item, i) => restore(item, Array.isArray(original) ? original[i] : undefined, secret));
  }
  if (typeof edited !== "object" || edited === null || "rawJSON" in edited) return edited;
  const from = typeof original === "object" && original !== null ? (original as Record<string, unknown>) : {};
  return Object.fromEntries(
    Object.entries(edited).map(([key, value]) => [
      key,
      value === HIDDEN && secret(key) && Object.hasOwn(from, key) ? from[key] : restore(value, from[key], secret),
    ]),
  );
}

/** Whether a mask is left under a secret key, where a secret should be. */
export function masked(value: unknown, secret: (key: string) => boolean): boolean {
  if (typeof value !== "object" || value === null) return false;
  return Object.entries(value).some(([key, item]) => (item === HIDDEN && secret(key)) || masked(item, secret));
}

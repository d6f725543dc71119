/** Reading JSON that a stranger sent: bounded before it is parsed, and nothing of it is lost. */
import { Fault } from "./faults.ts";
import { whyNotJson } from "./json-file.ts";

const decoder = new TextDecoder("utf-8", { fatal: true });
/** A number that JavaScript's own numbers may not hold: 16 digits or more, or a long fraction or exponent. */
const LONG_NUMBER = /[\d.]{16}|\d[eE][+-]?\d{3}/;
/** A whole number that is written as a fraction, `1.0`, `1e3` or `-0`: for most languages a number of another type than `1`. */
const WRITTEN_LONG = /(?:\.0+|[eE][+-]?\d+|-0)\s*[,\]}]/;
/** The name itself, or an escape that any of its letters may be written with. */
const PROTO = /__proto__|\\u00[5-7]/;

type RawJSON = { rawJSON: string };
const hasRaw = "rawJSON" in JSON;

/**
 * Parses a request's body.
 * Numbers that a double cannot hold, and whole ones that are not written so (1.0), are kept as they were written: JSON.stringify
 * gives them back digit by digit.
 * @param maxDepth  nesting; counted over the bytes before anything is parsed, so that depth costs no stack
 * @throws Fault malformed_json with the place, bad_request for nesting or a `__proto__` key
 */
export function parseJson(bytes: Uint8Array, maxDepth: number): unknown {
  let text: string;
  try {
    text = decoder.decode(bytes);
  } catch {
    const packed = bytes[0] === 0x1f && bytes[1] === 0x8b ? " It is gzip; send it without Content-Encoding." : "";
    throw new Fault("malformed_json", `The body is not UTF-8 text.${packed}`);
  }
  if (opens(text, maxDepth) && depth(bytes) > maxDepth) {
    throw new Fault("bad_request", `The body is nested deeper than ${maxDepth} levels; make it flatter.`);
  }
  let value: unknown;
  try {
    value =
      hasRaw && (LONG_NUMBER.test(text) || WRITTEN_LONG.test(text)) ? JSON.parse(text, keepDigits) : JSON.parse(text);
  } catch (error) {
    throw new Fault(
      "malformed_json",
      text.trim() === ""
        ? "The body is empty; send a JSON object."
        : `The body is not JSON: ${whyBroken(text) ?? (error as Error).message.slice(0, 200)}.`,
    );
  }
  // A scan of the text would refuse it inside a string value too; keys only are looked at, and only when it occurs.
  if (PROTO.test(text)) refuseProto(value);
  return value;
}

/** Longer bodies are not looked through again for the place: it would take a gateway's time for a sender's mistake. */
const MAX_SCANNED = 65_536;
const whyBroken = (text: string) => (text.length <= MAX_SCANNED ? whyNotJson(text) : undefined);

/** A number that was kept as it was written, as a number; undefined when the value is no such thing. */
export function plainNumber(value: unknown): number | undefined {
  const known = JSON as unknown as { isRawJSON?(value: unknown): boolean };
  return known.isRawJSON?.(value) ? Number((value as RawJSON).rawJSON) : undefined;
}

function keepDigits(_key: string, value: unknown, context?: { source?: string }): unknown {
  const source = context?.source;
  if (typeof value !== "number" || source === undefined || String(value) === source) return value;
  // 1.50 is 1.5 to everybody; 1.0 is no 1 to a service that tells floats from integers
  return LONG_NUMBER.test(source) || Number.isInteger(value)
    ? (JSON as unknown as { rawJSON(text: string): RawJSON }).rawJSON(source)
    : value;
}

/** Whether more than `most` brackets open, in strings or not: what has fewer cannot be nested deeper. */
function opens(text: string, most: number): boolean {
  let left = most;
  for (const bracket of "{[") {
    for (let at = text.indexOf(bracket); at >= 0; at = text.indexOf(bracket, at + 1)) if (--left < 0) return true;
  }
  return false;
}

/** Deepest nesting of brackets outside strings. */
function depth(bytes: Uint8Array): number {
  let now = 0;
  let most = 0;
  let inString = false;
  for (let i = 0; i < bytes.length; i++) {
    const c = bytes[i];
    if (inString) {
      if (c === 0x5c) i++;
      else if (c === 0x22) inString = false;
    } else if (c === 0x22) inString = true;
    else if (c === 0x7b || c === 0x5b) most = Math.max(most, ++now);
    else if (c === 0x7d || c === 0x5d) now--;
  }
  return most;
}

function refuseProto(value: unknown): void {
  if (typeof value !== "object" || value === null) return;
  for (const key of Object.keys(value)) {
    if (key === "__proto__") throw new Fault("bad_request", "The body has a key __proto__, which is refused.");
    refuseProto((value as Record<string, unknown>)[key]);
  }
}

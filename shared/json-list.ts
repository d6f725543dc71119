/**
 * A long JSON list, read some items at a time: parsed at once, 64 MiB would hold the event loop for a second and take
 * several times their size.
 */
import { Fault } from "./faults.ts";
import { parseJson } from "./json.ts";

/** Bytes parsed at once: some milliseconds. A larger item is parsed alone. */
const PIECE = 262_144;

const OPEN = 0x5b;
const CLOSE = 0x5d;

/** Bounds of a list. Whoever passes one makes the reading end there. */
export type ListLimits = {
  /** nesting, the list itself counted */
  depth: number;
  items: number;
  /** bytes of one item as it was sent */
  itemBytes: number;
};

/**
 * The items of a list, piece by piece. Brackets and strings are enough to find the commas between items: what lies
 * between them is judged by the parser, so that exactly those lists pass that are JSON as a whole.
 * @param bytes  begins, but for white space, with an opening bracket. Separators are overwritten, so that each piece
 *               is a list in its own right without a copy
 * @throws Fault malformed_json, bad_request, invalid for too many items, too_large
 */
export function* listPieces(bytes: Uint8Array, limits: ListLimits, pieceBytes = PIECE): Generator<unknown[]> {
  const begin = bytes.indexOf(OPEN) + 1;
  for (let at = 0; at < begin - 1; at++) if (!isSpace(bytes[at])) throw broken("something stands before the list");
  let piece = begin; // where the piece, and the item, begin
  let item = begin;
  let first = 0; // index of the piece's first item
  let n = 0; // commas met
  let depth = 0;
  let inString = false;

  const take = (end: number, isLast: boolean): unknown[] => {
    bytes[piece - 1] = OPEN;
    bytes[end] = CLOSE;
    const items = parsed(bytes.subarray(piece - 1, end + 1), limits.depth, first, n - 1);
    // A comma before or after nothing may leave an empty list, and only the whole may be one.
    const isWhole = isLast && piece === begin;
    if (items.length === 0 && !(isWhole && n === 1)) throw broken("an item is missing");
    piece = end + 1;
    first = n;
    return items;
  };
  /** An item ends at `end`. */
  const count = (end: number) => {
    if (end - item > limits.itemBytes) {
      const message = "is larger than a job may be (MAX_BODY_BYTES)";
      throw new Fault("too_large", `${n}: ${message}.`, { errors: [{ path: String(n), message }] });
    }
    item = end + 1;
    if (++n > limits.items) {
      throw new Fault("invalid", `The batch has more than ${limits.items} jobs (MAX_BATCH_JOBS); send it in parts.`);
    }
  };

  for (let i = begin; i < bytes.length; i++) {
    const c = bytes[i];
    if (inString) {
      if (c === 0x5c) i++;
      else if (c === 0x22) inString = false;
    } else if (c === 0x22) inString = true;
    else if (c === 0x7b || c === OPEN) depth++;
    else if (c === 0x2c && depth === 0) {
      count(i);
      if (i - piece >= pieceBytes) yield take(i, false);
    } else if ((c === 0x7d || c === CLOSE) && depth-- === 0) {
      if (c !== CLOSE) throw broken("a } where the list should end");
      for (let at = i + 1; at < bytes.length; at++) if (!isSpace(bytes[at])) throw broken("something follows the list");
      count(i);
      yield take(i, true);
      return;
    }
  }
  throw broken("the list has no end");
}

const isSpace = (byte: number | undefined) => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
const broken = (why: string) => new Fault("malformed_json", `The body is not JSON: ${why}.`);

/** A piece's items. Where the parser tells a place, it is one in the piece: so the piece is told too. */
function parsed(bytes: Uint8Array, depth: number, first: number, last: number): unknown[] {
  try {
    return parseJson(bytes, depth) as unknown[];
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== "malformed_json") throw error;
    throw new Fault("malformed_json", `Among the items ${first} to ${last}: ${error.detail}`);
  }
}

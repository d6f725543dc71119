/** Bodies that a service encoded, though none is asked to, and codings that nobody here knows. */
import { Buffer } from "node:buffer"; // no global in Deno
import { createBrotliDecompress, createGunzip, createInflate, createInflateRaw } from "node:zlib";
import type { Body, Wanted } from "./exchange.ts";

export type Decoder = ReturnType<typeof createGunzip>;

/** By Content-Encoding, from the body's first bytes. */
const DECODERS = new Map<string, (first: Uint8Array) => Decoder>([
  ["gzip", () => createGunzip()],
  ["x-gzip", () => createGunzip()],
  // The name stands for zlib's format, but many servers send raw deflate. zlib's first byte names the method: 8.
  ["deflate", (first) => ((first[0] ?? 0) % 16 === 8 ? createInflate() : createInflateRaw())],
  ["br", () => createBrotliDecompress() as unknown as Decoder],
]);

/** A body that cannot be understood: it is kept as it came. */
const unknown = (header: string, value: string) =>
  Object.assign(new Error(`${header} ${value.slice(0, 50)}, which is not understood`), { code: "ERR_ENCODING" });

/** @param encoding  of Content-Encoding @returns undefined when there is nothing to decode, an error when nobody knows how */
export function decoderOf(encoding: string | null): ((first: Uint8Array) => Decoder) | Error | undefined {
  const name = encoding?.trim().toLowerCase() ?? "";
  if (name === "" || name === "identity") return undefined;
  return DECODERS.get(name) ?? unknown("Content-Encoding", name);
}

/** The one transfer coding that a message may have. Any other would be read to the end of its connection, as it came. */
export function transferFault(coding: string | null): Error | undefined {
  if (coding === null || /^\s*(?:identity|chunked)\s*$/i.test(coding)) return undefined;
  return unknown("Transfer-Encoding", coding.trim());
}

/**
 * A whole body decoded, at most `cap` bytes of it.
 * @throws what the decoder throws when the body ends too early
 */
export async function decoded(bytes: Uint8Array, encoding: string | null, { cap, whole, raw }: Wanted): Promise<Body> {
  const make = decoderOf(encoding);
  if (!make) return { bytes, complete: true };
  if (make instanceof Error) return raw ? { bytes, complete: true, fault: make } : { bytes: NONE, complete: false };
  const parts: Uint8Array[] = [];
  let size = 0;
  try {
    const decoder = make(bytes);
    decoder.end(bytes);
    for await (const part of decoder) {
      parts.push(part);
      size += part.byteLength;
      if (size > cap) return { bytes: whole ? NONE : Buffer.concat(parts).subarray(0, cap), complete: false };
    }
  } catch (error) {
    if (raw && !isCut(error)) return { bytes, complete: true, fault: undecodable(error) };
    if (!whole) return { bytes: Buffer.concat(parts), complete: false };
    throw Object.assign(error as Error, { partial: Buffer.concat(parts) });
  }
  return { bytes: Buffer.concat(parts), complete: true };
}
const NONE = new Uint8Array(0);

/** What a body that cannot be decoded is kept with. */
export const undecodable = (error: unknown) =>
  Object.assign(new Error(`a body that cannot be decoded (${(error as Error).message})`), { code: "ERR_ENCODING" });

/** A stream that ended too early may be whole the next time; one with wrong bytes never will. */
export const isCut = (error: unknown) => (error as { code?: unknown }).code === "Z_BUF_ERROR";

const LENGTH = /^content-length[ \t]*:[ \t]*(\d+(?:[ \t]*,[ \t]*\d+)*)[ \t]*$/i;

/**
 * A head with what llhttp refuses though it has one meaning only: Content-Length more than once, or as a list, with that length once
 * (RFC 9110 §8.6), and a value that goes on in the next line in one line (obs-fold, RFC 9112 §5.2), as old servers and mail-like frameworks send it.
 * @returns undefined when the head is not whole yet; the same bytes when nothing is to be repaired, or the lengths differ
 */
export function repairedHead(bytes: Uint8Array): Uint8Array | undefined {
  const text = Buffer.from(bytes).toString("latin1");
  const head = /^(?:HTTP\/1\.\d 1(?!01)\d\d.*?\r?\n\r?\n)*HTTP\/1\.\d (?!1(?!01)\d\d).*?\r?\n(?=\r?\n)/s.exec(
    text,
  )?.[0];
  if (head === undefined) return undefined;
  const lengths = new Set<string>();
  const others = unfolded(head).filter((line) => {
    const given = LENGTH.exec(line.replace(/\r$/, ""))?.[1];
    for (const length of given?.split(",") ?? []) lengths.add(String(Number(length)));
    return given === undefined;
  });
  if (lengths.size > 1) return bytes;
  if (lengths.size === 1) others.splice(-1, 0, `Content-Length: ${[...lengths][0]}\r`);
  const repaired = others.join("\n");
  return repaired === head ? bytes : Buffer.from(repaired + text.slice(head.length), "latin1");
}

/** Lines of a head, those that go on in the next one joined. A fold behind the status line belongs to no header and stays. */
function unfolded(head: string): string[] {
  const lines: string[] = [];
  for (const line of head.split("\n")) {
    const before = lines.at(-1) ?? "";
    if (/^[ \t]/.test(line) && /^[^\s:]+:/.test(before))
      lines[lines.length - 1] = `${before.replace(/\r$/, "")} ${line.trim()}\r`;
    else lines.push(line);
  }
  return lines;
}

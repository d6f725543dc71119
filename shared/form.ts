/**
 * A multipart form with exactly one file, read as a stream by @fastify/busboy: of four parsers the only maintained
 * one that hands on a part while it arrives, and holds the sender back while the reader is slow.
 */
import { Busboy, type BusboyFileStream } from "@fastify/busboy";
import { Fault } from "./faults.ts";
import { log } from "./log.ts";
import { durationText, sizeText } from "./units.ts";

/** ms without a byte after which a sender counts as gone. */
const SILENCE_MS = 120_000;
const LIMITS = { files: 2, fields: 32, fieldSize: 65_536, parts: 34, headerPairs: 32, headerSize: 16_384 };

const wrong = (field: string, why: string) =>
  new Fault("invalid", `The form ${why}.`, { errors: [{ path: field, message: why }] });

/**
 * Reads a form to its end.
 * @param field  the file's field; other text fields are ignored
 * @param take   is given the file's name as the client wrote it, and its bytes as they arrive; they end with an error
 *               when the form turns out to be unfit
 * @param drop   undoes `take` when something after the file was unfit
 * @param most   bytes of the form; what is sent beside the file counts too, so that no form is endless
 * @returns what `take` made of the file, once the whole form has arrived
 * @throws Fault not_multipart, bad_request, invalid, too_large, and what `take` throws
 */
export async function oneFile<T>(
  request: Request,
  field: string,
  take: (filename: string, pieces: AsyncIterable<Uint8Array>) => Promise<T>,
  drop: (taken: T) => Promise<void>,
  silenceMs = SILENCE_MS,
  most = Number.POSITIVE_INFINITY,
): Promise<T> {
  const type = request.headers.get("content-type") ?? "";
  if (!/^\s*multipart\/form-data\s*(;|$)/i.test(type)) {
    throw new Fault(
      "not_multipart",
      `Send the file as multipart/form-data in the field ${field}, as curl -F ${field}=@model.ifc does.`,
    );
  }
  const parser = open(type);
  if (!request.body) throw malformed("it is empty");
  const reader = request.body.getReader();
  let problem: unknown;
  let taking: Promise<T> | undefined;
  let part: BusboyFileStream | undefined;
  /** bytes of the form given to the parser, and bytes of the file that `take` is done with */
  let fed = 0;
  let dealt = 0;
  let wake = () => {};
  let moved = () => {};
  /** since when, by performance.now(), the sender is waited for; Infinity while it waits for us */
  let since = Infinity;

  /** The first thing that is wrong ends it all: the reading, the parsing, and the taking. */
  const fail = (error: unknown) => {
    if (problem !== undefined) return;
    problem = error;
    part?.destroy(error instanceof Error ? error : undefined);
    parser.destroy();
    reader.cancel().catch(() => {});
    wake();
  };
  parser.on("file", (name, stream, filename) => {
    stream.on("error", () => {}); // its reader hears it too
    if (name !== field)
      return fail(wrong(name, `has a file in the field ${name.slice(0, 50)}; it belongs in ${field}`));
    if (taking) return fail(wrong(field, "holds more than one file; send one at a time"));
    if (!filename)
      return fail(wrong(field, `gives the file no name; with curl write -F "${field}=@model;filename=model.ifc"`));
    part = stream;
    taking = take(filename, counted(stream));
    taking.catch(fail);
  });
  async function* counted(stream: AsyncIterable<Uint8Array>) {
    for await (const piece of stream) {
      yield piece;
      dealt += piece.length;
      moved();
    }
  }
  parser.on("field", (name) => {
    if (name === field)
      fail(wrong(field, `holds text in ${field}, not a file; with curl write -F ${field}=@model.ifc`));
  });
  for (const limit of ["fieldsLimit", "filesLimit", "partsLimit"] as const) {
    parser.on(limit, () => fail(wrong(field, "has too many parts")));
  }
  parser.on("error", (error) => fail(malformed((error as Error).message)));
  const cut = () => fail(new Fault("bad_request", "The connection was cut before the form was complete."));
  request.signal?.addEventListener("abort", cut, { once: true });
  const watch = setInterval(
    () => {
      if (performance.now() - since > silenceMs)
        fail(new Fault("bad_request", `Nothing of the file arrived for ${durationText(silenceMs)}; send it again.`));
    },
    Math.min(silenceMs, 5_000),
  );
  /** Waits for what `start` begins, or for whatever goes wrong. */
  const until = (start: (done: () => void) => void) =>
    new Promise<void>((done) => {
      wake = done;
      if (problem === undefined) start(done);
      else done();
    });
  try {
    while (problem === undefined) {
      since = performance.now();
      const { done, value } = await reader.read();
      since = Infinity;
      if (done || problem !== undefined) break;
      fed += value.length;
      if (fed > most)
        fail(
          new Fault("too_large", `The form is larger than ${sizeText(most)}: MAX_UPLOAD_BYTES, and 1 MiB beside it.`),
        );
      await until((parsed) => parser.write(value, () => parsed()));
      // One chunk at a time: then its memory can go at once, and does not wait for the collector (see free).
      while (part && dealt < part.bytesRead && problem === undefined) {
        await until((done) => {
          moved = done;
        });
      }
      // The parser takes a chunk whole or not at all, so a lag below this chunk's size says that it has none of it.
      if (part && problem === undefined && fed - part.bytesRead < LAG_BYTES) free(value);
    }
    if (problem === undefined) {
      await until((finished) => {
        parser.once("finish", finished);
        parser.end();
      });
    }
    if (problem === undefined && !taking) fail(wrong(field, `has no file in the field ${field}`));
    if (problem === undefined && taking) return await taking;
  } catch (error) {
    // reading failed: the sender has gone
    if (problem === undefined) cut();
    else if (problem !== error) log.error("unforeseen", { stack: error instanceof Error ? error : String(error) });
  } finally {
    clearInterval(watch);
    request.signal?.removeEventListener("abort", cut);
  }
  const taken = await taking?.then(
    (value) => ({ value }),
    () => undefined,
  );
  if (taken) await drop(taken.value);
  throw problem;
}

/** What of a form may be ahead of its file: headers, and a beginning of what may be the boundary. */
const LAG_BYTES = 32_768;

/**
 * Gives a chunk's memory back. Left to the collector, chunks pile up to 40 MB before it runs (Bun 1.4.5); this way a
 * 1 GiB upload grows the process by a third of that (tests/slow/upload.ts). Chunks that share their memory with others, and small ones, stay.
 */
function free(chunk: Uint8Array): void {
  const memory = chunk.buffer as ArrayBuffer;
  if (chunk.length > LAG_BYTES && chunk.length === memory.byteLength) memory.transfer(0);
}

const malformed = (why: string) => new Fault("bad_request", `The form cannot be read: ${why}.`);

function open(type: string) {
  try {
    // preservePath: the name as it was sent; what is unsafe in it is told rather than cut away
    return new Busboy({ headers: { "content-type": type }, preservePath: true, limits: LIMITS });
  } catch (error) {
    throw malformed((error as Error).message);
  }
}

/** Answers that hold a JSON result which lies in a file: it goes from the file to the client in pieces, as it was stored. */
import { Buffer } from "node:buffer";
import { type FileHandle, open } from "node:fs/promises";
import { type Gateway, matches, SEAL, tagOf } from "./app.ts";
import type { JobError } from "./faults.ts";
import { type JobId, type ResultFile, random62, resultDir } from "./jobs.ts";
import type { Shown } from "./show.ts";
import { sizeText } from "./units.ts";

/** Bytes that are read at once. */
const PIECE = 262_144;

/**
 * A JSON answer with the revision and the result's file in it; 304 when the client has that revision.
 * @param file  where the result lies
 * @param text  the answer, made with the result's text in its place
 * When the file is gone the answer has the error `result_lost` instead, and no tag: the file may come back with its volume.
 */
export async function withResultFile(
  { config }: Pick<Gateway, "config">,
  request: Request,
  { id, rev, file }: { id: JobId; rev: number; file: ResultFile },
  text: (shown: Shown) => string,
  headers: Record<string, string> = {},
): Promise<Response> {
  const tag = tagOf(rev);
  const all = { ...SEAL, ...headers, "content-type": "application/json", "cache-control": "private, no-cache" };
  if (matches(request.headers.get("if-none-match"), tag)) {
    return new Response(null, { status: 304, headers: { ...all, etag: tag } });
  }
  // Built from the id, whose form was checked, and the record's token: no text of a client reaches the path.
  const handle = await open(`${resultDir(config.resultsDir, id)}/${file.token}`).catch(() => undefined);
  const size = await handle?.stat().then(
    (stat) => stat.size,
    () => undefined,
  );
  if (!handle || size !== file.bytes) {
    await handle?.close();
    const message = `The result (${sizeText(file.bytes)}) is not in RESULTS_DIR of this gateway; gateways and workers must share that directory`;
    const error = { code: "result_lost", message, retryable: false } satisfies JobError;
    return new Response(text({ result: "null", error }), { headers: { ...all, "cache-control": "no-store" } });
  }
  if (request.method === "HEAD") {
    await handle.close();
    return new Response(null, { headers: { ...all, etag: tag } });
  }
  // Nobody can guess it, so nothing of the job's own is taken for it.
  const place = random62(22);
  const [before = "", after = ""] = text({ result: place }).split(place);
  return new Response(streamed(handle, before, after), { headers: { ...all, etag: tag } });
}

function streamed(handle: FileHandle, before: string, after: string): ReadableStream<Uint8Array> {
  async function* pieces() {
    yield Buffer.from(before);
    for (;;) {
      const { bytesRead, buffer } = await handle.read(Buffer.allocUnsafe(PIECE), 0, PIECE);
      if (bytesRead === 0) break;
      yield buffer.subarray(0, bytesRead);
    }
    await handle.close();
    yield Buffer.from(after);
  }
  const source = pieces();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await source.next();
          if (done) controller.close();
          else controller.enqueue(value);
        } catch (error) {
          await handle.close().catch(() => {});
          controller.error(error);
        }
      },
      async cancel() {
        await handle.close().catch(() => {}); // the client has gone
      },
    },
    { highWaterMark: 0 },
  );
}

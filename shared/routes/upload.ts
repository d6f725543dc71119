/** Files on their way in: POST /upload/{kind}, and POST /download-from-url, which fetches one from elsewhere. */

import { Readable } from "node:stream";
import { createBrotliDecompress, createGunzip, createInflate } from "node:zlib";
import { parse as disposition } from "content-disposition";
import { z } from "zod";
import { allow, type Gateway, jsonText, newApp } from "../app.ts";
import { Fault } from "../faults.ts";
import { oneFile } from "../form.ts";
import { parseJson } from "../json.ts";
import { receive, safeName, sweepParts, uploadTooLarge } from "../receive.ts";
import { checkTarget, GuardError, type GuardedAnswer, guardedFetch } from "../ssrf.ts";
import { fit, readBody } from "../submit.ts";

/** What /upload/{kind} takes; an empty list takes any. */
export const KINDS: Record<string, string[]> = {
  ifc: [".ifc", ".ifczip"],
  ids: [".ids"],
  bcf: [".bcf", ".bcfzip"],
  csv: [".csv", ".xlsx", ".ods"],
  other: [],
};
/** What a form may weigh beside its file: boundaries, headers, small fields. */
const FORM_BYTES = 1_048_576;
const MOST_REDIRECTS = 5;
export const FROM_URL = z.strictObject({
  url: z.string().min(1).max(4_096),
  output_filename: z.string().max(1_024).nullish(),
});

export function upload(gateway: Gateway) {
  const { config } = gateway;
  const app = newApp();
  void sweepParts(config.uploadsDir);

  app.post("/upload/:kind", async (c) => {
    allow(gateway, c, "submit");
    const kind = c.req.param("kind").toLowerCase();
    const extensions = Object.hasOwn(KINDS, kind) ? (KINDS[kind] as string[]) : undefined;
    if (!extensions) {
      throw new Fault(
        "bad_request",
        `There is no /upload/${kind.slice(0, 50)}; there are ${Object.keys(KINDS).join(", ")}.`,
      );
    }
    const declared = Number(c.req.header("content-length") ?? 0);
    if (declared > config.maxUploadBytes + FORM_BYTES) throw uploadTooLarge(config.maxUploadBytes);
    const { name, file } = await oneFile(
      c.req.raw,
      "file",
      async (filename, pieces) => {
        const name = safeName(filename, "file");
        if (extensions.length > 0 && !extensions.some((end) => name.toLowerCase().endsWith(end))) {
          throw new Fault("bad_request", `File must have one of these extensions: ${extensions.join(", ")}`);
        }
        return { name, file: await receive(config.uploadsDir, pieces, config.maxUploadBytes) };
      },
      ({ file }) => file.drop(),
      undefined,
      config.maxUploadBytes + FORM_BYTES,
    );
    await file.keep(name);
    return stored(`${kind.toUpperCase()} file ${name} uploaded successfully`, name);
  });

  app.post("/download-from-url", async (c) => {
    allow(gateway, c, "submit");
    const body = parseJson(await readBody(c.req.raw, config.maxBodyBytes), config.maxJsonDepth);
    const { url, output_filename: given } = fit(FROM_URL, body, "The body");
    const wanted = given ? safeName(given, "output_filename") : undefined;
    try {
      checkTarget(url, config.downloadAllow);
      const source = await guardedFetch(url, {
        allow: config.downloadAllow,
        maxBytes: config.maxUploadBytes,
        timeoutMs: config.downloadTimeoutMs,
        maxRedirects: MOST_REDIRECTS,
        signal: c.req.raw.signal,
      });
      try {
        if (source.status !== 200) {
          throw new Fault("source_failed", `The other server answered ${source.status}.`, {
            members: { source_status: source.status },
          });
        }
        const name = wanted ?? nameOf(source);
        const file = await receive(config.uploadsDir, plain(source), config.maxUploadBytes);
        await file.keep(name);
        return stored(`File downloaded successfully as ${name}`, name);
      } finally {
        source.discard();
      }
    } catch (error) {
      throw error instanceof GuardError ? sourceFault(error, config.maxUploadBytes) : error;
    }
  });
  return app;
}

const stored = (message: string, name: string) => jsonText(JSON.stringify({ message, file_path: `/uploads/${name}` }));

/** The name that the other server gives, else the last part of the URL. @throws Fault invalid */
function nameOf({ headers, url }: GuardedAnswer): string {
  let name = "";
  try {
    name = disposition(headers.get("content-disposition") ?? "").parameters.filename ?? "";
  } catch {
    // none, or one that cannot be read
  }
  if (name === "") {
    const last = new URL(url).pathname.split("/").pop() ?? "";
    try {
      name = decodeURIComponent(last);
    } catch {
      name = last;
    }
  }
  if (name === "") {
    throw new Fault("invalid", "Neither the URL nor its server names the file; give an output_filename.", {
      errors: [{ path: "output_filename", message: "is needed for this URL" }],
    });
  }
  return safeName(name, "output_filename");
}

const DECODERS: Record<string, () => ReturnType<typeof createGunzip>> = {
  gzip: createGunzip,
  "x-gzip": createGunzip,
  deflate: createInflate,
  br: createBrotliDecompress,
};

/** The file itself: some servers compress though they were asked not to. */
async function* plain({ headers, body }: GuardedAnswer): AsyncGenerator<Uint8Array> {
  const coding = headers.get("content-encoding")?.trim().toLowerCase() || "identity";
  if (coding === "identity") return yield* body;
  const decoder = DECODERS[coding]?.();
  if (!decoder) throw new Fault("source_failed", `The other server sends the file as ${coding.slice(0, 50)}.`);
  const source = Readable.from(body, { objectMode: false });
  source.on("error", (error) => decoder.destroy(error));
  try {
    yield* source.pipe(decoder);
  } catch (error) {
    if (error instanceof GuardError) throw error;
    throw new Fault("source_failed", `What the other server sent is not ${coding}: ${(error as Error).message}.`);
  } finally {
    source.destroy();
  }
}

/** Why there is no file, as the client hears it. */
function sourceFault(error: GuardError, maxBytes: number): Fault {
  if (error.kind === "refused") {
    return new Fault("invalid", `url: ${error.message}.`, { errors: [{ path: "url", message: error.message }] });
  }
  if (error.kind === "too_large") return uploadTooLarge(maxBytes);
  return new Fault("source_failed", `The file could not be fetched: ${error.message}.`, {
    members: { source_status: null },
  });
}

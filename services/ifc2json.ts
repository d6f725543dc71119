/**
 * ifc2json: a model's objects with their attributes, property sets, quantities, place, type and materials.
 *
 *   POST /ifc2json {"filename": "house.ifc", "output_filename": "house.json"}
 *
 * Input from UPLOADS_DIR, output to OUTPUT_DIR/json, unless the names are absolute.
 */
import { join } from "node:path";
import * as z from "zod";
import { inputFile, outputFile, roots, shared, writing } from "./lib/paths.ts";
import { bodyOf, path, progressTo, serve, service } from "./lib/serve.ts";
import type { JsonJob } from "./lib/tojson.ts";
import { run } from "./lib/work.ts";

const Payload = z.object({ filename: path, output_filename: path });

const WORK = join(import.meta.dir, "lib/tojson.ts");

export const app = service();

app.post("/ifc2json", async (c) => {
  const p = await bodyOf(c, Payload);
  const { uploads, output } = roots();
  const input = inputFile(p.filename, uploads.dir);
  const target = outputFile(p.output_filename, join(output.dir, "json"), [input]);
  const { answer } = await writing([target], ([partial]) => {
    const job: JsonJob = { input, partial: partial! };
    return run<{ entities: number }>(WORK, job, c.req.raw.signal, progressTo(c));
  });
  // The message is the file's name, as clients of the pipeline expect.
  return c.json({ success: true, message: p.output_filename, output_path: shared(target), ...answer });
});

if (import.meta.main) serve("ifc2json", app, WORK);

/**
 * ifcclash: clashes between two sets of IFC files.
 *
 *   POST /ifcclash {"clash_sets": [{"name": "Structure and pipes", "a": [{"file": "house.ifc"}],
 *                   "b": [{"file": "house-mep.ifc"}]}], "output_filename": "clashes.json"}
 *
 * Models from UPLOADS_DIR, the result to OUTPUT_DIR/clash, unless the names are absolute.
 */
import { join } from "node:path";
import * as z from "zod";
import type { ClashJob, ClashSet } from "./lib/clash.ts";
import { Fault } from "./lib/fault.ts";
import { inputFile, outputFile, roots, shared, writing } from "./lib/paths.ts";
import { bodyOf, path, progressTo, serve, service } from "./lib/serve.ts";
import { run } from "./lib/work.ts";

const Source = z.object({
  file: path,
  selector: z.string().nullish(),
  // IfcClash: a = all elements, i = only the selector's, e = all but the selector's.
  mode: z.enum(["a", "i", "e"]).nullish(),
});

const Payload = z.object({
  clash_sets: z
    .array(z.object({ name: z.string().default(""), a: z.array(Source).min(1), b: z.array(Source).nullish() }))
    .min(1),
  output_filename: path,
  mode: z.enum(["intersection", "collision", "clearance"]).default("intersection"),
  tolerance: z.number().min(0).default(0.01),
  clearance: z.number().default(0),
  check_all: z.boolean().default(false),
  allow_touching: z.boolean().default(false),
  smart_grouping: z.boolean().default(false),
  max_cluster_distance: z.number().positive().default(5),
});

const WORK = join(import.meta.dir, "lib/clash.ts");

export const app = service();

app.post("/ifcclash", async (c) => {
  const p = await bodyOf(c, Payload);
  if (p.mode === "clearance" && p.clearance <= 0) {
    throw new Fault(400, "clearance must be greater than 0 in clearance mode");
  }
  const { uploads, output } = roots();
  const source = ({ file, selector, mode }: z.infer<typeof Source>) => ({
    ...{ file, path: inputFile(file, uploads.dir), selector: selector ?? null, mode: mode ?? "e" },
  });
  const sets = p.clash_sets.map(({ name, a, b }) => ({ name, a: a.map(source), b: (b ?? []).map(source) }));
  const inputs = sets.flatMap(({ a, b }) => [...a, ...b].map((one) => one.path));
  const target = outputFile(p.output_filename, join(output.dir, "clash"), inputs);

  const { answer } = await writing([target], ([partial]) => {
    const job: ClashJob = {
      ...{ sets, partial: partial!, mode: p.mode, tolerance: p.tolerance, clearance: p.clearance },
      ...{ checkAll: p.check_all, allowTouching: p.allow_touching },
      groupWithin: p.smart_grouping ? p.max_cluster_distance : null,
    };
    return run<ClashSet[]>(WORK, job, c.req.raw.signal, progressTo(c));
  });
  return c.json({ success: true, result: answer, output_path: shared(target) });
});

if (import.meta.main) serve("ifcclash", app, WORK);

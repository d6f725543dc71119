/**
 * ifcconvert: IFC → .glb or .obj.
 *
 *   POST /ifcconvert {"input_filename": "house.ifc", "output_filename": "house.glb"}
 *
 * Input from UPLOADS_DIR, output and log to OUTPUT_DIR/converted, unless the names are absolute.
 */
import { extname, join } from "node:path";
import * as z from "zod";
import type { ConvertJob, ConvertResult } from "./lib/convert.ts";
import { Fault } from "./lib/fault.ts";
import { inputFile, outputFile, roots, shared, stemOf, writing } from "./lib/paths.ts";
import { bodyOf, path, progressTo, serve, service } from "./lib/serve.ts";
import { run, WorkFault } from "./lib/work.ts";

const types = z.array(z.string().min(1)).nullish();

const Payload = z.object({
  input_filename: path,
  output_filename: path,
  verbose: z.boolean().default(true),
  plan: z.boolean().default(false),
  model: z.boolean().default(true),
  weld_vertices: z.boolean().default(false),
  use_world_coords: z.boolean().default(false),
  convert_back_units: z.boolean().default(false),
  sew_shells: z.boolean().default(false),
  merge_boolean_operands: z.boolean().default(false),
  disable_opening_subtractions: z.boolean().default(false),
  bounds: z.unknown().optional(),
  include: types,
  exclude: types,
  log_file: path.nullish(),
});
type Payload = z.infer<typeof Payload>;

/** What the IfcOpenShell converter can and this one cannot: said, never silently dropped. */
function ignored(p: Payload, format: "glb" | "obj"): string[] {
  const asked = {
    plan: p.plan,
    "model=false": !p.model,
    sew_shells: p.sew_shells,
    merge_boolean_operands: p.merge_boolean_operands,
    disable_opening_subtractions: p.disable_opening_subtractions,
    bounds: p.bounds != null,
  };
  const names = Object.entries(asked).flatMap(([name, on]) => (on ? [name] : []));
  const notes = names.map((name) => `${name}: not supported by this converter, ignored`);
  if (p.convert_back_units && format === "glb") notes.push("convert_back_units: ignored, glTF is always in metres");
  return notes;
}

/** IfcConvert's filters read ["entities", "IfcWall"]; the word is optional here, other kinds are refused. */
function typeNames(filter: string[] | null | undefined): string[] {
  const words = (filter ?? []).flatMap((entry) => entry.trim().split(/[\s,;]+/)).filter(Boolean);
  const other = words.find((word) => ["attribute", "layers", "arg"].includes(word.toLowerCase()));
  if (other) throw new Fault(422, `include and exclude select by IFC type only; "${other}" is not supported`);
  return words.filter((word) => word.toLowerCase() !== "entities");
}

const WORK = join(import.meta.dir, "lib/convert.ts");

export const app = service();

app.post("/ifcconvert", async (c) => {
  const p = await bodyOf(c, Payload);
  const { uploads, output } = roots();
  const converted = join(output.dir, "converted");
  const extension = extname(p.output_filename).toLowerCase();
  if (extension !== ".glb" && extension !== ".obj") {
    throw new Fault(422, `Cannot write ${JSON.stringify(extension)} files; output_filename must end in .glb or .obj`);
  }
  const format = extension === ".glb" ? "glb" : "obj";
  const input = inputFile(p.input_filename, uploads.dir);
  const target = outputFile(p.output_filename, converted, [input]);
  const log = outputFile(p.log_file ?? `${stemOf(p.input_filename)}_convert.txt`, converted, [input, target]);
  const finals = format === "obj" ? [target, target.replace(/\.obj$/i, ".mtl")] : [target];
  const notes = ignored(p, format);
  const filters = { include: typeNames(p.include), exclude: typeNames(p.exclude) };

  const writeLog = (stdout: string, stderr: string) =>
    writing([log], async ([partial]) => void (await Bun.write(partial!, stdout + stderr)));
  const withNotes = (stdout: string) => notes.map((note) => `${note}\n`).join("") + stdout;
  try {
    const { answer, stdout, stderr } = await writing(finals, (partials) => {
      const job: ConvertJob = {
        ...filters,
        ...{ input, partials, finals, format, verbose: p.verbose },
        ...{ weld: p.weld_vertices, world: p.use_world_coords, fileUnits: p.convert_back_units },
      };
      return run<ConvertResult>(WORK, job, c.req.raw.signal, progressTo(c));
    });
    await writeLog(withNotes(stdout), stderr);
    return c.json({
      success: true,
      message: `Converted ${answer.elements} elements, ${answer.triangles} triangles`,
      log_file: shared(log),
      stdout: withNotes(stdout),
      stderr,
      output_path: shared(target),
    });
  } catch (error) {
    if (error instanceof WorkFault) await writeLog(withNotes(error.stdout), `${error.stderr}${error.message}\n`);
    throw error;
  }
});

if (import.meta.main) serve("ifcconvert", app, WORK);

/** The work of ifcconvert: IFC → GLB or OBJ. A process of its own, started by ../ifcconvert.ts. */
import { Fault } from "./fault.ts";
import { glbOf } from "./glb.ts";
import { Model } from "./ifc.ts";
import { elementsOf, farOffset, productIds, shift, type Triangles, welded, zUp } from "./meshes.ts";
import { writeObj } from "./obj.ts";
import { report, serveWork } from "./work.ts";

export interface ConvertJob {
  input: string;
  /** Real files to write; for OBJ the second is its material file. */
  partials: string[];
  /** The names these will have in the end. */
  finals: string[];
  format: "glb" | "obj";
  include: string[];
  exclude: string[];
  weld: boolean;
  world: boolean;
  fileUnits: boolean;
  verbose: boolean;
}

export interface ConvertResult {
  elements: number;
  triangles: number;
}

async function convert(job: ConvertJob): Promise<ConvertResult> {
  const started = performance.now();
  const say = (text: string) => {
    if (job.verbose) console.log(`[${((performance.now() - started) / 1000).toFixed(2)} s] ${text}`);
  };
  report(0, "opening the model");
  const model = await Model.open(job.input);
  say(`${model.file}: ${model.schema}`);
  const ids = productIds(model, job.include, job.exclude);
  if (ids.length === 0) throw new Fault(422, `${model.file} holds no element that include and exclude leave over`);
  const elements = elementsOf(model, ids, 0.8);
  if (elements.length === 0) throw new Fault(422, `${model.file} holds no geometry to convert`);
  say(`${elements.length} of ${ids.length} products have geometry`);

  const offset = job.world ? ([0, 0, 0] as const) : farOffset(elements);
  if (offset.some(Boolean)) {
    shift(elements, offset);
    say(`moved by -(${zUp(offset).join(", ")}) m, it lies far from the origin; use_world_coords keeps it there`);
  }
  if (job.weld) {
    const done = new Map<Triangles, Triangles>();
    for (const piece of elements.flatMap((element) => element.pieces)) {
      const weld = done.get(piece.triangles) ?? welded(piece.triangles);
      done.set(piece.triangles, weld);
      piece.triangles = weld;
    }
  }
  report(0.9, "writing the file");
  if (job.format === "glb") {
    const extras = { source: model.file, schema: model.schema, unit: "METRE", origin: zUp(offset) };
    await Bun.write(job.partials[0]!, await glbOf(elements, { bake: job.world, extras }));
  } else {
    const unit = job.fileUnits ? model.lengthUnit() : 1;
    await writeObj(elements, job.partials[0]!, job.partials[1]!, { unit, mtlName: job.finals[1]! });
  }
  const pieces = elements.flatMap((element) => element.pieces);
  const triangles = pieces.reduce((sum, piece) => sum + piece.triangles.indices.length / 3, 0);
  say(`${triangles} triangles written`);
  return { elements: elements.length, triangles };
}

if (import.meta.main) serveWork(convert);

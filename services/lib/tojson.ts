/** The work of ifc2json: everything a model says about its objects, geometry aside. A process of its own. */
import { Fault } from "./fault.ts";
import { asArray, type Line, Model, plainOf, refOf, textOf } from "./ifc.ts";
import { report, serveWork } from "./work.ts";

export interface JsonJob {
  input: string;
  partial: string;
}

export type Json = string | number | boolean | null | Json[] | { [key: string]: Json };

/** Where an object stands: GlobalId, type and name. */
export type Reference = { GlobalId: string | null; type: string; Name: string | null };

export interface Entity extends Reference {
  id: number;
  /** All direct attributes except GlobalId and Name; a reference to an object with a GlobalId is a Reference. */
  attributes: Record<string, Json>;
  /** By set, then by property; those of the type object come first and are overridden by the object's own. */
  property_sets: Record<string, Record<string, Json>>;
  /** By set, then by quantity; in the units of the file. */
  quantities: Record<string, Record<string, Json>>;
  /** The spatial element or the whole that it is a part of. */
  container: Reference | null;
  type_object: Reference | null;
  materials: Json[];
}

export interface Document {
  file: string;
  schema: string;
  /** Metres in one length unit of the file. */
  length_unit: number;
  entities: Entity[];
}

/** Deep enough for any attribute that a reader of JSON can use, and a guard against lines that refer to themselves. */
const DEPTH = 6;
/** Lines followed for one entity: lists of lists in a broken or hostile file would multiply without end. */
const BUDGET = 10_000;
/** Geometry is ifcconvert's business; owner history says nothing about the object. */
const SKIP = new Set(["expressID", "type", "GlobalId", "Name", "OwnerHistory", "Representation", "RepresentationMaps"]);

class Reader {
  private readonly sets = new Map<number, number[]>();
  private readonly types = new Map<number, number>();
  private readonly containers = new Map<number, number>();
  private readonly materials = new Map<number, number[]>();
  /** Problems already told; a broken file repeats the same one a thousand times. */
  private readonly told = new Set<string>();
  private budget = BUDGET;

  constructor(private readonly model: Model) {
    const relations = (type: string, many: string, one: string, see: (member: number, target: number) => void) => {
      for (const id of model.idsOf(type)) {
        const line = this.read(id);
        const target = line && refOf(line[one]);
        if (target === undefined) continue;
        for (const member of asArray(line?.[many])) {
          const of = refOf(member);
          if (of !== undefined) see(of, target);
        }
      }
    };
    const append = (map: Map<number, number[]>) => (member: number, target: number) => {
      map.set(member, [...(map.get(member) ?? []), target]);
    };
    relations("IfcRelDefinesByProperties", "RelatedObjects", "RelatingPropertyDefinition", append(this.sets));
    relations("IfcRelDefinesByType", "RelatedObjects", "RelatingType", (of, type) => this.types.set(of, type));
    relations("IfcRelAssociatesMaterial", "RelatedObjects", "RelatingMaterial", append(this.materials));
    const contain = (member: number, whole: number) => void this.containers.set(member, whole);
    relations("IfcRelAggregates", "RelatedObjects", "RelatingObject", contain);
    relations("IfcRelContainedInSpatialStructure", "RelatedElements", "RelatingStructure", contain);
    for (const id of model.idsOf("IfcRelVoidsElement")) {
      const line = this.read(id);
      const [hole, host] = [refOf(line?.RelatedOpeningElement), refOf(line?.RelatingBuildingElement)];
      if (hole !== undefined && host !== undefined) contain(hole, host);
    }
  }

  /** A line, or undefined after telling stderr: one broken line must not cost the other million. */
  private read(id: number): Line | undefined {
    try {
      return this.model.line(id) ?? undefined;
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      if (this.told.size < 100 && !this.told.has(error.message)) console.error(error.message);
      this.told.add(error.message);
      return undefined;
    }
  }

  entity(id: number): Entity | undefined {
    this.budget = BUDGET;
    const line = this.read(id);
    if (!line) return undefined;
    const attributes: Record<string, Json> = {};
    for (const [name, value] of Object.entries(line)) {
      if (!SKIP.has(name) && name !== "ObjectPlacement" && name !== "HasPropertySets") {
        attributes[name] = this.json(value, DEPTH);
      }
    }
    const typeId = this.types.get(id);
    const typeSets = asArray((typeId === undefined ? line : this.read(typeId))?.HasPropertySets).map(refOf);
    const property_sets: Entity["property_sets"] = {};
    const quantities: Entity["quantities"] = {};
    for (const set of [...typeSets, ...(this.sets.get(id) ?? [])]) {
      if (set !== undefined) this.define(set, property_sets, quantities);
    }
    const materials = this.materials.get(id) ?? (typeId === undefined ? undefined : this.materials.get(typeId)) ?? [];
    return {
      id,
      ...this.reference(id, line),
      attributes,
      property_sets,
      quantities,
      container: this.referenceTo(this.containers.get(id)),
      type_object: this.referenceTo(typeId),
      materials: materials.map((of) => this.follow(of, DEPTH)),
    };
  }

  private reference(id: number, line: Line): Reference {
    return { GlobalId: textOf(line.GlobalId), type: this.model.typeOf(id), Name: textOf(line.Name) };
  }

  private referenceTo(id: number | undefined): Reference | null {
    const line = id === undefined ? undefined : this.read(id);
    return id === undefined || !line ? null : this.reference(id, line);
  }

  private define(id: number, sets: Entity["property_sets"], quantities: Entity["quantities"]): void {
    const line = this.read(id);
    if (!line) return;
    const name = textOf(line.Name) ?? `#${id}`;
    const add = (into: Entity["property_sets"], members: unknown) => {
      const values = own(into, name);
      for (const member of asArray(members)) {
        const [key, value] = this.property(refOf(member)) ?? [];
        if (key !== undefined) define(values, key, value ?? null);
      }
    };
    if (line.Quantities !== undefined) add(quantities, line.Quantities);
    else if (line.HasProperties !== undefined) add(sets, line.HasProperties);
    else {
      // Predefined sets (IfcDoorLiningProperties …) carry their values as attributes.
      const values = own(sets, name);
      for (const [key, value] of Object.entries(line)) {
        if (!SKIP.has(key) && value !== null) define(values, key, this.json(value, DEPTH));
      }
    }
  }

  /** A property or a quantity as name and value, whatever its kind. */
  private property(id: number | undefined): [string, Json] | undefined {
    const line = id === undefined ? undefined : this.read(id);
    if (!line) return undefined;
    const name = textOf(line.Name) ?? `#${id}`;
    if (line.HasProperties !== undefined) {
      const inner: Record<string, Json> = {};
      for (const member of asArray(line.HasProperties)) {
        const pair = this.property(refOf(member));
        if (pair) define(inner, pair[0], pair[1]);
      }
      return [name, inner];
    }
    const simple = ["NominalValue", "EnumerationValues", "ListValues"].find((key) => line[key] !== undefined);
    const quantity = Object.keys(line).find((key) => /^(Length|Area|Volume|Count|Weight|Time|Number)Value$/.test(key));
    const key = simple ?? quantity;
    if (key) return [name, this.json(line[key], DEPTH)];
    const rest: Record<string, Json> = {};
    for (const [attribute, value] of Object.entries(line)) {
      if (!SKIP.has(attribute) && value !== null) rest[attribute] = this.json(value, DEPTH);
    }
    return [name, rest];
  }

  /** A value of an attribute as JSON; references are followed `depth` deep. */
  private json(value: unknown, depth: number): Json {
    if (value === null || value === undefined) return null;
    if (Array.isArray(value)) return value.map((item) => this.json(item, depth));
    const ref = refOf(value);
    if (ref !== undefined) return this.follow(ref, depth - 1);
    const plain = plainOf(value);
    if (typeof plain === "number") return Number.isFinite(plain) ? plain : null;
    if (typeof plain === "string" || typeof plain === "boolean") return plain;
    if (Array.isArray(plain)) return plain.map((item) => this.json(item, depth));
    return plain === null ? null : String(plain);
  }

  private follow(id: number, depth: number): Json {
    const line = this.read(id);
    if (!line) return null;
    if (line.GlobalId !== undefined) return { ...this.reference(id, line) };
    const type = this.model.typeOf(id);
    if (depth <= 0 || this.budget-- <= 0) return { type, id };
    const attributes: Record<string, Json> = { type };
    for (const [name, value] of Object.entries(line)) {
      if (name !== "expressID" && name !== "type" && value !== null) attributes[name] = this.json(value, depth);
    }
    return attributes;
  }
}

/** Assigns even where a file names its property "__proto__". */
function define(object: Record<string, Json>, key: string, value: Json): void {
  Object.defineProperty(object, key, { value, enumerable: true, writable: true, configurable: true });
}

/** The object's own member `key`, made when it is missing. */
function own(object: Entity["property_sets"], key: string): Record<string, Json> {
  if (!Object.hasOwn(object, key)) define(object, key, {});
  return object[key]!;
}

async function toJson(job: JsonJob): Promise<{ entities: number }> {
  report(0, "opening the model");
  const model = await Model.open(job.input);
  const reader = new Reader(model);
  const ids = model.idsOf("IfcObjectDefinition");
  const out = Bun.file(job.partial).writer({ highWaterMark: 1 << 20 });
  const head = { file: model.file, schema: model.schema, length_unit: model.lengthUnit() };
  // One entity at a time: a large model's JSON is longer than a string may be.
  out.write(`${JSON.stringify(head).slice(0, -1)},"entities":[\n`);
  let count = 0;
  for (const [i, id] of ids.entries()) {
    report(i / ids.length, `entity ${i + 1} of ${ids.length}`);
    const entity = reader.entity(id);
    if (!entity) continue;
    out.write((count++ ? ",\n" : "") + JSON.stringify(entity));
    if (count % 1000 === 0) await out.flush();
  }
  out.write("\n]}\n");
  await out.end();
  return { entities: count };
}

if (import.meta.main) serveWork(toJson);

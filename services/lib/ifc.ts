/** Opening an IFC file with web-ifc, and asking it about types. Runs in a work process. */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { basename } from "node:path";
import * as WebIFC from "web-ifc";
import { Fault, messageOf } from "./fault.ts";

/** A web-ifc line: attributes by name, each null, a {type, value} pair, a nested line, or an array of these. */
export type Line = { expressID: number; type: number; [attribute: string]: unknown };

const START = "ISO-10303-21;";
const END = "END-ISO-10303-21;";

/** Loaded with this module, so that a process kept ready has it. */
const engine = (async () => {
  const api = new WebIFC.IfcAPI();
  await api.Init(undefined, true);
  api.SetLogLevel(WebIFC.LogLevel.LOG_LEVEL_ERROR);
  return api;
})();

export class Model {
  private constructor(
    readonly api: WebIFC.IfcAPI,
    readonly id: number,
    /** The file's base name, for messages. */
    readonly file: string,
    /** As the file says: "IFC2X3", "IFC4", "IFC4X3_ADD2". */
    readonly schema: string,
  ) {}

  /**
   * @param path  of a STEP file (.ifc), read piecewise; never whole in JavaScript memory
   * @throws Fault 422 for anything that is not a complete IFC file with at least one product
   */
  static async open(path: string): Promise<Model> {
    const file = basename(path);
    const corrupt = (why: string) => new Fault(422, `${file} is not a usable IFC file: ${why}`);
    // Stays open as long as the process: web-ifc drops and re-reads parts of a file that outgrows its memory limit.
    const fd = openSync(path, "r");
    try {
      checkEnvelope(fd, corrupt);
      const api = await engine;
      let id: number;
      try {
        // COORDINATE_TO_ORIGIN moves a model by its first vertex, so that two files of one building no longer fit
        // together; we keep the file's coordinates, and move far models ourselves (meshes.ts).
        id = api.OpenModelFromCallback((offset, size) => readAt(fd, offset, size), { COORDINATE_TO_ORIGIN: false });
      } catch (error) {
        throw corrupt(`the parser says: ${messageOf(error)}`);
      }
      if (id < 0) throw corrupt("its schema is unknown, or its header cannot be parsed");
      const model = new Model(api, id, file, api.GetModelSchema(id));
      if (model.idsOf("IfcProject").length === 0) throw corrupt("it holds no IfcProject");
      if (model.idsOf("IfcProduct").length === 0) throw corrupt("it holds no products");
      return model;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /**
   * Ids of all instances of a type and its subtypes, ascending.
   * @param typeName  any case
   * @throws Fault 422 for a name that no IFC schema knows
   */
  idsOf(typeName: string): number[] {
    const name = typeName.toUpperCase();
    const code = this.api.GetTypeCodeFromName(name);
    // web-ifc hashes any word into a code; only the way back tells whether the type exists.
    if (this.api.GetNameFromTypeCode(code)?.toUpperCase() !== name) {
      throw new Fault(422, `${JSON.stringify(typeName)} is not an IFC type`);
    }
    const vector = this.api.GetLineIDsWithType(this.id, code, true);
    return Array.from({ length: vector.size() }, (_, i) => vector.get(i)).sort((a, b) => a - b);
  }

  /** One line with its references as handles. @throws Fault 422 when it is missing or the parser cannot read it */
  line(id: number): Line {
    let line: Line | undefined;
    try {
      line = this.api.GetLine(this.id, id);
    } catch (error) {
      throw new Fault(422, `${this.file}: line #${id} cannot be read: ${messageOf(error)}`);
    }
    if (!line) throw new Fault(422, `${this.file}: line #${id} is missing`);
    return line;
  }

  /** "IfcWallStandardCase" */
  typeOf(id: number): string {
    return this.api.GetNameFromTypeCode(this.api.GetLineType(this.id, id));
  }

  /** Metres in one length unit of the file (0.001 for millimetres); 1 when the file does not say, or not readably. */
  lengthUnit(): number {
    const follow = (value: unknown): Line | undefined => {
      const id = refOf(value);
      try {
        return id === undefined ? undefined : this.line(id);
      } catch {
        return undefined;
      }
    };
    const prefixOf = (unit: Line | undefined) => PREFIX[String(plainOf(unit?.Prefix))] ?? 1;
    const units = this.idsOf("IfcUnitAssignment").flatMap((id) => asArray(this.line(id).Units).map(follow));
    const unit = units.find((one) => plainOf(one?.UnitType) === "LENGTHUNIT");
    if (unit?.ConversionFactor === undefined) return prefixOf(unit);
    const measure = follow(unit.ConversionFactor); // a foot is 0.3048 of a metre, or 304.8 of a millimetre
    return (Number(plainOf(measure?.ValueComponent)) || 1) * prefixOf(follow(measure?.UnitComponent));
  }
}

const PREFIX: Record<string, number> = {
  KILO: 1e3,
  HECTO: 1e2,
  DECA: 10,
  DECI: 0.1,
  CENTI: 0.01,
  MILLI: 1e-3,
  MICRO: 1e-6,
};

function readAt(fd: number, offset: number, size: number): Uint8Array {
  // web-ifc asks for 64 MiB whatever the file's size.
  const bytes = new Uint8Array(Math.max(0, Math.min(size, fstatSync(fd).size - offset)));
  return bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, offset));
}

/** web-ifc reads a file that is cut short without a word, and would convert the half it has. */
function checkEnvelope(fd: number, corrupt: (why: string) => Fault): void {
  const size = fstatSync(fd).size;
  const text = (offset: number, length: number) => new TextDecoder("latin1").decode(readAt(fd, offset, length));
  if (size === 0) throw corrupt("it is empty");
  const head = text(0, 4096).replace(/^\u00ef\u00bb\u00bf/, "");
  if (head.startsWith("PK\u0003\u0004")) throw corrupt("it is a ZIP archive; unpack it first");
  const start = head.replace(/\/\*[\s\S]*?\*\//g, "").trimStart();
  if (!start.toUpperCase().startsWith(START)) throw corrupt(`it does not begin with ${START}`);
  if (!text(Math.max(0, size - 4096), 4096).includes(END)) throw corrupt(`it is cut short: ${END} is missing`);
}

export const asArray = (value: unknown): unknown[] => (Array.isArray(value) ? value : value == null ? [] : [value]);

/** The id behind a reference, or undefined: web-ifc marks a reference with type 5. */
export function refOf(value: unknown): number | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { type, value: id } = value as { type?: unknown; value?: unknown };
  return type === WebIFC.REF && typeof id === "number" ? id : undefined;
}

/** The plain value of a {type, value} pair; null for an absent one. */
export function plainOf(value: unknown): unknown {
  return typeof value === "object" && value !== null && "value" in value ? value.value : (value ?? null);
}

/** A text attribute, or null. */
export function textOf(value: unknown): string | null {
  const plain = plainOf(value);
  return plain == null ? null : String(plain);
}

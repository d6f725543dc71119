/** Building elements from boxes, cylinders and outlines, with what belongs to them. Metres and Z up at the call. */
import { type Argument, enumeration, integer, Raw, StepFile, typed } from "./step.ts";

export type Point = readonly [x: number, y: number, z: number];

export interface Box {
  min: Point;
  max: Point;
}

/** "IsExternal" → true: a label, a boolean or a real. */
export type Properties = Record<string, string | number | boolean>;

export interface Element {
  type: string;
  name: string;
  /** null for an element that is only the sum of its parts. */
  shape: Raw | null;
  /** Attributes after Tag, as IFC4 orders them for the type. */
  rest?: Argument[];
  storey: Raw | null;
  properties?: Record<string, Properties>;
  /** Base quantities: metres by the name's end "…Length", "Width", "Height"; m² "…Area"; m³ "…Volume". */
  quantities?: Record<string, Record<string, number>>;
}

export class Building {
  readonly file: StepFile;
  readonly site: Raw;
  readonly building: Raw;
  private readonly body: Raw;
  private readonly origin: Raw;
  private readonly contents = new Map<Raw, Raw[]>();

  /** @param perMetre  units of the file in one metre: 1 or 1000 (written as metres or millimetres) */
  constructor(
    name: string,
    private readonly perMetre: 1 | 1000,
  ) {
    this.file = new StepFile(name);
    const f = this.file;
    const prefix = perMetre === 1000 ? enumeration("MILLI") : null;
    const si = (type: string, unit: string, scale: Raw | null = null) =>
      f.add("IfcSIUnit", new Raw("*"), enumeration(type), scale, enumeration(unit));
    const units = f.add("IfcUnitAssignment", [
      si("LENGTHUNIT", "METRE", prefix),
      si("AREAUNIT", "SQUARE_METRE"),
      si("VOLUMEUNIT", "CUBIC_METRE"),
      si("PLANEANGLEUNIT", "RADIAN"),
    ]);
    this.origin = f.add("IfcAxis2Placement3D", this.point([0, 0, 0]), null, null);
    const model = f.add("IfcGeometricRepresentationContext", null, "Model", integer(3), 1e-5, this.origin, null);
    const view = [new Raw("*"), new Raw("*"), new Raw("*"), new Raw("*"), model, null, enumeration("MODEL_VIEW"), null];
    this.body = f.add("IfcGeometricRepresentationSubContext", "Body", "Model", ...view);
    const project = f.rooted("IfcProject", "project", "House", null, null, null, null, [model], units);
    const at = this.placement();
    const element = enumeration("ELEMENT");
    const siteRest = [null, at, null, null, element, null, null, 0, null, null];
    this.site = f.rooted("IfcSite", "site", "Site", null, ...siteRest);
    const buildingRest = [null, at, null, null, element, null, null, null];
    this.building = f.rooted("IfcBuilding", "building", "House", null, ...buildingRest);
    this.aggregate("project", project, [this.site]);
    this.aggregate("site", this.site, [this.building]);
  }

  storey(name: string, elevation: number): Raw {
    const rest = [null, this.placement(), null, null, enumeration("ELEMENT"), elevation * this.perMetre];
    const storey = this.file.rooted("IfcBuildingStorey", `storey ${name}`, name, null, ...rest);
    this.aggregate(`storey ${name}`, this.building, [storey]);
    return storey;
  }

  aggregate(seed: string, whole: Raw, parts: Raw[]): void {
    this.file.rooted("IfcRelAggregates", `aggregates ${seed}`, null, null, whole, parts);
  }

  /** Adds the element with its placement, container, property sets and quantities. */
  element({ type, name, shape, rest = [], storey, properties = {}, quantities = {} }: Element): Raw {
    const f = this.file;
    const product = f.rooted(type, name, name, null, null, this.placement(), shape, name, ...rest);
    if (storey) this.contents.set(storey, [...(this.contents.get(storey) ?? []), product]);
    for (const [set, values] of Object.entries(properties)) {
      const singles = Object.entries(values).map(([key, value]) =>
        f.add("IfcPropertySingleValue", key, null, typed(measureOf(key, value), value), null),
      );
      this.define(name, set, product, f.rooted("IfcPropertySet", `${name}/${set}`, set, null, singles));
    }
    for (const [set, values] of Object.entries(quantities)) {
      const all = Object.entries(values).map(([key, value]) => {
        const kind = key.endsWith("Volume") ? "Volume" : key.endsWith("Area") ? "Area" : "Length";
        const amount = kind === "Length" ? value * this.perMetre : value;
        return f.add(`IfcQuantity${kind}`, key, null, null, amount, null);
      });
      const quantity = f.rooted("IfcElementQuantity", `${name}/${set}`, set, null, null, all);
      this.define(name, set, product, quantity);
    }
    return product;
  }

  private define(name: string, set: string, product: Raw, definition: Raw): void {
    this.file.rooted("IfcRelDefinesByProperties", `defines ${name}/${set}`, null, null, [product], definition);
  }

  /** Cuts a box out of `host`. @returns the opening, to be filled by a door or window */
  opening(name: string, host: Raw, box: Box): Raw {
    const shape = this.shape([this.box(box)]);
    const rest = [null, this.placement(), shape, null, enumeration("OPENING")];
    const opening = this.file.rooted("IfcOpeningElement", name, name, null, ...rest);
    this.file.rooted("IfcRelVoidsElement", `voids ${name}`, null, null, host, opening);
    return opening;
  }

  fill(name: string, opening: Raw, filling: Raw): void {
    this.file.rooted("IfcRelFillsElement", `fills ${name}`, null, null, opening, filling);
  }

  material(name: string, elements: Raw[]): void {
    const material = this.file.add("IfcMaterial", name, null, null);
    this.file.rooted("IfcRelAssociatesMaterial", `material ${name}`, null, null, elements, material);
  }

  /** Layers from outside to inside, thickness in metres. */
  layers(name: string, layers: [material: string, thickness: number][], elements: Raw[]): void {
    const f = this.file;
    const all = layers.map(([material, thickness]) => {
      const of = f.add("IfcMaterial", material, null, null);
      return f.add("IfcMaterialLayer", of, thickness * this.perMetre, null, material, null, null, null);
    });
    const set = f.add("IfcMaterialLayerSet", all, name, null);
    const usage = f.add("IfcMaterialLayerSetUsage", set, enumeration("AXIS2"), enumeration("POSITIVE"), 0, null);
    f.rooted("IfcRelAssociatesMaterial", `layers ${name}`, null, null, elements, usage);
  }

  /** A type object (IfcWallType …) for elements. @param rest attributes after Tag and ElementType */
  typeFor(type: string, name: string, elements: Raw[], ...rest: Argument[]): void {
    const f = this.file;
    const object = f.rooted(type, `type ${name}`, name, null, null, null, null, null, null, ...rest);
    f.rooted("IfcRelDefinesByType", `of type ${name}`, null, null, elements, object);
  }

  /** Swept solids as one body. @param color  red, green, blue, alpha, 0 to 1; none for an opening */
  shape(solids: Raw[], color?: readonly [number, number, number, alpha?: number]): Raw {
    const f = this.file;
    if (color) {
      const [r, g, b, alpha = 1] = color;
      const rgb = f.add("IfcColourRgb", null, r, g, b);
      const none = [null, null, null, null, null, null];
      const shading = f.add("IfcSurfaceStyleRendering", rgb, 1 - alpha, ...none, enumeration("NOTDEFINED"));
      const style = f.add("IfcSurfaceStyle", null, enumeration("BOTH"), [shading]);
      for (const solid of solids) f.add("IfcStyledItem", solid, [style], null);
    }
    const representation = f.add("IfcShapeRepresentation", this.body, "Body", "SweptSolid", solids);
    return f.add("IfcProductDefinitionShape", null, null, [representation]);
  }

  box({ min, max }: Box): Raw {
    const [w, d, h] = [max[0] - min[0], max[1] - min[1], max[2] - min[2]];
    const centre = this.flat([(min[0] + max[0]) / 2, (min[1] + max[1]) / 2]);
    const at = this.file.add("IfcAxis2Placement2D", centre, null);
    const area = enumeration("AREA");
    const profile = this.file.add("IfcRectangleProfileDef", area, null, at, w * this.perMetre, d * this.perMetre);
    return this.extrude(profile, this.axes([0, 0, min[2]], [0, 0, 1], [1, 0, 0]), h);
  }

  /** A round bar from `start`, along `axis` (a unit vector) for `length`. */
  cylinder(start: Point, axis: Point, length: number, radius: number): Raw {
    const at = this.file.add("IfcAxis2Placement2D", this.flat([0, 0]), null);
    const profile = this.file.add("IfcCircleProfileDef", enumeration("AREA"), null, at, radius * this.perMetre);
    const across: Point = Math.abs(axis[2]) > 0.9 ? [1, 0, 0] : [0, 0, 1];
    return this.extrude(profile, this.axes(start, axis, across), length);
  }

  /** An outline in the XZ plane at y, extruded by `depth` towards greater y. */
  outline(points: [x: number, z: number][], y: number, depth: number): Raw {
    const f = this.file;
    const line = f.add(
      "IfcPolyline",
      [...points, points[0]!].map((point) => this.flat(point)),
    );
    const profile = f.add("IfcArbitraryClosedProfileDef", enumeration("AREA"), null, line);
    // Local x = world x, local y = world z; that makes local z point to smaller y, so the sweep starts at the far end.
    return this.extrude(profile, this.axes([0, y + depth, 0], [0, -1, 0], [1, 0, 0]), depth);
  }

  private extrude(profile: Raw, position: Raw, depth: number): Raw {
    const up = this.file.add("IfcDirection", [0, 0, 1]);
    return this.file.add("IfcExtrudedAreaSolid", profile, position, up, depth * this.perMetre);
  }

  private axes(at: Point, axis: Point, x: Point): Raw {
    const f = this.file;
    return f.add("IfcAxis2Placement3D", this.point(at), f.add("IfcDirection", axis), f.add("IfcDirection", x));
  }

  private point(at: Point): Raw {
    return this.file.add(
      "IfcCartesianPoint",
      at.map((value) => value * this.perMetre),
    );
  }

  private flat(at: [number, number]): Raw {
    return this.file.add(
      "IfcCartesianPoint",
      at.map((value) => value * this.perMetre),
    );
  }

  private placement(): Raw {
    return this.file.add("IfcLocalPlacement", null, this.origin);
  }

  /** Ends the model: says what each storey contains. @returns the file's text */
  finish(): string {
    let n = 0;
    for (const [storey, products] of this.contents) {
      this.file.rooted("IfcRelContainedInSpatialStructure", `contains ${n++}`, null, null, products, storey);
    }
    return this.file.toString();
  }
}

function measureOf(key: string, value: string | number | boolean): string {
  if (typeof value === "boolean") return "IfcBoolean";
  if (typeof value === "string") return "IfcLabel";
  return key === "ThermalTransmittance" ? "IfcThermalTransmittanceMeasure" : "IfcReal";
}

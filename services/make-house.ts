/**
 * Writes two IFC4 models that fit together: house.ifc (a small house, in metres) and house-mep.ifc (its pipes and duct,
 * in millimetres). Between them are exactly two deliberate clashes:
 *
 *   Beam 1 – Supply duct         the duct crosses the beam below its upper edge, 0.1 m deep
 *   Wall west – Water pipe       the pipe goes through a wall that has no opening there, 0.15 m deep
 *
 * The waste pipe also leaves the house, but through an opening in the east wall: no clash.
 *
 *   bun services/make-house.ts [dir]      dir: default EXAMPLES_DIR, else ../examples
 */
import { mkdir, rename } from "node:fs/promises";
import { join, resolve } from "node:path";
import { type Box, Building, type Point } from "./lib/building.ts";
import { enumeration, globalId, type Raw } from "./lib/step.ts";

const COLOR = {
  concrete: [0.72, 0.72, 0.7],
  plaster: [0.93, 0.9, 0.82],
  roof: [0.55, 0.27, 0.2],
  timber: [0.62, 0.43, 0.25],
  steel: [0.35, 0.38, 0.42],
  glass: [0.6, 0.8, 0.9, 0.4],
  copper: [0.8, 0.45, 0.25],
  plastic: [0.4, 0.4, 0.45],
  zinc: [0.75, 0.78, 0.8],
  ceramic: [0.98, 0.98, 0.98],
} as const;

const box = (x0: number, y0: number, z0: number, x1: number, y1: number, z1: number): Box => ({
  min: [x0, y0, z0],
  max: [x1, y1, z1],
});

const size = ({ min, max }: Box) => [max[0] - min[0], max[1] - min[1], max[2] - min[2]] as const;

/** 10 × 8 m, one storey, walls of 0.3 m and 2.8 m height; neighbours touch and never overlap. */
function house(): string {
  const b = new Building("house.ifc", 1);
  const ground = b.storey("Ground floor", 0);
  const top = b.storey("Roof", 2.8);

  const slab = (name: string, body: Box, kind: string, color: readonly [number, number, number], storey: Raw) => {
    const [length, width, depth] = size(body);
    return b.element({
      ...{ type: "IfcSlab", name, shape: b.shape([b.box(body)], color), rest: [enumeration(kind)], storey },
      properties: { Pset_SlabCommon: { IsExternal: kind !== "FLOOR", LoadBearing: true } },
      quantities: {
        Qto_SlabBaseQuantities: { Depth: depth, GrossArea: length * width, GrossVolume: length * width * depth },
      },
    });
  };
  const floor = slab("Ground slab", box(0, 0, -0.3, 10, 8, 0), "BASESLAB", COLOR.concrete, ground);
  const gallery = slab("Gallery", box(8, 5.5, 1.2, 9.7, 7.7, 1.4), "FLOOR", COLOR.concrete, ground);
  slab("Roof slab", box(-0.4, -0.4, 2.8, 10.4, 8.4, 3.05), "ROOF", COLOR.roof, top);

  const wall = (name: string, body: Box) => {
    const [dx, dy, height] = size(body);
    const [length, width] = [Math.max(dx, dy), Math.min(dx, dy)];
    return b.element({
      type: "IfcWall",
      name,
      shape: b.shape([b.box(body)], COLOR.plaster),
      rest: [enumeration("SOLIDWALL")],
      storey: ground,
      properties: {
        Pset_WallCommon: { IsExternal: true, LoadBearing: true, FireRating: "REI 60", ThermalTransmittance: 0.24 },
      },
      quantities: {
        Qto_WallBaseQuantities: {
          ...{ Length: length, Width: width, Height: height },
          ...{ GrossSideArea: length * height, GrossVolume: length * width * height },
        },
      },
    });
  };
  const south = wall("Wall south", box(0, 0, 0, 10, 0.3, 2.8));
  const north = wall("Wall north", box(0, 7.7, 0, 10, 8, 2.8));
  const west = wall("Wall west", box(0, 0.3, 0, 0.3, 7.7, 2.8));
  const east = wall("Wall east", box(9.7, 0.3, 0, 10, 7.7, 2.8));
  const walls = [south, north, west, east];
  b.typeFor("IfcWallType", "Outer wall 300", walls, enumeration("SOLIDWALL"));
  const layers: [string, number][] = [
    ["Plaster", 0.02],
    ["Insulation", 0.14],
    ["Brick", 0.14],
  ];
  b.layers("Outer wall 300", layers, walls);

  // The panel is 0.06 m thick and sits in the middle of the wall's opening.
  const fill = (type: "IfcDoor" | "IfcWindow", name: string, host: Raw, hole: Box, panel: Box, width: number) => {
    const opening = b.opening(`${name} opening`, host, hole);
    const [, , height] = size(hole);
    const kind = enumeration(type === "IfcDoor" ? "DOOR" : "WINDOW");
    const filling = b.element({
      ...{ type, name, storey: ground, rest: [height, width, kind, enumeration("NOTDEFINED"), null] },
      shape: b.shape([b.box(panel)], type === "IfcDoor" ? COLOR.timber : COLOR.glass),
      properties: { [`Pset_${type.slice(3)}Common`]: { IsExternal: true, ThermalTransmittance: 1.1 } },
    });
    b.fill(name, opening, filling);
    return filling;
  };
  const door = fill("IfcDoor", "Front door", south, box(2, 0, 0, 3, 0.3, 2.1), box(2, 0.12, 0, 3, 0.18, 2.1), 1);
  fill("IfcWindow", "Window south", south, box(6, 0, 0.9, 8, 0.3, 2.1), box(6, 0.12, 0.9, 8, 0.18, 2.1), 2);
  fill("IfcWindow", "Window north", north, box(2, 7.7, 0.9, 4, 8, 2.1), box(2, 7.82, 0.9, 4, 7.88, 2.1), 2);
  fill("IfcWindow", "Window east", east, box(9.7, 2, 0.9, 10, 4, 2.1), box(9.82, 2, 0.9, 9.88, 4, 2.1), 2);
  b.opening("Waste pipe opening", east, box(9.7, 4.9, 0.3, 10, 5.1, 0.5));

  const beam = (name: string, body: Box) =>
    b.element({
      ...{ type: "IfcBeam", name, shape: b.shape([b.box(body)], COLOR.timber), rest: [enumeration("BEAM")] },
      storey: ground,
      properties: { Pset_BeamCommon: { IsExternal: false, LoadBearing: true, Span: size(body)[1] } },
    });
  const column = (name: string, body: Box) =>
    b.element({
      ...{ type: "IfcColumn", name, shape: b.shape([b.box(body)], COLOR.steel), rest: [enumeration("COLUMN")] },
      storey: ground,
      properties: { Pset_ColumnCommon: { IsExternal: false, LoadBearing: true } },
    });
  const beams = [beam("Beam 1", box(4.9, 0.3, 2.5, 5.1, 7.7, 2.8))];
  const columns = [
    column("Column 1", box(4.9, 2.9, 0, 5.1, 3.1, 2.5)),
    column("Column 2", box(4.9, 5.3, 0, 5.1, 5.5, 2.5)),
  ];

  // Eight risers of 0.175 m up to the gallery: out along the steps, back along the floor.
  const steps = Array.from({ length: 8 }, (_, i): [number, number][] => [
    [6 + i * 0.25, i * 0.175],
    [6 + i * 0.25, (i + 1) * 0.175],
  ]).flat();
  const flight = b.element({
    ...{ type: "IfcStairFlight", name: "Stair flight", storey: null },
    shape: b.shape([b.outline([...steps, [8, 1.4], [8, 0]], 6.5, 1)], COLOR.concrete),
    rest: [null, null, null, null, enumeration("STRAIGHT")],
  });
  const stair = b.element({
    ...{ type: "IfcStair", name: "Stair", storey: ground, rest: [enumeration("STRAIGHT_RUN_STAIR")] },
    shape: null,
  });
  b.aggregate("stair", stair, [flight]);

  b.material("Concrete C25/30", [floor, gallery, flight]);
  b.material("Timber GL24h", [...beams, door]);
  b.material("Steel S235", columns);
  return b.finish();
}

/** Three pipes, a duct and a basin, in millimetres. */
function services(): string {
  const b = new Building("house-mep.ifc", 1000);
  const ground = b.storey("Ground floor", 0);
  const pipe = (name: string, start: Point, axis: Point, length: number, color: readonly [number, number, number]) =>
    b.element({
      ...{ type: "IfcPipeSegment", name, storey: ground, rest: [enumeration("RIGIDSEGMENT")] },
      shape: b.shape([b.cylinder(start, axis, length, 0.05)], color),
      properties: { Pset_PipeSegmentTypeCommon: { Status: "NEW" } },
      quantities: { Qto_PipeSegmentBaseQuantities: { Length: length } },
    });
  const water = pipe("Water pipe", [-1, 6, 1], [1, 0, 0], 2.5, COLOR.copper); // clash: wall west
  const riser = pipe("Riser", [9, 1, 0.05], [0, 0, 1], 2.65, COLOR.copper);
  const waste = pipe("Waste pipe", [8.5, 5, 0.4], [1, 0, 0], 2.5, COLOR.plastic);
  const duct = b.element({
    ...{ type: "IfcDuctSegment", name: "Supply duct", storey: ground, rest: [enumeration("RIGIDSEGMENT")] },
    shape: b.shape([b.box(box(1, 1.8, 2.45, 9, 2.2, 2.7))], COLOR.zinc), // clash: beam 1
    properties: { Pset_DuctSegmentTypeCommon: { Status: "NEW", Shape: "RECTANGULAR" } },
    quantities: { Qto_DuctSegmentBaseQuantities: { Length: 8 } },
  });
  const basin = b.element({
    ...{ type: "IfcSanitaryTerminal", name: "Basin", storey: ground, rest: [enumeration("WASHHANDBASIN")] },
    shape: b.shape([b.box(box(0.5, 3, 0.75, 1, 3.6, 0.9))], COLOR.ceramic),
  });
  b.typeFor("IfcPipeSegmentType", "Pipe DN100", [water, riser, waste], enumeration("RIGIDSEGMENT"));
  b.material("Copper", [water, riser]);
  b.material("Polypropylene", [waste]);
  b.material("Galvanised steel", [duct]);
  b.material("Ceramic", [basin]);
  return b.finish();
}

/** The two deliberate clashes, as pairs of GlobalIds (house.ifc, house-mep.ifc). */
export const CLASHES: readonly (readonly [string, string])[] = [
  [globalId("house.ifc/Beam 1"), globalId("house-mep.ifc/Supply duct")],
  [globalId("house.ifc/Wall west"), globalId("house-mep.ifc/Water pipe")],
];

/** Writes both files into `dir`. @returns their paths. The same bytes every time */
export async function makeHouse(dir: string): Promise<string[]> {
  await mkdir(dir, { recursive: true });
  const files = { "house.ifc": house(), "house-mep.ifc": services() };
  const paths: string[] = [];
  for (const [name, text] of Object.entries(files)) {
    const path = join(dir, name);
    await Bun.write(`${path}.partial`, text);
    await rename(`${path}.partial`, path);
    paths.push(path);
  }
  return paths;
}

if (import.meta.main) {
  const dir = process.argv[2] ?? (process.env.EXAMPLES_DIR || join(import.meta.dir, "../examples"));
  for (const path of await makeHouse(resolve(dir))) console.log(path);
}

import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { getBounds, NodeIO } from "@gltf-transform/core";
import { app } from "../ifcconvert.ts";
import { call, sandbox } from "./setup.ts";

const box = await sandbox();
const convert = (fields: object) =>
  call(app, "/ifcconvert", { input_filename: "house.ifc", output_filename: "house.glb", ...fields });

async function glb(name = "house.glb") {
  const document = await new NodeIO().read(box.output(`converted/${name}`));
  const scene = document.getRoot().listScenes()[0]!;
  const nodes = scene.listChildren();
  const types = nodes.map((node) => String(node.getExtras().type));
  const { min, max } = getBounds(scene);
  return { document, scene, nodes, types, min: min.map(cm), max: max.map(cm) };
}
const cm = (metres: number) => Math.round(metres * 100) / 100;

/** The corners of an OBJ's box. */
async function objBounds(name: string) {
  const text = await Bun.file(box.output(`converted/${name}`)).text();
  const rows = text.split("\n").filter((row) => row.startsWith("v "));
  const points = rows.map((row) => row.split(" ").slice(1).map(Number));
  const side = (pick: (...values: number[]) => number) =>
    [0, 1, 2].map((i) => cm(points.map((point) => point[i]!).reduce((a, b) => pick(a, b))));
  return { text, min: side(Math.min), max: side(Math.max) };
}

describe("house.ifc to GLB", () => {
  test("writes a valid model: every element a node, Y up, metres", async () => {
    const { status, body } = await convert({});
    expect(body).toMatchObject({ success: true, output_path: "/output/converted/house.glb", stderr: "" });
    expect(status).toBe(200);
    const { nodes, min, max, document } = await glb();
    expect(nodes).toHaveLength(15);
    expect(min).toEqual([-0.4, -0.3, -8.4]);
    expect(max).toEqual([10.4, 3.05, 0.4]);
    const wall = nodes.find((node) => node.getExtras().Name === "Wall south")!;
    expect(wall.getName()).toMatch(/^[0-3][\w$]{21}$/);
    expect(wall.getExtras()).toMatchObject({ GlobalId: wall.getName(), type: "IfcWall" });
    expect(document.getRoot().listMaterials().length).toBeGreaterThanOrEqual(5);
    const glass = document
      .getRoot()
      .listMaterials()
      .find((material) => material.getAlphaMode() === "BLEND");
    expect(glass?.getBaseColorFactor()[3]).toBeCloseTo(0.4);
  });

  test("writes the log file where the answer says", async () => {
    const { body } = await convert({ log_file: "/output/logs/a.txt", plan: true, bounds: "512x512" });
    expect(body.log_file).toBe("/output/logs/a.txt");
    const log = await Bun.file(box.output("logs/a.txt")).text();
    expect(log).toContain("house.ifc: IFC4");
    expect(log).toContain("plan: not supported by this converter, ignored");
    expect(body.stdout).toContain("bounds: not supported by this converter, ignored");
    expect((await convert({})).body.log_file).toBe("/output/converted/house_convert.txt");
  });

  test("include takes only the types named, in any case", async () => {
    await convert({ include: ["IFCWALL", "entities", "ifcdoor"] });
    expect((await glb()).types.sort()).toEqual(["IfcDoor", "IfcWall", "IfcWall", "IfcWall", "IfcWall"]);
  });

  test("include takes subtypes along", async () => {
    await convert({ include: ["IfcBuildingElement"], exclude: ["IfcWall", "IfcSlab"] });
    const { types } = await glb();
    expect(types).toContain("IfcStairFlight");
    expect(types).not.toContain("IfcWall");
    expect(types).toHaveLength(15 - 4 - 3);
  });

  test("exclude leaves types out", async () => {
    await convert({ exclude: ["IfcSlab", "IfcWindow"] });
    expect((await glb()).types.filter((type) => /Slab|Window/.test(type))).toEqual([]);
  });

  test("an opening is drawn only when it is asked for", async () => {
    await convert({ include: ["IfcOpeningElement"] });
    expect((await glb()).types).toEqual(Array(5).fill("IfcOpeningElement"));
  });

  test("a type that IFC does not know, and a filter by attribute, are 422", async () => {
    expect(await convert({ include: ["IfcWal"] })).toMatchObject({
      status: 422,
      body: { detail: '"IfcWal" is not an IFC type' },
    });
    expect((await convert({ include: ["attribute Name Wall"] })).status).toBe(422);
    expect((await convert({ include: ["IfcRailing"] })).body.detail).toContain("holds no element");
  });

  test("use_world_coords bakes the placements and keeps the box", async () => {
    await convert({ use_world_coords: true });
    const { nodes, min, max } = await glb();
    expect(nodes.every((node) => node.getTranslation().every((value) => value === 0))).toBe(true);
    expect([...min, ...max]).toEqual([-0.4, -0.3, -8.4, 10.4, 3.05, 0.4]);
  });

  test("weld_vertices keeps the shape with no more vertices than before", async () => {
    const vertices = async () => {
      const { document, min, max } = await glb();
      const counts = document
        .getRoot()
        .listMeshes()
        .map((mesh) => mesh.listPrimitives()[0]!.getAttribute("POSITION")!.getCount());
      return { sum: counts.reduce((a, b) => a + b), bounds: [...min, ...max] };
    };
    await convert({});
    const before = await vertices();
    await convert({ weld_vertices: true });
    const after = await vertices();
    expect(after.sum).toBeLessThan(before.sum);
    expect(after.bounds).toEqual(before.bounds);
  });

  test("millimetres become metres", async () => {
    await convert({ input_filename: "/examples/house-mep.ifc", output_filename: "/output/other/mep.glb" });
    const { min, max } = await glb("../other/mep.glb");
    expect([...min, ...max]).toEqual([-1, 0.05, -6.05, 11, 2.7, -0.95]);
  });
});

describe("a model far from the origin", () => {
  const far = async (fields: object) => {
    // The site's placement moved to where a national grid would put it: 2,600 km east, 1,200 km north.
    const text = await Bun.file(box.uploads("house.ifc")).text();
    const site = /IFCAXIS2PLACEMENT3D\((#\d+),\$,\$\)/.exec(text)![1]!;
    const moved = text.replace(
      `${site}=IFCCARTESIANPOINT((0.,0.,0.));`,
      `${site}=IFCCARTESIANPOINT((2600100.,1200200.,0.));`,
    );
    expect(moved).not.toBe(text);
    // Every placement of the sample refers to the one origin, the context's included; one shift is enough to show.
    await Bun.write(box.uploads("far.ifc"), moved);
    const answer = await convert({ input_filename: "far.ifc", output_filename: "far.glb", ...fields });
    return { answer, ...(await glb("far.glb")) };
  };

  test("is moved near by whole kilometres, and the file and the log say so", async () => {
    const { answer, scene, max } = await far({});
    expect(answer.body.stdout).toContain("use_world_coords keeps it there");
    expect(Math.max(...max.map(Math.abs))).toBeLessThan(2000);
    const [east, north, up] = scene.getExtras().origin as number[];
    expect([east! % 1000, north! % 1000, up]).toEqual([0, 0, 0]);
    expect(east).toBeGreaterThan(2_000_000);
  });

  test("stays where it is with use_world_coords", async () => {
    const { min } = await far({ use_world_coords: true });
    expect(min[0]).toBeGreaterThan(2_600_000);
    expect(min[2]).toBeLessThan(-1_200_000);
  });
});

describe("house.ifc to OBJ", () => {
  test("Z up, metres, with a material file", async () => {
    const { status, body } = await convert({ output_filename: "house.obj" });
    expect(status).toBe(200);
    expect(body.output_path).toBe("/output/converted/house.obj");
    const { text, min, max } = await objBounds("house.obj");
    expect([...min, ...max]).toEqual([-0.4, -0.4, -0.3, 10.4, 8.4, 3.05]);
    expect(text.match(/^o /gm)).toHaveLength(15);
    expect(text).toContain("mtllib house.mtl");
    const materials = await Bun.file(box.output("converted/house.mtl")).text();
    for (const [, name] of text.matchAll(/^usemtl (\S+)/gm)) expect(materials).toContain(`newmtl ${name}\n`);
  });

  test("convert_back_units writes the file's own unit", async () => {
    const fields = { input_filename: "house-mep.ifc", output_filename: "mep.obj", convert_back_units: true };
    await convert(fields);
    expect((await objBounds("mep.obj")).max).toEqual([11000, 6049.49, 2700]);
  });
});

test("another extension is 422 and says which are supported", async () => {
  for (const output_filename of ["house.svg", "house", "house.ifc"]) {
    const { status, body } = await convert({ output_filename });
    expect(status).toBe(422);
    expect(body.detail).toContain(".glb or .obj");
  }
});

test("nothing but finished files is left in the output folders", async () => {
  await Bun.write(box.uploads("broken.ifc"), "ISO-10303-21;\nnonsense;\nEND-ISO-10303-21;\n");
  const { status } = await convert({ input_filename: "broken.ifc", output_filename: "broken.glb" });
  expect(status).toBe(422);
  expect(existsSync(box.output("converted/broken.glb"))).toBe(false);
  expect(readdirSync(box.output("converted")).filter((name) => name.includes("partial"))).toEqual([]);
});

import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { app } from "../ifcclash.ts";
import { Building } from "../lib/building.ts";
import type { Clash, ClashSet } from "../lib/clash.ts";
import { CLASHES } from "../make-house.ts";
import { call, sandbox } from "./setup.ts";

const box = await sandbox();
const house = { file: "house.ifc" };
const mep = { file: "/examples/house-mep.ifc" };

const ask = (fields: object, a: object[] = [house], b: object[] | null = [mep]) =>
  call(app, "/ifcclash", { clash_sets: [{ name: "set", a, b }], output_filename: "clashes.json", ...fields });

async function clashes(fields: object = {}, a?: object[], b?: object[]): Promise<Record<string, Clash>> {
  const { status, body } = await ask(fields, a, b);
  expect(body).toMatchObject({ success: true, output_path: "/output/clash/clashes.json" });
  expect(status).toBe(200);
  return (body.result as ClashSet[])[0]!.clashes;
}

const names = (found: Record<string, Clash>) =>
  Object.values(found)
    .map(({ a_name, b_name }) => `${a_name} – ${b_name}`)
    .sort();

const BOTH = ["Beam 1 – Supply duct", "Wall west – Water pipe"];

describe("intersection", () => {
  test("finds exactly the two deliberate clashes, where and as deep as they are", async () => {
    const found = await clashes({ check_all: true });
    expect(Object.keys(found).sort()).toEqual(CLASHES.map(([a, b]) => `${a}-${b}`).sort());
    expect(names(found)).toEqual(BOTH);
    const [beam, wall] = BOTH.map((name) => Object.values(found).find((one) => name.startsWith(one.a_name!))!);
    expect(beam).toMatchObject({ a_ifc_class: "IfcBeam", b_ifc_class: "IfcDuctSegment", type: "pierce" });
    expect(beam!.distance).toBeGreaterThanOrEqual(0.1);
    expect(wall).toMatchObject({ a_ifc_class: "IfcWall", b_ifc_class: "IfcPipeSegment", a_name: "Wall west" });
    expect(wall!.distance).toBeCloseTo(0.15, 3);
    // In the wall (x 0 to 0.3) on the pipe (y 6, z 1, radius 0.05), in IFC's axes.
    for (const [x, y, z] of [wall!.p1, wall!.p2]) {
      expect(x).toBeGreaterThanOrEqual(0);
      expect(x).toBeLessThanOrEqual(0.3);
      expect(Math.hypot(y - 6, z - 1)).toBeLessThanOrEqual(0.051);
    }
  });

  test("writes the same JSON to /output/clash", async () => {
    const { body } = await ask({});
    expect(await Bun.file(box.output("clash/clashes.json")).json()).toEqual(body.result);
  });

  test("a tolerance greater than the depth hides them", async () => {
    expect(await clashes({ tolerance: 0.2 })).toEqual({});
    expect(names(await clashes({ tolerance: 0.14 }))).toEqual(["Wall west – Water pipe"]);
  });

  test("without b looks within a, and the house alone is clean", async () => {
    expect(names(await clashes({}, [house], []))).toEqual([]);
    expect(names(await clashes({}, [house, mep], []))).toEqual(BOTH);
    expect((await ask({}, [house], null)).status).toBe(200);
  });

  test("a wall that was modelled twice is a clash, though no corner of one lies in the other", async () => {
    const b = new Building("twice.ifc", 1);
    const storey = b.storey("Ground floor", 0);
    for (const name of ["Wall", "Wall again"]) {
      const shape = b.shape([b.box({ min: [0, 0, 0], max: [4, 0.3, 3] })], [1, 1, 1]);
      b.element({ type: "IfcWall", name, shape, rest: [null], storey });
    }
    await Bun.write(box.uploads("twice.ifc"), b.finish());
    const found = await clashes({}, [{ file: "twice.ifc" }], []);
    expect(names(found)).toEqual(["Wall – Wall again"]);
    expect(Object.values(found)[0]!.distance).toBeCloseTo(0.15, 2);
  });

  test("a file against its copy is no clash of each element with itself", async () => {
    await copyFile(box.uploads("house.ifc"), box.uploads("copy.ifc"));
    expect(await clashes({}, [house], [{ file: "copy.ifc" }])).toEqual({});
  });
});

describe("selectors", () => {
  test("i takes only what it names, e leaves it out, a takes all", async () => {
    const by = (selector: string | null, mode: string) => clashes({}, [{ ...house, selector, mode }], [mep]);
    expect(names(await by("IfcWall, IfcSlab", "i"))).toEqual(["Wall west – Water pipe"]);
    expect(names(await by("IfcWall", "e"))).toEqual(["Beam 1 – Supply duct"]);
    expect(names(await by("IfcElement", "i"))).toEqual(BOTH);
    expect(names(await by("IfcWall", "a"))).toEqual(BOTH);
    expect(names(await by(null, "e"))).toEqual(BOTH);
    expect(names(await by("IfcElement, ! IfcWall", "i"))).toEqual(["Beam 1 – Supply duct"]);
    expect(names(await by(CLASHES[0]![0], "i"))).toEqual(["Beam 1 – Supply duct"]);
  });

  test("what it does not understand is 422", async () => {
    expect((await ask({}, [{ ...house, selector: "Name=Wall", mode: "i" }])).status).toBe(422);
    expect((await ask({}, [{ ...house, selector: "IfcWal", mode: "i" }])).body.detail).toContain("IfcWal");
  });
});

describe("collision", () => {
  test("without touching finds the overlaps", async () => {
    expect(names(await clashes({ mode: "collision" }))).toEqual(BOTH);
    expect(await clashes({ mode: "collision" }, [house], [])).toEqual({});
  });

  test("allow_touching finds neighbours too, with a point on both", async () => {
    const found = await clashes({ mode: "collision", allow_touching: true }, [house], []);
    expect(names(found)).toContain("Ground slab – Wall south");
    const wall = Object.values(found).find((one) => `${one.a_name}${one.b_name}` === "Ground slabWall south")!;
    expect(wall.p1[2]).toBeCloseTo(0, 3);
    expect(wall.p1[1]).toBeLessThanOrEqual(0.301);
  });
});

describe("clearance", () => {
  test("finds more than intersection, with the distance", async () => {
    const found = await clashes({ mode: "clearance", clearance: 0.3, check_all: true });
    expect(names(found)).toEqual(expect.arrayContaining([...BOTH, "Wall west – Basin", "Roof slab – Riser"]));
    const waste = Object.values(found).find((one) => one.b_name === "Waste pipe")!;
    expect(waste).toMatchObject({ a_name: "Wall east", type: "clearance" });
    expect(waste.distance).toBeCloseTo(0.05, 2);
    const tight = await clashes({ mode: "clearance", clearance: 0.08 });
    expect(names(tight)).not.toContain("Wall west – Basin");
    expect(names(tight)).toEqual(expect.arrayContaining(BOTH));
  });

  test("needs a clearance greater than 0", async () => {
    for (const clearance of [0, -1]) {
      const { status, body } = await ask({ mode: "clearance", clearance });
      expect(status).toBe(400);
      expect(body.detail).toContain("greater than 0");
    }
  });
});

test("smart_grouping numbers what lies together", async () => {
  const far = Object.values(await clashes({ smart_grouping: true, max_cluster_distance: 1 }));
  expect(new Set(far.map((one) => one.smart_group)).size).toBe(2);
  const near = Object.values(await clashes({ smart_grouping: true, max_cluster_distance: 50 }));
  expect(near.map((one) => one.smart_group)).toEqual([0, 0]);
});

const samples = join(import.meta.dir, "../../../shared/data/ifc");
test.skipIf(!existsSync(samples))("two real models of one building touch and do not overlap", async () => {
  for (const name of ["Building-Architecture.ifc", "Building-Structural.ifc"]) {
    await copyFile(join(samples, name), box.uploads(name));
  }
  const pair = [[{ file: "Building-Architecture.ifc" }], [{ file: "Building-Structural.ifc" }]] as const;
  expect(await clashes({}, [...pair[0]], [...pair[1]])).toEqual({});
  const touching = await clashes({ mode: "collision", allow_touching: true }, [...pair[0]], [...pair[1]]);
  expect(names(touching)).toContain("floor – house - foundation");
});

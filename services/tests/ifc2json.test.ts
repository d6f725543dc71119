import { expect, test } from "bun:test";
import { app } from "../ifc2json.ts";
import type { Document } from "../lib/tojson.ts";
import { call, sandbox } from "./setup.ts";

const box = await sandbox();

async function json(filename: string, output_filename: string): Promise<Document> {
  const { status, body } = await call(app, "/ifc2json", { filename, output_filename });
  expect(body).toMatchObject({
    success: true,
    message: output_filename,
    output_path: `/output/json/${output_filename}`,
  });
  expect(status).toBe(200);
  return Bun.file(box.output(`json/${output_filename}`)).json();
}

test("a wall comes with attributes, property sets, quantities, storey, type and materials", async () => {
  const document = await json("house.ifc", "house.json");
  expect(document).toMatchObject({ file: "house.ifc", schema: "IFC4", length_unit: 1 });
  const wall = document.entities.find((entity) => entity.Name === "Wall south")!;
  expect(wall).toMatchObject({
    type: "IfcWall",
    attributes: { Tag: "Wall south", PredefinedType: "SOLIDWALL" },
    property_sets: {
      Pset_WallCommon: { IsExternal: true, LoadBearing: true, FireRating: "REI 60", ThermalTransmittance: 0.24 },
    },
    quantities: { Qto_WallBaseQuantities: { Length: 10, Width: 0.3, Height: 2.8, GrossVolume: 8.4 } },
    container: { type: "IfcBuildingStorey", Name: "Ground floor" },
    type_object: { type: "IfcWallType", Name: "Outer wall 300" },
  });
  expect(JSON.stringify(wall.materials)).toContain("Insulation");
  expect(wall.GlobalId).toMatch(/^[0-3][\w$]{21}$/);
});

test("every object with a GlobalId is there, and stands in the tree", async () => {
  const { entities } = await json("house.ifc", "house.json");
  const of = (type: string) => entities.filter((entity) => entity.type === type);
  expect(of("IfcProject")).toHaveLength(1);
  expect(of("IfcSite")[0]?.container?.type).toBe("IfcProject");
  expect(of("IfcStairFlight")[0]?.container).toMatchObject({ type: "IfcStair", Name: "Stair" });
  expect(of("IfcOpeningElement").map((entity) => entity.container?.type)).toEqual(Array(5).fill("IfcWall"));
  expect(of("IfcWallType")).toHaveLength(1);
  expect(new Set(entities.map((entity) => entity.GlobalId)).size).toBe(entities.length);
});

test("the unit of a file in millimetres is told", async () => {
  const document = await json("house-mep.ifc", "mep.json");
  expect(document.length_unit).toBe(0.001);
  const duct = document.entities.find((entity) => entity.Name === "Supply duct")!;
  expect(duct.quantities.Qto_DuctSegmentBaseQuantities).toEqual({ Length: 8000 });
  expect(duct.materials).toEqual([{ type: "IfcMaterial", Name: "Galvanised steel" }]);
});

test("text outside ASCII and a property named __proto__ survive", async () => {
  const text = await Bun.file(box.uploads("house.ifc")).text();
  const odd = text.replaceAll("'FireRating'", "'__proto__'").replaceAll("'Wall south'", "'W\\X2\\00E4\\X0\\nde ''S'''");
  await Bun.write(box.uploads("odd.ifc"), odd);
  const { entities } = await json("odd.ifc", "odd.json");
  const wall = entities.find((entity) => entity.Name === "Wände 'S'");
  expect(Object.entries(wall!.property_sets.Pset_WallCommon!)).toContainEqual(["__proto__", "REI 60"]);
});

test("the model itself is never overwritten", async () => {
  const before = await Bun.file(box.uploads("house.ifc")).text();
  const payload = { filename: "house.ifc", output_filename: "/uploads/house.ifc" };
  expect((await call(app, "/ifc2json", payload)).status).toBe(400);
  expect(await Bun.file(box.uploads("house.ifc")).text()).toBe(before);
});

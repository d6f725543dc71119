/** Elements → Wavefront OBJ with its material file. */
import { basename } from "node:path";
import { type Element, moved, type Piece, turned, zUp } from "./meshes.ts";

const materialName = (color: Piece["color"]) => `color-${color.map((part) => Math.round(part * 255)).join("-")}`;

/**
 * Writes one `o` a element, `usemtl` by colour. Z up, as in the IFC file; OBJ itself knows neither axes nor units.
 * @param unit    metres in one unit of the output: 1 writes metres, 0.001 millimetres
 * @param mtlName the final name of the material file, as `mtllib` must have it
 */
export async function writeObj(
  elements: Element[],
  objPath: string,
  mtlPath: string,
  { unit, mtlName }: { unit: number; mtlName: string },
): Promise<void> {
  const out = Bun.file(objPath).writer({ highWaterMark: 1 << 20 });
  const number = (value: number) => String(Math.round(value * 1e6) / 1e6 || 0);
  const row = (word: string, point: readonly [number, number, number]) => `${word} ${point.map(number).join(" ")}\n`;
  out.write(`# longhaul ifcconvert\nmtllib ${basename(mtlName)}\n`);
  let base = 1; // OBJ counts from 1, over the whole file
  const colors = new Map<string, Piece["color"]>();
  for (const element of elements) {
    out.write(`o ${element.globalId}\n# ${element.type} ${(element.name ?? "").replace(/[\r\n]+/g, " ")}\n`);
    for (const { triangles, matrix, color } of element.pieces) {
      colors.set(materialName(color), color);
      const { positions: p, normals: n, indices } = triangles;
      let text = "";
      for (let i = 0; i < p.length; i += 3) {
        const [x, y, z] = zUp(moved(matrix, p[i]!, p[i + 1]!, p[i + 2]!));
        text += row("v", [x / unit, y / unit, z / unit]);
      }
      for (let i = 0; i < n.length; i += 3) text += row("vn", zUp(turned(matrix, n[i]!, n[i + 1]!, n[i + 2]!)));
      text += `usemtl ${materialName(color)}\n`;
      const corner = (i: number) => `${base + i}//${base + i}`;
      for (let i = 0; i < indices.length; i += 3) {
        text += `f ${corner(indices[i]!)} ${corner(indices[i + 1]!)} ${corner(indices[i + 2]!)}\n`;
      }
      base += p.length / 3;
      out.write(text);
    }
    await out.flush();
  }
  await out.end();
  const entry = ([name, [r, g, b, a]]: [string, Piece["color"]]) => `newmtl ${name}\nKd ${r} ${g} ${b}\nd ${a}\n`;
  await Bun.write(mtlPath, [...colors].map(entry).join("\n"));
}

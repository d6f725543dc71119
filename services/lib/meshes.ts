/** Triangles of IFC elements. Axes are those of web-ifc and glTF: Y up, metres. Runs in a work process. */
import type { FlatMesh, PlacedGeometry } from "web-ifc";
import { Fault, messageOf } from "./fault.ts";
import type { Model } from "./ifc.ts";
import { textOf } from "./ifc.ts";
import { report } from "./work.ts";

export type Vertices = Float32Array<ArrayBuffer>;

/** Indexed triangles in their own coordinates (often millimetres about their centre); one may serve many elements. */
export interface Triangles {
  /** x, y, z … */
  positions: Vertices;
  /** x, y, z …, unit length, one a position. */
  normals: Vertices;
  indices: Uint32Array<ArrayBuffer>;
}

export interface Piece {
  /** The geometry's express id: equal ids share their triangles. */
  geometry: number;
  triangles: Triangles;
  /** Red, green, blue, alpha; 0 to 1. */
  color: [number, number, number, number];
  /** Column-major 4×4 from the triangles' coordinates to the model's: Y up, metres, doubles. */
  matrix: number[];
}

export interface Element {
  id: number;
  globalId: string;
  /** "IfcWall" */
  type: string;
  name: string | null;
  pieces: Piece[];
}

/** What a viewer never wants to see unless it is asked for by name. */
const UNSEEN = [
  ...["IfcFeatureElementSubtraction", "IfcVirtualElement", "IfcAnnotation", "IfcGrid"],
  ...["IfcSpace", "IfcSpatialZone"], // volumes that would hide the building
];

/**
 * Ids of the products to take.
 * @param include  type names, empty = every visible product; a name takes its subtypes along
 * @param exclude  type names, applied after include
 * @throws Fault 422 for an unknown type
 */
export function productIds(model: Model, include: string[], exclude: string[]): number[] {
  const products = new Set(model.idsOf("IfcProduct"));
  const taken = include.length ? include.flatMap((type) => model.idsOf(type)) : [...products];
  const dropped = new Set([...(include.length ? [] : UNSEEN), ...exclude].flatMap((type) => model.idsOf(type)));
  return [...new Set(taken)].filter((id) => products.has(id) && !dropped.has(id)).sort((a, b) => a - b);
}

/**
 * The elements among `ids` that have triangles, in the order of `ids`.
 * @throws Fault 422 when the geometry engine gives up on the model
 */
export function elementsOf(model: Model, ids: number[], until = 1): Element[] {
  const { api } = model;
  const seen = new Map<number, Triangles>();
  const elements: Element[] = [];

  const trianglesOf = (id: number): Triangles => {
    const known = seen.get(id);
    if (known) return known;
    const geometry = api.GetGeometry(model.id, id);
    // Copies: the arrays that web-ifc hands out are views of WASM memory that moves and is freed.
    const vertices = api.GetVertexArray(geometry.GetVertexData(), geometry.GetVertexDataSize());
    const indices = api.GetIndexArray(geometry.GetIndexData(), geometry.GetIndexDataSize());
    const count = vertices.length / 6; // position and normal, interleaved
    const positions = new Float32Array(count * 3);
    const normals = new Float32Array(count * 3);
    for (let i = 0; i < count; i++) {
      positions.set(vertices.subarray(i * 6, i * 6 + 3), i * 3);
      normals.set(vertices.subarray(i * 6 + 3, i * 6 + 6), i * 3);
    }
    const triangles = { positions, normals, indices: new Uint32Array(indices) };
    geometry.delete();
    seen.set(id, triangles);
    return triangles;
  };

  const pieceOf = (placed: PlacedGeometry): Piece => ({
    geometry: placed.geometryExpressID,
    triangles: trianglesOf(placed.geometryExpressID),
    color: [placed.color.x, placed.color.y, placed.color.z, placed.color.w],
    matrix: placed.flatTransformation.slice(),
  });

  const take = (mesh: FlatMesh, index: number, total: number) => {
    const pieces = Array.from({ length: mesh.geometries.size() }, (_, i) => pieceOf(mesh.geometries.get(i)));
    const drawn = pieces.filter((piece) => piece.triangles.indices.length > 0 && piece.matrix.every(Number.isFinite));
    if (drawn.length < pieces.length) {
      console.error(`#${mesh.expressID}: ${pieces.length - drawn.length} piece(s) without triangles left out`);
    }
    if (drawn.length > 0) {
      const line = model.line(mesh.expressID);
      elements.push({
        id: mesh.expressID,
        globalId: textOf(line.GlobalId) ?? `#${mesh.expressID}`,
        type: model.typeOf(mesh.expressID),
        name: textOf(line.Name),
        pieces: drawn,
      });
    }
    report((until * index) / Math.max(1, total), `geometry of ${index + 1} of ${total} products`);
  };

  try {
    api.StreamMeshes(model.id, ids, take);
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw new Fault(422, `The geometry of ${model.file} cannot be computed: ${messageOf(error)}`);
  }
  return elements;
}

/** A point moved by a column-major 4×4, in doubles. */
export function moved(m: number[], x: number, y: number, z: number): [number, number, number] {
  return [
    m[0]! * x + m[4]! * y + m[8]! * z + m[12]!,
    m[1]! * x + m[5]! * y + m[9]! * z + m[13]!,
    m[2]! * x + m[6]! * y + m[10]! * z + m[14]!,
  ];
}

/** A normal turned by a column-major 4×4 whose scale is uniform, as IFC placements are; unit length again. */
export function turned(m: number[], x: number, y: number, z: number): [number, number, number] {
  const a = m[0]! * x + m[4]! * y + m[8]! * z;
  const b = m[1]! * x + m[5]! * y + m[9]! * z;
  const c = m[2]! * x + m[6]! * y + m[10]! * z;
  const length = Math.hypot(a, b, c) || 1;
  return [a / length, b / length, c / length];
}

/** web-ifc's and glTF's Y-up axes to IFC's Z-up. */
export const zUp = ([x, y, z]: readonly [number, number, number]): [number, number, number] => [x, -z || 0, y];

/** Below this distance from the origin 32-bit floats still resolve 0.1 mm, and a model stays where it is. */
const NEAR_M = 1000;

/**
 * The offset that brings a georeferenced model near the origin, in whole kilometres: two files of one site get the
 * same one (unless they lie across a kilometre line) and still fit together. Zero for a model that is near.
 */
export function farOffset(elements: Element[]): [number, number, number] {
  const first = elements[0]?.pieces[0]?.matrix;
  if (!first) return [0, 0, 0];
  const at = [first[12]!, first[13]!, first[14]!] as const;
  if (Math.max(...at.map(Math.abs)) <= NEAR_M) return [0, 0, 0];
  return [kilometres(at[0]), kilometres(at[1]), kilometres(at[2])];
}

const kilometres = (metres: number) => Math.round(metres / 1000) * 1000 || 0;

/** Moves all elements by -offset, in place. */
export function shift(elements: Element[], offset: readonly [number, number, number]): void {
  for (const { matrix } of elements.flatMap((element) => element.pieces)) {
    for (const i of [0, 1, 2] as const) matrix[12 + i]! -= offset[i];
  }
}

/**
 * Merges vertices that have the same position (to a millionth of the size) and the same normal (to 1 %), and drops
 * triangles that collapse. Shared triangles are welded once.
 */
export function welded({ positions, normals, indices }: Triangles): Triangles {
  let size = 0;
  for (const value of positions) size = Math.max(size, Math.abs(value));
  const grain = size / 1e6 || 1;
  const ids = new Map<string, number>();
  const kept: number[] = [];
  const map = new Uint32Array(positions.length / 3);
  for (let i = 0; i < map.length; i++) {
    let key = "";
    for (let k = 3 * i; k < 3 * i + 3; k++) {
      key += `${Math.round(positions[k]! / grain)},${Math.round(normals[k]! * 100)};`;
    }
    let id = ids.get(key);
    if (id === undefined) {
      id = kept.length;
      ids.set(key, id);
      kept.push(i);
    }
    map[i] = id;
  }
  const pick = (from: Float32Array) =>
    Float32Array.from({ length: kept.length * 3 }, (_, k) => from[3 * kept[Math.floor(k / 3)]! + (k % 3)]!);
  const out: number[] = [];
  for (let i = 0; i < indices.length; i += 3) {
    const [a, b, c] = [map[indices[i]!]!, map[indices[i + 1]!]!, map[indices[i + 2]!]!];
    if (a !== b && b !== c && c !== a) out.push(a, b, c);
  }
  return { positions: pick(positions), normals: pick(normals), indices: Uint32Array.from(out) };
}

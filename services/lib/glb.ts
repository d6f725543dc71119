/** Elements → a binary glTF 2.0 file. */
import { Document, type Material, type Mesh, type mat4, NodeIO } from "@gltf-transform/core";
import { type Element, moved, type Piece, type Triangles, turned, type Vertices } from "./meshes.ts";

const UNMOVED: mat4 = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];

export interface GlbOptions {
  /** Coordinates of the model written into the vertices; else kept in each node's matrix, and meshes are shared. */
  bake: boolean;
  /** Goes into the scene's extras. */
  extras: Record<string, unknown>;
}

/**
 * One node an element, named by its GlobalId, extras {GlobalId, type, Name, expressID}; an element of several pieces
 * has them as children. A material a colour. Y up, metres, as glTF demands.
 */
export async function glbOf(elements: Element[], { bake, extras }: GlbOptions): Promise<Uint8Array> {
  const document = new Document();
  document.getRoot().getAsset().generator = "longhaul ifcconvert";
  const buffer = document.createBuffer();
  const scene = document.createScene("model").setExtras(extras);
  document.getRoot().setDefaultScene(scene);
  const materials = new Map<string, Material>();
  const meshes = new Map<string, Mesh>();

  const materialOf = (color: Piece["color"]): Material => {
    const key = color.map((part) => part.toFixed(3)).join();
    let material = materials.get(key);
    if (!material) {
      material = document
        .createMaterial(`color ${color.map((part) => part.toFixed(2)).join(" ")}`)
        .setBaseColorFactor(color)
        .setMetallicFactor(0)
        .setRoughnessFactor(0.9)
        // IFC does not promise that faces are oriented; a single-sided material would make holes.
        .setDoubleSided(true);
      if (color[3] < 1) material.setAlphaMode("BLEND");
      materials.set(key, material);
    }
    return material;
  };

  const meshOf = (name: string, { positions, normals, indices }: Triangles, color: Piece["color"]): Mesh => {
    const accessor = (type: "VEC3" | "SCALAR", array: Vertices | Uint32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>) =>
      document.createAccessor().setType(type).setArray(array).setBuffer(buffer);
    const primitive = document
      .createPrimitive()
      .setAttribute("POSITION", accessor("VEC3", positions))
      .setAttribute("NORMAL", accessor("VEC3", normals))
      .setIndices(accessor("SCALAR", positions.length / 3 <= 65_535 ? Uint16Array.from(indices) : indices))
      .setMaterial(materialOf(color));
    return document.createMesh(name).addPrimitive(primitive);
  };

  for (const element of elements) {
    const nodes = element.pieces.map((piece) => {
      const node = document.createNode().setMatrix(piece.matrix as mat4);
      // A node keeps rotation and scale apart; a placement that shears can only be written into the vertices.
      const sheared = node.getMatrix().some((value, i) => Math.abs(value - piece.matrix[i]!) > 1e-6);
      if (bake || sheared) return node.setMatrix(UNMOVED).setMesh(meshOf(element.type, baked(piece), piece.color));
      const key = `${piece.geometry}/${piece.color.join()}`;
      const mesh = meshes.get(key) ?? meshOf(element.type, piece.triangles, piece.color);
      meshes.set(key, mesh);
      return node.setMesh(mesh);
    });
    let top = nodes[0]!;
    if (nodes.length > 1) {
      top = document.createNode();
      for (const [i, node] of nodes.entries()) top.addChild(node.setName(`${element.globalId}/${i}`));
    }
    const { globalId, type, name, id } = element;
    scene.addChild(top.setName(globalId).setExtras({ GlobalId: globalId, type, Name: name, expressID: id }));
  }
  return new NodeIO().writeBinary(document);
}

/** The triangles in the model's coordinates. */
function baked({ triangles, matrix }: Piece): Triangles {
  const positions = new Float32Array(triangles.positions.length);
  const normals = new Float32Array(triangles.normals.length);
  for (let i = 0; i < positions.length; i += 3) {
    const [x, y, z] = [i, i + 1, i + 2] as const;
    positions.set(moved(matrix, triangles.positions[x]!, triangles.positions[y]!, triangles.positions[z]!), i);
    normals.set(turned(matrix, triangles.normals[x]!, triangles.normals[y]!, triangles.normals[z]!), i);
  }
  return { positions, normals, indices: triangles.indices };
}

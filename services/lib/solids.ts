/** Distances and depths between triangle meshes, with three-mesh-bvh. Coordinates: any common frame, metres. */
import { Box3, BufferAttribute, BufferGeometry, DoubleSide, Line3, Matrix4, Ray, Vector3 } from "three";
import { type ExtendedTriangle, MeshBVH } from "three-mesh-bvh";
import { type Element, moved, type Piece } from "./meshes.ts";

/** Nearer than this two surfaces touch; shallower than this an overlap is the noise of 32-bit coordinates. */
export const TOUCH_M = 1e-4;

const IDENTITY = new Matrix4();
/** Odd directions, so that a ray hardly ever runs along a face or through an edge of a building. */
const PROBES = [new Vector3(0.5377, 0.8339, 0.1247), new Vector3(-0.2588, 0.3622, 0.8954)].map((v) => v.normalize());

export interface Contact {
  /** 'protrusion': a corner of one lies in the other; 'pierce': an edge or face of one passes through the other. */
  kind: "protrusion" | "pierce";
  /** Metres from `p1`, on the surface of one, to `p2`, the nearest on the surface of the other. */
  depth: number;
  p1: Vector3;
  p2: Vector3;
}

export interface Near {
  distance: number;
  p1: Vector3;
  p2: Vector3;
}

/** One piece of an element. IFC solids are closed; where a piece is not, "inside" is a vote of rays. */
export class Solid {
  readonly geometry = new BufferGeometry();
  readonly box = new Box3();
  private tree: MeshBVH | undefined;

  /** @param origin  subtracted in doubles before the coordinates become 32-bit floats */
  constructor({ triangles, matrix }: Piece, origin: readonly [number, number, number]) {
    const { positions } = triangles;
    const placed = new Float32Array(positions.length);
    const m = matrix.slice();
    for (const i of [0, 1, 2] as const) m[12 + i]! -= origin[i];
    for (let i = 0; i < placed.length; i += 3) {
      placed.set(moved(m, positions[i]!, positions[i + 1]!, positions[i + 2]!), i);
    }
    const attribute = new BufferAttribute(placed, 3);
    this.geometry.setAttribute("position", attribute);
    // A copy: the tree reorders the index, and other elements share the triangles.
    this.geometry.setIndex(new BufferAttribute(triangles.indices.slice(), 1));
    this.box.setFromBufferAttribute(attribute);
  }

  /** Built at the first question: most elements never come near another. */
  get bvh(): MeshBVH {
    if (!this.tree) {
      this.tree = new MeshBVH(this.geometry);
      this.geometry.boundsTree = this.tree;
    }
    return this.tree;
  }

  /** Whether the point is strictly within: all probes must agree, so a doubtful point counts as outside. */
  contains(point: Vector3): boolean {
    if (!this.box.containsPoint(point)) return false;
    return PROBES.every((direction) => this.crossings(point, direction).length % 2 === 1);
  }

  /** Distances at which a ray meets the surface, ascending; two hits on one shared edge count once. */
  crossings(from: Vector3, direction: Vector3): number[] {
    const hits = this.bvh.raycast(new Ray(from, direction), DoubleSide).map((hit) => hit.distance);
    hits.sort((a, b) => a - b);
    return hits.filter((distance, i) => i === 0 || distance - hits[i - 1]! > 1e-6);
  }

  nearest(point: Vector3): { point: Vector3; distance: number } {
    const target = { point: new Vector3(), distance: Number.POSITIVE_INFINITY, faceIndex: -1 };
    return this.bvh.closestPointToPoint(point, target) ?? target;
  }

  /** Triangles that reach into a box. */
  trianglesIn(box: Box3): [Vector3, Vector3, Vector3][] {
    const found: [Vector3, Vector3, Vector3][] = [];
    this.bvh.shapecast({
      intersectsBounds: (bounds) => box.intersectsBox(bounds),
      intersectsTriangle: (triangle: ExtendedTriangle) => {
        if (box.intersectsTriangle(triangle)) found.push([triangle.a.clone(), triangle.b.clone(), triangle.c.clone()]);
        return false;
      },
    });
    return found;
  }
}

export const solidsOf = (element: Element, origin: readonly [number, number, number]): Solid[] =>
  element.pieces.map((piece) => new Solid(piece, origin));

/**
 * How deep the surface of one solid lies in the other, at the deepest of these samples: corners, middles of the
 * stretches of edges inside, and middles of the parts of faces that may be inside. It is a lower bound, exact for a
 * corner in a face, which is what coordination work asks about: it says by how much at least to move.
 *
 * @param beyond    metres; shallower contacts are no contact
 * @param firstOnly stop at the first contact deeper than `beyond` instead of looking for the deepest
 * @returns undefined when the solids are apart, touch, or overlap by less than `beyond`
 */
export function overlap(a: Solid, b: Solid, beyond: number, firstOnly: boolean): Contact | undefined {
  const common = a.box.clone().intersect(b.box);
  if (common.isEmpty()) return undefined;
  // No sample can lie deeper than half of the thinnest side of the other solid's box.
  if (Math.max(thickness(a), thickness(b)) / 2 <= beyond) return undefined;
  let best: Contact | undefined;
  const enough = () => firstOnly && best !== undefined;

  const probe = (inner: Solid, outer: Solid, point: Vector3, kind: Contact["kind"]): void => {
    if (!outer.box.containsPoint(point)) return;
    const { point: surface, distance } = outer.nearest(point);
    if (distance <= Math.max(beyond, best?.depth ?? 0, TOUCH_M) || !outer.contains(point)) return;
    const [p1, p2] = inner === a ? [point, surface] : [surface, point];
    best = { kind, depth: distance, p1: p1.clone(), p2: p2.clone() };
  };

  for (const [inner, outer] of [
    [a, b],
    [b, a],
  ] as const) {
    for (const triangle of inner.trianglesIn(common)) {
      for (const corner of triangle) probe(inner, outer, corner, "protrusion");
      if (enough()) return best;
      for (const [i, from] of triangle.entries()) {
        for (const point of chordMiddles(outer, from, triangle[(i + 1) % 3]!)) probe(inner, outer, point, "pierce");
      }
      const middle = clippedCentre(triangle, common);
      if (middle) probe(inner, outer, middle, "pierce");
      if (enough()) return best;
    }
  }
  return best ?? core(a, b, common, beyond);
}

/** Faces tried for a common core: enough to find a duplicate, few enough not to matter. */
const CORE_PROBES = 32;

/**
 * A point within both solids, for those whose surfaces coincide: a wall that was modelled twice has no corner, edge or
 * face inside its double. The depth is that of the point under the nearer surface.
 */
function core(a: Solid, b: Solid, common: Box3, beyond: number): Contact | undefined {
  const points = [common.getCenter(new Vector3())];
  for (const triangle of a.trianglesIn(common).slice(0, CORE_PROBES)) {
    const [p, q, r] = triangle;
    const normal = q.clone().sub(p).cross(r.clone().sub(p)).normalize();
    const middle = clippedCentre(triangle, common);
    if (middle) points.push(...[1, -1].flatMap((side) => across(a, middle, normal.clone().multiplyScalar(side))));
  }
  let best: Contact | undefined;
  for (const point of points) {
    const [onA, onB] = [a.nearest(point), b.nearest(point)];
    const depth = Math.min(onA.distance, onB.distance);
    if (depth <= Math.max(beyond, best?.depth ?? 0, TOUCH_M) || !a.contains(point) || !b.contains(point)) continue;
    const surface = onA.distance < onB.distance ? onA.point : onB.point;
    best = { kind: "protrusion", depth, p1: point.clone(), p2: surface.clone() };
  }
  return best;
}

/** Half way from a point of the surface to the surface on the other side; nothing where the ray leaves the solid. */
function across(solid: Solid, from: Vector3, direction: Vector3): Vector3[] {
  const far = solid.crossings(from, direction).find((distance) => distance > TOUCH_M);
  return far === undefined ? [] : [from.clone().addScaledVector(direction, far / 2)];
}

const thickness = ({ box }: Solid) => Math.min(...box.getSize(new Vector3()).toArray());

/** Middles of the stretches into which the surface of `outer` cuts an edge. */
function chordMiddles(outer: Solid, from: Vector3, to: Vector3): Vector3[] {
  const length = from.distanceTo(to);
  if (length < TOUCH_M) return [];
  const direction = to.clone().sub(from).divideScalar(length);
  const cuts = outer.crossings(from, direction).filter((distance) => distance < length);
  if (cuts.length === 0) return [];
  const stops = [0, ...cuts, length];
  return stops.slice(1).map((stop, i) => from.clone().addScaledVector(direction, (stop + stops[i]!) / 2));
}

/** The middle of the part of a triangle that lies in a box; undefined when nothing is left. */
function clippedCentre(triangle: [Vector3, Vector3, Vector3], box: Box3): Vector3 | undefined {
  let polygon: Vector3[] = triangle;
  for (const axis of [0, 1, 2] as const) {
    for (const [side, limit] of [
      [1, box.min.getComponent(axis)],
      [-1, -box.max.getComponent(axis)],
    ] as const) {
      // Sutherland–Hodgman against one plane; `above` is ≥ 0 on the side that stays.
      const above = (point: Vector3) => side * point.getComponent(axis) - limit;
      const next: Vector3[] = [];
      for (const [i, point] of polygon.entries()) {
        const before = polygon.at(i - 1)!;
        const [h, h0] = [above(point), above(before)];
        if (h >= 0 !== h0 >= 0) next.push(before.clone().lerp(point, h0 / (h0 - h)));
        if (h >= 0) next.push(point);
      }
      polygon = next;
    }
  }
  if (polygon.length < 3) return undefined;
  return polygon.reduce((sum, point) => sum.add(point), new Vector3()).divideScalar(polygon.length);
}

/**
 * The nearest two points of two surfaces.
 * @returns undefined when they are `limit` or more apart
 */
export function gap(a: Solid, b: Solid, limit: number): Near | undefined {
  const reach = a.box.clone().expandByScalar(limit);
  if (!reach.intersectsBox(b.box)) return undefined;
  void b.bvh; // closestPointToGeometry is only fast when the other geometry has its tree
  const [on1, on2] = [
    { point: new Vector3(), distance: 0, faceIndex: -1 },
    { point: new Vector3(), distance: 0, faceIndex: -1 },
  ];
  const found = a.bvh.closestPointToGeometry(b.geometry, IDENTITY, on1, on2, 0, limit);
  if (!found || found.distance >= limit) return undefined;
  // For coplanar triangles the library says 0 and gives the origin as the point: look for a real one.
  if (found.distance === 0 && a.nearest(on1.point).distance > TOUCH_M) {
    return (
      touch(a, b) ?? touch(b, a) ?? { distance: 0, p1: a.nearest(on1.point).point, p2: b.nearest(on1.point).point }
    );
  }
  return { distance: found.distance, p1: on1.point, p2: on2.point };
}

/** A point of a face or corner of `a` that lies on the surface of `b`, for solids that are known to touch. */
function touch(a: Solid, b: Solid): Near | undefined {
  const common = a.box.clone().intersect(b.box).expandByScalar(TOUCH_M);
  for (const triangle of a.trianglesIn(common)) {
    const middle = clippedCentre(triangle, common);
    for (const point of middle ? [middle, ...triangle] : triangle) {
      if (b.nearest(point).distance <= TOUCH_M) return { distance: 0, p1: point, p2: point };
    }
  }
  return undefined;
}

export const middleOf = (p1: Vector3, p2: Vector3): Vector3 => new Line3(p1, p2).getCenter(new Vector3());

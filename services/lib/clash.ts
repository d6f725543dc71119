/** The work of ifcclash. A process of its own, started by ../ifcclash.ts. */
import { Box3, Vector3 } from "three";
import { Model } from "./ifc.ts";
import { type Element, elementsOf, zUp } from "./meshes.ts";
import { sourceIds } from "./select.ts";
import { gap, middleOf, overlap, type Solid, solidsOf, TOUCH_M } from "./solids.ts";
import { report, serveWork } from "./work.ts";

export interface Source {
  /** As the client wrote it; repeated in the result. */
  file: string;
  path: string;
  selector: string | null;
  mode: "a" | "i" | "e";
}

export interface ClashJob {
  sets: { name: string; a: Source[]; b: Source[] }[];
  partial: string;
  mode: "intersection" | "collision" | "clearance";
  /** Metres. */
  tolerance: number;
  clearance: number;
  checkAll: boolean;
  allowTouching: boolean;
  /** Clashes nearer than this many metres form a group; null: no groups. */
  groupWithin: number | null;
}

export interface Clash {
  a_global_id: string;
  b_global_id: string;
  a_ifc_class: string;
  b_ifc_class: string;
  a_name: string | null;
  b_name: string | null;
  type: "protrusion" | "pierce" | "collision" | "clearance";
  /** A point on a and one on b: metres, in the axes and at the place of the IFC files (Z up). */
  p1: [number, number, number];
  p2: [number, number, number];
  /** Metres: of penetration for protrusion and pierce, of the gap for clearance, else 0. */
  distance: number;
  smart_group?: number;
}

export interface ClashSet {
  name: string;
  a: Omit<Source, "path">[];
  b: Omit<Source, "path">[];
  mode: ClashJob["mode"];
  tolerance: number;
  clearance: number;
  check_all: boolean;
  allow_touching: boolean;
  clashes: Record<string, Clash>;
}

interface Body {
  element: Element;
  /** "path#id": the same element of the same file, whichever group it came by. */
  key: string;
  solids: Solid[];
  box: Box3;
}

async function clash(job: ClashJob): Promise<ClashSet[]> {
  const models = new Map<string, Model>();
  const bodies = new Map<string, Body>();
  let origin: readonly [number, number, number] | undefined;

  const groupOf = async (sources: Source[]): Promise<Body[]> => {
    const group = new Map<string, Body>();
    for (const source of sources) {
      const model = models.get(source.path) ?? (await Model.open(source.path));
      models.set(source.path, model);
      const ids = sourceIds(model, source.selector, source.mode);
      if (ids.length === 0) console.error(`${source.file}: the selector ${source.selector} leaves no element`);
      const fresh = ids.filter((id) => !bodies.has(`${source.path}#${id}`));
      for (const element of elementsOf(model, fresh, 0.5)) {
        const m = element.pieces[0]!.matrix;
        origin ??= [m[12]!, m[13]!, m[14]!];
        const solids = solidsOf(element, origin);
        const box = solids.reduce((all, solid) => all.union(solid.box), new Box3());
        const key = `${source.path}#${element.id}`;
        bodies.set(key, { element, key, solids, box });
      }
      for (const id of ids) {
        const body = bodies.get(`${source.path}#${id}`);
        if (body) group.set(body.key, body);
      }
    }
    return [...group.values()];
  };

  const result: ClashSet[] = [];
  for (const set of job.sets) {
    const a = await groupOf(set.a);
    const b = set.b.length ? await groupOf(set.b) : a;
    const reach = job.mode === "clearance" ? job.clearance : TOUCH_M;
    const pairs = pairsOf(a, b, reach);
    console.log(`${set.name}: ${a.length} against ${b.length} elements, ${pairs.length} pairs come near each other`);
    const clashes: Record<string, Clash> = {};
    for (const [i, [one, other]] of pairs.entries()) {
      report(0.5 + (0.5 * i) / pairs.length, `${set.name}: pair ${i + 1} of ${pairs.length}`);
      const found = test(one, other, job);
      if (!found) continue;
      clashes[`${one.element.globalId}-${other.element.globalId}`] = {
        a_global_id: one.element.globalId,
        b_global_id: other.element.globalId,
        a_ifc_class: one.element.type,
        b_ifc_class: other.element.type,
        a_name: one.element.name,
        b_name: other.element.name,
        type: found.type,
        p1: back(found.p1, origin!),
        p2: back(found.p2, origin!),
        distance: rounded(found.distance),
      };
    }
    if (job.groupWithin !== null) groupClashes(Object.values(clashes), job.groupWithin);
    console.log(`${set.name}: ${Object.keys(clashes).length} clashes`);
    const plain = ({ path: _, ...source }: Source) => source;
    const { mode, tolerance, clearance, checkAll, allowTouching } = job;
    result.push({
      ...{ name: set.name, a: set.a.map(plain), b: set.b.map(plain), mode, tolerance, clearance },
      ...{ check_all: checkAll, allow_touching: allowTouching, clashes },
    });
  }
  await Bun.write(job.partial, JSON.stringify(result, null, 1));
  return result;
}

interface Found {
  type: Clash["type"];
  p1: Vector3;
  p2: Vector3;
  distance: number;
}

/** The narrow phase for one pair. */
function test(a: Body, b: Body, job: ClashJob): Found | undefined {
  if (job.mode === "intersection") {
    const deep = deepest(a, b, job.tolerance, !job.checkAll);
    return deep && { type: deep.kind, p1: deep.p1, p2: deep.p2, distance: deep.depth };
  }
  const deep = deepest(a, b, TOUCH_M, true);
  if (job.mode === "collision") {
    if (deep) return { type: "collision", p1: deep.p1, p2: deep.p2, distance: 0 };
    if (!job.allowTouching) return undefined;
    const near = nearest(a, b, TOUCH_M, true);
    return near && { type: "collision", p1: near.p1, p2: near.p2, distance: 0 };
  }
  if (deep) return { type: "clearance", p1: deep.p1, p2: deep.p2, distance: 0 };
  const near = nearest(a, b, job.clearance, !job.checkAll);
  return near && { type: "clearance", ...near };
}

function deepest(a: Body, b: Body, beyond: number, firstOnly: boolean) {
  let best: ReturnType<typeof overlap>;
  for (const one of a.solids) {
    for (const other of b.solids) {
      const contact = overlap(one, other, Math.max(beyond, best?.depth ?? 0), firstOnly);
      if (contact) best = contact;
      if (best && firstOnly) return best;
    }
  }
  return best;
}

function nearest(a: Body, b: Body, limit: number, firstOnly: boolean) {
  let best: ReturnType<typeof gap>;
  for (const one of a.solids) {
    for (const other of b.solids) {
      const near = gap(one, other, Math.min(limit, best?.distance ?? limit));
      if (near) best = near;
      if (best && firstOnly) return best;
    }
  }
  return best;
}

/**
 * The broad phase: pairs whose boxes come within `reach` metres, swept along x; each pair once, whichever group its
 * members came by, and an element never with itself. First of a pair is the one in group a.
 */
function pairsOf(a: Body[], b: Body[], reach: number): [Body, Body][] {
  const inA = new Set(a.map(({ key }) => key));
  const inB = new Set(b.map(({ key }) => key));
  const at = new Map([...b, ...a].map(({ key }, i) => [key, i]));
  const before = (x: Body, y: Body) => at.get(x.key)! < at.get(y.key)!;
  const all = [...new Set([...a, ...b])].sort((x, y) => x.box.min.x - y.box.min.x || (x.key < y.key ? -1 : 1));
  const pairs: [Body, Body][] = [];
  let active: Body[] = [];
  for (const body of all) {
    active = active.filter((other) => other.box.max.x + reach >= body.box.min.x);
    for (const other of active) {
      if (!other.box.clone().expandByScalar(reach).intersectsBox(body.box)) continue;
      // A copy of a file against its original: the same element is no clash with itself.
      if (other.element.globalId === body.element.globalId) continue;
      const forth = inA.has(other.key) && inB.has(body.key);
      const back = inA.has(body.key) && inB.has(other.key);
      // Where both could be a, the order of the files decides, not that of the sweep.
      if (forth && (!back || before(other, body))) pairs.push([other, body]);
      else if (back) pairs.push([body, other]);
    }
    active.push(body);
  }
  return pairs.sort(([x1, y1], [x2, y2]) => at.get(x1.key)! - at.get(x2.key)! || at.get(y1.key)! - at.get(y2.key)!);
}

/** Numbers clashes from 0 so that two within `limit` metres of each other, directly or by others, share a number. */
function groupClashes(clashes: Clash[], limit: number): void {
  const points = clashes.map(({ p1, p2 }) => middleOf(new Vector3(...p1), new Vector3(...p2)));
  const order = points.map((_, i) => i).sort((i, j) => points[i]!.x - points[j]!.x);
  const parent = points.map((_, i) => i);
  const root = (i: number): number => {
    let at = i;
    while (parent[at] !== at) at = parent[at] = parent[parent[at]!]!;
    return at;
  };
  for (const [k, i] of order.entries()) {
    for (const j of order.slice(k + 1)) {
      if (points[j]!.x - points[i]!.x > limit) break;
      if (points[i]!.distanceTo(points[j]!) <= limit) parent[root(j)] = root(i);
    }
  }
  const numbers = new Map<number, number>();
  for (const [i, one] of clashes.entries()) {
    const group = root(i);
    if (!numbers.has(group)) numbers.set(group, numbers.size);
    one.smart_group = numbers.get(group)!;
  }
}

/** To a hundredth of a millimetre: below it 32-bit coordinates mean nothing. */
const rounded = (metres: number) => Math.round(metres * 1e5) / 1e5;

function back(point: Vector3, origin: readonly [number, number, number]): [number, number, number] {
  const [x, y, z] = zUp([point.x + origin[0], point.y + origin[1], point.z + origin[2]]);
  return [rounded(x), rounded(y), rounded(z)];
}

if (import.meta.main) serveWork(clash);

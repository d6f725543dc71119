/** Which elements a clash group takes: a subset of the selector language of IfcOpenShell. Runs in a work process. */
import { Fault } from "./fault.ts";
import { type Model, textOf } from "./ifc.ts";

/**
 * Ids by a selector: types ("IfcWall, IfcSlab", subtypes along) and GlobalIds, separated by commas, `|` or `+`;
 * "! IfcDoor" takes away again.
 * @throws Fault 422 for an unknown type or a filter on anything else
 */
export function select(model: Model, selector: string): number[] {
  const taken = new Set<number>();
  let byGlobalId: Map<string, number> | undefined;
  for (const raw of selector.split(/[,|+;]/)) {
    const word = raw.trim().replace(/^\./, "");
    if (word === "") continue;
    const name = word.replace(/^!\s*/, "");
    let ids: number[];
    if (/^ifc\w+$/i.test(name)) ids = substantial(model, model.idsOf(name));
    else if (/^[0-3][\w$]{21}$/.test(name)) {
      byGlobalId ??= new Map(model.idsOf("IfcProduct").map((id) => [textOf(model.line(id).GlobalId) ?? "", id]));
      const id = byGlobalId.get(name);
      ids = id === undefined ? [] : [id];
    } else {
      throw new Fault(422, `Selector ${JSON.stringify(word)} is not supported: name IFC types or GlobalIds`);
    }
    for (const id of ids) word.startsWith("!") ? taken.delete(id) : taken.add(id);
  }
  return [...taken];
}

/**
 * Without openings and other features: what cuts or marks an element has no substance of its own, and IfcElement means
 * things. A selector that names features alone (IfcOpeningElement) means them, and keeps them.
 */
function substantial(model: Model, ids: number[]): number[] {
  const features = new Set(model.idsOf("IfcFeatureElement"));
  const things = ids.filter((id) => !features.has(id));
  return things.length ? things : ids;
}

/**
 * The elements of one source of a group, with IfcClash's meaning of mode: "a" all, "i" those the selector names,
 * "e" all but those. No selector means all.
 */
export function sourceIds(model: Model, selector: string | null, mode: "a" | "i" | "e"): number[] {
  const all = substantial(model, model.idsOf("IfcElement"));
  if (!selector?.trim() || mode === "a") return all;
  const selected = new Set(select(model, selector));
  if (mode === "e") return all.filter((id) => !selected.has(id));
  const products = new Set(model.idsOf("IfcProduct"));
  return [...selected].filter((id) => products.has(id)).sort((a, b) => a - b);
}

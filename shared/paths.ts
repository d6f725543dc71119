/**
 * Paths that clients name. The gateway never resolves them: each microservice maps /uploads/… by its own
 * settings. Here they are judged: what would leave the volumes is refused before a job exists.
 */
import { Fault, type FieldFault } from "./faults.ts";
import type { Operation } from "./services.ts";

/** The volumes as clients and microservices name them. */
export const VOLUMES = ["/uploads", "/output", "/examples"] as const;

/** Why a path may not be used, or undefined when it may. Relative ones are the microservice's to resolve. */
export function pathFault(path: string): string | undefined {
  if (path.includes("\0")) return "holds a NUL character";
  if (path.includes("\\")) return "holds a backslash; use /";
  if (path.length > 1024) return "is longer than 1024 characters";
  let decoded = path;
  try {
    decoded = decodeURIComponent(path);
  } catch {
    // a lone % is a plain character of a file's name
  }
  for (const form of [path, decoded]) {
    if (form.includes("\0")) return "holds an encoded NUL character";
    if (form.split(/[/\\]/).includes(".."))
      return 'has a part ".."; name the file from its volume on, as /uploads/a.ifc';
    if (form.startsWith("/") && !VOLUMES.some((volume) => form === volume || form.startsWith(`${volume}/`))) {
      return `lies outside the volumes; begin it with one of ${VOLUMES.map((volume) => `${volume}/`).join(", ")}`;
    }
  }
  return undefined;
}

type Found = { path: string; text: string; holder: Record<string, unknown>; key: string };

/** Every text in `holder` under a path such as `clash_sets.*.a.*.file`, with its own path and where it stands. */
function textsAt(holder: unknown, [head, ...tail]: string[], at: string[] = []): Found[] {
  if (typeof holder !== "object" || holder === null) return [];
  const fields = holder as Record<string, unknown>;
  // a pattern that ends at a list or an object means every text in it
  const keys = head === undefined || head === "*" ? Object.keys(fields) : [head];
  return keys.flatMap((key) => {
    const child = fields[key];
    const path = [...at, key];
    if (typeof child !== "string") return textsAt(child, tail, path);
    return tail.length === 0 ? [{ path: path.join("."), text: child, holder: fields, key }] : [];
  });
}

/**
 * Refuses a payload that names a file outside the volumes.
 * @param asKept  a path as its file is called: where that is another spelling, it takes the path's place
 * @throws Fault invalid, with every such field
 */
export function checkFiles(op: Operation, payload: Record<string, unknown>, asKept?: (path: string) => string): void {
  const errors: FieldFault[] = [];
  for (const pattern of op.files) {
    for (const { path, text, holder, key } of textsAt(payload, pattern.split("."))) {
      const fault = pathFault(text);
      if (fault) errors.push({ path, message: `the path ${JSON.stringify(text.slice(0, 100))} ${fault}` });
      else if (asKept) {
        const kept = asKept(text);
        if (kept !== text) holder[key] = kept;
      }
    }
  }
  if (errors.length > 0) throw new Fault("invalid", `${errors[0]?.path}: ${errors[0]?.message}.`, { errors });
}

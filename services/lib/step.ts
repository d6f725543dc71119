/** A small writer of IFC (STEP, ISO 10303-21) files, for models that a script makes. */
import { createHash } from "node:crypto";

/** Text that goes into the file as it is: a reference, an enumeration, a typed value. */
export class Raw {
  constructor(readonly text: string) {}
}

export type Argument = string | number | boolean | null | Raw | readonly Argument[];

/** `.ELEMENT.` */
export const enumeration = (name: string) => new Raw(`.${name}.`);
/** A whole number; plain numbers are written as reals. */
export const integer = (value: number) => new Raw(String(Math.trunc(value)));
/** `IFCLABEL('x')`, where an attribute is a SELECT and the type must be said. */
export const typed = (type: string, value: Argument) => new Raw(`${type.toUpperCase()}(${write(value)})`);

const ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_$";

/** The same 22 characters for the same seed, for ever: links and tests may name an element. */
export function globalId(seed: string): string {
  let bits = BigInt(`0x${createHash("sha256").update(seed).digest("hex").slice(0, 32)}`);
  let id = "";
  for (let i = 0; i < 22; i++) {
    id = ALPHABET[Number(bits & 63n)] + id;
    bits >>= 6n;
  }
  return id;
}

function write(value: Argument): string {
  if (value === null) return "$";
  if (value instanceof Raw) return value.text;
  if (typeof value === "string") return `'${encode(value)}'`;
  if (typeof value === "boolean") return value ? ".T." : ".F.";
  if (typeof value !== "number") return `(${value.map(write).join(",")})`;
  const text = String(Math.round(value * 1e9) / 1e9 || 0).replace("e", "E");
  return /[.E]/.test(text) ? text : `${text}.`;
}

/** Quotes and backslashes doubled, everything outside ASCII as \X2\…\X0\ (UTF-16, big-endian). */
function encode(text: string): string {
  const escaped = text.replace(/['\\]/g, "$&$&");
  return escaped.replace(/[^ -~]+/g, (run) => {
    const units = Array.from({ length: run.length }, (_, i) => run.charCodeAt(i).toString(16).padStart(4, "0"));
    return `\\X2\\${units.join("").toUpperCase()}\\X0\\`;
  });
}

export class StepFile {
  private readonly lines: string[] = [];

  constructor(
    readonly name: string,
    readonly schema = "IFC4",
  ) {}

  /** Adds one instance. @returns the reference to it */
  add(type: string, ...values: Argument[]): Raw {
    const ref = `#${this.lines.length + 1}`;
    this.lines.push(`${ref}=${type.toUpperCase()}(${values.map(write).join(",")});`);
    return new Raw(ref);
  }

  /** Adds an instance of a type whose first attribute is a GlobalId, and whose second, the owner history, is empty. */
  rooted(type: string, seed: string, ...values: Argument[]): Raw {
    return this.add(type, globalId(`${this.name}/${seed}`), null, ...values);
  }

  /** The whole file. The date is fixed, so that the same script always writes the same bytes. */
  toString(): string {
    return [
      "ISO-10303-21;",
      "HEADER;",
      "FILE_DESCRIPTION(('ViewDefinition [ReferenceView]'),'2;1');",
      `FILE_NAME('${encode(this.name)}','2025-01-01T00:00:00',(''),(''),'longhaul','make-house.ts','');`,
      `FILE_SCHEMA(('${this.schema}'));`,
      "ENDSEC;",
      "DATA;",
      ...this.lines,
      "ENDSEC;",
      "END-ISO-10303-21;",
      "",
    ].join("\n");
  }
}

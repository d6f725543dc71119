/**
 * JSON that a person wrote: what is wrong with it, and where. JSON.parse of the runtimes tells no line, and takes the last of
 * two equal keys without a word.
 */

/** Nesting that no file of a person has; deeper, the scan would spend the stack. */
const MAX_DEPTH = 200;
const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;

class Misplaced extends Error {
  constructor(
    readonly at: number,
    message: string,
  ) {
    super(message);
  }
}

/** "line 3, column 7" of an index. */
function placeOf(text: string, at: number): string {
  const before = text.slice(0, at).split(/\r\n|\n|\r/);
  return `line ${before.length}, column ${(before.at(-1) as string).length + 1}`;
}

/**
 * Reads the bytes of a JSON file. A byte order mark is read over.
 * @returns the value, or every mistake with its place: the first that breaks the syntax, and every key that an object has twice
 */
export function readJsonFile(bytes: Uint8Array): { value: unknown } | { mistakes: string[] } {
  if ((bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff))
    return { mistakes: ["is UTF-16; save it as UTF-8"] };
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes); // without its mark
  } catch {
    return { mistakes: ["is not UTF-8; save it as UTF-8"] };
  }
  if (text.trim() === "") return { mistakes: ["is empty"] };
  const scan = new Scan(text);
  try {
    scan.whole();
    if (scan.mistakes.length === 0) return { value: JSON.parse(text) };
  } catch (error) {
    if (!(error instanceof Misplaced)) throw error;
    scan.mistakes.unshift(`is not JSON at ${placeOf(text, error.at)}: ${error.message}`);
  }
  return { mistakes: scan.mistakes };
}

/** Where and why a text is no JSON, in the same words under every runtime; undefined when it is JSON. */
export function whyNotJson(text: string): string | undefined {
  try {
    new Scan(text).whole();
    return undefined;
  } catch (error) {
    return error instanceof Misplaced ? `${placeOf(text, error.at)}: ${error.message}` : undefined;
  }
}

class Scan {
  readonly mistakes: string[] = [];
  private at = 0;

  constructor(private readonly text: string) {}

  whole(): void {
    this.value("", 0);
    if (this.next() !== "") this.fail(`${this.shown()} stands behind the end; one value is all that may stand here`);
  }

  /** The next character that is no blank; "" at the end. */
  private next(): string {
    while (" \t\n\r".includes(this.text[this.at] ?? "x")) this.at++;
    return this.text[this.at] ?? "";
  }

  private shown(): string {
    const word = /^[\w.+-]{1,20}/.exec(this.text.slice(this.at, this.at + 20))?.[0];
    return JSON.stringify(word ?? String.fromCodePoint(this.text.codePointAt(this.at) ?? 0));
  }

  private fail(message: string, at = this.at): never {
    const here = this.text[at];
    if (here === undefined) throw new Misplaced(at, "it ends too early; a bracket or a quote is not closed");
    if (here === "'") throw new Misplaced(at, "texts stand in double quotes");
    if (here === "/" || here === "#") throw new Misplaced(at, "JSON has no comments; leave them out");
    throw new Misplaced(at, message);
  }

  private value(place: string, depth: number): void {
    if (depth > MAX_DEPTH) this.fail(`more than ${MAX_DEPTH} brackets lie in each other`);
    const first = this.next();
    if (first === "{") this.object(place, depth);
    else if (first === "[") this.array(place, depth);
    else if (first === '"') this.string();
    else this.word();
  }

  private word(): void {
    const word = /^[\w.+-]+/.exec(this.text.slice(this.at, this.at + 1_000))?.[0] ?? "";
    if (!NUMBER.test(word) && !["true", "false", "null"].includes(word))
      this.fail(`${this.shown()} is no value; texts stand in double quotes`);
    this.at += word.length;
  }

  private object(place: string, depth: number): void {
    const lines = new Map<string, number>();
    this.at++;
    if (this.next() === "}") {
      this.at++;
      return;
    }
    for (;;) {
      const start = this.at;
      if (this.next() !== '"') this.fail(`${this.shown()} is no key; a key stands in double quotes`);
      const begin = this.at;
      const key = this.string();
      const inside = place === "" ? key : `${place}.${key}`;
      const earlier = lines.get(key);
      if (earlier === undefined) lines.set(key, begin);
      else
        this.mistakes.push(
          `has the key ${inside.slice(0, 200)} twice, at ${placeOf(this.text, earlier)} and at ${placeOf(this.text, begin)}; leave one out`,
        );
      if (this.next() !== ":")
        this.fail(`a colon is missing behind the key ${JSON.stringify(key)}`, Math.max(start, this.at));
      this.at++;
      this.value(inside, depth + 1);
      if (this.over("}")) return;
    }
  }

  private array(place: string, depth: number): void {
    this.at++;
    if (this.next() === "]") {
      this.at++;
      return;
    }
    for (let i = 0; ; i++) {
      this.value(`${place}.${i}`, depth + 1);
      if (this.over("]")) return;
    }
  }

  /** Behind an item: whether the bracket closes. Else the next item is there. */
  private over(bracket: string): boolean {
    const c = this.next();
    if (c !== "," && c !== bracket) this.fail(`a comma or ${bracket} is missing before ${this.shown()}`);
    const comma = this.at++;
    if (c === bracket) return true;
    if (this.next() === bracket) this.fail(`a comma stands before ${bracket}; leave it out`, comma);
    return false;
  }

  private string(): string {
    const begin = this.at;
    for (this.at++; ; this.at++) {
      const c = this.text[this.at];
      if (c === undefined) this.fail("");
      if (c === "\n" || c === "\r")
        this.fail(
          "this text goes on over the end of the line; write \\n for a line break in it, or its quote is missing",
          begin,
        );
      if (c === "\\") this.at++;
      else if (c === '"') break;
    }
    const quoted = this.text.slice(begin, ++this.at);
    try {
      return JSON.parse(quoted) as string;
    } catch {
      this.fail(
        "this text holds a control character, or a backslash that begins no escape; write \\\\ for a backslash",
        begin,
      );
    }
  }
}

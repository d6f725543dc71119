/**
 * The log of a process: LogTape behind a small type, and the one place that makes lines.
 *
 *   log.info("job finished", { job: id, ms: 12 })
 *
 * A message is a constant; what changes stands in fields. Texts of other people (a service's error, a User-Agent) are
 * values of fields, never part of a message: values are escaped, shortened, and lose what looks like a credential.
 */
import { Buffer } from "node:buffer";
import { write, writeSync } from "node:fs";
import process from "node:process";
import { configureSync, getLogger, type LogLevel, type LogRecord } from "@logtape/logtape";

export const LEVELS = ["debug", "info", "warn", "error"] as const;
export type Level = (typeof LEVELS)[number];
export const FORMATS = ["text", "json"] as const;
export type Format = (typeof FORMATS)[number];
/** Fields of a line, by name. undefined = not in this line. */
export type Fields = Record<string, unknown>;

export interface Log {
  /** Whether lines of this level are written. On a job's way it is asked before a line's fields are made. */
  on(level: Level): boolean;
  debug(message: string, fields?: Fields): void;
  info(message: string, fields?: Fields): void;
  warn(message: string, fields?: Fields): void;
  error(message: string, fields?: Fields): void;
  /** The same log, with fields that stand in each line. */
  with(fields: Fields): Log;
}

// ---- lines

const OF_LOGTAPE = { debug: "debug", info: "info", warn: "warning", error: "error" } as const;
const OF_OURS: Partial<Record<LogLevel, Level>> = { debug: "debug", info: "info", warning: "warn", error: "error" };
const WIDE = { debug: "DEBUG", info: "INFO ", warn: "WARN ", error: "ERROR" } as const;
/** Characters of a value that a line keeps: half of them from its beginning, half from its end. */
const MAX_VALUE = 2_000;

/** What a terminal or a reader of lines could take for something else: control characters, and those that turn the direction of text. */
const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;
const escaped = (text: string) => text.replace(UNSAFE, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
/** Needs no quotes in a line of text. */
const BARE = /^[\w.:/@+×,-]+$/;

/** User, password and query of a URL; what follows a scheme of authorization; `token=…`. */
const IN_URL = /\b([a-z][a-z0-9+.-]*:\/\/)(?:[^\s/?#"'<>]*@)?([^\s?#"'<>]*)(?:\?[^\s"'<>]*)?/gi;
const AUTHORIZATION = /\b(bearer|basic)\s+[\w.~+/=-]{6,}/gi;
const NAMED =
  /\b([\w-]*(?:api[-_]?key|token|passw(?:or)?d|secret|authorization|cookie))(["']?\s*[:=]\s*["']?)[^\s"',;&}]+/gi;

/** A text of other people without what looks like a credential. */
export function withoutSecrets(text: string): string {
  let clean = text;
  if (clean.includes("://"))
    clean = clean.replace(IN_URL, (all, scheme: string, rest: string) =>
      all.includes("?") ? `${scheme}${rest}?…` : scheme + rest,
    );
  return clean.replace(AUTHORIZATION, "$1 …").replace(NAMED, "$1$2…");
}

const shortened = (text: string) =>
  text.length <= MAX_VALUE
    ? text
    : `${text.slice(0, MAX_VALUE / 2)} … ${text.length - MAX_VALUE} characters … ${text.slice(-MAX_VALUE / 2)}`;

/** Fields that hold words of other people. */
const FOREIGN = new Set(["error", "reason", "user_agent", "path", "stack", "target"]);

function fieldOf(name: string, value: unknown): unknown {
  if (typeof value === "string") return shortened(FOREIGN.has(name) ? withoutSecrets(value) : value);
  if (value instanceof Error) return shortened(withoutSecrets(value.stack ?? String(value)));
  return value;
}

const textOf = (value: unknown): string => {
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return typeof value === "string" && BARE.test(text) ? text : JSON.stringify(text);
};

/** One line of the log, with its line end. */
export function lineOf(format: Format, at: number, level: Level, message: string, fields: Fields): string {
  const time = new Date(at).toISOString();
  if (format === "json") {
    const all: Fields = { time, level, message };
    for (const name in fields) if (fields[name] !== undefined) all[name] = fieldOf(name, fields[name]);
    return `${escaped(JSON.stringify(all))}\n`;
  }
  let line = `${time} ${WIDE[level]} ${message}`;
  for (const name in fields) {
    if (fields[name] !== undefined) line += ` ${name}=${textOf(fieldOf(name, fields[name]))}`;
  }
  return `${escaped(line)}\n`;
}

// ---- standard output

/** ms between two writes: at thousands of lines a second one write takes many of them. */
const FLUSH_MS = 20;
/** Characters that wait for a reader that does not read. What comes beyond is left out, and counted. */
const MAX_WAITING = 8 * 1024 * 1024;

/** ms after which a write that is under way is one that nobody reads. */
const STALLED_MS = 500;

/** What a write ends with: how many bytes it took, or why not. */
type Written = (error: NodeJS.ErrnoException | null, bytes?: number) => void;

declare const Deno: { stdout: { write(bytes: Uint8Array): Promise<number> } } | undefined;

/** Deno's node:fs waits for a pipe on the main thread: one that nobody reads would stop everything. Its own stdout does not. */
function writeOut(fd: number, bytes: Uint8Array, done: Written): void {
  if (fd !== 1 || typeof Deno === "undefined") write(fd, bytes, 0, bytes.length, null, done);
  else Deno.stdout.write(bytes).then((written) => done(null, written), done);
}

/** Writes lines to a file descriptor without waiting for its reader: a stalled one must not stop the jobs. */
class Output {
  private lines: string[] = [];
  private waiting = 0;
  private dropped = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private inHand: Uint8Array | undefined;
  private sentAt = 0;
  private closed = false;

  constructor(
    private readonly fd: number,
    private readonly format: Format,
  ) {
    process.on("exit", () => this.atExit());
  }

  add(line: string): void {
    if (this.closed) return;
    if (this.waiting > MAX_WAITING) {
      this.dropped++;
      return;
    }
    this.lines.push(line);
    this.waiting += line.length;
    this.later();
  }

  private later(): void {
    if (this.timer || this.inHand) return;
    this.timer = setTimeout(() => this.flush(), FLUSH_MS);
    (this.timer as { unref?(): void }).unref?.(); // a process that has nothing else to do ends; atExit writes the rest
  }

  private take(): Uint8Array {
    if (this.dropped > 0) {
      const fields = { lines: this.dropped };
      this.lines.push(lineOf(this.format, Date.now(), "warn", "log lines left out: nobody reads fast enough", fields));
    }
    const text = this.lines.join("");
    this.lines = [];
    this.waiting = 0;
    this.dropped = 0;
    return Buffer.from(text);
  }

  private flush(): void {
    this.timer = undefined;
    if (!this.inHand && this.lines.length > 0) this.send(this.take());
  }

  private send(bytes: Uint8Array): void {
    this.inHand = bytes;
    this.sentAt = performance.now();
    writeOut(this.fd, bytes, (error, written) => {
      const again = error?.code === "EAGAIN";
      if (error && !again) this.closed = true; // nobody is there any more: EPIPE
      const rest = again ? bytes : bytes.subarray(written ?? bytes.length);
      this.inHand = rest;
      if (this.closed || rest.length === 0) {
        this.inHand = undefined;
        if (this.lines.length > 0) this.later();
      } else setTimeout(() => this.send(rest), again ? FLUSH_MS : 0);
    });
  }

  /** Waits until everything is written, for `ms` at most. */
  async end(ms: number): Promise<void> {
    const until = performance.now() + ms;
    while ((this.inHand || this.lines.length > 0) && performance.now() < until) {
      this.flush();
      await new Promise((next) => setTimeout(next, 1));
    }
  }

  /** Everything that waits, now, for a process that ends. */
  private atExit(): void {
    // Without endLog the end of a write under way is not heard of. A pipe that is read takes it within microseconds.
    if (this.inHand && performance.now() - this.sentAt > STALLED_MS) return; // a further write would wait for ever
    if (this.inHand) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, FLUSH_MS);
    const bytes = this.take();
    for (let at = 0, tries = 0; !this.closed && at < bytes.length && tries < 50; ) {
      try {
        at += writeSync(this.fd, bytes, at);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EAGAIN") return;
        tries++;
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, FLUSH_MS);
      }
    }
  }
}

// ---- loggers

const CATEGORY = "longhaul";
/** Lowest level that each category writes, as a place in LEVELS. Nothing is written before startLog. */
const lowest: Record<"all" | "audit" | "access", number> = {
  all: LEVELS.length,
  audit: LEVELS.length,
  access: LEVELS.length,
};

class LogTapeLog implements Log {
  constructor(
    private readonly category: keyof typeof lowest,
    private readonly fixed: Fields = {},
    private readonly logger = getLogger(category === "all" ? [CATEGORY] : [CATEGORY, category]),
  ) {}

  on(level: Level): boolean {
    return LEVELS.indexOf(level) >= lowest[this.category];
  }
  debug(message: string, fields?: Fields): void {
    if (this.on("debug")) this.emit("debug", message, fields);
  }
  info(message: string, fields?: Fields): void {
    if (this.on("info")) this.emit("info", message, fields);
  }
  warn(message: string, fields?: Fields): void {
    if (this.on("warn")) this.emit("warn", message, fields);
  }
  error(message: string, fields?: Fields): void {
    if (this.on("error")) this.emit("error", message, fields);
  }
  with(fields: Fields): Log {
    return new LogTapeLog(this.category, { ...this.fixed, ...fields }, this.logger);
  }

  private emit(level: Level, message: string, fields: Fields = {}): void {
    const properties = { ...fields, ...this.fixed };
    const { category } = this.logger;
    // with its category, and in this order: LogTape copies any other record, and a line then takes twice the time
    const timestamp = Date.now();
    const record = {
      category,
      timestamp,
      level: OF_LOGTAPE[level],
      message: [message],
      rawMessage: message,
      properties,
    };
    this.logger.emit(record);
  }
}

/** The log of this process. Silent until startLog. */
export const log: Log = new LogTapeLog("all");
/** What operators did: written whatever LOG_LEVEL is. */
export const auditLog: Log = new LogTapeLog("audit");
/** A line a request, written with ACCESS_LOG=1 whatever LOG_LEVEL is. */
export const accessLog: Log = new LogTapeLog("access");

let output: Output | undefined;
/** ms that the last lines may take: a reader that stalls must not keep a process from its end. */
const END_MS = 1_000;
/** Writes what waits. Before process.exit, wherever there is time to wait for it. */
export const endLog = async (): Promise<void> => output?.end(END_MS);

/** Writes nothing. */
export const noLog: Log = {
  ...{ on: () => false, debug() {}, info() {}, warn() {}, error() {} },
  with: () => noLog,
};

export type LogSettings = { format: Format; level: Level; access: boolean };

/**
 * Begins the log of this process: before the configuration is checked, since its mistakes are lines of the log.
 * @param put  takes each finished line; left out: standard output
 */
export function startLog(settings: LogSettings, put?: (line: string) => void): void {
  if (!put) output ??= new Output(1, settings.format);
  const add = put ?? ((line: string) => output?.add(line));
  const sink = (record: LogRecord) =>
    add(
      lineOf(
        settings.format,
        record.timestamp,
        OF_OURS[record.level] ?? "error",
        String(record.rawMessage),
        record.properties,
      ),
    );
  // The line is made at once, so LogTape need not copy the fields for it.
  Object.defineProperty(sink, Symbol.for("LogTape.sinkSnapshotPolicy.immediate"), { value: true });
  const level = OF_LOGTAPE[settings.level];
  const sinks = ["lines"];
  configureSync({
    reset: true,
    sinks: { lines: sink },
    loggers: [
      { category: [CATEGORY], sinks, lowestLevel: level },
      // of their own, so that LOG_LEVEL does not reach them
      { category: [CATEGORY, "audit"], sinks, parentSinks: "override", lowestLevel: "info" },
      { category: [CATEGORY, "access"], sinks, parentSinks: "override", lowestLevel: settings.access ? "info" : null },
      { category: ["logtape", "meta"], sinks, lowestLevel: "warning" },
    ],
  });
  lowest.all = LEVELS.indexOf(settings.level);
  lowest.audit = LEVELS.indexOf("info");
  lowest.access = settings.access ? LEVELS.indexOf("info") : LEVELS.length;
}

/** What the environment asks for, read before everything else is checked: a mistake in it is told by readConfig. */
export function logSettings(env: Record<string, string | undefined>): LogSettings {
  const { LOG_FORMAT, LOG_LEVEL, ACCESS_LOG } = env;
  return {
    format: FORMATS.find((format) => format === LOG_FORMAT) ?? "text",
    level: LEVELS.find((level) => level === LOG_LEVEL) ?? "info",
    access: ACCESS_LOG === "1" || ACCESS_LOG?.toLowerCase() === "true",
  };
}

/** An error's text for a field. */
export const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Why a process cannot go on, and its end. People read it as it is; with LOG_FORMAT=json it is a line of the log. */
export function die(settings: LogSettings, message: string): never {
  if (settings.format === "json") log.error("cannot start", { detail: message });
  else console.error(message);
  process.exit(1);
}

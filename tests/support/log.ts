/** Logs of tests: lines in a list, without a time. */
import { LEVELS, type Level, type Log, lineOf, startLog } from "../../shared/log.ts";

/** A log whose lines of text go to `lines`, as `WARN  job failed job=… code=…`. */
export function listLog(lines: string[], lowest: Level = "debug", fixed = {}): Log {
  const on = (level: Level) => LEVELS.indexOf(level) >= LEVELS.indexOf(lowest);
  const at = (level: Level) => (message: string, fields?: object) => {
    if (on(level)) lines.push(lineOf("text", 0, level, message, { ...fields, ...fixed }).slice(25, -1));
  };
  return {
    on,
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    with: (fields) => listLog(lines, lowest, { ...fixed, ...fields }),
  };
}

/** What this process logs while `work` runs, each line as JSON. */
export async function logged(work: () => unknown, access = false): Promise<Record<string, unknown>[]> {
  const lines: string[] = [];
  startLog({ format: "json", level: "debug", access }, (line) => lines.push(line));
  try {
    await work();
  } finally {
    startLog({ format: "json", level: "error", access: false }, () => {});
  }
  return lines.map((line) => JSON.parse(line));
}

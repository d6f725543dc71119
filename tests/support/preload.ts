/**
 * Before each run of `bun test` (bunfig.toml): the time limits of tests and hooks grow with the machine's slowness (patience.ts),
 * whether they stand in the test, in its file (setDefaultTimeout), or nowhere. A test file needs no word about it.
 */
import { limit, measureAgain } from "./patience.ts";

/** ms, where neither a test nor its file says more. A hook that starts real processes takes longer than Bun's own 5 s. */
const DEFAULT_MS = 60_000;

// biome-ignore lint/suspicious/noExplicitAny: functions of many shapes, whose last argument alone counts
type Any = any;
/** The one object that every file's imports come from; the namespace of an import cannot be written to. */
const library: Record<string, Any> = require("bun:test");
/** By test file. */
const defaults = new Map<string, number>();
const { setDefaultTimeout } = library;

function scaled(given: Any): Any {
  if (typeof given === "number") return limit(given);
  if (given === undefined) return limit(defaults.get(Bun.main) ?? DEFAULT_MS);
  return { ...given, timeout: scaled(given.timeout) };
}

/** A function of bun:test whose argument at `place` is a time limit, and whose members (each, if, only) make such functions. */
function patient(call: Any, place: number): Any {
  return new Proxy(call, {
    apply(target, self, args: Any[]) {
      measureAgain();
      if (typeof args[place - 1] === "function") args[place] = scaled(args[place]);
      return Reflect.apply(target, self, args);
    },
    get(target, name) {
      const member = Reflect.get(target, name);
      if (
        typeof member !== "function" ||
        !/^(each|if|skipIf|todoIf|only|failing|concurrent|serial)$/.test(String(name))
      )
        return member;
      if (!/^(each|if|skipIf|todoIf)$/.test(String(name))) return patient(member, place);
      return (...args: Any[]) => patient(Reflect.apply(member, target, args), place);
    },
  });
}

for (const name of ["test", "it"]) library[name] = patient(library[name], 2);
for (const name of ["beforeAll", "beforeEach", "afterAll", "afterEach"]) library[name] = patient(library[name], 1);
library.setDefaultTimeout = (ms: number) => {
  defaults.set(Bun.main, ms);
  setDefaultTimeout(limit(ms));
};

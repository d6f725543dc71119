/** What style.md promises of the code's shape, held by a test: nobody else checks it. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join, normalize } from "node:path";
import { Glob } from "bun";
import { readConfig, VARIABLES } from "../shared/config.ts";
import { FIELD, STATES } from "../shared/jobs.ts";
import { CHANNELS, SERVICE_KEYS } from "../shared/keys.ts";
import { BUN_START } from "../shared/runtime.ts";
import { ENTRY_KEYS } from "../shared/services-file.ts";
import { ALL_SCRIPTS } from "./support/scripts.ts";

const ROOT = new URL("..", import.meta.url).pathname;
const read = (path: string) => readFileSync(join(ROOT, path), "utf8");
const glob = (pattern: string) =>
  [...new Glob(pattern).scanSync({ cwd: ROOT })]
    .map(normalize)
    .filter((path) => !path.includes("node_modules"))
    .sort();
const SOURCES = [...glob("*.ts"), ...glob("shared/**/*.ts")];
const LUA = glob("shared/lua/*.lua")
  .map((path) => path.slice("shared/lua/".length, -".lua".length))
  .sort();

// ---- scripts

/** The lines of the comment at a script's head. */
const header = (lua: string) => {
  const lines = lua.split("\n").filter((line) => !line.startsWith("--@"));
  const end = lines.findIndex((line) => !line.startsWith("--"));
  return lines.slice(0, end).map((line) => line.replace(/^-- ?/, ""));
};

/** `ARGV[n] name type` lines, and the names of the repeated group. */
const documented = (lua: string) => {
  const lines = header(lua);
  const named: [n: number, name: string, type: string][] = [];
  let group: string[] = [];
  lines.forEach((line, i) => {
    const one = /^ARGV\[(\d+)\] +(\w+) +(text|int)\b/.exec(line);
    if (one) named.push([Number(one[1]), one[2] as string, one[3] as string]);
    const rest = /^ARGV\[(\d+)…\] repeated(?:, \w+)?: (.*)$/.exec(line);
    if (rest) {
      named.push([Number(rest[1]), "…", ""]);
      let text = rest[2] as string;
      for (let j = i + 1; /^ {9}/.test(lines[j] ?? ""); j++) text += ` ${lines[j]?.trim()}`;
      group = text
        .replace(/\([^)]*\)|;.*/g, "")
        .split(",")
        .map((name) => name.trim())
        .filter(Boolean);
    }
  });
  return { named, group };
};

test("every .lua file is bound to a function, and every binding has its file", () => {
  expect([...ALL_SCRIPTS.keys()].sort()).toEqual(LUA);
});

test("the header of each script lists ARGV exactly as its binding: names, order, types, the repeated group", () => {
  for (const [file, { args, group }] of ALL_SCRIPTS) {
    const { named, group: told } = documented(read(`shared/lua/${file}.lua`));
    const expected = Object.entries(args).map(([name, type], i) => [i + 1, name, type]);
    if (group.length > 0) expected.push([expected.length + 1, "…", ""]);
    expect([file, named as unknown[]]).toEqual([file, expected]);
    expect([file, told]).toEqual([file, [...group]]);
  }
});

test("each script says its name, its purpose, its key and its reply", () => {
  for (const file of LUA) {
    const lines = header(read(`shared/lua/${file}.lua`));
    expect([file, lines[0]?.startsWith(`${file}: `)]).toEqual([file, true]);
    expect([file, lines.some((line) => /^KEYS\[1\] (root$|[a-z]+ (HASH|STRING))/.test(line))]).toEqual([file, true]);
    expect([file, lines.some((line) => /^reply\b/.test(line))]).toEqual([file, true]);
  }
});

test("every word that a header gives as a reply is returned by the script", () => {
  let words = 0;
  for (const [file, { lua }] of ALL_SCRIPTS) {
    const lines = header(read(`shared/lua/${file}.lua`));
    const section = lines.slice(lines.findIndex((line) => /^reply\b/.test(line)));
    const code = lua.replace(/--.*$/gm, "");
    for (const line of section.slice(0, section.indexOf(""))) {
      // a word stands first in its line, or after "|"; quotes elsewhere are explanations
      for (const [, word] of line.matchAll(/(?:^reply +|^ +|\| )"([a-z]+)"/g)) {
        words++;
        expect([file, word, code.includes(`'${word}'`)]).toEqual([file, word as string, true]);
      }
    }
  }
  expect(words).toBeGreaterThan(15);
});

test("every reply that a script returns as a word stands in its header", () => {
  for (const file of LUA) {
    const lua = read(`shared/lua/${file}.lua`);
    const text = header(lua).join("\n");
    // what only a function of it uses, with an indented line, is a part of the script that was moved out
    const parts = [...lua.matchAll(/^ +--@use (\w+)$/gm)].map(([, name]) => read(`shared/lua/lib/${name}.lua`));
    for (const [, word] of [lua, ...parts].join("\n").matchAll(/^\s*(?:if .* then )?return '([a-z]+)'/gm)) {
      expect([file, word, text.includes(`"${word}"`)]).toEqual([file, word as string, true]);
    }
  }
});

test("scripts use keys by K and channels by CHANNEL only, each known, and no key string of their own", () => {
  for (const path of glob("shared/lua/**/*.lua")) {
    const code = read(path).replace(/--.*$/gm, "");
    for (const [, name] of code.matchAll(/\bK\.(\w+)/g)) expect([path, name! in SERVICE_KEYS]).toEqual([path, true]);
    for (const [, name] of code.matchAll(/\bCHANNEL\.(\w+)/g)) expect([path, name! in CHANNELS]).toEqual([path, true]);
    expect([path, /'lh[:']/.exec(code)?.[0]]).toEqual([path, undefined]);
    for (const [, channel] of code.matchAll(/'PUBLISH', ([^,]*)/g))
      expect([path, channel]).toEqual([path, expect.stringMatching(/^CHANNEL\./)]);
  }
});

test("a suffix is added only to a key whose name ends in a colon", () => {
  for (const path of glob("shared/lua/**/*.lua")) {
    const code = read(path).replace(/--.*$/gm, "");
    for (const [, name] of code.matchAll(/\bK\.(\w+) \.\./g)) {
      const [, text] = SERVICE_KEYS[name as keyof typeof SERVICE_KEYS];
      expect([path, name, text.endsWith(":")]).toEqual([path, name as string, true]);
    }
  }
});

test("numbers reach a script by the prelude only: no script reads ARGV[n] by number", () => {
  for (const [file, { lua, args }] of ALL_SCRIPTS) {
    expect([file, /ARGV\[\d/.test(read(`shared/lua/${file}.lua`).replace(/--.*$/gm, ""))]).toEqual([file, false]);
    Object.entries(args).forEach(([, type], i) => {
      expect([file, i, lua.includes(`tonumber(ARGV[${i + 1}])`)]).toEqual([file, i, type === "int"]);
    });
  }
});

test("fields of a record: every name is short and unique, and every state is known to Lua as it is spelled", () => {
  const names = Object.values(FIELD);
  expect(new Set(names).size).toBe(names.length);
  for (const name of names) expect(name.length).toBeLessThanOrEqual(3);
  const lua = glob("shared/lua/**/*.lua").map(read).join("\n");
  for (const state of STATES.filter((state) => state !== "deferred")) expect(lua).toContain(`'${state}'`);
});

// ---- imports

/** Which layer a file is of: it may import its own and those before it. */
const LAYERS: [RegExp, string][] = [
  [
    /^shared\/(faults|log|addresses|ssrf|units|version|runtime|answer|nearest|redis-url|base-path|base-url|words|json|json-file|json-schema|issue-words)\.ts$/,
    "leaf",
  ],
  [/^shared\/jobs\.ts$/, "jobs"],
  [/^shared\/keys\.ts$/, "keys"],
  [/^shared\/(services(-file)?|call-headers)\.ts$/, "services"],
  [/^shared\/(config(-fields)?|api-keys)\.ts$/, "config"],
  [/^shared\/script\.ts$/, "script"],
  [/^shared\/store\//, "store"],
  [/^shared\/[\w-]+\.ts$/, "shared"],
  [/^shared\/(routes|clocks)\//, "mounted"],
  [/^(gateway|worker)\.ts$/, "entry"],
];
const rank = (path: string) => LAYERS.findIndex(([pattern]) => pattern.test(path));
const importsOf = (path: string) =>
  [...read(path).matchAll(/\bfrom "(\.[^"]+)"/g)].map((m) => join(path, "..", m[1] as string));
const OURS = SOURCES.filter((path) => rank(path) >= 0);

test("imports flow one way: faults → jobs → keys → services → config → script → store → shared → mounted → entries", () => {
  for (const path of OURS) {
    for (const target of importsOf(path)) {
      expect([path, target, rank(target) <= rank(path)]).toEqual([path, target, true]);
    }
  }
});

test("no import cycle among values", () => {
  const edges = new Map(
    OURS.map((path) => [
      path,
      [...read(path).matchAll(/^import (?!type\b)[^;]*? from "(\.[^"]+)"/gm)].map((m) =>
        join(path, "..", m[1] as string),
      ),
    ]),
  );
  const done = new Set<string>();
  const walk = (path: string, trail: string[]): void => {
    if (trail.includes(path)) throw new Error(`a cycle: ${[...trail, path].join(" → ")}`);
    if (done.has(path)) return;
    for (const next of edges.get(path) ?? []) walk(next, [...trail, path]);
    done.add(path);
  };
  for (const path of OURS) walk(path, []);
});

test("entries import no entry; routes and clocks import none of their own kind, but for the index", () => {
  for (const path of OURS) {
    for (const target of importsOf(path)) {
      expect([path, /^(gateway|worker|up)\.ts$/.test(target)]).toEqual([path, false]);
      const folder = /^shared\/(routes|clocks)\//.exec(path)?.[0];
      if (!folder || /\/index\.ts$/.test(path)) continue;
      const sibling = target.startsWith("shared/routes/") || target.startsWith("shared/clocks/");
      const shape = /^shared\/clocks\/clock\.ts$/.test(target); // what every clock is given
      expect([path, target, sibling && !shape]).toEqual([path, target, false]);
    }
  }
});

const code = (path: string) =>
  read(path)
    .replace(/\/\*[\s\S]*?\*\//g, "")
    .replace(/^\s*\/\/.*$/gm, "");

test("only the store binds scripts and speaks Redis; the gateway and the routes hold no key and no command", () => {
  const commands =
    /\bredis\.(?!on\b|once\b|status\b)\w+\(|\.(?:hset|hget|hmget|hgetall|zadd|zrange|sadd|lpush|blmove|evalsha|eval|publish)\(/;
  for (const path of OURS.filter((path) => !path.startsWith("shared/store/") && path !== "shared/script.ts")) {
    expect([path, /\bscript(?:<|\()/.test(code(path))]).toEqual([path, false]);
    if (path === "worker.ts") continue; // its own connections: client names, subscriptions
    expect([path, commands.exec(code(path))?.[0]]).toEqual([path, undefined]);
  }
});

test("key strings stand in keys.ts only", () => {
  for (const path of OURS.filter((path) => path !== "shared/keys.ts")) {
    expect([path, /["'`]lh[:"'`]/.exec(code(path).replace('namespace("lh")', ""))?.[0]]).toEqual([path, undefined]);
  }
});

test("what must not know HTTP status, Redis, or the environment does not", () => {
  expect(code("shared/services.ts")).not.toMatch(/process\.env|ioredis/);
  expect(code("shared/call.ts")).not.toMatch(/ioredis|store\//);
  expect(code("shared/jobs.ts")).not.toMatch(/ioredis|fetch\(/);
  for (const path of glob("shared/store/*.ts"))
    expect([path, /process\.env|\.status = |Response\(/.test(code(path))]).toEqual([path, false]);
  for (const path of OURS.filter((path) => !/^(gateway|worker)\.ts$|runtime\.ts$/.test(path))) {
    expect([path, /process\.env/.test(code(path))]).toEqual([path, false]);
  }
});

test("gateway, worker and all they share write lines by shared/log.ts only", () => {
  for (const path of OURS.filter((path) => path !== "shared/log.ts" && !path.startsWith("up"))) {
    expect([path, /\bconsole\.\w+|\bprocess\.std(?:out|err)\.write/.exec(code(path))?.[0]]).toEqual([path, undefined]);
  }
});

// ---- clocks

/** Where the machine's own clock is read, how often, and why nothing is decided by it. */
const WALL_CLOCK: Record<string, [times: number, why: string]> = {
  "shared/log.ts": [2, "the time of a log line"],
  "shared/store/time.ts": [1, "stands in until Redis first says what time it is"],
  "shared/answer.ts": [1, "a Retry-After date of an answer that has no Date: there is nothing else to count from"],
};

test("nothing is decided by the machine's own clock: Redis's clock, or performance.now()", () => {
  const reads = /\bDate\.now\b|\bnew Date\(\)|(?<!new )\bDate\(\)|\bperformance\.timeOrigin\b|\bTemporal\b/g;
  const found = Object.fromEntries(
    [...SOURCES, ...glob("up/*.ts"), ...glob("dashboard/**/*.js")].flatMap((path) => {
      const times = code(path).match(reads)?.length;
      return times ? [[path, times]] : [];
    }),
  );
  expect(found).toEqual(Object.fromEntries(Object.entries(WALL_CLOCK).map(([path, [times]]) => [path, times])));
  for (const path of glob("shared/lua/**/*.lua"))
    expect([path, /\bos\.(time|clock)/.test(read(path))]).toEqual([path, false]);
});

// ---- size

const physical = (path: string) => read(path).split("\n").length - 1;
test("no file has 400 lines", () => {
  for (const path of [...SOURCES, ...glob("shared/lua/**/*.lua"), ...glob("tests/**/*.ts"), ...glob("up/*.ts")]) {
    expect([path, physical(path) < 400]).toEqual([path, true]);
  }
});

// ---- README

const rows = read("README.md")
  .split("\n")
  .filter((line) => /^\| `[A-Z][A-Z0-9_]+`/.test(line));
const cells = rows.map((row) => row.split(/(?<!\\)\|/).map((cell) => cell.trim()));

test.if(rows.length > 0)("README's table of configuration names exactly the variables that are read", () => {
  const names = cells.flatMap((cell) =>
    [...(cell[1] as string).matchAll(/`([A-Z0-9_]+)`/g)].map((m) => m[1] as string),
  );
  expect(names.sort()).toEqual([...VARIABLES].sort());
});

test.if(rows.length > 0)("README's defaults are the defaults", () => {
  const plain = { ...readConfig({}), registry: undefined, callbackAllow: undefined, downloadAllow: undefined };
  let compared = 0;
  for (const cell of cells) {
    const names = [...(cell[1] as string).matchAll(/`([A-Z0-9_]+)`/g)].map((m) => m[1] as string);
    const values = (cell[2] as string).split(" · ");
    if (names.length !== values.length || values.some((text) => text === "–" || /[ `]/.test(text))) continue;
    names.forEach((name, i) => {
      compared++;
      expect([
        name,
        {
          ...readConfig({ [name]: values[i] }),
          registry: undefined,
          callbackAllow: undefined,
          downloadAllow: undefined,
        },
      ]).toEqual([name, plain]);
    });
  }
  expect(compared).toBeGreaterThan(15);
});

test.if(rows.length > 0)(
  "README's table of an operation's keys names exactly those that a SERVICES file may have",
  () => {
    const told = read("README.md")
      .split("\n| key of an operation ")[1]
      ?.split("\n\n")[0]
      ?.split("\n")
      .flatMap((row) => [...(row.split("|")[1] ?? "").matchAll(/`(\w+)`/g)].map((m) => m[1] as string));
    expect(told?.sort()).toEqual([...ENTRY_KEYS].sort());
  },
);

test("the images start Bun with the settings that `up` and a worker give it", () => {
  const set = Object.fromEntries(
    [...read("Dockerfile").matchAll(/\b((?:BUN|MIMALLOC)_\w+)=(\d+)/g)].map((m) => m.slice(1)),
  );
  expect(set).toEqual({ ...BUN_START });
});

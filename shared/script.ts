/**
 * Binds a .lua file to a typed function. It knows how scripts are put together, not what a queue is.
 *
 * A script sees, before its own first line:
 *   local worker, slots = …  its named arguments, numbers already turned into numbers
 *   local rest = n           the index of the first repeated argument in ARGV
 * `K.name` is the name of a key of the service, `CHANNEL.name` that of a channel, from keys.ts. A line `--@use name` is the piece of that name in lua/lib/ with
 * what it uses, each of them once; an indented one is known in the function only that it stands in. What a script makes at
 * each call has its price, names and functions too: so K is no table, and what few calls need is made by those.
 * The header of each file repeats the arguments for the reader; a test holds header and binding together.
 */
import { readFileSync } from "node:fs";
import type { Cluster, Redis } from "ioredis";
import { CHANNELS, type Key, SERVICE_KEYS } from "./keys.ts";

export type Connection = Redis | Cluster;
export type ArgType = "text" | "int";
export type Args = Record<string, ArgType>;
type Values<A extends Args> = { [K in keyof A]: A[K] extends "int" ? number : string };
export type ScriptValue = string | number | Uint8Array;

export type Script<A extends Args, R> = {
  readonly file: string;
  readonly args: A;
  /** names of the values that repeat after the named arguments, as the script's header tells; may be none */
  readonly group: readonly string[];
  readonly lua: string;
  (redis: Connection, root: Key<"string">, values: Values<A>, groups?: ScriptValue[]): Promise<R>;
};

const read = (path: string) => readFileSync(new URL(`./lua/${path}.lua`, import.meta.url), "utf8");
const all = new Map<string, { lua: string; args: Args; group: readonly string[] }>();
const commandOf = (file: string) => `lh_${file.replaceAll("-", "_")}`;

/** Every script that was bound, by file. */
export const boundScripts = (): typeof all => all;

/** Puts a script together: flags, arguments, its own text with the pieces that it uses, the names of keys. */
export function assemble(file: string, args: Args): string {
  const pieces = (text: string, known: Set<string>): string =>
    text.replace(/^( *)--@use (\w+)$/gm, (_, indent: string, name: string) => {
      const here = indent === "" ? known : new Set(known);
      if (here.has(name)) return "";
      here.add(name);
      return pieces(read(`lib/${name}`), here);
    });
  const body = read(file);
  const flags = body.match(/^--@flags (.+)$/m)?.[1];
  const names = Object.entries(args);
  const locals = names.map(([, type], i) => (type === "int" ? `tonumber(ARGV[${i + 1}])` : `ARGV[${i + 1}]`));
  const text = [
    flags ? `#!lua flags=${flags}` : "",
    "local ROOT = KEYS[1]",
    names.length ? `local ${names.map(([name]) => name).join(", ")} = ${locals.join(", ")}` : "",
    `local rest = ${names.length + 1}`,
    pieces(body, new Set()),
  ];
  return text
    .filter((part, i) => part !== "" || i > 0)
    .join("\n")
    .replace(/\bCHANNEL\.(\w+)/g, (_, name: string) => {
      const channel = CHANNELS[name as keyof typeof CHANNELS];
      if (!channel) throw new Error(`${file}.lua uses the unknown channel CHANNEL.${name}`);
      return `string.match(ROOT, '^[^:]*:')..'${channel}'`; // the namespace; few calls publish
    })
    .replace(/\bK\.(\w+)/g, (_, name: string) => {
      const key = SERVICE_KEYS[name as keyof typeof SERVICE_KEYS];
      if (!key) throw new Error(`${file}.lua uses the unknown key K.${name}`);
      return `ROOT..'${key[1]}'`;
    });
}

/**
 * Binds `lua/<file>.lua`.
 * @param args   the named arguments, in the order of ARGV
 * @param group  names of the values that repeat after them
 * @returns a function that sends the script by EVALSHA; ioredis sends the text when Redis has forgotten it
 * @see https://redis.io/docs/latest/develop/programmability/eval-intro/
 */
export function script<A extends Args, R>(file: string, args: A, group: readonly string[] = []): Script<A, R> {
  const lua = assemble(file, args);
  const command = commandOf(file);
  all.set(file, { lua, args, group });
  const order = Object.keys(args);
  const run = (redis: Connection, root: Key<"string">, values: Values<A>, groups: ScriptValue[] = []): Promise<R> => {
    const send = (redis as unknown as Record<string, (...list: unknown[]) => Promise<R>>)[command];
    if (!send) throw new Error(`${command} is not defined on this connection`);
    return send.call(redis, root, ...order.map((name) => (values as Record<string, ScriptValue>)[name]), ...groups);
  };
  return Object.assign(run, { args, group, lua, file }) as unknown as Script<A, R>;
}

/**
 * Items as a script reads them in runs: "<n> <what they share>", then n times the values of each.
 * @param shared  never empty
 * @param add     appends an item's values: an array for each has its price in a gateway
 */
export function runsOf<T>(
  items: T[],
  shared: (item: T) => string,
  add: (values: ScriptValue[], item: T) => void,
): ScriptValue[] {
  const values: ScriptValue[] = [];
  let [run, at, n] = ["", 0, 0];
  for (const item of items) {
    const its = shared(item);
    if (its !== run) [run, at, n] = [its, values.push("") - 1, 0];
    values[at] = `${++n} ${run}`;
    add(values, item);
  }
  return values;
}

/** Words of a script that names only what is not "ok". @param odd  flat: place from 1, word @returns a word a place */
export function wordsOf<W extends string>(count: number, odd: (number | string)[]): (W | "ok")[] {
  const words: (W | "ok")[] = new Array(count).fill("ok");
  for (let i = 0; i < odd.length; i += 2) words[Number(odd[i]) - 1] = odd[i + 1] as W;
  return words;
}

/** Teaches a connection all scripts. */
export function defineScripts(redis: Connection): void {
  for (const [file, { lua }] of all) redis.defineCommand(commandOf(file), { numberOfKeys: 1, lua });
}

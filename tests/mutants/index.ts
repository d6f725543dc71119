/**
 * `bun run mutants`: breaks a copy of the code in one place at a time and shows which check notices.
 * A mutant that survives, or that no longer applies, ends it with 1: checks that pass a broken queue prove nothing.
 *   --only text   mutants whose name has it     --chaos   let a short chaos run judge too (a minute each, and less sure)
 */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { ACCESS_MUTANTS } from "./access.ts";
import { ANSWER_MUTANTS } from "./answers.ts";
import { CALL_MUTANTS } from "./calls.ts";
import { CLIENT_MUTANTS } from "./client.ts";
import { CLOCK_MUTANTS } from "./clocks.ts";
import { ENDED_MUTANTS } from "./ended.ts";
import { JOB_MUTANTS } from "./jobs.ts";
import { MUTANTS, type Mutant } from "./list.ts";
import { REDIS_MUTANTS } from "./redis.ts";
import { REGISTRY_MUTANTS } from "./registry.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const { values } = parseArgs({
  options: { only: { type: "string" }, chaos: { type: "boolean", default: false } },
});

/** A copy of the tree, with what is not committed too. */
function copy(): string {
  const dir = mkdtempSync(join(tmpdir(), "longhaul-mutant-"));
  const list = Bun.spawnSync(["git", "ls-files", "--cached", "--others", "--exclude-standard"], { cwd: ROOT });
  for (const name of list.stdout.toString().split("\n")) {
    if (!/^(shared|tests|dashboard)\/|^[^/]+\.(ts|json|toml)$/.test(name)) continue;
    mkdirSync(join(dir, dirname(name)), { recursive: true });
    cpSync(join(ROOT, name), join(dir, name));
  }
  symlinkSync(join(ROOT, "node_modules"), join(dir, "node_modules"));
  return dir;
}

type Verdict = { caught: boolean; by: string; ms: number };

async function run(dir: string, command: string[], env: Record<string, string>, limitMs: number): Promise<Verdict> {
  const began = performance.now();
  const child = Bun.spawn([process.execPath, ...command], {
    cwd: dir,
    env: { ...process.env, ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
  const timer = setTimeout(() => child.kill("SIGTERM"), limitMs);
  const texts = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  const code = await child.exited;
  clearTimeout(timer);
  const text = texts.join("\n");
  const first = (pattern: RegExp) => pattern.exec(text)?.[1];
  const rule = first(/\b(I\d [^:\n]{3,60}):/) ?? first(/error: after ([^\n]{1,120})/);
  const by =
    first(/BROKEN (.*)/) ??
    first(/WRONG (.*)/) ??
    [first(/^\(fail\) (.*?)(?: \[[\d.]+ms\])?$/m), rule].filter(Boolean).join(" — ");
  // a check that runs no test, because its name has changed, judges nothing
  const judged = !/matched 0 tests/.test(text);
  return { caught: code === 1 && judged, by: by || text.slice(-200), ms: performance.now() - began };
}

async function judge(mutant: Mutant): Promise<boolean> {
  const dir = copy();
  try {
    const path = join(dir, mutant.file);
    const text = readFileSync(path, "utf8");
    if (text.split(mutant.from).length !== 2) {
      console.log(`  NO LONGER APPLIES  ${mutant.name} (${mutant.file})`);
      return false;
    }
    writeFileSync(
      path,
      text.replace(mutant.from, () => mutant.to),
    );
    const verdict = await run(dir, ["test", ...mutant.check], mutant.env ?? {}, 120_000);
    const told = (v: Verdict) => `${v.caught ? "caught  " : "SURVIVED"} ${(v.ms / 1_000).toFixed(1).padStart(5)} s`;
    console.log(
      `  ${told(verdict)}  ${mutant.name}\n             by ${mutant.check.join(" ")}: ${verdict.by.slice(0, 220)}`,
    );
    if (values.chaos && mutant.chaos) {
      const command = ["tests/chaos/index.ts", "--jobs", "2500", "--seconds", "20", "--every", "500", "--seed", "1"];
      const seen = await run(dir, [...command, "--faults", mutant.chaos], {}, 200_000);
      console.log(`  ${told(seen)}    under chaos (${mutant.chaos}): ${seen.by.slice(0, 220)}`);
    }
    return verdict.caught;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

const chosen = [
  ...MUTANTS,
  ...CLIENT_MUTANTS,
  ...ENDED_MUTANTS,
  ...CALL_MUTANTS,
  ...ACCESS_MUTANTS,
  ...ANSWER_MUTANTS,
  ...JOB_MUTANTS,
  ...CLOCK_MUTANTS,
  ...REDIS_MUTANTS,
  ...REGISTRY_MUTANTS,
].filter((mutant) => !values.only || mutant.name.includes(values.only));
console.log(`mutants: ${chosen.length}`);
const began = performance.now();
let caught = 0;
for (const mutant of chosen) if (await judge(mutant)) caught++;
console.log(`mutants: ${caught} of ${chosen.length} caught in ${((performance.now() - began) / 1_000).toFixed(0)} s`);
process.exit(caught === chosen.length && caught > 0 ? 0 : 1);

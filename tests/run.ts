/**
 * All tests and checks by one command, on a machine that has only Node and npm:
 *
 *   npx -y bun@1.4.5 run test                      everything
 *   npx -y bun@1.4.5 run test store -t requeue     files whose path has "store", tests whose name has "requeue"
 *
 * Installs what the tests need, runs them, repeats what failed, and ends with one line: `N passed, N failed`.
 * Built-ins only, because it runs before the packages are installed.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { packages, program, Trouble } from "../up/install.ts";
import { lines } from "../up/processes.ts";
import { ROOT } from "../up/settings.ts";

interface Count {
  passed: number;
  failed: number;
  skipped: number;
  /** "file: test", for the end of the report. */
  failures: string[];
}

/** Packages of their own, with tests of their own: "tests/" would match theirs too. */
const NOT_HERE = [
  "--path-ignore-patterns=services/**",
  "--path-ignore-patterns=bench/**",
  "--path-ignore-patterns=tests/slow/**",
];

const say = (line: string) => console.log(`# ${line}`);

/** Shows each line of a process as it comes, and hands it on. @returns its exit code, or the signal that ended it */
async function watch(command: string[], cwd: string, env: Record<string, string>, onLine: (text: string) => void) {
  const child = Bun.spawn(command, {
    ...{ cwd, env: { ...process.env, ...env }, stdin: "ignore", stdout: "pipe", stderr: "pipe" },
  });
  const read = async (stream: ReadableStream<Uint8Array>) => {
    for await (const line of lines(stream)) {
      console.log(line);
      onLine(line);
    }
  };
  await Promise.all([read(child.stdout), read(child.stderr)]);
  await child.exited;
  return child.signalCode ?? child.exitCode;
}

/** The tests of one package. */
async function suite(dir: string, words: string[], env: Record<string, string>): Promise<Count> {
  const count: Count = { passed: 0, failed: 0, skipped: 0, failures: [] };
  let file = "";
  let summed = false;
  let repeats = false; // a long run ends with its failures once more
  // --no-env-file: a .env of the user's own deployment has nothing to do with the tests.
  // --timeout: a hook that starts real processes takes longer than 5 s on a busy machine, and bunfig.toml cannot say so.
  const command = [process.execPath, "--no-env-file", "test", "--timeout=60000", ...NOT_HERE, ...words];
  const end = await watch(command, join(ROOT, dir), env, (text) => {
    const header = /^(\S+\.(?:test|spec)\.tsx?):$/.exec(text)?.[1];
    if (header) file = dir === "." ? header : `${dir}/${header}`;
    if (/^\d+ tests? (failed|skipped|todo):$/.test(text)) repeats = true;
    const failure = repeats ? undefined : /^\(fail\) (.*?)(?: \[[\d.]+ms\])?$/.exec(text)?.[1];
    if (failure) count.failures.push(`${file}: ${failure}`);
    if (/^# Unhandled error/.test(text)) count.failures.push(`${file}: an error outside of any test`);
    const [, number, what] = /^ +(\d+) (pass|fail|skip|todo)$/.exec(text) ?? [];
    if (!what) return;
    summed = true;
    if (what === "pass") count.passed += Number(number);
    else if (what === "fail") count.failed += Number(number);
    else count.skipped += Number(number);
  });
  if (!summed || (end !== 0 && count.failed === 0)) {
    count.failed++;
    count.failures.push(`${dir}: bun test ended with ${end}${summed ? "" : " and no summary"}`);
  }
  return count;
}

/** What `bun run check` of each package runs; each tool counts as one test. */
async function checks(): Promise<Count> {
  const count: Count = { passed: 0, failed: 0, skipped: 0, failures: [] };
  const tools = [
    { name: "tsc", dir: ".", command: ["run", "tsc", "--noEmit"] },
    { name: "biome", dir: ".", command: ["run", "biome", "check", "."] },
    { name: "services: tsc", dir: "services", command: ["run", "tsc", "--noEmit"] },
  ];
  for (const { name, dir, command } of tools) {
    if (!existsSync(join(ROOT, dir, "package.json"))) continue;
    say(name);
    const end = await watch([process.execPath, ...command], join(ROOT, dir), {}, () => {});
    if (end === 0) count.passed++;
    else {
      count.failed++;
      count.failures.push(`check: ${name} ended with ${end}`);
    }
  }
  return count;
}

/** The patterns as this package sees them: `services/tests/x` is `tests/x` in services. */
const within = (dir: string, patterns: string[]) =>
  patterns.map((pattern) => pattern.replace(/^\.\//, "").replace(new RegExp(`^${dir}/`), ""));

/** Whether a test file of the package has one of the patterns in its path. */
function concerns(dir: string, patterns: string[]): boolean {
  const files = [...new Bun.Glob("tests/**/*.{test,spec}.{ts,tsx}").scanSync({ cwd: join(ROOT, dir) })];
  return files.some((file) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern)));
}

/** Where npm's deno lies itself. The command of that name is a Node script, and a test that kills it leaves deno alive. */
const deno = () =>
  [...new Bun.Glob("node_modules/@deno/*/deno").scanSync({ cwd: ROOT })].map((at) => join(ROOT, at, ".."));

async function main(): Promise<Count[]> {
  const given = process.argv.slice(2);
  const option = given.findIndex((word) => word.startsWith("-"));
  const patterns = option < 0 ? given : given.slice(0, option);
  const options = option < 0 ? [] : given.slice(option);

  const dirs = [".", "services"].filter((dir) => existsSync(join(ROOT, dir, "package.json")));
  for (const dir of dirs) await packages(join(ROOT, dir), { production: false }, say);
  await program("redis", "because the tests run against a real Redis.", say);
  await program("nginx", "because the tests put a real proxy before the gateway.", say);
  const env = {
    CHROMIUM: await program("chromium", "because the tests of the dashboard run in a real browser.", say),
    PATH: [...deno(), join(ROOT, "node_modules/.bin"), process.env.PATH].join(":"),
  };

  const counts: Count[] = [];
  for (const dir of dirs) {
    const here = within(dir, patterns);
    if (!concerns(dir, here)) continue;
    say(dir === "." ? "tests" : `tests of ${dir}`);
    counts.push(await suite(dir, [...(here.length ? here : ["tests/"]), ...options], env));
  }
  if (counts.length === 0) throw new Trouble(`No test file has ${patterns.join(" or ")} in its path.`);
  if (given.length === 0) counts.push(await checks());
  return counts;
}

let counts: Count[];
try {
  counts = await main();
} catch (error) {
  if (!(error instanceof Trouble)) throw error;
  say(error.message);
  counts = [{ passed: 0, failed: 1, skipped: 0, failures: [error.message.split("\n")[0] as string] }];
}
const sum = (of: "passed" | "failed" | "skipped") => counts.reduce((total, count) => total + count[of], 0);
const failures = counts.flatMap((count) => count.failures);
if (failures.length) console.log(`\nFailed:\n${failures.map((name) => `  ${name}`).join("\n")}`);
console.log(`\n${sum("passed")} passed, ${sum("failed")} failed${sum("skipped") ? `, ${sum("skipped")} skipped` : ""}`);
process.exit(sum("failed") ? 1 : 0);

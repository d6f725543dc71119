/**
 * All tests and checks by one command, on a machine that has only Node and npm:
 *
 *   npx -y bun@1.4.5 run test                      everything
 *   npx -y bun@1.4.5 run test store -t requeue     files whose path has "store", tests whose name has "requeue"
 *
 * Installs what the tests need, runs them, names what failed once more, and ends with one line: `N passed, N failed`.
 * Limits grow with the slowness of the machine (tests/support/patience.ts); a `bun test` that dies is started again.
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

/** What one `bun test` came to. `seen`: the files that it began, in order. */
interface Ended {
  count: Count;
  /** it said how many passed; otherwise it died */
  summed: boolean;
  end: string | number | null;
  seen: string[];
}

async function once(dir: string, words: string[], env: Record<string, string>): Promise<Ended> {
  const count: Count = { passed: 0, failed: 0, skipped: 0, failures: [] };
  const summary: Count = { passed: 0, failed: 0, skipped: 0, failures: [] };
  const seen: string[] = [];
  let summed = false;
  let repeats = false; // a long run ends with its failures once more
  // --no-env-file: a .env of the user's own deployment has nothing to do with the tests.
  const command = [process.execPath, "--no-env-file", "test", ...NOT_HERE, ...words];
  const end = await watch(command, join(ROOT, dir), env, (text) => {
    const header = /^(\S+\.(?:test|spec)\.tsx?):$/.exec(text)?.[1];
    if (header) seen.push(header);
    const file = dir === "." ? seen.at(-1) : `${dir}/${seen.at(-1)}`;
    if (/^\d+ tests? (failed|skipped|todo):$/.test(text)) repeats = true;
    const [, result, name] = (!repeats && /^\((pass|fail|skip|todo)\) (.*?)(?: \[[\d.]+ms\])?$/.exec(text)) || [];
    if (result) add(count, result, 1);
    if (result === "fail") count.failures.push(`${file}: ${name}`);
    if (/^# Unhandled error/.test(text)) count.failures.push(`${file}: an error outside of any test`);
    const [, number, what] = /^ +(\d+) (pass|fail|skip|todo)$/.exec(text) ?? [];
    if (!what) return;
    summed = true;
    add(summary, what, Number(number));
  });
  return { count: summed ? { ...summary, failures: count.failures } : count, summed, end, seen };
}

function add(count: Count, result: string, number: number): void {
  if (result === "pass") count.passed += number;
  else if (result === "fail") count.failed += number;
  else count.skipped += number;
}

/** Starts of `bun test` for one package: one that dies takes no file with it but, the second time, the one that it died in. */
const MAX_STARTS = 5;

/** The tests of one package. @param patterns  parts of the paths of its test files */
async function suite(dir: string, patterns: string[], options: string[], env: Record<string, string>): Promise<Count> {
  const total: Count = { passed: 0, failed: 0, skipped: 0, failures: [] };
  const died = new Set<string>();
  let words = patterns.length ? patterns : ["tests/"];
  let left = filesOf(dir, patterns);
  for (let starts = 1; ; starts++) {
    const { count, summed, end, seen } = await once(dir, [...words, ...options], env);
    total.passed += count.passed;
    total.skipped += count.skipped;
    total.failed += count.failed;
    total.failures.push(...count.failures);
    if (summed) {
      if (end === 0 || count.failed > 0) return total;
      total.failed++;
      total.failures.push(`${dir}: bun test ended with ${end}`);
      return total;
    }
    const file = seen.at(-1) ?? left[0] ?? "";
    say(`bun test ended with ${end} in ${file}`);
    const isSecond = died.has(file);
    died.add(file);
    left = left.filter((one) => (one === file ? !isSecond : !seen.includes(one)));
    if (isSecond || starts === MAX_STARTS) {
      total.failed++;
      total.failures.push(`${dir}: bun test ended with ${end} in ${file}, and no summary`);
    }
    if (left.length === 0 || starts === MAX_STARTS) return total;
    say(`starting it again with what is left: ${left.length} files`);
    words = left.map((one) => `./${one}`);
  }
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

/** The package's test files that have one of the patterns in their path. */
function filesOf(dir: string, patterns: string[]): string[] {
  const files = [...new Bun.Glob("tests/**/*.{test,spec}.{ts,tsx}").scanSync({ cwd: join(ROOT, dir) })];
  return files
    .filter((file) => !file.startsWith("tests/slow/"))
    .filter((file) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern.replace(/^\.\//, ""))))
    .sort();
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
  // Tests of clocks say so themselves where it is missing.
  await program("faketime", "because some tests set the clock of a process.", say).catch((error) => say(error.message));
  await program("nginx", "because the tests put a real proxy before the gateway.", say);
  const env = {
    CHROMIUM: await program("chromium", "because the tests of the dashboard run in a real browser.", say),
    PATH: [...deno(), join(ROOT, "node_modules/.bin"), process.env.PATH].join(":"),
  };

  const counts: Count[] = [];
  for (const dir of dirs) {
    const here = within(dir, patterns);
    if (filesOf(dir, here).length === 0) continue;
    say(dir === "." ? "tests" : `tests of ${dir}`);
    counts.push(await suite(dir, here, options, env));
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

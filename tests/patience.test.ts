/** Limits of the tests on a slow machine. */
import { afterAll, expect, test } from "bun:test";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "./fixtures/call-harness.ts";
import { startBrowser, visit } from "./support/browser.ts";
import { factorOf } from "./support/patience.ts";
import { until } from "./support/stack.ts";

test("limits stay as they are on a usual machine, and grow with slowness, within bounds", () => {
  const least = Number(process.env.TEST_PATIENCE) || 1;
  expect([factorOf(20), factorOf(80), factorOf(100)]).toEqual([least, least, least]);
  expect(factorOf(400)).toBe(Math.max(8.5, least));
  expect(factorOf(1e6)).toBe(Math.max(12, least));
});

const dir = mkdtempSync(join(tmpdir(), "longhaul-patience-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Runs a test file by itself. @returns its last lines */
async function run(text: string, patience: string): Promise<string> {
  const file = join(dir, `limits-${patience}.test.ts`);
  writeFileSync(file, text);
  const preload = `--preload=${join(import.meta.dir, "support/preload.ts")}`;
  const child = Bun.spawn([process.execPath, "test", preload, file], {
    env: { ...process.env, TEST_PATIENCE: patience },
    stdout: "pipe",
    stderr: "pipe",
  });
  return (await new Response(child.stdout).text()) + (await new Response(child.stderr).text());
}

const LIMITS = `
import { afterEach, beforeAll, describe, setDefaultTimeout, test } from "bun:test";
setDefaultTimeout(10);
const slow = () => Bun.sleep(50);
beforeAll(slow);
afterEach(slow, 10);
test("its file's limit", slow);
test("a limit of its own", slow, 10);
test("a limit among options", slow, { timeout: 10 });
test.if(true)("under a condition", slow, 10);
test.each([1, 2])("for each %i", slow, 10);
describe("in a group", () => test.skipIf(false)("by its file", slow));
test.skip("not run", slow);
test.todo("to be written");
`;

test("a slow machine gives every test and hook its time, wherever the limit stands", async () => {
  const said = await run(LIMITS, "200");
  expect(said).toMatch(/^ 7 pass$/m);
  expect(said).toMatch(/^ 0 fail$/m);
});

test("what hangs is ended by its limit all the same", async () => {
  const said = await run('import { test } from "bun:test"; test("hangs", () => Bun.sleep(60_000), 10);', "2");
  expect(said).toContain("this test timed out");
});

test("a bun test that dies is started again with what is left, and fails the file alone that kills it twice", async () => {
  const home = join(dir, "project");
  mkdirSync(join(home, "tests"), { recursive: true });
  for (const part of ["up", "shared"]) symlinkSync(join(import.meta.dir, "..", part), join(home, part));
  cpSync(join(import.meta.dir, "run.ts"), join(home, "tests/run.ts"));
  const file = (name: string, body: string) =>
    writeFileSync(
      join(home, `tests/${name}.test.ts`),
      `import { test } from "bun:test";\nimport { existsSync, writeFileSync } from "node:fs";\ntest("${name}", () => { ${body} });\n`,
    );
  file("a", "");
  file(
    "b",
    `if (!existsSync("${home}/died")) { writeFileSync("${home}/died", ""); process.kill(process.pid, "SIGKILL"); }`,
  );
  file("c", `process.kill(process.pid, "SIGKILL");`);
  file("d", "");
  // its own root, which is where up/ says that it is
  const script = readFileSync(join(home, "tests/run.ts"), "utf8");
  writeFileSync(
    join(home, "tests/run.ts"),
    script.replace(/import \{ ROOT \} from .*/, `const ROOT = ${JSON.stringify(home)};`),
  );
  writeFileSync(join(home, "package.json"), "{}");
  const child = Bun.spawn([process.execPath, "tests/run.ts", "a", "b", "c", "d"], { cwd: home, stdout: "pipe" });
  const said = await new Response(child.stdout).text();
  expect(said.trim().split("\n").at(-1)).toMatch(/^3 passed, 1 failed$/);
  expect(said).toContain("bun test ended with SIGKILL in tests/c.test.ts, and no summary");
});

test("a harness that died fails one test only: the calling process and the browser are started again", async () => {
  const client = new Client([process.execPath]);
  await client.rss();
  const asked = client.call({ url: "http://127.0.0.1:9", headers: {}, connectTimeoutMs: 60_000 });
  process.kill(client.pid(), "SIGKILL");
  await asked.catch(() => {});
  await until(() => client.died());
  expect(await client.rss()).toBeGreaterThan(0);
  client.stop();
  const browser = await startBrowser();
  await browser.close();
  const again = await visit(browser, "data:text/html,well?");
  expect(await again.page.textContent("body")).toContain("well?");
  await browser.close();
});

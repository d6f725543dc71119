/** Types that the documented command makes of /openapi.json: a use of them type-checks, and a wrong one does not. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startGatewayApp, type TestGateway } from "./support/gateway.ts";
import { startRedis, type TestRedis } from "./support/redis.ts";

/** A package of its own: the generator needs the programming interface of TypeScript 5, which TypeScript 7 has not. */
const GENERATOR = join(import.meta.dir, "openapi");
const TSC = join(import.meta.dir, "../node_modules/.bin/tsc");

let dir: string;
let redis: TestRedis;
let gateway: TestGateway;
const run = async (command: string[], cwd: string) => {
  const child = Bun.spawn(command, { cwd, stdout: "pipe", stderr: "pipe" });
  const [out, err] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  return { code: await child.exited, text: out + err };
};

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "longhaul-types-"));
  redis = await startRedis();
  const services = join(dir, "services.json");
  const schema = {
    properties: { width: { type: "integer", default: 300 }, image: { type: "string" } },
    required: ["image"],
  };
  writeFileSync(services, JSON.stringify({ operations: { thumbnail: { url: "http://127.0.0.1:9", schema } } }));
  gateway = await startGatewayApp(redis.url, { SERVICES: services });
  writeFileSync(join(dir, "openapi.json"), await (await gateway.ask("GET", "/openapi.json")).text());
  if (!existsSync(join(GENERATOR, "node_modules/openapi-typescript"))) {
    const installed = await run([process.execPath, "install", "--frozen-lockfile"], GENERATOR);
    if (installed.code !== 0) throw new Error(installed.text);
  }
  // docs/api.md: bunx openapi-typescript@… http://localhost:8000/openapi.json --default-non-nullable=false -o longhaul.d.ts
  const cli = join(GENERATOR, "node_modules/openapi-typescript/bin/cli.js");
  const options = ["--default-non-nullable=false", "-o", join(dir, "longhaul.d.ts")];
  const made = await run([process.execPath, cli, join(dir, "openapi.json"), ...options], GENERATOR);
  if (made.code !== 0) throw new Error(made.text);
}, 120_000);
afterAll(async () => {
  gateway?.close();
  await redis?.stop();
  rmSync(dir, { recursive: true, force: true });
});

const check = async (code: string) => {
  const file = join(dir, "use.ts");
  writeFileSync(file, `import type { components, paths } from "./longhaul.d.ts";\n${code}\nexport {};\n`);
  return run([TSC, "--noEmit", "--strict", "--exactOptionalPropertyTypes", "--skipLibCheck", file], dir);
};

test("generated types express POST /jobs, one job and a batch, and each operation's own route", async () => {
  const { code, text } = await check(`
type Body<P extends keyof paths> = paths[P] extends { post: { requestBody: { content: { "application/json": infer B } } } } ? B : never;
const one: Body<"/jobs"> = { operation: "ifcconvert", payload: { input_filename: "a.ifc", output_filename: "a.glb" }, priority: 9 };
const batch: Body<"/jobs"> = [
  { operation: "ifc2json", payload: { filename: "a.ifc", output_filename: "a.json" } },
  { operation: "thumbnail", payload: { image: "a.png", more: [1] }, tags: ["x"], delay: "5m", retries: 0 },
];
const convert: Body<"/ifcconvert"> = { input_filename: "a.ifc", output_filename: "a.glb", include: null, verbose: false };
const clash: Body<"/ifcclash"> = { clash_sets: [{ name: "s", a: [{ file: "a.ifc" }] }], output_filename: "c.json" };
const bulk: Body<"/jobs/bulk"> = { filter: { state: "failed", older_than: "2d" }, action: "delete" };
type Answer = paths["/jobs/{id}/status"]["get"]["responses"][200]["content"]["application/json"];
const ended = (answer: Answer): boolean => answer.status === "finished" || answer.status === "failed";
const job: components["schemas"]["AnyJob"] = one as never;
console.log(one, batch, convert, clash, bulk, ended, job);`);
  expect([code, text]).toEqual([0, ""]);
}, 60_000);

test("generated types refuse another operation's payload, an unknown option and a missing field", async () => {
  const { code, text } = await check(`
type Jobs = components["schemas"]["AnyJob"];
// @ts-expect-error: the payload of another operation
const other: Jobs = { operation: "ifcconvert", payload: { filename: "a.ifc", output_filename: "a.json" } };
// @ts-expect-error: there is no such option
const option: Jobs = { operation: "ifc2json", payload: { filename: "a", output_filename: "b" }, prio: 9 };
// @ts-expect-error: a payload is needed
const none: Jobs = { operation: "ifc2json" };
// @ts-expect-error: there is no such operation
const unknown: Jobs = { operation: "ifc3json", payload: {} };
console.log(other, option, none, unknown);`);
  expect([code, text]).toEqual([0, ""]);
}, 60_000);

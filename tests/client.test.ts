import { afterAll, beforeAll, expect, test } from "bun:test";
import { Longhaul, LonghaulError } from "../examples/client.ts";
import type { Payloads } from "../shared/services.ts";
import { type Stack, startStack } from "./support/stack.ts";

let stack: Stack;
let longhaul: Longhaul<Payloads & { work: Record<string, unknown> }>;
const broken = Bun.serve({
  ...{ port: 0, hostname: "127.0.0.1" },
  fetch: () => Response.json({ detail: "File nowhere.ifc not found" }, { status: 404 }),
});
beforeAll(async () => {
  const env = { API_KEYS: "client-test-key", IFC2JSON_URL: `http://127.0.0.1:${broken.port}` };
  stack = await startStack({ env });
  longhaul = new Longhaul(stack.url, "client-test-key");
});
afterAll(async () => {
  await broken.stop(true);
  await stack?.stop();
});

test("submit, wait, result", async () => {
  const id = await longhaul.submit("work", { sleep: 300, answer: { value: [1] } }, { priority: 8, tags: ["a"] });
  expect(await longhaul.wait(id)).toEqual({ value: [1] });
  const result = await longhaul.result(id);
  expect([result.headers.get("content-type"), await result.text()]).toEqual(["application/json", '{"value":[1]}']);
});

test("a job that fails, and a request that is refused, say why", async () => {
  const id = await longhaul.submit("work", { status: 404, detail: "File a.ifc not found" });
  const failed = longhaul.wait(id);
  await expect(failed).rejects.toBeInstanceOf(LonghaulError);
  await expect(failed).rejects.toThrow("File a.ifc not found");
  const refused = { status: 403, problem: { code: "wrong_key" } };
  await expect(new Longhaul(stack.url, "wrong").status(id)).rejects.toMatchObject(refused);
});

test("run by itself it ends with a sentence when the job fails or the gateway refuses, and exit code 1", async () => {
  for (const [key, words] of [
    [
      "client-test-key",
      "It did not work: ifc2json answered 404: File nowhere.ifc not found (final: FileNotFoundError)\n",
    ],
    ["wrong-key-1", "It did not work: "],
  ] as const) {
    const run = Bun.spawn([process.execPath, "examples/client.ts", stack.url, "nowhere.ifc", key], {
      ...{ cwd: `${import.meta.dir}/..`, stdout: "pipe", stderr: "pipe" },
    });
    const said = await new Response(run.stderr).text();
    expect([await run.exited, said.split("\n").length]).toEqual([1, 2]);
    expect(said).toStartWith(words);
  }
});

test("cancel", async () => {
  const id = await longhaul.submit("work", { sleep: 20_000 });
  await longhaul.cancel(id);
  await expect(longhaul.wait(id)).rejects.toThrow(/^canceled/);
});

test("a proxy that says when to come again, or that the gateway is away, is asked again", async () => {
  const asked: number[] = [];
  const answers: (() => Response)[] = [
    () => new Response("", { status: 503, headers: { "retry-after": new Date(Date.now() + 2_500).toUTCString() } }),
    () => new Response("", { status: 503, headers: { "retry-after": "soon" } }),
    () => new Response("<html>", { status: 502 }),
  ];
  const proxy = Bun.serve({
    ...{ port: 0, hostname: "127.0.0.1" },
    fetch() {
      asked.push(performance.now());
      return answers.shift()?.() ?? Response.json({ job_id: "work_1", status: "finished", result: 7 });
    },
  });
  try {
    expect(await new Longhaul(`http://127.0.0.1:${proxy.port}/`).wait("work_1")).toBe(7);
    expect(asked.length).toBe(4);
    for (const [i, at] of asked.slice(1).entries()) expect(at - (asked[i] as number)).toBeGreaterThan(900);
  } finally {
    await proxy.stop(true);
  }
});

test("a wait goes on while the gateway is away, and one that never answered ends soon", async () => {
  let answer = () => Response.json({ job_id: "work_1", status: "started" });
  const serve = (port: number) => Bun.serve({ port, hostname: "127.0.0.1", fetch: () => answer() });
  let server = serve(0);
  const port = server.port as number;
  const waiting = new Longhaul(`http://127.0.0.1:${port}`).wait("work_1");
  await Bun.sleep(700);
  await server.stop(true);
  const nobody = new Longhaul(`http://127.0.0.1:${port}`, undefined, 2).submit("ifc2json", {
    filename: "a.ifc",
    output_filename: "a.json",
  });
  await expect(nobody).rejects.toThrow();
  await Bun.sleep(3_000);
  answer = () => Response.json({ job_id: "work_1", status: "finished", result: 8 });
  server = serve(port);
  expect(await waiting).toBe(8);
  await server.stop(true);
}, 30_000);

test("payloads have the types of the registry", () => {
  const fits = (_: Payloads["ifcclash"]) => {};
  fits({ clash_sets: [{ name: "a", a: [{ file: "a.ifc" }] }], output_filename: "c.json", check_all: true });
  // @ts-expect-error: output_filename is required
  fits({ clash_sets: [] });
  // @ts-expect-error: a number
  fits({ clash_sets: [], output_filename: "c.json", tolerance: "much" });
  // @ts-expect-error: one of three words
  fits({ clash_sets: [], output_filename: "c.json", mode: "some" });
  const convert: Payloads["ifcconvert"] = { input_filename: "a.ifc", output_filename: "a.glb", include: ["IfcWall"] };
  expect(convert.input_filename).toBe("a.ifc");
});

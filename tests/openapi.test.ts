import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Validator } from "@seriousme/openapi-schema-validator";
import { gatewayApp } from "../gateway.ts";
import { ANSWERS } from "../shared/openapi-answers.ts";
import { serve } from "../shared/runtime.ts";
import { startBrowser, visit } from "./support/browser.ts";
import { DENO } from "./support/deno.ts";
import { DEPLOYED, startGatewayApp, type TestGateway } from "./support/gateway.ts";
import { freePort, startRedis, type TestRedis } from "./support/redis.ts";
import { startProcess } from "./support/stack.ts";

let redis: TestRedis;
let self: TestGateway;
let services: string;
// biome-ignore lint/suspicious/noExplicitAny: a document of many shapes
let doc: any;

/** An operation that refers to itself, and one whose name a schema of ours might have. */
const NODE = { type: "object", properties: { of: { type: "array", items: { $ref: "#/$defs/Node" } } } };
const OWN = {
  tree: {
    url: "http://127.0.0.1:9",
    route: "/shapes/tree",
    summary: '<img src=x onerror="document.title=1">',
    schema: {
      properties: { root: { $ref: "#/$defs/Node" }, depth: { type: "integer", minimum: 1, default: 3 } },
      required: ["root"],
      $defs: { Node: NODE },
    },
  },
  job: { url: "http://127.0.0.1:9" },
};

beforeAll(async () => {
  redis = await startRedis();
  services = join(mkdtempSync(join(tmpdir(), "longhaul-openapi-")), "services.json");
  writeFileSync(services, JSON.stringify({ operations: OWN }));
  self = await startGatewayApp(redis.url, { SERVICES: services, API_KEYS: "openapi-test-key" });
  doc = await (await self.ask("GET", "/openapi.json")).json();
});
afterAll(async () => {
  self?.close();
  await redis?.stop();
  if (services) rmSync(dirname(services), { recursive: true });
});
const KEY = { "x-api-key": "openapi-test-key" };

test("the document is open, valid OpenAPI 3.1, and comes with an ETag", async () => {
  const answer = await self.ask("GET", "/openapi.json", {}, "203.0.113.9");
  expect(answer.status).toBe(200);
  expect(answer.headers.get("content-type")).toBe("application/json");
  const result = await new Validator().validate(structuredClone(doc));
  expect([result.valid, result.errors]).toEqual([true, undefined]);
  expect(doc.openapi).toStartWith("3.1");
  const again = await self.ask("GET", "/openapi.json", { headers: { "if-none-match": answer.headers.get("etag")! } });
  expect(again.status).toBe(304);
  expect(JSON.stringify(doc)).not.toContain("127.0.0.1:9"); // no address of a service
});

test("the bare address names places that there are", async () => {
  const { name, ...places } = await self.json("/");
  expect([name, places.docs]).toEqual(["Longhaul", "/docs"]);
  for (const place of Object.values(places))
    expect([place, (await self.ask("GET", place as string)).status]).toEqual([place, 200]);
});

test("its paths are the routes that there are", () => {
  const real = gatewayApp(self.gateway)
    .routes.filter(({ method }) => method !== "ALL")
    .map(({ method, path }) => `${method} ${path.replace(/:(\w+)(\{[^}]*\})?/g, "{$1}")}`);
  const told = Object.entries(doc.paths).flatMap(([path, item]) =>
    Object.keys(item as object).map((method) => `${method.toUpperCase()} ${path}`),
  );
  expect(told.sort()).toEqual([...new Set(real)].sort());
  const ids = Object.values(doc.paths).flatMap((item) =>
    Object.values(item as Record<string, { operationId: string }>).map((one) => one.operationId),
  );
  expect(new Set(ids).size).toBe(ids.length);
});

test("every reference leads somewhere", () => {
  const refs = [...JSON.stringify(doc).matchAll(/"\$ref":"#\/components\/schemas\/([^"]+)"/g)].map((m) => m[1]!);
  expect(refs.length).toBeGreaterThan(50);
  for (const name of refs) expect([name, name in doc.components.schemas]).toEqual([name, true]);
});

test("a route is open in the document exactly when it answers without a key", async () => {
  for (const [path, item] of Object.entries(doc.paths)) {
    // biome-ignore lint/suspicious/noExplicitAny: as above
    for (const [method, operation] of Object.entries(item as Record<string, any>)) {
      const answer = await self.ask(
        method.toUpperCase(),
        path.replace(/\{\w+\}/g, `ifccsv_${"0".repeat(22)}`),
        {},
        "203.0.113.9",
      );
      expect([method, path, answer.status === 401]).toEqual([method, path, operation.security === undefined]);
      if (answer.status === 401) expect(operation.responses["401"]).toBeDefined();
      await answer.body?.cancel();
    }
  }
  expect(doc.security).toEqual([{ apiKey: [] }, { bearer: [] }]);
});

const B = { type: "boolean" };
const S = { type: "string" };
const nullText = { type: ["string", "null"], default: null };
const nullList = { anyOf: [{ type: "array", items: S }, { type: "null" }], default: null };
const yes = { ...B, default: true };
const no = { ...B, default: false };
/** contract.md §2: required, and optional with what they are if left out. */
const EIGHT: Record<string, [required: string[], optional: Record<string, object>]> = {
  "/ifcconvert": [
    ["input_filename", "output_filename"],
    {
      ...{ verbose: yes, plan: no, model: yes, weld_vertices: no, use_world_coords: no, convert_back_units: no },
      ...{ sew_shells: no, merge_boolean_operands: no, disable_opening_subtractions: no },
      ...{ bounds: nullText, include: nullList, exclude: nullList, log_file: nullText },
    },
  ],
  "/ifccsv": [
    ["filename", "output_filename"],
    {
      format: { ...S, enum: ["csv", "xlsx", "ods"], default: "csv" },
      delimiter: { ...S, default: "," },
      null: { ...S, default: "-" },
      query: { ...S, default: "IfcProduct" },
      attributes: { type: "array", items: S, default: ["Name", "Description"] },
    },
  ],
  "/ifccsv/import": [["ifc_filename", "csv_filename"], { output_filename: S }],
  "/ifcclash": [
    ["clash_sets", "output_filename"],
    {
      tolerance: { type: "number", default: 0.01 },
      smart_grouping: no,
      max_cluster_distance: { type: "number", default: 5 },
      mode: { ...S, enum: ["intersection", "collision", "clearance"], default: "intersection" },
      clearance: { type: "number", default: 0 },
      check_all: no,
      allow_touching: no,
    },
  ],
  "/ifctester": [
    ["ifc_filename", "ids_filename", "output_filename"],
    { report_type: { ...S, enum: ["json", "html"], default: "json" } },
  ],
  "/ifcdiff": [
    ["old_file", "new_file"],
    {
      ...{ output_file: { ...S, default: "diff.json" }, relationships: nullList, is_shallow: yes },
      filter_elements: nullText,
    },
  ],
  "/ifc2json": [["filename", "output_filename"], {}],
  "/calculate-qtos": [["input_file"], { output_file: { type: ["string", "null"] } }],
};
const bodyOf = (path: string) =>
  doc.components.schemas[doc.paths[path].post.requestBody.content["application/json"].schema.$ref.split("/").at(-1)];

test("the eight operations: what is required, and what the rest is if left out", () => {
  for (const [path, [required, optional]] of Object.entries(EIGHT)) {
    const schema = bodyOf(path);
    expect([path, schema.required]).toEqual([path, required]);
    expect([path, Object.keys(schema.properties).sort()]).toEqual([
      path,
      [...required, ...Object.keys(optional)].sort(),
    ]);
    for (const [name, field] of Object.entries(optional)) {
      const { description, examples, minLength, ...rest } = schema.properties[name];
      expect([path, name, rest]).toEqual([path, name, field]);
    }
    expect(schema.additionalProperties).toEqual({}); // the service is the authority on its own options
  }
});

test("POST /jobs: each member of the choice is whole in itself", () => {
  const { oneOf, discriminator } = doc.components.schemas.AnyJob;
  expect(oneOf).toHaveLength(self.gateway.config.registry.operations.length);
  for (const { $ref } of oneOf) {
    const member = doc.components.schemas[$ref.split("/").at(-1)];
    const name = member.properties.operation.const;
    expect([name, member.required, member.additionalProperties]).toEqual([name, ["operation", "payload"], false]);
    expect(member.properties.payload.$ref).toBe(`#/components/schemas/${name}`);
    expect(Object.keys(member.properties)).toEqual(expect.arrayContaining(["priority", "retries", "callback_url"]));
    expect(discriminator.mapping[name]).toBe($ref);
  }
});

test("what redocly and spectral ask for: each operation has an id, summary, description, tag and a 4xx answer", () => {
  const ids = new Set<string>();
  for (const [path, item] of Object.entries(doc.paths)) {
    // biome-ignore lint/suspicious/noExplicitAny: as above
    for (const [method, operation] of Object.entries(item as Record<string, any>)) {
      for (const name of ["operationId", "summary", "description"]) {
        expect([method, path, name, (operation[name] ?? "").length > 0]).toEqual([method, path, name, true]);
      }
      expect([path, doc.tags.some(({ name }: { name: string }) => operation.tags.includes(name))]).toEqual([
        path,
        true,
      ]);
      const statuses = Object.keys(operation.responses);
      expect([method, path, statuses.some((status) => status.startsWith("4"))]).toEqual([method, path, true]);
      expect([method, path, statuses.some((status) => /^[23]/.test(status))]).toEqual([method, path, true]);
      expect([operation.operationId, ids.has(operation.operationId)]).toEqual([operation.operationId, false]);
      ids.add(operation.operationId);
    }
  }
  for (const name of ["contact", "license", "description"]) expect(doc.info).toHaveProperty(name);
});

test("options, headers and answers of a submit", () => {
  const { parameters, responses } = doc.paths["/ifccsv"].post;
  const names = (place: string) =>
    parameters.filter((one: { in: string }) => one.in === place).map((one: { name: string }) => one.name);
  expect(names("query")).toEqual([
    "priority",
    "delay",
    "run_at",
    "timeout",
    "retries",
    "backoff",
    "result_ttl",
    "tags",
    "callback_url",
  ]);
  expect(names("header")).toEqual(["Idempotency-Key", "Prefer", "traceparent"]);
  expect(parameters[0].schema).toEqual({ type: "integer", minimum: 0, maximum: 9 });
  expect(Object.keys(responses["202"].headers)).toContain("Retry-After");
  for (const status of ["400", "401", "403", "413", "415", "422", "429", "503"]) {
    expect(Object.keys(responses[status].content)).toEqual(["application/problem+json"]);
  }
});

test("an operation of SERVICES is there, parts that refer to themselves too", () => {
  expect(bodyOf("/shapes/tree").required).toEqual(["root"]);
  expect(bodyOf("/shapes/tree").properties.depth).toEqual({ type: "integer", minimum: 1, default: 3 });
  const name = bodyOf("/shapes/tree").properties.root.$ref.split("/").at(-1);
  expect(doc.components.schemas[name].properties.of.items.$ref.split("/").at(-1)).toBe(name);
  expect(doc.components.schemas.AnyJob.oneOf).toContainEqual({ $ref: "#/components/schemas/Job.tree" });
});

test("real answers are what the document says", async () => {
  const json = async (method: string, path: string, body?: unknown) =>
    (
      await self.ask(method, path, {
        headers: { ...KEY, "content-type": "application/json" },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      })
    ).json();
  const payload = { filename: "a.ifc", output_filename: "b.json" };
  const one = ANSWERS.Accepted.parse(await json("POST", "/ifc2json?tags=a,b&priority=7", payload));
  const item = { operation: "ifc2json", payload };
  const batch = ANSWERS.BatchAccepted.parse(await json("POST", "/jobs", [item, item]));
  ANSWERS.Status.parse(await json("GET", `/jobs/${one.job_id}/status`));
  ANSWERS.Job.parse(await json("GET", `/jobs/${one.job_id}`));
  ANSWERS.JobList.parse(await json("GET", "/jobs"));
  ANSWERS.Batch.parse(await json("GET", `/batches/${batch.batch_id}?ids`));
  ANSWERS.Deliveries.parse(await json("GET", `/jobs/${one.job_id}/deliveries`));
  ANSWERS.Alerts.parse(await json("GET", "/alerts"));
  ANSWERS.Health.parse(await json("GET", "/health"));
  ANSWERS.Autoscale.parse(await json("GET", "/autoscale"));
  ANSWERS.alive.parse(await json("GET", "/livez"));
  ANSWERS.ready.parse(await json("GET", "/readyz"));
  ANSWERS.canceled.parse(await json("POST", `/jobs/${one.job_id}/cancel`));
  ANSWERS.Job.parse(await json("GET", `/jobs/${one.job_id}`));
  ANSWERS.requeued.parse(await json("POST", `/jobs/${one.job_id}/requeue`));
  await json("POST", `/jobs/${one.job_id}/cancel`);
  ANSWERS.canceled.parse(await json("DELETE", `/jobs/${one.job_id}`)); // its entry goes with the queue's
  ANSWERS.queue.parse(await json("POST", "/queues/ifc2json/pause"));
  ANSWERS.queue.parse(await json("POST", "/queues/ifc2json/resume"));
  const bulk = ANSWERS.Bulk.parse(
    await json("POST", "/jobs/bulk", { filter: { state: "queued" }, action: "cancel", dry_run: true }),
  );
  ANSWERS.Bulk.parse(await json("GET", `/jobs/bulk/${bulk.bulk_id}`));
  ANSWERS.emptied.parse(await json("POST", "/queues/ifc2json/empty"));
  ANSWERS.audit.parse(await json("GET", "/audit"));
  ANSWERS.Listing.parse(await json("GET", "/list_directories"));
  for (const path of ["/jobs/none", "/nowhere", "/jobs?limit=0"]) ANSWERS.Problem.parse(await json("GET", path));
});

test("/docs in a browser: shows the operations, asks no other host, runs nothing that a summary brings", async () => {
  const port = await freePort();
  const base = `http://127.0.0.1:${port}`;
  const app = gatewayApp(self.gateway);
  const server = serve((request, env) => app.fetch(request, env), port, "127.0.0.1");
  const browser = await startBrowser();
  try {
    const { page, elsewhere, faults } = await visit(browser, base, "docs#ifcclash");
    const section = page.locator("#ifcclash");
    await section.waitFor();
    const text = (await section.textContent()) ?? "";
    const example = `{"clash_sets":[{"name":"…","a":[{"file":"model.ifc"}]}],"output_filename":"clashes.json"}`;
    for (const part of [
      ...["POST /ifcclash", "clash_sets[].a[].file", "max_cluster_distance", "default 5", "Idempotency-Key"],
      ...[`curl -X POST '${base}/ifcclash'`, `-d '${example}'`],
    ]) {
      expect(text).toContain(part);
    }
    expect(await section.evaluate((node) => Math.abs(node.getBoundingClientRect().top) < 200)).toBe(true);
    expect(await page.locator("#tree").textContent()).toContain("<img src=x");
    expect(await page.locator("img").count()).toBe(0);
    expect(await page.locator("nav a").count()).toBeGreaterThan(50);
    await page.getByRole("searchbox").fill("calculate");
    expect(await page.locator("nav a:visible").allTextContents()).toEqual([
      "POST /calculate-qtos",
      "Job.calculate-qtos",
      "calculate-qtos",
    ]);
    expect([elsewhere, faults]).toEqual([[], []]);
  } finally {
    await browser.close();
    await server.stop(true);
  }
}, 60_000);

test.if(DENO !== null)(
  "under Deno: the same document, and the page",
  async () => {
    const port = await freePort();
    const url = `http://127.0.0.1:${port}`;
    const env = { ...DEPLOYED, REDIS_URL: redis.url, SERVICES: services, PORT: String(port), DASHBOARD_PORT: "0" };
    const gateway = startProcess("gateway.ts", env, "deno");
    try {
      await gateway.says(/gateway ready/, 30_000);
      expect(await (await fetch(`${url}/openapi.json`)).json()).toEqual(doc);
      expect(await (await fetch(`${url}/docs`)).text()).toContain("docs/docs.js");
    } finally {
      gateway.kill("SIGKILL");
      await gateway.exited;
    }
  },
  60_000,
);

test("the page's files are those three and no others", async () => {
  for (const [path, type] of [
    ["/docs", "text/html"],
    ["/docs/docs.js", "text/javascript"],
    ["/docs/docs.css", "text/css"],
  ] as const) {
    const answer = await self.ask("GET", path, {}, "203.0.113.9");
    expect(answer.headers.get("content-type")).toStartWith(type);
    expect(answer.headers.get("content-security-policy")).not.toContain("unsafe");
  }
  for (const name of ["..%2Fmain.js", "constructor", "x.js"])
    expect((await self.ask("GET", `/docs/${name}`)).status).toBe(404);
});

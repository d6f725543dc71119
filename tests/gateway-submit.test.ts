/** What goes in: payloads and their defaults, options, and every way to be refused (contract.md §1, §2). */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { gatewayApp, submits } from "../gateway.ts";
import { readConfig } from "../shared/config.ts";
import { startGatewayApp, stored, type TestGateway } from "./support/gateway.ts";
import { startRedis, type TestRedis } from "./support/redis.ts";

let redis: TestRedis;
let g: TestGateway;
beforeAll(async () => {
  redis = await startRedis();
  g = await startGatewayApp(redis.url);
});
afterAll(async () => {
  g?.close();
  await redis?.stop();
});
beforeEach(() => redis.client.flushall());

/** Minimal bodies, and what the microservice gets of each: contract.md §2, word by word. */
const OPERATIONS: [route: string, queue: string, minimal: object, sent: object][] = [
  [
    "/ifcconvert",
    "ifcconvert",
    { input_filename: "a.ifc", output_filename: "a.glb" },
    {
      ...{ verbose: true, plan: false, model: true, weld_vertices: false, use_world_coords: false },
      ...{ convert_back_units: false, sew_shells: false, merge_boolean_operands: false },
      ...{ disable_opening_subtractions: false, bounds: null, include: null, exclude: null, log_file: null },
    },
  ],
  [
    "/ifccsv",
    "ifccsv",
    { filename: "a.ifc", output_filename: "a.csv" },
    { format: "csv", delimiter: ",", null: "-", query: "IfcProduct", attributes: ["Name", "Description"] },
  ],
  ["/ifccsv/import", "ifccsv", { ifc_filename: "a.ifc", csv_filename: "a.csv" }, {}],
  [
    "/ifcclash",
    "ifcclash",
    { clash_sets: [{ name: "s", a: [{ file: "a.ifc" }], b: [{ file: "b.ifc" }] }], output_filename: "c.json" },
    {
      clash_sets: [
        {
          name: "s",
          a: [{ file: "a.ifc", selector: null, mode: "e" }],
          b: [{ file: "b.ifc", selector: null, mode: "e" }],
        },
      ],
      ...{ tolerance: 0.01, smart_grouping: false, max_cluster_distance: 5, mode: "intersection", clearance: 0 },
      ...{ check_all: false, allow_touching: false },
    },
  ],
  [
    "/ifctester",
    "ifctester",
    { ifc_filename: "a.ifc", ids_filename: "a.ids", output_filename: "r.json" },
    { report_type: "json" },
  ],
  [
    "/ifcdiff",
    "ifcdiff",
    { old_file: "a.ifc", new_file: "b.ifc" },
    { output_file: "diff.json", relationships: null, is_shallow: true, filter_elements: null },
  ],
  ["/ifc2json", "ifc2json", { filename: "a.ifc", output_filename: "a.json" }, {}],
  ["/calculate-qtos", "ifc5d", { input_file: "a.ifc" }, {}],
];

for (const [route, queue, minimal, sent] of OPERATIONS) {
  test(`POST ${route} with the least body sends exactly the contract's defaults to queue ${queue}`, async () => {
    const response = await g.post(route, minimal);
    expect(response.status).toBe(202);
    const { job_id: id, status } = (await response.json()) as { job_id: never; status: string };
    expect(status).toBe("queued");
    expect(id as string).toMatch(new RegExp(`^${queue}_[0-9A-Za-z]{22}$`));
    expect(response.headers.get("location")).toBe(`/jobs/${id}`);
    expect(Number(response.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
    expect(JSON.parse(await stored(g.redis, id))).toEqual({ ...minimal, ...sent });
  });

  test(`POST ${route} names each required field that is missing`, async () => {
    const problem = (await (await g.post(route, {})).json()) as { status: number; errors: { path: string }[] };
    expect(problem.status).toBe(422);
    expect(problem.errors.map((e) => e.path).sort()).toEqual(Object.keys(minimal).sort());
  });
}

test("old clients' texts for truths and numbers are taken as such", async () => {
  const id = await g.submit("/ifcconvert", {
    ...{
      input_filename: "a.ifc",
      output_filename: "a.glb",
      verbose: "False",
      plan: "true",
      model: 0,
      weld_vertices: "on",
    },
  });
  expect(JSON.parse(await stored(g.redis, id))).toMatchObject({
    verbose: false,
    plan: true,
    model: false,
    weld_vertices: true,
  });
  const clash = { clash_sets: [], output_filename: "c.json", tolerance: "0.25", clearance: " 3 ", check_all: "1" };
  const other = await g.submit("/ifcclash", clash);
  expect(JSON.parse(await stored(g.redis, other))).toMatchObject({ tolerance: 0.25, clearance: 3, check_all: true });
  for (const wrong of ["", "wide", "NaN", "Infinity", null, true]) {
    expect([wrong, (await g.post("/ifcclash", { ...clash, tolerance: wrong })).status]).toEqual([wrong, 422]);
  }
  for (const wrong of ["", "maybe", null, 2, []]) {
    expect([wrong, (await g.post("/ifcclash", { ...clash, check_all: wrong })).status]).toEqual([wrong, 422]);
  }
});

test("unknown fields pass untouched, digits that a double cannot hold included", async () => {
  const extra =
    '"x":{"big":9007199254740993,"tiny":1e-400,"pi":3.14159265358979323846,"list":[{"a":null}],"ü":"\\u0000"}';
  const id = await g.submit("/ifc2json", `{"filename":"a.ifc","output_filename":"a.json",${extra}}`);
  const text = await stored(g.redis, id);
  for (const digits of ["9007199254740993", "1e-400", "3.14159265358979323846"]) expect(text).toContain(digits);
  expect(JSON.parse(text).x.list).toEqual([{ a: null }]);
  // and back out, in the record
  expect(await (await g.ask("GET", `/jobs/${id}`)).text()).toContain("9007199254740993");
});

test("a whole number written as a fraction stays one: 1.0 does not become 1", async () => {
  const extra = '"x":{"one":1.0,"list":[0.0, 2.00],"e":1e3,"minus":-0,"half":1.5,"text":"1.0]"}';
  const id = await g.submit("/ifc2json", `{"filename":"a.ifc","output_filename":"a.json",${extra}}`);
  expect(await stored(g.redis, id)).toContain(
    '"x":{"one":1.0,"list":[0.0,2.00],"e":1e3,"minus":-0,"half":1.5,"text":"1.0]"}',
  );
  const files = '"clash_sets":[{"name":"s","a":[{"file":"a.ifc"}]}],"output_filename":"c.json"';
  const clash = await g.submit("/ifcclash", `{${files},"tolerance":2.0,"check_all":1.0}`);
  expect(JSON.parse(await stored(g.redis, clash))).toMatchObject({ tolerance: 2, check_all: true });
  const job = `{"operation":"ifc2json","priority":9.0,"payload":{"filename":"a.ifc","output_filename":"a.json"}}`;
  expect((await g.post("/jobs", job)).status).toBe(202);
});

test("errors name the field as clash_sets.0.a.0.file", async () => {
  const body = { clash_sets: [{ name: "s", a: [{ file: 7 }], b: [] }], output_filename: "c.json" };
  const problem = (await (await g.post("/ifcclash", body)).json()) as { errors: { path: string }[]; detail: string };
  expect(problem.errors.map((e) => e.path)).toEqual(["clash_sets.0.a.0.file"]);
  expect(problem.detail).toContain("clash_sets.0.a.0.file");
});

// ---- files

const HOSTILE = [
  ...["../../etc/passwd", "/etc/passwd", "/uploads/../etc/passwd", "a/../../b", "..", "../", "..\\..\\windows"],
  ...[
    "/uploads/..",
    "%2e%2e/%2e%2e/etc/passwd",
    "..%2fetc",
    "%2fetc%2fpasswd",
    "/uploads%2f..%2f..%2fetc",
    "a\u0000.ifc",
  ],
  ...["a%00.ifc", "/uploadsx/a.ifc", "//etc/passwd", "/proc/self/environ", "C:\\a.ifc", `${"a/".repeat(600)}b`],
];
const FIELDS: [route: string, fields: Record<string, (path: string) => object>][] = [
  [
    "/ifcconvert",
    {
      input_filename: (p) => ({ input_filename: p }),
      output_filename: (p) => ({ output_filename: p }),
      log_file: (p) => ({ log_file: p }),
    },
  ],
  ["/ifccsv", { filename: (p) => ({ filename: p }), output_filename: (p) => ({ output_filename: p }) }],
  [
    "/ifccsv/import",
    {
      ifc_filename: (p) => ({ ifc_filename: p }),
      csv_filename: (p) => ({ csv_filename: p }),
      output_filename: (p) => ({ output_filename: p }),
    },
  ],
  [
    "/ifcclash",
    {
      "clash_sets.0.a.0.file": (p) => ({ clash_sets: [{ name: "s", a: [{ file: p }], b: [] }] }),
      "clash_sets.0.b.0.file": (p) => ({ clash_sets: [{ name: "s", a: [{ file: "a.ifc" }], b: [{ file: p }] }] }),
      output_filename: (p) => ({ output_filename: p }),
    },
  ],
  [
    "/ifctester",
    {
      ifc_filename: (p) => ({ ifc_filename: p }),
      ids_filename: (p) => ({ ids_filename: p }),
      output_filename: (p) => ({ output_filename: p }),
    },
  ],
  [
    "/ifcdiff",
    {
      old_file: (p) => ({ old_file: p }),
      new_file: (p) => ({ new_file: p }),
      output_file: (p) => ({ output_file: p }),
    },
  ],
  ["/ifc2json", { filename: (p) => ({ filename: p }), output_filename: (p) => ({ output_filename: p }) }],
  ["/calculate-qtos", { input_file: (p) => ({ input_file: p }), output_file: (p) => ({ output_file: p }) }],
];

for (const [route, fields] of FIELDS) {
  test(`POST ${route} refuses ../../etc/passwd and its relatives in every field that names a file`, async () => {
    const minimal = OPERATIONS.find((op) => op[0] === route)?.[2] as object;
    for (const [field, put] of Object.entries(fields)) {
      for (const path of HOSTILE) {
        const response = await g.post(route, { ...minimal, ...put(path) });
        const { errors } = (await response.json()) as { errors?: { path: string }[] };
        expect([path, response.status, errors?.map((e) => e.path)]).toEqual([path, 422, [field]]);
      }
      for (const path of [
        "a.ifc",
        "/uploads/a b.ifc",
        "/output/x/y.json",
        "/examples/h.ifc",
        "sub/a..b.ifc",
        "100%.ifc",
        "…/ü.ifc",
      ]) {
        expect([field, path, (await g.post(route, { ...minimal, ...put(path) })).status]).toEqual([field, path, 202]);
      }
    }
  });
}

// ---- options

const minimal = { filename: "a.ifc", output_filename: "a.json" };

test("options: each is kept, and stands in the record", async () => {
  const query = "priority=9&timeout=30s&retries=0&backoff=5s&result_ttl=2h&tags=a,b:c&tags=d";
  const id = await g.submit(`/ifc2json?${query}`, minimal, {
    traceparent: `00-${"a".repeat(32)}-${"b".repeat(16)}-01`,
  });
  expect(await g.json(`/jobs/${id}`)).toMatchObject({
    priority: 9,
    tags: ["a", "b:c", "d"],
    options: { timeout: 30, retries: 0, backoff: 5, result_ttl: 7_200 },
    traceparent: `00-${"a".repeat(32)}-${"b".repeat(16)}-01`,
  });
});

test("options: delay and run_at schedule; the past is now", async () => {
  expect(await (await g.post("/ifc2json?delay=5m", minimal)).json()).toMatchObject({ status: "scheduled" });
  const at = new Date(Date.now() + 60_000).toISOString();
  const id = await g.submit(`/ifc2json?run_at=${at}`, minimal);
  expect(await g.json(`/jobs/${id}/status`)).toMatchObject({
    status: "scheduled",
    due_at: at,
    result: null,
    error: null,
  });
  const past = await g.submit("/ifc2json?run_at=2020-01-01T00:00:00Z", minimal);
  expect((await g.json(`/jobs/${past}/status`)).status).toBe("queued");
});

test("options: what is wrong is 422 with its name, and writes nothing", async () => {
  const wrong = {
    priority: ["", "10", "-1", "5.5", "high", "1&priority=2", "true"],
    delay: ["", "soon", "-1s", "31d", "5s&run_at=2030-01-01T00:00:00Z", "1s&delay=2s"],
    run_at: ["tomorrow", "2030-01-01", "2030-01-01T00:00:00", "", "9999-01-01T00:00:00Z"],
    timeout: ["0", "0s", "61m", "x"],
    retries: ["", "101", "-1", "two"],
    backoff: ["x"],
    result_ttl: ["", "31d", "for ever"],
    tags: ["a b", "<script>", `${"x".repeat(65)}`, Array(17).fill("t").join(",")],
    after: ["ifc2json_0000000000000000000000"],
    on_dependency_failure: ["run"],
    unknown_option: ["1"],
    __proto__x: ["1"],
  };
  for (const [name, values] of Object.entries(wrong)) {
    for (const value of values) {
      const response = await g.post(`/ifc2json?${name}=${value.replaceAll(" ", "%20")}`, minimal);
      const problem = (await response.json()) as { detail: string; code: string };
      expect([name, value, response.status]).toEqual([name, value, 422]);
      expect(problem.detail).toContain(name);
      if (name === "after" || name === "on_dependency_failure") expect(problem.code).toBe("not_supported");
    }
  }
  expect(await redis.client.dbsize()).toBe(0);
});

test("Idempotency-Key: the same body replays the first answer, another body is 422, another key's caller is free", async () => {
  const headers = { "idempotency-key": "order 66" };
  const first = await g.post("/ifc2json", minimal, headers);
  expect(first.headers.get("idempotent-replayed")).toBeNull();
  const { job_id } = (await first.json()) as { job_id: string };
  const again = await g.post("/ifc2json", minimal, headers);
  expect([again.status, again.headers.get("idempotent-replayed")]).toEqual([202, "true"]);
  expect(again.headers.get("location")).toBe(`/jobs/${job_id}`);
  expect(((await again.json()) as { job_id: string }).job_id).toBe(job_id);
  const other = await g.post("/ifc2json", { ...minimal, x: 1 }, headers);
  expect([other.status, ((await other.json()) as { code: string }).code]).toEqual([422, "idempotency_mismatch"]);
  for (const bad of ["", "k".repeat(256)]) {
    expect((await g.post("/ifc2json", minimal, { "idempotency-key": bad })).status).toBe(400);
  }
  expect((await g.post("/ifc2json", minimal, { "idempotency-key": "k".repeat(255) })).status).toBe(202);
});

test("Idempotency-Key: its scope is the service: ifccsv and its import share one, another service does not", async () => {
  const headers = { "idempotency-key": "k" };
  await g.submit("/ifccsv", { filename: "a.ifc", output_filename: "a.csv" }, headers);
  expect((await g.post("/ifccsv/import", { ifc_filename: "a", csv_filename: "b" }, headers)).status).toBe(422);
  expect((await g.post("/ifc2json", minimal, headers)).status).toBe(202);
});

test("a submit is answered alike whether its path is looked up first or Hono routes it", async () => {
  const hono = gatewayApp(g.gateway);
  const good = JSON.stringify({ filename: "a.ifc", output_filename: "a.json" });
  const json = { "content-type": "application/json" };
  const tries: [path: string, headers: Record<string, string>, body: string | undefined][] = [
    ["/ifc2json", json, good],
    ["/ifc2json?priority=9", json, good],
    ["/ifc2json/", json, good],
    ["/ifc2json", { ...json, "idempotency-key": "one" }, good],
    ["/ifc2json", { "content-type": "text/plain" }, good],
    ["/ifc2json", json, "{"],
    ["/ifc2json", json, "{}"],
    ["/ifc2json", json, undefined],
    ["/ifc2json", { ...json, origin: "https://elsewhere.example" }, good],
    ["/ifc3json", json, good],
  ];
  const told = async (answer: Response) => ({
    status: answer.status,
    headers: [...answer.headers].map(([name, value]) => [name, value.replace(/_\w{22}/, "_id")]),
    body: (await answer.text()).replace(/_\w{22}/g, "_id"),
  });
  const statuses = [];
  for (const [path, headers, body] of tries) {
    const init = { method: "POST", headers, ...(body === undefined ? {} : { body }) };
    await redis.client.flushall();
    const first = await told(await g.ask("POST", path, init));
    await redis.client.flushall();
    expect(await told(await hono.request(`http://localhost${path}`, init, { ip: "127.0.0.1" }))).toEqual(first);
    statuses.push(first.status);
  }
  expect(statuses).toEqual([202, 202, 202, 202, 415, 400, 422, 400, 403, 404]);
});

test("paths of submits are looked up first only where nothing stands before the routes", async () => {
  const direct = (env: Record<string, string>) => {
    const gateway = { ...g.gateway, config: readConfig({ REDIS_URL: redis.url, ...env }) };
    return submits(gateway, gatewayApp(gateway));
  };
  expect([...direct({}).keys()]).toEqual(g.gateway.config.registry.operations.map(({ route }) => route));
  expect(direct({ RATE_LIMIT: "6/m" }).size).toBe(0);
  expect(direct({ CORS_ORIGINS: "https://app.example.com" }).size).toBe(0);
});

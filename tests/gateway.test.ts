/** What comes out: status by state, problems by code, the verbs by state, keys on the routes (contract.md §1, §3). */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import type { JobId, ServiceName } from "../shared/jobs.ts";
import { keysOf } from "../shared/keys.ts";
import { etaS, type ServiceState } from "../shared/snapshot.ts";
import type { Settle, Taken } from "../shared/store/consume.ts";
import { startGatewayApp, type TestGateway } from "./support/gateway.ts";
import { startRedis, type TestRedis } from "./support/redis.ts";
import { ASK, DAY, settle } from "./support/store.ts";

const QUEUE = "ifc2json" as ServiceName;
const BODY = { filename: "a.ifc", output_filename: "a.json" };
let redis: TestRedis;
let g: TestGateway;
beforeAll(async () => {
  redis = await startRedis();
  g = await startGatewayApp(redis.url, { MAX_BODY_BYTES: "2000", MAX_QUEUED: "5" });
});
afterAll(async () => {
  g?.close();
  await redis?.stop();
});
beforeEach(() => redis.client.flushall());

const submit = (query = "") => g.submit(`/ifc2json${query}`, BODY);
const take = async (): Promise<Taken> => {
  const { jobs } = await g.worker("w1").turn(QUEUE, [], { ...ASK, slots: 1, limits: "ifc2json=3600000" });
  if (!jobs[0]) throw new Error("nothing was taken");
  return jobs[0];
};
const end = async (kind: Settle["kind"], more: Partial<Settle> = {}) => {
  await submit();
  const taken = await take();
  await g.worker("w1").turn(QUEUE, [settle(taken, kind, more)], { ...ASK, slots: 0 });
  return taken.id;
};
/** A job in each state. */
const STATES: Record<string, () => Promise<JobId>> = {
  scheduled: () => submit("?delay=1h"),
  queued: () => submit(),
  started: async () => {
    await submit();
    return (await take()).id;
  },
  canceling: async () => {
    const id = await STATES.started!();
    await g.ask("POST", `/jobs/${id}/cancel`);
    return id;
  },
  finished: () => end("finish"),
  failed: () => end("fail"),
  canceled: async () => {
    const id = await submit("?delay=1h");
    await g.ask("POST", `/jobs/${id}/cancel`);
    return id;
  },
};
const problem = async (response: Response) => {
  expect(response.headers.get("content-type")).toBe("application/problem+json");
  const body = (await response.json()) as { status: number; code: string; detail: string; title: string; type: string };
  expect(body.status).toBe(response.status);
  expect(typeof body.detail).toBe("string");
  expect(body.type).toBe(`urn:longhaul:${body.code}`);
  return body;
};

test("status has the old four keys in every state; canceled reads failed, its error beginning canceled", async () => {
  const expected: Record<string, [status: string, result: unknown, error: unknown]> = {
    scheduled: ["scheduled", null, null],
    queued: ["queued", null, null],
    started: ["started", null, null],
    canceling: ["started", null, null],
    finished: ["finished", { ok: true }, null],
    failed: ["failed", null, expect.stringMatching(/^no\b/)],
    canceled: ["failed", null, expect.stringMatching(/^canceled/)],
  };
  for (const [state, make] of Object.entries(STATES)) {
    const id = await make();
    const response = await g.ask("GET", `/jobs/${id}/status`);
    expect(response.status).toBe(200);
    const body = (await response.json()) as Record<string, unknown>;
    expect([state, Object.keys(body).slice(0, 4)]).toEqual([state, ["job_id", "status", "result", "error"]]);
    const [status, result, error] = expected[state] as [string, unknown, unknown];
    expect(body).toMatchObject({ job_id: id, status, result, error });
    for (const key of ["progress", "position", "eta_s", "attempt", "created_at", "started_at", "ended_at"]) {
      expect([state, key, key in body]).toEqual([state, key, true]);
    }
    const record = await g.json(`/jobs/${id}`);
    expect([state, record.status]).toEqual([state, state === "canceling" ? "started" : state]);
    await redis.client.flushall();
  }
});

test("a result comes back byte for byte: digits, key order, spaces, escapes", async () => {
  const result = '{"z":1.0, "a" :9007199254740993,"e":1e400,"__proto__":{"x":"\\u00e9é"},"list":[]}';
  const id = await end("finish", { result });
  expect(await (await g.ask("GET", `/jobs/${id}/status`)).text()).toContain(`"result":${result},"error":null`);
  expect(await (await g.ask("GET", `/jobs/${id}`)).text()).toContain(`"result":${result}}`);
  expect(await (await g.ask("GET", `/jobs/${id}/result`)).text()).toBe(result);
});

test("times are ISO 8601 UTC with milliseconds", async () => {
  const record = await g.json(`/jobs/${await STATES.finished!()}`);
  for (const key of ["created_at", "started_at", "ended_at"]) {
    expect(record[key]).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  }
});

test("cancel, delete and requeue by state", async () => {
  const told: Record<string, [cancel: number, remove: number, requeue: number]> = {
    scheduled: [202, 202, 409],
    queued: [202, 202, 409],
    started: [202, 202, 409],
    canceling: [202, 202, 409],
    finished: [409, 200, 409],
    failed: [409, 200, 200],
    canceled: [202, 200, 200],
  };
  for (const [state, codes] of Object.entries(told)) {
    const got: number[] = [];
    for (const [method, path] of [
      ["POST", "/cancel"],
      ["DELETE", ""],
      ["POST", "/requeue"],
    ] as const) {
      const response = await g.ask(method, `/jobs/${await STATES[state]!()}${path}`);
      if (response.status >= 400) expect((await problem(response)).code).toBe("wrong_state");
      got.push(response.status);
      await redis.client.flushall();
    }
    expect([state, got]).toEqual([state, codes]);
  }
});

test("requeue answers the old shape and starts a new run; sent again it is 409", async () => {
  const id = await STATES.failed!();
  const response = await g.ask("POST", `/jobs/${id}/requeue`);
  expect(await response.json()).toEqual({ job_id: id, status: "queued", requeued: true });
  expect(await g.json(`/jobs/${id}`)).toMatchObject({ status: "queued", run: 1, attempt: 0, error: null });
  expect((await g.ask("POST", `/jobs/${id}/requeue`)).status).toBe(409);
});

test("delete: what waits is canceled, what has ended is gone", async () => {
  const waiting = await STATES.queued!();
  expect(await (await g.ask("DELETE", `/jobs/${waiting}`)).json()).toEqual({ job_id: waiting, status: "canceled" });
  expect((await g.json(`/jobs/${waiting}`)).status).toBe("canceled");
  const ended = await STATES.finished!();
  expect(await (await g.ask("DELETE", `/jobs/${ended}`)).json()).toEqual({ job_id: ended, status: "erased" });
  expect((await g.ask("GET", `/jobs/${ended}/status`)).status).toBe(404);
  expect((await g.ask("DELETE", `/jobs/${ended}`)).status).toBe(404);
});

test("progress: the attempt's token is the authorization, and no other one", async () => {
  await submit();
  const taken = await take();
  const send = (t: string, body: unknown) => g.post(`/jobs/${taken.id}/progress?t=${encodeURIComponent(t)}`, body);
  expect((await send(taken.token, { progress: 0.5, message: "half" })).status).toBe(200);
  expect(await g.json(`/jobs/${taken.id}/status`)).toMatchObject({ progress: 0.5, message: "half" });
  for (const token of ["", "1.w1.forged", `${taken.token} `])
    expect((await send(token, { progress: 1 })).status).toBe(409);
  for (const body of [
    { progress: 2 },
    { progress: -1 },
    { progress: "0.5" },
    { message: "x".repeat(501) },
    { other: 1 },
    [],
    1,
  ]) {
    expect([body, (await send(taken.token, body)).status]).toEqual([body, 422] as never);
  }
  await g.worker("w1").turn(QUEUE, [settle(taken, "finish", { ttlMs: DAY })], { ...ASK, slots: 0 });
  expect((await send(taken.token, { progress: 0.9 })).status).toBe(409);
  expect((await g.json(`/jobs/${taken.id}/status`)).progress).toBe(1);
});

// ---- problems

test("400: malformed, empty, not UTF-8, too deep, __proto__; each says what is wrong", async () => {
  const nested = (n: number) => `{"filename":"a","output_filename":"b","x":${"[".repeat(n)}${"]".repeat(n)}}`;
  const bodies: [string | Uint8Array, string, string][] = [
    ["{", "malformed_json", "not JSON"],
    ["", "malformed_json", "empty"],
    ["  ", "malformed_json", "empty"],
    ["{'a':1}", "malformed_json", "not JSON"],
    ['{"a":NaN}', "malformed_json", "not JSON"],
    [new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x7d]), "malformed_json", "UTF-8"],
    [nested(64), "bad_request", "64 levels"],
    ['{"__proto__":{"a":1}}', "bad_request", "__proto__"],
    ['{"x":[{"\\u005f_proto__":1}]}', "bad_request", "__proto__"],
  ];
  for (const [body, code, words] of bodies) {
    const response = await g.ask("POST", "/ifc2json", {
      headers: { "content-type": "application/json" },
      body: body as string,
    });
    const told = await problem(response);
    expect([body, told.status, told.code]).toEqual([body, 400, code]);
    expect(told.detail).toContain(words);
  }
  expect((await g.post("/ifc2json", nested(63))).status).toBe(202); // 64 levels in all
  expect((await g.post("/ifc2json", { ...BODY, note: "__proto__ [[[[{{{{" })).status).toBe(202); // a text, no key
});

test("404: a route that is not there, with the nearest one; ids that name nothing or cannot be ids", async () => {
  const told = await problem(await g.post("/ifcconvrt", {}));
  expect([told.code, told.detail]).toEqual(["unknown_route", "There is no POST /ifcconvrt. Did you mean /ifcconvert?"]);
  const hostile = [
    ...["ifc2json_0000000000000000000000", "x", "..%2f..%2fetc", "%00", "lh:{x}:counts", "ifc2json_*", "__proto__"],
    ...[
      "ifc2json_00000000000000000000000",
      "ifc2json_000000000000000000000%0a",
      "%E0%A4%A",
      "a".repeat(5_000),
      "ifc2json_{x}",
    ],
  ];
  for (const id of hostile) {
    for (const [method, path] of [
      ["GET", ""],
      ["GET", "/status"],
      ["GET", "/result"],
      ["POST", "/cancel"],
      ["POST", "/requeue"],
      ["DELETE", ""],
    ] as const) {
      const response = await g.ask(method, `/jobs/${id}${path}`);
      const { code, detail } = await problem(response);
      expect([id, method, path, response.status]).toEqual([id, method, path, 404]);
      expect(["unknown_job", "unknown_route"]).toContain(code);
      expect(detail.length).toBeLessThan(400);
    }
  }
  expect(await redis.client.dbsize()).toBe(0);
});

test("413: exactly MAX_BODY_BYTES passes, one more does not, with and without Content-Length", async () => {
  const of = (bytes: number) => {
    const frame = JSON.stringify({ ...BODY, pad: "" });
    return JSON.stringify({ ...BODY, pad: "x".repeat(bytes - frame.length) });
  };
  const chunked = (text: string) => new Blob([text.slice(0, 700), text.slice(700)]).stream();
  const headers = { "content-type": "application/json" };
  for (const [bytes, code] of [
    [2_000, 202],
    [2_001, 413],
  ] as const) {
    const length = { ...headers, "content-length": String(bytes) };
    expect((await g.ask("POST", "/ifc2json", { headers: length, body: of(bytes) })).status).toBe(code);
    const stream = { headers, body: chunked(of(bytes)), duplex: "half" } as RequestInit;
    expect((await g.ask("POST", "/ifc2json", stream)).status).toBe(code);
  }
  const lie = { ...headers, "content-length": "10" };
  expect((await g.ask("POST", "/ifc2json", { headers: lie, body: of(5_000) })).status).toBe(413);
});

test("415: another type than JSON; none at all and application/…+json are JSON", async () => {
  const body = JSON.stringify(BODY);
  for (const type of [
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/jsonp",
    "json",
  ]) {
    const response = await g.ask("POST", "/ifc2json", { headers: { "content-type": type }, body });
    expect([type, response.status]).toEqual([type, 415]);
    await problem(response);
  }
  for (const type of ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.api+json", ""]) {
    const response = await g.ask("POST", "/ifc2json", { headers: { "content-type": type }, body });
    expect([type, response.status]).toEqual([type, 202]);
  }
});

test("422: a body that is JSON but no object", async () => {
  for (const body of ["[]", "1", '"x"', "null", "true"]) {
    const told = await problem(await g.post("/ifc2json", body));
    expect([body, told.status, told.code]).toEqual([body, 422, "invalid"]);
  }
});

test("429: the backlog is full, with Retry-After; nothing of the refused job stays", async () => {
  for (let i = 0; i < 5; i++) await submit();
  const response = await g.post("/ifc2json", BODY);
  expect(response.status).toBe(429);
  expect(Number(response.headers.get("retry-after"))).toBeGreaterThan(0);
  expect((await problem(response)).code).toBe("backlog_full");
  expect(await redis.client.keys(`${keysOf(QUEUE).job("" as JobId)}*`)).toHaveLength(5);
});

test("503: the operation's service is not deployed", async () => {
  const bare = await startGatewayApp(redis.url, { IFC2JSON_URL: "" });
  const response = await bare.post("/ifc2json", BODY);
  expect([response.status, (await problem(response)).code]).toEqual([503, "service_not_deployed"]);
  bare.close();
});

// ---- keys on the routes

test("keys: scopes on every route of the kernel, 401 with WWW-Authenticate, 403, open routes", async () => {
  const keys = { read: "readreadread", submit: "submitsubmit", admin: "adminadminad" };
  const closed = await startGatewayApp(redis.url, {
    API_KEYS: `${keys.read}:read,${keys.submit}:submit,${keys.admin}`,
    ALLOWED_IP_RANGES: "10.0.0.0/8",
  });
  const id = await STATES.queued!();
  const routes: [method: string, path: string, need: "read" | "submit"][] = [
    ["GET", `/jobs/${id}`, "read"],
    ["GET", `/jobs/${id}/status`, "read"],
    ["GET", `/jobs/${id}/result`, "read"],
    ["POST", "/ifc2json", "submit"],
    ["POST", `/jobs/${id}/cancel`, "submit"],
    ["POST", `/jobs/${id}/requeue`, "submit"],
    ["DELETE", `/jobs/${id}`, "submit"],
  ];
  const as = (method: string, path: string, headers: Record<string, string>, from = "9.9.9.9") =>
    closed.ask(
      method,
      path,
      {
        headers: { "content-type": "application/json", ...headers },
        ...(method === "POST" ? { body: JSON.stringify(BODY) } : {}),
      },
      from,
    );
  for (const [method, path, need] of routes) {
    const none = await as(method, path, {});
    expect([path, none.status, none.headers.get("www-authenticate")]).toEqual([path, 401, 'Bearer realm="longhaul"']);
    await problem(none);
    expect([path, (await as(method, path, { "x-api-key": "wrongwrongwrong" })).status]).toEqual([path, 403]);
    const read = (await as(method, path, { "x-api-key": keys.read })).status;
    expect([path, read === 403]).toEqual([path, need === "submit"]);
    for (const headers of [{ "x-api-key": keys.submit }, { authorization: `Bearer ${keys.admin}` }]) {
      const { status } = await as(method, path, headers as Record<string, string>);
      expect([path, status === 401 || status === 403]).toEqual([path, false]);
    }
    const inside = (await as(method, path, {}, "10.1.2.3")).status;
    expect([path, inside === 401 || inside === 403]).toEqual([path, false]);
  }
  for (const path of ["/health", "/livez", "/readyz"])
    expect([path, (await as("GET", path, {})).status]).toEqual([path, 200]);
  closed.close();
});

test("an estimate: the jobs ahead by as many as are under way at once, and what is left of the own run", () => {
  const state = (slots: number, started: number) =>
    ({ slots, counts: { started, totals: new Map([["mean:op", 2_000]]) } }) as unknown as ServiceState;
  expect(etaS(state(4, 4), "op", 40)).toBe(22);
  expect(etaS(state(4, 20), "op", 40)).toBe(6); // 16 of them wait in lanes, and their waiting is in the mean
  expect(etaS(state(0, 0), "op", 3)).toBe(8);
  expect(etaS(state(4, 4), "op", undefined, 500)).toBe(2);
  expect(etaS(state(4, 4), "op", undefined, 9_000)).toBe(1);
  expect(etaS(state(4, 4), "another", 0)).toBe(2); // by what is known of the service
});

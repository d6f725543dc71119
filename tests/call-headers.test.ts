/** Headers beside Longhaul's own: the operator's and the client's reach the service, and nobody else sees their values. */
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: so a SERVICES file names a variable
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MAX_FORWARDED_BYTES } from "../shared/call-headers.ts";
import { ConfigError, readConfig } from "../shared/config.ts";
import { type Stack, startStack } from "./support/stack.ts";

const dir = mkdtempSync(join(tmpdir(), "longhaul-headers-"));
let files = 0;
const fileOf = (content: unknown) => {
  const path = join(dir, `services-${files++}.json`);
  writeFileSync(path, JSON.stringify(content));
  return path;
};
const read = (content: unknown, env: Record<string, string> = {}) => readConfig({ SERVICES: fileOf(content), ...env });
const mistakes = (content: unknown, env = {}): string[] => {
  try {
    read(content, env);
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.mistakes;
    throw error;
  }
};
const ofA = (keys: object) => ({ operations: { a: { url: "http://a", ...keys } } });

// ---- in the file

test("headers of an operation take their values from the environment; an unset variable stops the start", () => {
  const file = ofA({ headers: { Authorization: "Bearer ${TOKEN_A}", "X-Two": "${A}-${B}", "X-Plain": " $5 " } });
  const { registry, mistyped } = read(file, { TOKEN_A: "hush-1", A: "1", B: "2\r" });
  expect(registry.byName.get("a")!.headers).toEqual({
    authorization: "Bearer hush-1",
    "x-two": "1-2",
    "x-plain": "$5",
  });
  expect([...mistyped.keys()]).toEqual([]);
  expect(mistakes(file, { A: "1", B: "" })).toEqual([
    "SERVICES.operations.a.headers.Authorization: the variable TOKEN_A is not set; set it, or leave ${TOKEN_A} out",
    "SERVICES.operations.a.headers.X-Two: the variable B is not set; set it, or leave ${B} out",
  ]);
  expect(read(ofA({ url: "http://${A_HOST}:80" }), { A_HOST: "box" }).registry.byName.get("a")!.url).toBe("http://box");
});

test("headers that Longhaul sets itself or that belong to a connection are refused, without showing a value", () => {
  for (const name of [
    ...["Host", "Content-Type", "content-length", "Connection", "TE", "Transfer-Encoding", "Proxy-Authorization"],
    ...["X-Job-Id", "X-Job-Attempt", "Idempotency-Key", "X-Progress-Url", "Accept", "bad name", "", "ä", "traceparent"],
  ]) {
    const told = [...mistakes(ofA({ headers: { [name]: "hush" } })), ...mistakes(ofA({ forward_headers: [name] }))];
    expect([name, told]).toEqual([
      name,
      [
        expect.stringContaining("SERVICES.operations.a.headers"),
        expect.stringContaining("SERVICES.operations.a.forward_headers.0"),
      ],
    ]);
    expect(told.join()).not.toContain("hush");
  }
  for (const value of ["", " ", "hush\r\nX-Evil: 1", "hush\u0000", "hush…", 12345])
    expect([value, mistakes(ofA({ headers: { "X-A": value } }))]).toEqual([
      value,
      [expect.not.stringMatching(/hush|12345/)],
    ]);
  expect(mistakes(ofA({ forward_headers: Array.from({ length: 17 }, (_, i) => `x-${i}`) }))).toEqual([
    "SERVICES.operations.a.forward_headers: may have 16 items at most",
  ]);
  expect(mistakes(ofA({ forward_headers: ["X-A", "x-a"] }))).toEqual([
    'SERVICES.operations.a.forward_headers.1: "x-a" stands twice',
  ]);
});

test("what a service's operations share stands under services; an operation's own keys come before it", () => {
  const { registry } = read(
    {
      services: {
        ifccsv: { headers: { "X-Key": "${KEY}" }, forward_headers: ["X-Tenant"] },
        thumbs: {
          keep_alive: true,
          url: "http://thumbs",
          headers: { "X-Key": "shared", "X-More": "1" },
          forward_headers: ["x-t"],
        },
      },
      operations: {
        small: { service: "thumbs" },
        large: {
          service: "thumbs",
          url: "http://large",
          keep_alive: false,
          headers: { "X-KEY": "own" },
          forward_headers: [],
        },
      },
    },
    { KEY: "hush", IFCCSV_URL: "http://csv" },
  );
  for (const name of ["ifccsv", "ifccsv-import"])
    expect(registry.byName.get(name)).toMatchObject({
      ...{ url: "http://csv", headers: { "x-key": "hush" }, forwardHeaders: ["x-tenant"] },
    });
  expect(registry.byName.get("small")).toMatchObject({
    ...{
      url: "http://thumbs",
      headers: { "x-key": "shared", "x-more": "1" },
      forwardHeaders: ["x-t"],
      keepAlive: true,
    },
  });
  expect(registry.byName.get("large")).toMatchObject({
    ...{ url: "http://large", headers: { "x-key": "own", "x-more": "1" }, forwardHeaders: [], keepAlive: false },
  });
  expect(read({ services: { ifc5d: { url: "http://5d" } } }).registry.deployed()).toEqual(["ifc5d"]);
  expect(mistakes({ services: { ifc5: {}, ifc5d: { headrs: {} } } })).toEqual([
    'SERVICES.services.ifc5d: there is no key "headrs", did you mean headers?',
    expect.stringContaining("SERVICES.services.ifc5: no operation runs on it; there are ifcconvert"),
  ]);
  expect(mistakes({ services: [] })).toEqual([expect.stringContaining("needs an object `services`")]);
});

test("a user and a password in an address become a header and leave the address", () => {
  const { registry } = readConfig({ IFC5D_URL: "http://me:p%40ss:w%C3%B6rd@5d:80/x?y=1", IFCDIFF_URL: "http://d" });
  const op = registry.byName.get("calculate-qtos")!;
  expect(op.url).toBe("http://5d/x?y=1");
  expect(op.headers).toEqual({ authorization: `Basic ${Buffer.from("me:p@ss:wörd").toString("base64")}` });
  expect(registry.byName.get("ifcdiff")!.headers).toEqual({});
  const own = read(ofA({ url: "http://u:p@a", headers: { authorization: "Bearer 1" } })).registry.byName.get("a")!;
  expect([own.url, own.headers]).toEqual(["http://a", { authorization: "Bearer 1" }]);
});

// ---- on their way

const KEY = "a-key-of-this-gateway";
const OWN = "hush-of-the-operator";
const THEIRS = "Bearer hush-of-the-client";
let stack: Stack;
/** quotes its request in what it answers, as many a service does in its errors */
const quoting = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  async fetch(request) {
    const { status, type } = (await request.json()) as { status: number; type?: string };
    const got = Object.fromEntries(request.headers);
    const token = got.authorization?.split(" ")[1];
    return Response.json(
      { detail: `Unauthorized: ${token}, ${got["x-tenant"]}, ${JSON.stringify(got)}` },
      { status, ...(type ? { headers: { "content-type": type } } : {}) },
    );
  },
});
beforeAll(async () => {
  stack = await startStack({
    operation: {
      headers: { "X-Service-Key": "${SERVICE_TOKEN}", "X-Both": "operator" },
      forward_headers: ["Authorization", "X-Tenant", "Cookie", "X-Both", "X-API-Key"],
      backoff: "50ms",
    },
    operations: {
      plain: { url: "http://127.0.0.1:9" },
      reply: {
        url: `http://127.0.0.1:${quoting.port}`,
        reply: "result",
        forward_headers: ["Authorization", "X-Tenant", "Cookie"],
        headers: { "X-Service-Key": "${SERVICE_TOKEN}" },
      },
    },
    env: { SERVICE_TOKEN: OWN, API_KEYS: KEY },
  });
}, 60_000);
afterAll(async () => {
  await stack?.stop();
  await quoting.stop(true);
  rmSync(dir, { recursive: true, force: true });
}, 60_000);

const sent = {
  "x-api-key": KEY,
  authorization: THEIRS,
  "x-tenant": "t-7",
  cookie: "c=hush-cookie",
  "x-both": "client",
};
const asked = (path: string, init: RequestInit = {}) =>
  fetch(stack.url + path, {
    ...init,
    headers: { "x-api-key": KEY, "content-type": "application/json", ...init.headers },
  });
const post = (path: string, body: unknown, headers: Record<string, string> = sent) =>
  asked(path, { method: "POST", body: JSON.stringify(body), headers });
const ended = (id: string) => asked(`/jobs/${id}/status`, { headers: { prefer: "wait=30" } }).then((r) => r.json());

test("the service gets the operator's headers and the named ones of the client, on every attempt and requeue", async () => {
  const response = await post("/work", { fail: 1, status: 400, detail: "no" });
  const { job_id: id } = (await response.json()) as { job_id: string };
  expect(await ended(id)).toMatchObject({ status: "failed", attempt: 2 });
  expect((await asked(`/jobs/${id}/requeue`, { method: "POST" })).status).toBe(200);
  expect(await ended(id)).toMatchObject({ status: "failed" });
  const calls = stack.service.byJob(id);
  expect(calls.length).toBe(3);
  for (const { headers } of calls) {
    expect(headers.get("x-service-key")).toBe(OWN);
    expect(headers.get("authorization")).toBe(THEIRS);
    expect(headers.get("x-tenant")).toBe("t-7");
    expect(headers.get("cookie")).toBe("c=hush-cookie");
    expect(headers.get("x-both")).toBe("operator");
    expect(headers.get("x-api-key")).toBeNull(); // a key of this gateway is not for services
    expect(headers.get("x-job-id")).toBe(id);
  }
}, 60_000);

test("jobs of POST /jobs and of a batch carry the client's headers too", async () => {
  const one = (await (await post("/jobs", { operation: "work", payload: {} })).json()) as { job_id: string };
  const many = (await (
    await post(
      "/jobs",
      [1, 2].map((n) => ({ operation: "work", payload: { n } })),
    )
  ).json()) as { job_ids: string[] };
  for (const id of [one.job_id, ...many.job_ids]) {
    expect(await ended(id)).toMatchObject({ status: "finished" });
    expect(stack.service.byJob(id)[0]?.headers.get("x-tenant")).toBe("t-7");
  }
}, 60_000);

test("a key of this gateway as a bearer token is not passed on", async () => {
  const response = await fetch(`${stack.url}/work`, {
    method: "POST",
    body: "{}",
    headers: { authorization: `Bearer ${KEY}`, "content-type": "application/json" },
  });
  const { job_id: id } = (await response.json()) as { job_id: string };
  expect(await ended(id)).toMatchObject({ status: "finished" });
  expect(stack.service.byJob(id)[0]?.headers.get("authorization")).toBeNull();
}, 60_000);

test("no answer, list, search, document, page or log shows a value of these headers", async () => {
  const { job_id: id } = (await (await post("/work", { status: 400 })).json()) as { job_id: string };
  await ended(id);
  const record = (await (await asked(`/jobs/${id}`)).json()) as { options: unknown };
  expect(record.options).toEqual({ headers: ["authorization", "x-tenant", "cookie", "x-both"] });
  const texts = await Promise.all(
    [`/jobs/${id}`, `/jobs/${id}/status`, "/jobs?state=failed", "/openapi.json", "/health", "/metrics", "/audit"].map(
      async (path) => (await asked(path)).text(),
    ),
  );
  for (const output of [...texts, stack.gateway.output(), ...stack.workers.map((worker) => worker.output())])
    expect(output).not.toContain("hush");
  for (const q of ["hush-of-the-client", "hush-of", "t-7", "x-tenant"]) {
    const found = (await (await asked(`/jobs?q=${q}&state=failed`)).json()) as { jobs: unknown[]; scanned: number };
    expect([q, found.jobs.length, found.scanned > 0]).toEqual([q, 0, true]);
  }
}, 60_000);

test("an error of a service that quotes its request shows no header that is a secret", async () => {
  const reply = await post("/reply", { status: 403 });
  const { detail } = (await reply.json()) as { detail: string };
  expect([reply.status, detail]).toEqual([403, expect.stringContaining("Unauthorized: •••, t-7, {")]);
  expect(detail).toContain('"x-service-key":"•••"');
  const texts = [detail];
  for (const payload of [{ status: 401 }, { status: 302 }, { status: 200, type: "text/plain" }]) {
    const made = await post("/jobs", { operation: "reply", payload });
    const { job_id: id } = (await made.json()) as { job_id: string };
    expect(await ended(id)).toMatchObject({ status: "failed" });
    texts.push(...(await Promise.all([`/jobs/${id}`, `/jobs/${id}/status`].map(async (p) => (await asked(p)).text()))));
  }
  texts.push(await (await asked("/jobs?state=failed")).text());
  for (const output of [...texts, stack.gateway.output(), ...stack.workers.map((worker) => worker.output())])
    expect(output).not.toContain("hush");
}, 60_000);

test("a session's cookie that a browser sends to the gateway's own port is not passed on", async () => {
  const response = await post(
    "/work",
    {},
    { "x-api-key": KEY, cookie: "a=1; lh_session_0123=x.y.z; lh_session=x; b=2" },
  );
  const { job_id: id } = (await response.json()) as { job_id: string };
  expect(await ended(id)).toMatchObject({ status: "finished" });
  expect(stack.service.byJob(id)[0]?.headers.get("cookie")).toBe("a=1; b=2");
}, 60_000);

test("headers that are passed on may have 8,192 bytes in all, and not one more", async () => {
  const room = MAX_FORWARDED_BYTES - "x-tenant".length;
  const large = (length: number) => post("/work", {}, { "x-api-key": KEY, "x-tenant": "t".repeat(length) });
  expect((await large(room)).status).toBe(202);
  const refused = await large(room + 1);
  expect(refused.status).toBe(400);
  expect(((await refused.json()) as { detail: string }).detail).toContain("8193 bytes; at most 8192 are passed on");
  expect((await post("/plain", {}, { "x-api-key": KEY, "x-tenant": "t".repeat(room + 1) })).status).toBe(202);
}, 60_000);

test("the dashboard's session cookie is not passed on, even where the operation passes cookies on", async () => {
  const origin = stack.dashboardUrl;
  const json = { origin, "content-type": "application/json" };
  const signin = await fetch(`${origin}/signin`, { method: "POST", headers: json, body: JSON.stringify({ key: KEY }) });
  const cookie = (signin.headers.get("set-cookie") ?? "").split(";")[0] as string;
  expect(cookie).not.toBe("");
  const answer = await fetch(`${origin}/api/work`, { method: "POST", headers: { ...json, cookie }, body: "{}" });
  expect(answer.status).toBe(202);
  const { job_id: id } = (await answer.json()) as { job_id: string };
  expect(await ended(id)).toMatchObject({ status: "finished" });
  expect(stack.service.byJob(id)[0]?.headers.get("cookie")).toBeNull();
}, 60_000);

/** Callers who are let in by their address: what a page of another site, open in their browser, gets. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { guard } from "../shared/auth.ts";
import { readConfig } from "../shared/config.ts";
import { gatewayForFiles, READ, RUNTIMES } from "./support/files.ts";

const KEY = "cross-site-key-1";
const INSIDE = "10.1.2.3";
const EVIL = "https://evil.example";

type Headers_ = Record<string, string>;
const rangeGuard = (env: Headers_ = {}) =>
  guard(readConfig({ API_KEYS: KEY, ALLOWED_IP_RANGES: "10.0.0.0/8", ...env }), []);
const heard = (g: ReturnType<typeof guard>, headers: Headers_, url = "http://10.0.0.5:8000/jobs", ip = INSIDE) => {
  try {
    return g.check(new Request(url, { method: "POST", headers }), ip, "submit").scope;
  } catch (error) {
    return (error as { code: string }).code;
  }
};

test("allowed address: Sec-Fetch-Site of another site is refused, whatever else it says", () => {
  const g = rangeGuard();
  for (const site of ["cross-site", "same-site", "nonsense"]) {
    for (const more of [{}, { origin: "http://10.0.0.5:8000" }, { origin: EVIL }] as Headers_[]) {
      expect([site, more, heard(g, { "sec-fetch-site": site, ...more })]).toEqual([site, more, "foreign_origin"]);
    }
    // a key is nothing that a page of another site knows
    expect(heard(g, { "sec-fetch-site": site, "x-api-key": KEY })).toBe("admin");
  }
  for (const site of ["same-origin", "none"]) expect(heard(g, { "sec-fetch-site": site })).toBe("submit");
});

test("allowed address: a foreign Origin is refused, its own and those of CORS_ORIGINS pass", () => {
  const g = rangeGuard({ CORS_ORIGINS: "https://app.example.com", ALLOWED_HOSTS: "queue.example" });
  for (const origin of [
    EVIL,
    "null",
    "file://",
    "http://10.0.0.5", // another port of the same machine
    "http://10.0.0.5:9181",
    "http://10.0.0.5:8000.evil.example",
    "http://queue.example",
  ]) {
    expect([origin, heard(g, { origin })]).toEqual([origin, "foreign_origin"]);
  }
  expect(heard(g, { origin: "http://10.0.0.5:8000" })).toBe("submit");
  expect(heard(g, { origin: "https://queue.example" }, "http://queue.example/jobs")).toBe("submit"); // TLS ends before us
  expect(heard(g, { origin: "https://queue.example", host: "queue.example:443" })).toBe("submit");
  expect(heard(g, { origin: "https://app.example.com", "sec-fetch-site": "cross-site" })).toBe("submit");
});

test("allowed address: a Host that nobody configured is refused; addresses, loopback, GATEWAY_URL, ALLOWED_HOSTS pass", () => {
  const g = rangeGuard({ ALLOWED_HOSTS: "api-gateway, Queue.Example:8443", GATEWAY_URL: "http://gateway:8000" });
  const hosts: Record<string, string> = {
    "evil.example": "foreign_origin",
    "evil.example:8000": "foreign_origin",
    "10.0.0.5.evil.example": "foreign_origin",
    "localhost.evil.example": "foreign_origin",
    "api-gateway.evil.example": "foreign_origin",
    "0x0a000005.evil.example": "foreign_origin",
    "a b<>": "foreign_origin",
    "10.0.0.5": "submit",
    "10.0.0.5:8000": "submit",
    "[fd00::5]:8000": "submit",
    "[::1]": "submit",
    "localhost:8000": "submit",
    gateway: "submit",
    "GATEWAY:8000": "submit",
    "api-gateway": "submit",
    "api-gateway.": "submit",
    "api-gateway:80": "submit",
    "queue.example:8443": "submit",
    "queue.example": "submit",
  };
  for (const [host, verdict] of Object.entries(hosts)) {
    expect([host, heard(g, { host })]).toEqual([host, verdict]);
    expect([host, heard(g, { host })]).toEqual([host, verdict]); // the second time as the first
    expect([host, heard(g, { host, "x-api-key": KEY })]).toEqual([host, "admin"]);
  }
  expect(heard(g, { host: "evil.example" })).toBe("foreign_origin"); // after known ones
  // a request line with a host of its own: Deno's URL is made of that, whatever Host says
  expect(heard(g, { host: "gateway" }, "http://evil.example/jobs")).toBe("foreign_origin");
  expect(heard(rangeGuard(), { host: "gateway" })).toBe("foreign_origin");
});

test("allowed address behind a trusted proxy: each X-Forwarded-Host must be known too", () => {
  const g = rangeGuard({ TRUSTED_PROXIES: "192.168.0.1", ALLOWED_HOSTS: "queue.example" });
  const proxied = (headers: Headers_) =>
    heard(g, { host: "127.0.0.1:8000", "x-forwarded-for": INSIDE, ...headers }, undefined, "192.168.0.1");
  expect(proxied({})).toBe("submit");
  expect(proxied({ "x-forwarded-host": "queue.example", origin: "https://queue.example" })).toBe("submit");
  expect(proxied({ "x-forwarded-host": "evil.example" })).toBe("foreign_origin");
  expect(proxied({ "x-forwarded-host": "queue.example, evil.example" })).toBe("foreign_origin");
  expect(proxied({ origin: "https://queue.example" })).toBe("foreign_origin");
  // nobody else's header counts
  expect(heard(g, { "x-forwarded-host": "evil.example" })).toBe("submit");
});

test("allowed address: an unknown key counts as none, and is told where the address does not suffice", () => {
  const g = rangeGuard();
  expect(heard(g, { "x-api-key": "not-a-known-key" })).toBe("submit");
  expect(heard(g, { "x-api-key": "not-a-known-key", "sec-fetch-site": "cross-site" })).toBe("foreign_origin");
  expect(heard(g, { "x-api-key": "not-a-known-key" }, undefined, "9.9.9.9")).toBe("wrong_key");
  const admin = (headers: Headers_) => {
    try {
      g.check(new Request("http://10.0.0.5/", { headers }), INSIDE, "admin");
    } catch (error) {
      return (error as Error).message;
    }
  };
  expect(admin({})).toBe("This needs an API key of scope admin in X-API-Key; your address may read and submit only.");
  expect(admin({ "x-api-key": "not-a-known-key" })).toBe(
    "This needs an API key of scope admin in X-API-Key; yours is not known, and your address may read and submit only.",
  );
});

test("without keys: Sec-Fetch-Site of another site is refused for reads as for writes", () => {
  const g = guard(readConfig({}), []);
  for (const method of ["GET", "POST"]) {
    for (const site of ["cross-site", "same-site"]) {
      const request = new Request("http://localhost:8000/jobs", { method, headers: { "sec-fetch-site": site } });
      expect(() => g.check(request, "127.0.0.1", "read")).toThrow("from another site");
    }
  }
});

// ---- real gateways, asked from an allowed address without a key

for (const runtime of RUNTIMES) {
  describe(runtime, () => {
    const files = gatewayForFiles(runtime, () => ({
      ALLOWED_IP_RANGES: "127.0.0.0/8",
      IFCCONVERT_URL: "http://127.0.0.1:9",
    }));
    const ask = (method: string, path: string, headers: Headers_, body?: BodyInit, base?: string) =>
      files.call(path, { method, headers, ...(body === undefined ? {} : { body }) }, "", base);
    const form = () => {
      const body = new FormData();
      body.append("file", new File(["from another site"], "house.ifc"));
      return body;
    };
    const JOB = '{"input_filename":"house.ifc","output_filename":"house.glb"}';
    const listed = async () =>
      ((await (await files.call("/jobs", {}, READ)).json()) as { jobs: { job_id: string; status: string }[] }).jobs;
    const foreign: [string, Headers_][] = [
      ["a foreign Origin", { origin: EVIL }],
      ["a form in a sandbox", { origin: "null" }],
      ["Sec-Fetch-Site: cross-site", { "sec-fetch-site": "cross-site" }],
      ["Sec-Fetch-Site: same-site", { "sec-fetch-site": "same-site" }],
      ["a rebound Host", { host: "evil.example" }],
    ];

    test("another site's page neither uploads, fetches, submits, cancels, lists nor links", async () => {
      expect((await files.send("house.ifc", "the real one")).status).toBe(200);
      const submitted = await files.json("/ifcconvert?delay=1h", JSON.parse(JOB));
      const { job_id: id } = (await submitted.json()) as { job_id: string };
      const tries: [string, string, (() => BodyInit)?][] = [
        ["POST", "/upload/other", form],
        ["POST", "/download-from-url", () => '{"url":"http://127.0.0.1/x"}'],
        ["POST", "/ifcconvert", () => JOB],
        ["POST", "/ifcconvert?priority=9", () => new Blob([JOB])], // a simple request: no Content-Type
        ["POST", "/jobs", () => `{"operation":"ifcconvert","payload":${JOB}}`],
        ["POST", "/create_download_link", () => '{"file_path":"/uploads/house.ifc"}'],
        ["POST", `/jobs/${id}/cancel`],
        ["POST", `/jobs/${id}/requeue`],
        ["DELETE", `/jobs/${id}`],
        ...["/jobs", `/jobs/${id}`, `/jobs/${id}/status`, `/jobs/${id}/result`, `/jobs/${id}/events`].map(
          (path): [string, string] => ["GET", path],
        ),
        ...["/list_directories", "/metrics", "/autoscale", "/alerts", "/batches/batch_x", "/ifc2json/x.json"].map(
          (path): [string, string] => ["GET", path],
        ),
      ];
      for (const [what, headers] of foreign) {
        for (const [method, path, body] of tries) {
          const answer = await ask(method, path, headers, body?.());
          const { code } = (await answer.json()) as { code: string };
          expect([what, method, path, answer.status, code]).toEqual([what, method, path, 403, "foreign_origin"]);
        }
      }
      expect((await listed()).map((job) => [job.job_id, job.status])).toEqual([[id, "scheduled"]]);
      expect(await Bun.file(join(files.uploads, "house.ifc")).text()).toBe("the real one");
    });

    test("its own pages, curl and other containers go on without a key", async () => {
      for (const headers of [
        {},
        { "sec-fetch-site": "none" },
        { "sec-fetch-site": "same-origin", origin: files.stack.url },
      ]) {
        expect((await ask("POST", "/upload/ifc", headers as Headers_, form())).status).toBe(200);
        expect((await ask("GET", "/jobs", headers as Headers_)).status).toBe(200);
      }
    });

    test("the dashboard's state and actions are refused to another site's page", async () => {
      const board = files.stack.dashboardUrl;
      const own = { origin: board, "sec-fetch-site": "same-origin" };
      expect((await ask("GET", "/state.json", own, undefined, board)).status).toBe(200);
      for (const [what, headers] of foreign) {
        for (const path of ["/state.json", "/state/events", "/history.json", "/operations.json", "/api/jobs"]) {
          const answer = await ask("GET", path, headers, undefined, board);
          expect([what, path, answer.status]).toEqual([what, path, 403]);
        }
        for (const path of ["/submit", "/api/ifcconvert", "/api/upload/other"]) {
          const answer = await ask("POST", path, headers, path.endsWith("other") ? form() : JOB, board);
          expect([what, path, answer.status]).toEqual([what, path, 403]);
        }
      }
      // a rebound name: the page's Origin and its Host agree, and both are the attacker's
      const rebound = { host: "evil.example", origin: "http://evil.example" };
      expect((await ask("POST", "/api/ifcconvert", rebound, JOB, board)).status).toBe(403);
    });
  });
}

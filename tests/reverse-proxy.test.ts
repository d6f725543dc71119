/** Gateway and dashboard behind a real nginx, at paths of their own. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startBrowser, visit } from "./support/browser.ts";
import { freePort } from "./support/redis.ts";
import { type Stack, startStack, until } from "./support/stack.ts";

setDefaultTimeout(60_000);
const ADMIN = "an-admin-key-of-tests";
const KEY = { "x-api-key": ADMIN, "content-type": "application/json" };
let stack: Stack;
let dir: string;
let nginx: Bun.Subprocess;
let base: string;

beforeAll(async () => {
  stack = await startStack({ env: { API_KEYS: ADMIN, TRUSTED_PROXIES: "127.0.0.1" } });
  const kept = await freePort();
  await stack.startGateway({ PORT: String(kept), DASHBOARD_PORT: "0", BASE_PATH: "/kept/", TRUSTED_PROXIES: "" });
  const open = await freePort();
  await stack.startGateway({ PORT: String(open), DASHBOARD_PORT: "0", API_KEYS: "", TRUSTED_PROXIES: "" });
  dir = mkdtempSync(join(tmpdir(), "longhaul-nginx-"));
  mkdirSync(join(dir, "temp"));
  const port = await freePort();
  base = `http://127.0.0.1:${port}`;
  // the locations of docs/proxy.md, at the ports of this test
  const page = readFileSync(new URL("../docs/proxy.md", import.meta.url), "utf8");
  const documented = /```nginx\n([\s\S]*?)```/.exec(page)?.[1] ?? "";
  const server = documented
    .replace("listen 443 ssl;", `listen 127.0.0.1:${port};`)
    .replace("http://127.0.0.1:8000/", `${stack.url}/`)
    .replace("http://127.0.0.1:9181/", `${stack.dashboardUrl}/`)
    .replace(
      "server_name tools.example;",
      `location /kept/ { proxy_pass http://127.0.0.1:${kept}; proxy_set_header Host $http_host; }
       location /cached/ {
         proxy_pass ${stack.url}/; proxy_set_header Host $http_host;
         proxy_cache kept; proxy_cache_valid any 10m; add_header X-Cache $upstream_cache_status always;
       }
       location / { proxy_pass ${stack.url}; proxy_set_header Host $http_host; }
       location /queues/ { return 403; }
       location /open/ {
         proxy_pass http://127.0.0.1:${open}/; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
       }
       location /nohost/ { proxy_pass ${stack.dashboardUrl}/; }`,
    );
  const temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
    (name) => `${name}_temp_path ${dir}/temp/${name};`,
  );
  writeFileSync(
    join(dir, "nginx.conf"),
    `daemon off; user root; pid ${dir}/pid; error_log ${dir}/error.log; worker_processes 1; events { worker_connections 200; }
     http { access_log off; ${temp.join(" ")} proxy_cache_path ${dir}/cache keys_zone=kept:1m; set_real_ip_from 127.0.0.1; real_ip_header X-Test-Client; ${server} }`,
  );
  nginx = Bun.spawn(["nginx", "-p", dir, "-e", join(dir, "error.log"), "-c", join(dir, "nginx.conf")], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  await until(async () => (await fetch(`${base}/queue/readyz`).catch(() => undefined))?.ok, 20_000);
});
afterAll(async () => {
  nginx?.kill("SIGTERM");
  await nginx?.exited;
  await stack?.stop();
  rmSync(dir, { recursive: true, force: true });
});

/** Submits below a path and follows the links of the answers. */
async function walk(prefix: string) {
  const accepted = await fetch(`${base}${prefix}/work?tags=x`, {
    method: "POST",
    headers: KEY,
    body: '{"answer":{"a":1}}',
  });
  expect(accepted.status).toBe(202);
  const location = accepted.headers.get("location") as string;
  expect(location).toStartWith(`${prefix}/jobs/work_`);
  const get = async (path: string) => {
    const answer = await fetch(base + path, { headers: KEY });
    expect([path, answer.status]).toEqual([path, 200]);
    return answer;
  };
  // biome-ignore lint/suspicious/noExplicitAny: read field by field
  let record: any;
  await until(async () => {
    record = await (await get(location)).json();
    return record.status === "finished";
  });
  for (const name of ["self", "status", "result"]) {
    expect([name, record.links[name]]).toEqual([name, expect.stringMatching(new RegExp(`^${prefix}/jobs/`))]);
    await get(record.links[name]);
  }
  const list = await get(`${prefix}/jobs?limit=1`);
  const next = /^<([^>]+)>; rel="next"$/.exec(list.headers.get("link") ?? "")?.[1];
  if (next) {
    expect(next).toStartWith(`${prefix}/jobs?`);
    await get(next);
  }
  const document = (await (await get(`${prefix}/openapi.json`)).json()) as { servers: { url: string }[] };
  expect(document.servers[0]?.url).toBe(`${prefix}/`);
  const start = (await (await get(`${prefix}/`)).json()) as Record<string, string>;
  for (const name of ["docs", "openapi", "health"]) await get(start[name] as string);
  return next;
}

test("X-Forwarded-Prefix of a trusted proxy stands before every link", async () => {
  await walk("/queue");
  expect(await walk("/queue")).toBeDefined();
});

test("BASE_PATH stands before every link, and is taken off a request that still has it", async () => {
  expect(await walk("/kept")).toBeDefined();
});

test("a download link below a path leads to the file", async () => {
  mkdirSync(join(stack.dir, "output"), { recursive: true });
  writeFileSync(join(stack.dir, "output/a.txt"), "all of it");
  const made = await fetch(`${base}/queue/create_download_link`, {
    method: "POST",
    headers: KEY,
    body: '{"file_path":"/output/a.txt"}',
  });
  const { url } = (await made.json()) as { url: string };
  expect(url).toStartWith("/queue/download/");
  expect(await (await fetch(base + url)).text()).toBe("all of it");
});

test("a prefix of a client that is no trusted proxy, or that is no path, is not believed", async () => {
  const submit = (url: string, prefix: string) =>
    fetch(`${url}/work`, { method: "POST", headers: { ...KEY, "x-forwarded-prefix": prefix }, body: "{}" });
  const untrusted = await stack.startGateway({
    PORT: String(await freePort()),
    DASHBOARD_PORT: "0",
    TRUSTED_PROXIES: "",
  });
  const port = /http:\/\/127\.0\.0\.1:(\d+)/.exec(untrusted.output())?.[1];
  expect((await submit(`http://127.0.0.1:${port}`, "/evil")).headers.get("location")).toStartWith("/jobs/");
  for (const prefix of ["//evil.example", "https://evil.example", "/a b", "/..//x", "evil"]) {
    const answer = await submit(stack.url, prefix);
    expect([prefix, answer.headers.get("location")]).toEqual([prefix, expect.stringMatching(/^\/jobs\//)]);
  }
});

test("a prefix that a client writes leads to no route that its path does not name", async () => {
  // this nginx forbids /queues/ and passes on whatever header a client writes
  const pause = (path: string, headers = {}) => fetch(base + path, { method: "POST", headers: { ...KEY, ...headers } });
  expect((await pause("/queues/work/pause")).status).toBe(403);
  expect((await pause("/x/queues/work/pause", { "x-forwarded-prefix": "/x" })).status).toBe(404);
  const direct = await fetch(`${stack.url}/jobs?limit=1`, { headers: { ...KEY, "x-forwarded-prefix": "/x" } });
  expect(direct.status).toBe(200);
});

test("a proxy on this machine makes nobody from outside an administrator of an open gateway", async () => {
  const from = async (client?: string) =>
    (await fetch(`${base}/open/audit`, client ? { headers: { "x-test-client": client } } : {})).status;
  expect([await from(), await from("203.0.113.9"), await from("2001:db8::1")]).toEqual([200, 401, 401]);
  const told = await fetch(`${base}/open/jobs`, { headers: { "x-test-client": "203.0.113.9" } });
  expect(((await told.json()) as { detail: string }).detail).toContain("through a proxy (X-Forwarded-For");
});

test("a cache in between keeps no answer that a key was needed for, and none of a probe", async () => {
  const id = await stack.submit({ answer: 1 }, "/work", KEY);
  await until(async () => (await fetch(`${stack.url}/jobs/${id}/result`, { headers: KEY })).ok);
  const kept = ["/jobs", `/jobs/${id}`, `/jobs/${id}/status`, `/jobs/${id}/result`, `/jobs/${id}/deliveries`, "/audit"];
  for (const path of [...kept, "/alerts", "/metrics", "/autoscale", "/list_directories"]) {
    const mine = await fetch(`${base}/cached${path}`, { headers: KEY });
    expect([path, mine.status]).toEqual([path, 200]);
    await mine.body?.cancel();
    expect([path, (await fetch(`${base}/cached${path}`)).status]).toEqual([path, 401]);
  }
  for (const path of ["/health", "/livez", "/readyz", "/jobs/nope"]) {
    for (let i = 0; i < 2; i++) {
      const answer = await fetch(`${base}/cached${path}`, { headers: KEY });
      expect([path, answer.headers.get("x-cache")]).toEqual([path, "MISS"]);
    }
  }
});

test("the dashboard signs in, shows and acts below a path, and asks nothing outside it", async () => {
  const id = await stack.submit({ sleep: 60_000 }, "/work", KEY);
  const browser = await startBrowser();
  try {
    const { page, context, faults } = await visit(browser, base, "queue-dashboard");
    const outside: string[] = [];
    context.on("request", (request) => {
      if (!new URL(request.url()).pathname.startsWith("/queue-dashboard/")) outside.push(request.url());
    });
    await page.waitForURL(`${base}/queue-dashboard/`);
    await page.getByLabel(/key/i).fill(ADMIN);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("article", { name: "work" }).waitFor();
    await page.locator("#link").getByText("Live", { exact: true }).waitFor();
    const [cookie] = await context.cookies(`${base}/queue-dashboard/`);
    expect(cookie).toMatchObject({
      name: expect.stringMatching(/^lh_session_[0-9a-f]{16}$/),
      path: "/queue-dashboard/",
      httpOnly: true,
    });
    await page.goto(`${base}/queue-dashboard/#/jobs/${id}`);
    await page.getByRole("button", { name: "Cancel", exact: true }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Cancel the job" }).click();
    await page.getByRole("heading", { name: /^Canceled/ }).waitFor();
    for (const panel of ["jobs", "workers", "files", "alerts", "submit"]) {
      await page.goto(`${base}/queue-dashboard/#/${panel}`);
      await page.getByRole("heading", { level: 1 }).waitFor();
    }
    expect([outside, faults]).toEqual([[], []]);
  } finally {
    await browser.close();
  }
});

test("sign-in through a proxy that does not pass Host on is refused with what cures it", async () => {
  const answer = await fetch(`${base}/nohost/signin`, {
    method: "POST",
    headers: { "content-type": "application/json", origin: base },
    body: JSON.stringify({ key: ADMIN }),
  });
  expect(answer.status).toBe(403);
  const { detail } = (await answer.json()) as { detail: string };
  expect(detail).toContain("proxy_set_header Host $http_host");
});

/** Who may look and act on the dashboard, and what no page of another site gets: reliability.md §4. */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { guard, SESSION_MS } from "../shared/auth.ts";
import { BASE, KEYS, OWN, startBoard, type TestBoard } from "./support/board.ts";
import { logged } from "./support/log.ts";
import { until } from "./support/stack.ts";
import { job } from "./support/store.ts";

let board: TestBoard;
let ask: TestBoard["ask"];
let post: TestBoard["post"];
let store: TestBoard["store"];
const signedIn = (key: string) => board.signedIn(key);
const jobs = () => board.jobs();

beforeAll(async () => {
  board = await startBoard();
  ({ ask, post, store } = board);
});
afterAll(() => board?.stop());
beforeEach(() => store.clear());

test("sign-in sets a cookie that scripts cannot read and other sites cannot send", async () => {
  const answer = await post("/signin", OWN, { key: KEYS.admin });
  const flags = (answer.headers.get("set-cookie") ?? "").split("; ").slice(1).sort();
  expect([answer.status, flags]).toEqual([200, ["HttpOnly", "Max-Age=43200", "Path=/", "SameSite=Strict"]]);
  expect(await answer.text()).not.toContain(KEYS.admin);
  const https = await ask("https://board.example/signin", {
    method: "POST",
    headers: { origin: "https://board.example", "content-type": "application/json" },
    body: JSON.stringify({ key: KEYS.admin }),
  });
  expect(https.headers.get("set-cookie")).toContain("; Secure");
  const proxied = await post("/signin", { ...OWN, "x-forwarded-proto": "https" }, { key: KEYS.admin });
  expect(proxied.headers.get("set-cookie")).toContain("; Secure");
  for (const proto of ["https, http", "https,https", "HTTPS"]) {
    const several = await post("/signin", { ...OWN, "x-forwarded-proto": proto }, { key: KEYS.admin });
    expect([proto, several.headers.get("set-cookie")]).toEqual([proto, expect.stringContaining("; Secure")]);
  }
  const out = await post("/signout", { ...OWN, ...(await signedIn(KEYS.admin)) });
  expect(out.headers.get("set-cookie")).toContain("Max-Age=0");
});

test("a wrong key is refused, and after ten of them the address has to wait", async () => {
  const wrong = (ip: string, key: unknown) =>
    ask("/signin", {
      method: "POST",
      ip,
      headers: { ...OWN, "content-type": "application/json" },
      body: JSON.stringify({ key }),
    });
  for (const key of ["x", "", null, { a: 1 }, KEYS.admin.slice(1), `${KEYS.admin}x`]) {
    const answer = await wrong("7.7.7.1", key);
    expect([answer.status, answer.headers.get("set-cookie")]).toEqual([403, null]);
  }
  for (let i = 0; i < 10; i++) expect((await wrong("7.7.7.2", "nope")).status).toBe(403);
  const late = await wrong("7.7.7.2", KEYS.admin);
  expect([late.status, Number(late.headers.get("retry-after")) > 0]).toEqual([429, true]);
  expect((await wrong("7.7.7.3", KEYS.admin)).status).toBe(200);
});

test("wrong keys count by IPv6 /64, in headers too, and whoever waits with its body", async () => {
  const guess = (ip: string) =>
    ask("/signin", {
      method: "POST",
      ip,
      headers: { ...OWN, "content-type": "application/json" },
      body: JSON.stringify({ key: "a-wrong-guess" }),
    });
  const statuses: number[] = [];
  for (let i = 1; i <= 6; i++) statuses.push((await guess(`2001:db8:7:7::${i}`)).status);
  for (let i = 1; i <= 6; i++) {
    const headers = { "x-api-key": `wrong-key-${i}` };
    statuses.push((await ask("/state.json", { ip: `2001:db8:7:7:${i}::1`, headers })).status);
  }
  expect(statuses).toEqual([...Array(10).fill(403), 429, 429]);
  const good = await ask("/state.json", { ip: "2001:db8:7:7::ffff", headers: { "x-api-key": KEYS.admin } });
  expect(good.status).toBe(429); // else a guess could be told from it
  expect((await guess("2001:db8:7:8::1")).status).toBe(403);
  const session = await signedIn(KEYS.admin);
  expect((await ask("/state.json", { ip: "2001:db8:7:7::1", headers: session })).status).toBe(200);

  const late = Promise.withResolvers<void>();
  const waiting = Array.from({ length: 30 }, () =>
    ask("/signin", {
      method: "POST",
      ip: "7.7.7.9",
      headers: { ...OWN, "content-type": "application/json" },
      body: new ReadableStream({
        async pull(stream) {
          await late.promise;
          stream.enqueue(new TextEncoder().encode('{"key":"a-wrong-guess"}'));
          stream.close();
        },
      }),
    }),
  );
  await Bun.sleep(50);
  late.resolve();
  const told = (await Promise.all(waiting)).map(({ status }) => status);
  expect(told.filter((status) => status === 403).length).toBe(10);
});

test("dashboards of one host keep their sessions apart, and a stale cookie hides none", async () => {
  const second = board.other({ API_KEYS: "the-key-of-another-deployment" });
  const signin = async (of: TestBoard["ask"], key: string, headers = {}) => {
    const answer = await of("/signin", {
      method: "POST",
      headers: { ...OWN, "content-type": "application/json", ...headers },
      body: JSON.stringify({ key }),
    });
    return answer.headers.getSetCookie().map((line) => line.split(";")[0] as string);
  };
  const [one = ""] = await signin(ask, KEYS.admin);
  const [two = ""] = await signin(second.ask, "the-key-of-another-deployment", { cookie: one });
  expect(one.split("=")[0]).not.toBe(two.split("=")[0]);
  const cookie = `${one.split("=")[0]}=x.y.z; ${one}; lh_session=stale; ${two}`;
  for (const of of [ask, second.ask]) expect((await of("/state.json", { headers: { cookie } })).status).toBe(200);
  // signed in anew with another key of the same deployment: the first cookie goes, the neighbour's stays
  const set = await signin(ask, KEYS.read, { cookie });
  const names = set.map((line) => line.replace(/=.+/, "=…"));
  expect([set.length, names.includes(`${one.split("=")[0]}=`), names.includes(`${two.split("=")[0]}=`)]).toEqual([
    2,
    true,
    false,
  ]);
});

test("after sign-out a copy of the cookie is worth nothing, at any gateway", async () => {
  const copy = await signedIn(KEYS.admin);
  await Bun.sleep(2); // sessions of one millisecond would be one
  const elsewhere = await signedIn(KEYS.admin);
  const other = board.other({ API_KEYS: `${KEYS.admin},${KEYS.read}:read` });
  const looks = (headers: { cookie: string }) =>
    Promise.all(["/state.json", "/api/jobs"].map(async (path) => (await other.ask(path, { headers })).status));
  expect(await looks(copy)).toEqual([200, 200]);
  expect((await post("/signout", { ...OWN, ...copy })).status).toBe(200);
  expect(await looks(copy)).toEqual([401, 401]);
  expect((await post("/api/queues/work/pause", { ...OWN, ...copy })).status).toBe(401);
  expect(await looks(elsewhere)).toEqual([200, 200]); // another browser's
});

const LOOKS = ["/state.json", "/state/events", "/history.json", "/operations.json", "/api/jobs", "/api/audit"];

test("without a session nothing is told; with one, or with a key in a header, it is", async () => {
  for (const path of LOOKS) {
    const answer = await ask(path);
    expect([path, answer.status]).toEqual([path, 401]);
  }
  const session = await signedIn(KEYS.admin);
  for (const headers of [session, { "x-api-key": KEYS.admin }]) {
    for (const path of LOOKS) {
      const answer = await ask(path, { headers });
      expect([path, answer.status]).toEqual([path, 200]);
      await answer.body?.cancel();
    }
  }
  expect((await ask("/state.json", { headers: { "x-api-key": "wrong-key-12345" } })).status).toBe(403);
});

test("a forged, altered, expired or foreign cookie is none; a key that is taken away ends its sessions", async () => {
  const { session } = guard(board.config);
  const good = session.issue(KEYS.admin, Date.now());
  const [name, until, signature] = good.split(".") as [string, string, string];
  const reader = session.issue(KEYS.read, Date.now());
  const bad = {
    "another expiry": `${name}.${Number(until) + 1}.${signature}`,
    "another key's name": `${reader.split(".")[0]}.${until}.${signature}`,
    "another key's signature": `${name}.${until}.${reader.split(".")[2]}`,
    "no signature": `${name}.${until}.`,
    "a cut signature": good.slice(0, -1),
    "an endless one": `${name}.Infinity.${signature}`,
    expired: session.issue(KEYS.admin, Date.now() - SESSION_MS - 1_000),
    "signed with an unknown key": session.issue("a-key-that-nobody-has", Date.now()),
    empty: "..",
  };
  const status = async (cookie: string) =>
    (await ask("/state.json", { headers: { cookie: `lh_session=${cookie}` } })).status;
  expect(await status(good)).toBe(200);
  for (const [what, cookie] of Object.entries(bad)) expect([what, await status(cookie)]).toEqual([what, 401]);
  const without = board.other({ API_KEYS: `${KEYS.submit}:submit` });
  const later = await without.ask("/state.json", { headers: { cookie: `lh_session=${good}` } });
  expect(later.status).toBe(401);
});

test("actions come from our own page: a foreign Origin, a foreign Sec-Fetch-Site, or neither with a cookie is refused", async () => {
  const session = await signedIn(KEYS.admin);
  const id = await store.submit();
  const tries: [Record<string, string>, number][] = [
    [{ ...session, origin: "https://evil.example" }, 403],
    [{ ...session, origin: "null" }, 403],
    [{ ...session, origin: `${BASE}.evil.example` }, 403],
    [{ ...session, origin: `${BASE}:8443` }, 403],
    [{ ...session, "sec-fetch-site": "cross-site" }, 403],
    [{ ...session, "sec-fetch-site": "same-site" }, 403],
    [{ ...session, ...OWN, "sec-fetch-site": "cross-site" }, 403],
    [session, 403],
    [{ "x-api-key": KEYS.admin, origin: "https://evil.example" }, 403],
    [{ ...session, "sec-fetch-site": "same-origin" }, 202],
    [{ ...session, ...OWN }, 202],
    [{ "x-api-key": KEYS.admin }, 202],
  ];
  for (const [headers, status] of tries) {
    const answer = await post(`/api/jobs/${id}/cancel`, headers);
    expect([headers, answer.status]).toEqual([headers, status]);
    if (status === 403) expect(((await answer.json()) as { code: string }).code).toBe("foreign_origin");
    expect(await store.state(id)).toBe(status === 403 ? "queued" : "canceled");
    if (status === 202) await store.producer.requeue(id, (await store.inspector.status(id))?.rev ?? 0);
  }
  for (const [path, body] of [
    ["/signin", { key: KEYS.admin }],
    ["/signout", undefined],
    ["/submit", { operation: "work", payload: {} }],
  ] as const) {
    const answer = await post(path, { ...session, origin: "https://evil.example" }, body);
    expect([path, answer.status, answer.headers.get("set-cookie")]).toEqual([path, 403, null]);
  }
});

test("an action is a POST or a DELETE, never a GET", async () => {
  const session = await signedIn(KEYS.admin);
  const id = await store.submit();
  for (const path of [
    `/api/jobs/${id}/cancel`,
    "/api/queues/work/pause",
    "/api/queues/work/empty",
    "/submit",
    "/signout",
  ]) {
    expect([path, (await ask(path, { headers: session })).status]).toEqual([path, 405]);
  }
  expect([await store.state(id), (await store.counts()).paused]).toEqual(["queued", false]);
});

test("a key that may read sees everything and changes nothing; one that may submit does no operator's work", async () => {
  const { waiting, failed } = await jobs();
  const submits: [string, string, unknown?][] = [
    ["POST", `/api/jobs/${waiting}/cancel`],
    ["POST", `/api/jobs/${failed}/requeue`],
    ["DELETE", `/api/jobs/${failed}`],
    ["POST", "/submit", { operation: "work", payload: {} }],
    ["POST", "/api/work", {}],
    ["POST", "/api/jobs", { operation: "work", payload: {} }],
    ["POST", "/api/upload/ifc"],
  ];
  const admins: [string, string, unknown?][] = [
    ["POST", "/api/queues/work/pause"],
    ["POST", "/api/queues/work/resume"],
    ["POST", "/api/queues/work/empty"],
    ["POST", "/api/jobs/bulk", { filter: { state: "failed" }, action: "delete" }],
    ["POST", "/api/workers/w1/quiet"],
    ["POST", "/api/workers/w1/stop"],
    ["GET", "/api/audit"],
  ];
  const before = await store.dump();
  const check = async (key: string, all: typeof admins) => {
    const session = await signedIn(key);
    for (const [method, path, body] of all) {
      const answer = await ask(path, {
        method,
        headers: { ...session, ...OWN, ...(body ? { "content-type": "application/json" } : {}) },
        ...(body ? { body: JSON.stringify(body) } : {}),
      });
      expect([path, answer.status]).toEqual([path, 403]);
      expect([path, ((await answer.json()) as { code: string }).code]).toEqual([path, "wrong_scope"]);
    }
  };
  await check(KEYS.read, [...submits, ...admins]);
  await check(KEYS.submit, admins);
  expect(await store.dump()).toEqual(before);
  const reader = await signedIn(KEYS.read);
  type Shown = { you: { scope: string }; services: { service: string; queued: number }[] };
  const state = async () => (await (await ask("/state.json", { headers: reader })).json()) as Shown;
  expect((await state()).you.scope).toBe("read");
  await until(async () => (await state()).services.find((s) => s.service === "work")?.queued === 1);
});

test("every answer forbids framing, sniffing and scripts from elsewhere; what a job says is sandboxed and saved, not shown", async () => {
  const session = await signedIn(KEYS.admin);
  const { done } = await jobs();
  await store.redis.client.hset(`lh:{work}:job:${done}`, "rt", "text/html", "r", "<script src=/main.js></script>");
  for (const path of [
    "/",
    "/main.js",
    "/state.json",
    "/nothing",
    "/signin",
    "/api/jobs",
    `/api/jobs/${done}/result`,
    "/api/health",
  ]) {
    const { headers } = await ask(path, { headers: session });
    const policy = headers.get("content-security-policy") ?? "";
    expect([path, policy]).toEqual([path, expect.stringContaining("default-src 'none'")]);
    expect([path, policy]).toEqual([path, expect.stringContaining("frame-ancestors 'none'")]);
    expect([path, /unsafe-inline|unsafe-eval|\*|https?:/.test(policy) && !policy.startsWith("sandbox")]).toEqual([
      path,
      false,
    ]);
    expect([path, headers.get("x-frame-options"), headers.get("x-content-type-options")]).toEqual([
      path,
      "DENY",
      "nosniff",
    ]);
    expect([path, headers.get("cross-origin-resource-policy")]).toEqual([path, "same-origin"]);
    expect([path, headers.get("access-control-allow-origin")]).toEqual([path, null]);
  }
  const result = await ask(`/api/jobs/${done}/result`, { headers: session });
  expect(result.headers.get("content-security-policy")).toStartWith("sandbox;");
  expect(result.headers.get("content-disposition")).toStartWith("attachment");
});

test("every action is written down with who did what, and never the key", async () => {
  const session = { ...(await signedIn(KEYS.admin)), ...OWN };
  const { waiting, failed } = await jobs();
  let made = "";
  const lines = await logged(async () => {
    await post(`/api/jobs/${waiting}/cancel`, session);
    await post(`/api/jobs/${failed}/requeue`, session);
    await post("/api/queues/work/pause", session);
    made = ((await (await post("/submit", session, { operation: "work", payload: {} })).json()) as { job_id: string })
      .job_id;
    await post(`/api/jobs/${failed}/requeue`, session); // runs already: refused, and told
  });
  const { entries } = (await (await ask("/api/audit", { headers: session })).json()) as {
    entries: Record<string, string>[];
  };
  expect(entries.map(({ action, target }) => [action, target])).toEqual([
    ["submit", made],
    ["pause", "work"],
    ["requeue", failed],
    ["cancel", waiting],
  ]);
  expect(new Set(entries.map(({ ip }) => ip))).toEqual(new Set(["9.9.9.9"]));
  expect(entries.every(({ who }) => /^[0-9a-f]{16}$/.test(who as string))).toBe(true);
  const who = expect.stringMatching(/^[0-9a-f]{16}$/);
  const audits = lines.filter(({ message }) => message === "audit");
  expect(audits).toEqual(Array(4).fill(expect.objectContaining({ level: "info", who, ip: "9.9.9.9" })));
  const refused = lines.filter(({ message }) => message === "refused on the dashboard");
  expect(refused).toEqual([
    expect.objectContaining({
      who,
      scope: "admin",
      ip: "9.9.9.9",
      method: "POST",
      path: `/jobs/${failed}/requeue`,
      status: 409,
    }),
  ]);
  expect(JSON.stringify([entries, lines])).not.toContain(KEYS.admin);
});

test("without keys only loopback is served, by its own name, and acts only from its own page", async () => {
  const open = board.other({});
  const local = (url: string, headers: Record<string, string> = {}, method = "GET") =>
    open.ask(url, { ip: "127.0.0.1", headers, method });
  expect((await local("http://localhost:9181/state.json")).status).toBe(200);
  expect((await local("http://rebound.example/state.json")).status).toBe(403);
  expect((await local("http://localhost:9181/state.json", { origin: "https://evil.example" })).status).toBe(403);
  const id = await store.submit(job());
  const cancel = (headers: Record<string, string>) =>
    local(`http://localhost:9181/api/jobs/${id}/cancel`, headers, "POST");
  expect((await cancel({})).status).toBe(403);
  expect((await cancel({ "sec-fetch-site": "cross-site" })).status).toBe(403);
  expect((await cancel({ origin: "http://localhost:3000" })).status).toBe(403);
  expect((await cancel({ origin: "http://localhost:9181" })).status).toBe(202);
});

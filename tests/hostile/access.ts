/** Who may do what: keys and scopes on each route of the document, the dashboard's doors, and the progress URL. */
import { all, type Case, type Group, KEYS, type World, WRONG } from "./world.ts";

/** What each caller hears on a route: without a key, with a wrong one, and with each scope; the body is no JSON. */
async function matrix(w: World): Promise<Map<string, string[]>> {
  const { paths } = JSON.parse((await w.whole("GET", "/openapi.json", { key: null })).text) as {
    paths: Record<string, Record<string, unknown>>;
  };
  const rows = new Map<string, string[]>();
  for (const [path, methods] of Object.entries(paths)) {
    for (const method of Object.keys(methods).filter((name) => /^(get|post|put|delete)$/.test(name))) {
      const real = path
        .replace("{service}", "away")
        .replace("{kind}", "ifc")
        .replace(/\{\w+\}/g, "none");
      const heard = [];
      for (const key of [null, WRONG, KEYS.read, KEYS.submit]) {
        const body = method === "post" ? "{" : undefined;
        heard.push(await w.ask(method.toUpperCase(), real, { key, body }));
      }
      rows.set(`${method} ${path}`, heard);
    }
  }
  return rows;
}
const OPEN = /^get \/(|health|livez|readyz|openapi\.json|docs|docs\/\{file\}|download\/\{token\})$|\/progress$/;
const ADMIN = /^post \/(queues|workers|jobs\/bulk)|^get \/audit$/;
const READS = /^get |^post \/create_download_link$/;

const scopes: Case[] = [
  [
    "each route of /openapi.json, without a key",
    "401 no_key, but for the open ones",
    async (w) => {
      const wrong = [...(await matrix(w))].filter(([route, [none]]) => OPEN.test(route) === (none === "401 no_key"));
      return wrong.length > 0 ? JSON.stringify(wrong) : "401 no_key, but for the open ones";
    },
  ],
  [
    "the same, with a wrong key",
    "403 wrong_key, but for the open ones",
    async (w) => {
      const wrong = [...(await matrix(w))].filter(
        ([route, [, none]]) => OPEN.test(route) === (none === "403 wrong_key"),
      );
      return wrong.length > 0 ? JSON.stringify(wrong) : "403 wrong_key, but for the open ones";
    },
  ],
  [
    "what a lesser key may not",
    "403 wrong_scope: read reads, submit administers nothing",
    async (w) => {
      const wrong = [...(await matrix(w))].filter(([route, [, , read, submit]]) => {
        const mayRead = OPEN.test(route) || (READS.test(route) && !ADMIN.test(route));
        return (read !== "403 wrong_scope") !== mayRead || (submit === "403 wrong_scope") !== ADMIN.test(route);
      });
      return wrong.length > 0 ? JSON.stringify(wrong) : "403 wrong_scope: read reads, submit administers nothing";
    },
  ],
  [
    "a key in other letters, cut, twice, of 15,000",
    "403 wrong_key",
    all(
      ...[KEYS.admin.toUpperCase(), KEYS.admin.slice(1), `${KEYS.admin},${KEYS.admin}`, "a".repeat(15_000)].map(
        (key) => (w: World) => w.ask("GET", "/jobs", { key }),
      ),
    ),
  ],
  [
    "two X-API-Key headers, both good",
    "403 wrong_key",
    (w) => w.ask("GET", "/jobs", { key: `${KEYS.read}, ${KEYS.admin}` }),
  ],
  [
    "Basic, Bearer alone, the dashboard's cookie",
    "401 no_key",
    all(
      ...[
        { authorization: `Basic ${btoa(`x:${KEYS.admin}`)}` },
        { authorization: "Bearer" },
        { cookie: "lh_session=x" },
      ].map(
        (headers) => (w: World) => w.ask("GET", "/jobs", { key: null, headers: headers as Record<string, string> }),
      ),
    ),
  ],
];

const board =
  (method: string, path: string, init: Parameters<World["ask"]>[2] = {}) =>
  async (w: World) =>
    w.ask(method, path, { key: null, base: w.stack.dashboardUrl, ...init });
const cookieOf = async (w: World) => {
  const { dashboardUrl: origin } = w.stack;
  const init = { key: null, base: origin, headers: { origin }, body: JSON.stringify({ key: KEYS.admin }) };
  return (await w.whole("POST", "/signin", init)).headers.get("set-cookie")?.split(";")[0] ?? "";
};
const act = (headers: Record<string, string>) => async (w: World) =>
  w.ask("POST", "/api/queues/away/resume", {
    key: null,
    base: w.stack.dashboardUrl,
    headers: { cookie: await cookieOf(w), ...headers },
  });

const dashboard: Case[] = [
  [
    "an action with a session from a foreign Origin, `null`, or a subdomain",
    "403 foreign_origin",
    all(...["https://evil.example", "null"].map((origin) => act({ origin })), async (w) =>
      act({ origin: w.stack.dashboardUrl.replace("//", "//evil.") })(w),
    ),
  ],
  ["without Origin and Sec-Fetch-Site", "403 foreign_origin", act({})],
  [
    "Sec-Fetch-Site: cross-site, same-site",
    "403 foreign_origin",
    all(act({ "sec-fetch-site": "cross-site" }), act({ "sec-fetch-site": "same-site" })),
  ],
  ["from its own page", "200", async (w) => act({ origin: w.stack.dashboardUrl })(w)],
  [
    "a cookie cut, with another time, of nobody",
    "401 no_key",
    all(
      ...[
        (cookie: string) => cookie.slice(0, -1),
        (cookie: string) => cookie.replace(/\.\d+\./, ".9999999999999."),
        () => "lh_session=x.y.z",
      ].map(
        (change) => async (w: World) =>
          board("GET", "/state.json", { headers: { cookie: change(await cookieOf(w)) } })(w),
      ),
    ),
  ],
  [
    "`/..%2f..%2fetc/passwd`, `/.env`, `/node_modules/hono/package.json`, `/panels/..%5c..%5cgateway.ts`",
    "404 unknown_route",
    all(
      ...["/..%2f..%2fetc/passwd", "/.env", "/node_modules/hono/package.json", "/panels/..%5c..%5cgateway.ts"].map(
        (path) => board("GET", path),
      ),
    ),
  ],
  ["/api/… without a session", "401 no_key", board("GET", "/api/jobs")],
  [
    "its page, in a frame of another site",
    "200, DENY, frame-ancestors 'none'",
    async (w) => {
      const { status, headers } = await w.whole("GET", "/", { key: null, base: w.stack.dashboardUrl });
      return `${status}, ${headers.get("x-frame-options")}, ${/frame-ancestors 'none'/.exec(headers.get("content-security-policy") ?? "")}`;
    },
  ],
  [
    "a result that is HTML, opened in it",
    "200, attachment, sandbox",
    async (w) => {
      const { text } = await w.whole("POST", "/work", {
        body: '{"raw":"<script>alert(1)</script>","type":"text/html"}',
      });
      const id = JSON.parse(text).job_id;
      await w.whole("GET", `/jobs/${id}?wait=10`);
      const { status, headers } = await w.whole("GET", `/api/jobs/${id}/result`, { base: w.stack.dashboardUrl });
      return `${status}, ${headers.get("content-disposition")}, ${headers.get("content-security-policy")?.split(";", 1)}`;
    },
  ],
];

const waiting = async (w: World) =>
  JSON.parse((await w.whole("POST", "/work?delay=1h", { body: "{}" })).text).job_id as string;
const report = (body: string) => (query: string) => async (w: World) =>
  w.ask("POST", `/jobs/${await waiting(w)}/progress${query}`, { key: null, body });
const progress: Case[] = [
  [
    "no token, a wrong one, of 9,000 characters, NUL, for a job that waits",
    "409 wrong_state",
    all(...["", "?t=", "?t=x", `?t=${"x".repeat(9_000)}`, "?t=%00"].map(report('{"progress":0.5}'))),
  ],
  [
    "an admin's key and no token",
    "409 wrong_state",
    async (w) => w.ask("POST", `/jobs/${await waiting(w)}/progress`, { body: '{"progress":0.5}' }),
  ],
  [
    "progress 2, a text, 1e400; a message of 501; another field",
    "422 invalid",
    all(
      ...[
        '{"progress":2}',
        '{"progress":"x"}',
        '{"progress":1e400}',
        `{"message":"${"x".repeat(501)}"}`,
        '{"x":1}',
      ].map((body) => report(body)("?t=x")),
    ),
  ],
  [
    "a job that is none",
    "404 unknown_job",
    (w) => w.ask("POST", `/jobs/work_${"a".repeat(22)}/progress?t=x`, { key: null, body: "{}" }),
  ],
];

export const groups: Group[] = [
  { title: "Keys and scopes", cases: scopes },
  { title: "The dashboard's port", cases: dashboard },
  { title: "X-Progress-Url", cases: progress },
];

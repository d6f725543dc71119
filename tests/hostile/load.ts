/** Clients that hold on, microservices that misbehave, and limits at their edges. */
import { readdirSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { until } from "../support/stack.ts";
import { all, type Case, type Group, head, KEYS, type World, WRONG } from "./world.ts";

const waiting = async (w: World) =>
  JSON.parse((await w.whole("POST", "/work?delay=1h", { body: "{}" })).text).job_id as string;
const descriptors = (w: World) => readdirSync(`/proc/${w.stack.gateway.pid}/fd`).length;

/** Opens `n` connections that send `text` and never read, asks for /livez meanwhile, and closes them. */
async function hold(w: World, n: number, text: string): Promise<string> {
  const before = descriptors(w);
  const sockets: Socket[] = Array.from({ length: n }, () => {
    const socket = connect(Number(new URL(w.stack.url).port), "127.0.0.1");
    socket.on("error", () => {}).pause();
    socket.write(text);
    return socket;
  });
  await until(() => descriptors(w) >= before + n);
  const began = performance.now();
  const alive = await w
    .raw("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", { ms: 500 })
    .then((heard) => `${heard} /livez`);
  const soon = performance.now() - began < 1_000;
  for (const socket of sockets) socket.destroy();
  await until(() => descriptors(w) <= before + 5, 10_000);
  return `${alive} meanwhile${soon ? "" : ", late"}; all closed`;
}
const CALM = "200 /livez meanwhile; all closed";

const waits: Case[] = [
  [
    "300 event streams that never read",
    CALM,
    async (w) => hold(w, 300, head(`GET /jobs/${await waiting(w)}/events HTTP/1.1`)),
  ],
  [
    "300 long polls, given up",
    CALM,
    async (w) => hold(w, 300, head(`GET /jobs/${await waiting(w)}/status?wait=60 HTTP/1.1`)),
  ],
  [
    "150 connections that never end their headers, 150 that never end a body",
    CALM,
    all(
      (w) => hold(w, 150, "POST /work HTTP/1.1\r\nHost: localhost\r\nX-A: a"),
      (w) => hold(w, 150, `${head("POST /work HTTP/1.1", "Content-Type: application/json", "Content-Length: 9")}{`),
    ),
  ],
  [
    "HEAD …/events, more often than MAX_WAITS, then a stream",
    "200",
    async (w) => {
      const id = await waiting(w);
      for (let i = 0; i < 4; i++) await w.ask("HEAD", `/jobs/${id}/events`, { base: w.tight });
      const answer = await fetch(`${w.tight}/jobs/${id}/events`, { headers: { "x-api-key": "hostile-admin-key" } });
      await answer.body?.cancel();
      return String(answer.status);
    },
  ],
  [
    "one stream more than MAX_WAITS",
    "429 rate_limited",
    async (w) => {
      const id = await waiting(w);
      const open = () => fetch(`${w.tight}/jobs/${id}/events`, { headers: { "x-api-key": "hostile-submit-key" } });
      const two = [await open(), await open()];
      const answer = await w.ask("GET", `/jobs/${id}/events`, { base: w.tight });
      for (const { body } of two) await body?.cancel();
      return answer;
    },
  ],
];

const says = (say: string) => (w: World) => w.run({ say }, "raw");
const does = (payload: Record<string, unknown>) => (w: World) => w.run(payload);
const services: Case[] = [
  [
    "no HTTP, a header of 2 MB, 10,000 headers",
    "failed bad_answer",
    all(says("garbage"), says("a header of 2 MB"), says("10,000 headers")),
  ],
  [
    "a connection closed before an answer, or in its header",
    "tried again (reset)",
    all(says("close"), says("half a header")),
  ],
  [
    "a length that lies, a chunk that is none, gzip that is none",
    "failed cut_short",
    all(says("length lies"), says("bad chunk"), says("not gzip")),
  ],
  [
    "chunks without end, a gzip bomb of 200 MiB",
    "failed result_too_large",
    all(says("endless chunks"), says("gzip bomb")),
  ],
  ["100 Continue for ever", "failed timeout", says("100 Continue for ever")],
  [
    "nothing, broken JSON, JSON with a byte order mark, a type that nobody asked for",
    "failed bad_answer",
    all(does({ raw: "" }), does({ raw: '{"a":' }), does({ raw: "x", type: "video/mp4" }), does({ raw: "\ufeff{}" })),
  ],
  ["JSON nested 100,000 deep", "finished", does({ raw: "[".repeat(100_000) + "]".repeat(100_000) })],
  [
    "the same, looked at on the dashboard",
    "200",
    async (w) => {
      const { text } = await w.whole("POST", "/work", {
        body: JSON.stringify({ raw: "[".repeat(100_000) + "]".repeat(100_000) }),
      });
      const id = JSON.parse(text).job_id;
      await w.whole("GET", `/jobs/${id}?wait=10`);
      return w.ask("GET", `/api/jobs/${id}`, { base: w.stack.dashboardUrl });
    },
  ],
  ["`__proto__`, NUL, lone surrogates in its JSON", "finished", does({ raw: '{"__proto__":{"a":"\\u0000\\ud800"}}' })],
  [
    "a redirect to 169.254.169.254, a 304",
    "failed redirect",
    all(does({ status: 302, headers: { location: "http://169.254.169.254/" } }), does({ status: 304 })),
  ],
  [
    "503 with Retry-After of 400 digits, `-5`, `banana`",
    "tried again (http_error)",
    all(...["9".repeat(400), "-5", "banana"].map((text) => does({ status: 503, headers: { "retry-after": text } }))),
  ],
  ["X-Job-Retry `maybe` on a 400", "failed http_error", does({ status: 400, headers: { "x-job-retry": "maybe" } })],
  [
    "Set-Cookie, Location, Content-Disposition on a result",
    "200, none of them",
    async (w) => {
      const headers = { "set-cookie": "a=b", location: "http://x/", "content-disposition": "inline" };
      const { text } = await w.whole("POST", "/work", { body: JSON.stringify({ headers }) });
      const id = JSON.parse(text).job_id;
      await w.whole("GET", `/jobs/${id}?wait=10`);
      const answer = await w.whole("GET", `/jobs/${id}/result`);
      const passed = Object.keys(headers).filter((name) => answer.headers.has(name));
      return `${answer.status}, ${passed.join() || "none of them"}`;
    },
  ],
  [
    "a type of 12,000 characters, with bytes above 127",
    "200",
    async (w) => {
      const body = JSON.stringify({
        raw: "{}",
        headers: { "content-type": `application/json; a="${"é".repeat(12_000)}"` },
      });
      const id = JSON.parse((await w.whole("POST", "/work", { body })).text).job_id;
      await w.whole("GET", `/jobs/${id}?wait=10`);
      return w.ask("GET", `/jobs/${id}/result`);
    },
  ],
];

const limits: Case[] = [
  [
    "MAX_QUEUED=3: the fourth job that waits",
    "202 202 202 429 backlog_full",
    async (w) => {
      await w.ask("POST", "/queues/away/pause");
      const heard = [];
      for (let i = 0; i < 4; i++)
        heard.push(await w.ask("POST", "/jobs", { base: w.tight, body: '{"operation":"away","payload":{}}' }));
      return heard.join(" ");
    },
  ],
  [
    "RATE_LIMIT=20/h: one request more",
    "429 rate_limited",
    async (w) => {
      let heard = "";
      for (let i = 0; i < 21; i++) heard = await w.ask("GET", "/jobs", { base: w.tight });
      return heard;
    },
  ],
  [
    "beyond it: /livez, /health, /openapi.json",
    "200",
    all(...["/livez", "/health", "/openapi.json"].map((path) => (w: World) => w.ask("GET", path, { base: w.tight }))),
  ],
  [
    "beyond it: another X-Forwarded-For, wrong keys in turn",
    "429 rate_limited",
    async (w) => {
      let heard = "";
      for (let i = 0; i < 21; i++)
        heard = await w.ask("GET", "/jobs", {
          base: w.tight,
          key: `wrong-key-${i}-of-many`,
          headers: { "x-forwarded-for": `9.9.9.${i}` },
        });
      return heard;
    },
  ],
  // at the end: this machine's address has to wait for a minute then
  [
    "the dashboard: eleven wrong keys from one address, then a good one, at sign-in and in a header",
    "429 rate_limited",
    async (w) => {
      const { dashboardUrl: base } = w.stack;
      const sign = (key: unknown) =>
        w.ask("POST", "/signin", { key: null, base, headers: { origin: base }, body: JSON.stringify({ key }) });
      for (let i = 0; i < 5; i++) await sign(i % 2 ? "wrong" : { a: 1 });
      for (let i = 0; i < 6; i++) await w.ask("GET", "/state.json", { key: WRONG, base });
      const heard = [await sign(KEYS.admin), await w.ask("GET", "/state.json", { key: KEYS.admin, base })];
      return [...new Set(heard)].join(" / ");
    },
  ],
];

export const groups: Group[] = [
  { title: "Clients that hold on", cases: waits },
  { title: "Answers of a microservice", cases: services },
  { title: "Limits", cases: limits },
];

/** The wire: request lines, framing, headers, paths and queries, as raw bytes where a client library would not send them. */
import { all, type Case, type Group, head, type World } from "./world.ts";

const JSON_TYPE = "Content-Type: application/json";
const send = (text: string) => (w: World) => w.raw(text);
const post = (lines: string[], body: string) => send(head("POST /work HTTP/1.1", JSON_TYPE, ...lines) + body);
const line = (first: string, ...lines: string[]) => send(head(first, ...lines));
const hosted = (host: string, path = "/livez") => send(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`);

const framing: Case[] = [
  [
    "Content-Length and Transfer-Encoding",
    "400, closed",
    post(["Content-Length: 2", "Transfer-Encoding: chunked"], "2\r\n{}\r\n0\r\n\r\n"),
  ],
  ["two different Content-Lengths", "400, closed", post(["Content-Length: 2", "Content-Length: 3"], "{}")],
  [
    "Content-Length `-2`, `+2`, `2abc`, 23 digits",
    "400, closed",
    all(...["-2", "+2", "2abc", "9".repeat(23)].map((length) => post([`Content-Length: ${length}`], "{}"))),
  ],
  [
    "Transfer-Encoding `xchunked`, `gzip, chunked`, twice, with a space before the colon",
    "400, closed",
    all(
      ...[": xchunked", ": gzip, chunked", ": chunked\r\nTransfer-Encoding: identity", " : chunked"].map((text) =>
        post([`Transfer-Encoding${text}`], "2\r\n{}\r\n0\r\n\r\n"),
      ),
    ),
  ],
  [
    "a chunk's size `zz`, `-2`, 17 digits, lines ended by LF alone",
    "400, closed",
    all(
      ...["zz\r\n{}\r\n", "-2\r\n{}\r\n", "fffffffffffffffff\r\n{}\r\n", "2\n{}\n0\n\n"].map((text) =>
        post(["Transfer-Encoding: chunked"], text),
      ),
    ),
  ],
  ["a chunk extension", "202", post(["Transfer-Encoding: chunked"], "2;a=b\r\n{}\r\n0\r\n\r\n")],
  [
    "a request inside a body",
    "404 unknown_route",
    send(
      `${head("POST /nope HTTP/1.1", "Content-Length: 40")}${"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".padEnd(40)}`,
    ),
  ],
  [
    "a folded header, a header without colon, name or with a space in it",
    "400, closed",
    all(...["X-A: a\r\n b", "abc", ": a", "X A: a"].map((text) => line("GET /livez HTTP/1.1", text))),
  ],
  [
    "NUL, or CR alone, in a header",
    "400, closed",
    all(...["X-A: a\0b", "X-A: a\rX-B: b"].map((text) => line("GET /livez HTTP/1.1", text))),
  ],
  [
    "a header of 70,000 bytes, or 300 of them",
    "431, closed",
    all(
      ...[`X-A: ${"a".repeat(70_000)}`, Array(300).fill("X-A: a").join("\r\n")].map((text) =>
        line("GET /livez HTTP/1.1", text),
      ),
    ),
  ],
  [
    "HTTP/0.9, HTTP/9.9",
    "505, closed",
    all(send("GET /livez\r\n\r\n"), send("GET /livez HTTP/9.9\r\nHost: x\r\n\r\n")),
  ],
  [
    "TLS, HTTP/2, noise",
    "400, closed",
    all(
      ...["\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\0\x01\x02\r\n\r\n"].map(
        send,
      ),
    ),
  ],
  ["HTTP/1.0 without Host", "200", send("GET /livez HTTP/1.0\r\n\r\n")],
  ["HTTP/1.1 without Host", "400, closed", send("GET /livez HTTP/1.1\r\n\r\n")],
  ["Host empty", "200", hosted("")],
  [
    "Host `a b<>`, `u:p@h`, `h/../x`, bytes above 127",
    "400 bad_request",
    all(...["a b<>", "u:p@h", "h/../x", "\xff\xfe"].map((host) => hosted(host))),
  ],
  [
    "Host `[` or `a:b`, where the path is looked at",
    "400 bad_request",
    all(hosted("[", "/jobs"), hosted("a:b", "/jobs")),
  ],
  ["Host of another", "200", hosted("evil.example")],
  ["a method that is none", "closed", line("FOO /livez HTTP/1.1")],
  [
    "TRACE, PUT",
    "405 wrong_method",
    all(line("TRACE /livez HTTP/1.1"), line("PUT /livez HTTP/1.1", "Content-Length: 0")),
  ],
  [
    "Expect: 100-continue and no body",
    "100, silence",
    async (w) =>
      `${await w.raw(head("POST /work HTTP/1.1", JSON_TYPE, "Expect: 100-continue", "Content-Length: 2"), { ms: 300 })}`.replace(
        /^100.*/,
        "100, silence",
      ),
  ],
  [
    "Upgrade: websocket, h2c",
    "200",
    all(
      ...["websocket", "h2c"].map((name) =>
        line(
          "GET /livez HTTP/1.1",
          `Upgrade: ${name}`,
          "Connection: Upgrade",
          "HTTP2-Settings: AAMAAABkAAQ",
          "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==",
          "Sec-WebSocket-Version: 13",
        ),
      ),
    ),
  ],
];

const JOB = `work_${"a".repeat(22)}`;
const paths: Case[] = [
  [
    "`/jobs/%00`, `/jobs/%zz`, `/jobs/..%2f..`",
    "404 unknown_job",
    all(...["%00", "%zz", "..%2f.."].map((id) => line(`GET /jobs/${id} HTTP/1.1`))),
  ],
  ["a NUL or a space in the path", "505, closed", all(line("GET /jobs/a b HTTP/1.1"), line("GET /jobs/\0 HTTP/1.1"))],
  ["12,000 characters", "404 unknown_job", line(`GET /jobs/${"a".repeat(12_000)} HTTP/1.1`)],
  ["70,000 characters", "431, closed", line(`GET /jobs/${"a".repeat(70_000)} HTTP/1.1`)],
  ["`//evil.example/livez`", "404 unknown_route", line("GET //evil.example/livez HTTP/1.1")],
  [
    "an id of another service, of no service, a batch's, a cron's",
    "404 unknown_job",
    all(
      ...[`away_${"a".repeat(22)}`, `zzz_${"a".repeat(22)}`, `batch_${"a".repeat(22)}`, "work_cron-x-1"].map((id) =>
        line(`GET /jobs/${id}/status HTTP/1.1`),
      ),
    ),
  ],
  ["a job's id at /batches", "404 unknown_batch", line(`GET /batches/${JOB} HTTP/1.1`)],
  [
    "`/queues/*/pause`, `/queues/__proto__/pause`",
    "404 unknown_service",
    all(...["*", "__proto__"].map((name) => line(`POST /queues/${name}/pause HTTP/1.1`, "Content-Length: 0"))),
  ],
  ["`/workers/*/stop`", "404 unknown_worker", line("POST /workers/*/stop HTTP/1.1", "Content-Length: 0")],
];

/** The status of a job that has ended; its result has 26 bytes. */
const ended = async (w: World) => {
  const body = '{"raw":"hello world, 26 bytes here","type":"text/plain"}';
  const { text } = await w.whole("POST", "/work", { body, headers: { "idempotency-key": "ended" } });
  const id = JSON.parse(text).job_id as string;
  await w.whole("GET", `/jobs/${id}?wait=10`);
  return id;
};
const on =
  (what: string, headers: Record<string, string>, query = "") =>
  async (w: World) =>
    w.ask("GET", `/jobs/${await ended(w)}${what}${query}`, { headers });
const list = (query: string) => (w: World) => w.ask("GET", `/jobs?${query}`);
const cursor = (value: unknown) => `cursor=${Buffer.from(JSON.stringify(value)).toString("base64url")}`;

const headers: Case[] = [
  [
    "Range `bytes=99-`, `bytes=-0`",
    "416 range",
    all(...["bytes=99-", "bytes=-0"].map((range) => on("/result", { range }))),
  ],
  [
    "Range with numbers of 40 digits",
    "206",
    all(...[`bytes=0-${"9".repeat(40)}`, `bytes=-${"9".repeat(40)}`].map((range) => on("/result", { range }))),
  ],
  [
    "Range `bytes=5-2`, `a-b`, several, another unit",
    "200",
    all(...["bytes=5-2", "bytes=a-b", "bytes=0-0,2-3", "lines=0-1"].map((range) => on("/result", { range }))),
  ],
  [
    "Range and 14,000 spaces",
    "200, in 30 ms",
    async (w) => {
      const id = await ended(w);
      const began = performance.now();
      const answer = await w.ask("GET", `/jobs/${id}/result`, { headers: { range: `bytes=${" ".repeat(14_000)}x` } });
      return `${answer}, in ${performance.now() - began < 30 ? 30 : "more than 30"} ms`;
    },
  ],
  ["If-None-Match `*`", "304", on("/status", { "if-none-match": "*" })],
  ["If-None-Match of 10,000 commas", "200", on("/status", { "if-none-match": ",".repeat(10_000) })],
  [
    "Prefer `wait`, `wait=-1`, `wait=1e9`, 5,000 commas",
    "200",
    all(...["wait", "wait=-1", "wait=1e9", ", ".repeat(5_000)].map((prefer) => on("/status", { prefer }))),
  ],
  [
    "`?wait=-1`, `1e3`, `%00`, empty",
    "422 invalid",
    all(...["-1", "1e3", "%00", ""].map((text) => on("/status", {}, `?wait=${text}`))),
  ],
  ["`?wait=` and 28 digits, on a job that has ended", "200", on("/status", {}, `?wait=${"9".repeat(28)}`)],
  [
    "Last-Event-ID `abc`, `-1`, `1e999`, 500 digits",
    "200",
    all(...["abc", "-1", "1e999", "9".repeat(500)].map((id) => on("/events", { "last-event-id": id }))),
  ],
  [
    "X-Forwarded-For, X-Real-IP, Forwarded: from this machine",
    "401 no_key",
    (w) =>
      w.ask("GET", "/jobs", {
        key: null,
        headers: { "x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1", forwarded: "for=127.0.0.1" },
      }),
  ],
  [
    "X-HTTP-Method-Override, X-Original-URL",
    "401 no_key",
    (w) =>
      w.ask("GET", "/jobs", { key: null, headers: { "x-http-method-override": "POST", "x-original-url": "/livez" } }),
  ],
  [
    "list: `?limit=0`, `201`, `abc`; `?state=nope`; `?q=` empty or 201; `?nope=1`",
    "422 invalid",
    all(...["limit=0", "limit=201", "limit=abc", "state=nope", "q=", `q=${"x".repeat(201)}`, "nope=1"].map(list)),
  ],
  [
    "list: a cursor of our form, with an id and numbers of the client's own",
    "200",
    list(cursor({ at: 1, id: "\0*[", n: { work: 2 ** 53 - 1 } })),
  ],
  [
    "list: a cursor that is none",
    "422 invalid",
    list(`cursor=${Buffer.from("[".repeat(5_900)).toString("base64url")}`),
  ],
  ["list: `?older_than=` and 400 digits", "200", list(`older_than=${"9".repeat(400)}d`)],
  ["list: `?q=*`, `[`, `%00`", "200", all(...["q=*", "q=[", "q=%00"].map(list))],
];

export const groups: Group[] = [
  { title: "Framing and request lines", cases: framing },
  { title: "Paths and ids", cases: paths },
  { title: "Headers and queries", cases: headers },
];

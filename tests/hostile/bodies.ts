/** Bodies and options: what a client may write into a submit. */
import { Buffer } from "node:buffer";
import { all, type Case, type Group, head, type World } from "./world.ts";

const submit =
  (body: unknown, headers: Record<string, string> = {}, path = "/work") =>
  (w: World) =>
    w.ask("POST", path, { body, headers });
const query = (...queries: string[]) => all(...queries.map((text) => submit("{}", {}, `/work?${text}`)));
const nested = (n: number) => `${'{"a":'.repeat(n)}1${"}".repeat(n)}`;

/** What the microservice was sent, for a payload that was taken. */
const passed = (body: string) => async (w: World) => {
  const { status, text } = await w.whole("POST", "/work", { body });
  if (status !== 202) return String(status);
  const id = JSON.parse(text).job_id;
  await w.stack.post(`/jobs/${id}/status?wait=5`).catch(() => {});
  await w.whole("GET", `/jobs/${id}/status?wait=5`);
  return `202, the service is sent ${w.stack.service.byJob(id)[0]?.body}`;
};

const endless =
  (path: string, type: string, first = "") =>
  async (w: World) => {
    const piece = `4000\r\n${"x".repeat(0x4000)}\r\n`;
    const start = first === "" ? "" : `${Buffer.byteLength(first).toString(16)}\r\n${first}\r\n`;
    const text = head(`POST ${path} HTTP/1.1`, `Content-Type: ${type}`, "Transfer-Encoding: chunked") + start;
    // 5 MiB and no end: what has no limit would wait for more
    return w.raw(text + piece.repeat(320), { ms: 3_000 });
  };

const bodies: Case[] = [
  ["nothing", "400 malformed_json", submit("")],
  [
    "`{}` twice, a comma too many, a comment, NaN",
    "400 malformed_json",
    all(...["{} {}", '{"a":1,}', '{"a":1/*x*/}', '{"a":NaN}'].map((body) => submit(body))),
  ],
  ['`null`, `1`, `"x"`, `[]`', "422 invalid", all(...["null", "1", '"x"', "[]"].map((body) => submit(body)))],
  ["nested 64 deep", "202", submit(nested(64))],
  ["nested 65 deep", "400 bad_request", submit(nested(65))],
  ["1,000,000 opening brackets", "400 bad_request", submit("[".repeat(1_000_000))],
  ["exactly 1 MiB", "202", submit(`{"a":"${"x".repeat(1_048_576 - 8)}"}`)],
  ["1 MiB and a byte", "413 too_large", submit(`{"a":"${"x".repeat(1_048_576 - 7)}"}`)],
  ["chunks without end", "413 too_large", endless("/work", "application/json")],
  [
    "chunks without end, to /progress, without a key",
    "413 too_large",
    async (w) => {
      const id = JSON.parse((await w.whole("POST", "/work?delay=1h", { body: "{}" })).text).job_id;
      return endless(`/jobs/${id}/progress`, "application/json")(w);
    },
  ],
  ["a key `__proto__`", "400 bad_request", submit('{"__proto__":{"admin":true}}')],
  [
    "the same, spelled `\\u005F\\u005Fproto__` or `__\\u0070roto__`",
    "400 bad_request",
    all(submit('{"a":[{"\\u005F\\u005Fproto__":1}]}'), submit('{"__\\u0070roto__":1}')),
  ],
  ["`__proto__` inside a text", "202", submit('{"a":"__proto__"}')],
  ["a key twice", '202, the service is sent {"a":2}', passed('{"a":1,"a":2}')],
  [
    "a number of 400 digits, 1e400",
    `202, the service is sent {"n":${"9".repeat(400)},"m":1e400}`,
    passed(`{"n":${"9".repeat(400)},"m":1e400}`),
  ],
  [
    "0.10000000000000001 where the schema has a number",
    '202, the service is sent {"tolerance":0.10000000000000001}',
    passed('{"tolerance":0.10000000000000001}'),
  ],
  ["1e400 where the schema has a number", "422 invalid", submit('{"tolerance":1e400}')],
  [
    "an escaped NUL, a lone surrogate",
    '202, the service is sent {"a":"\\u0000\\ud800"}',
    passed('{"a":"\\u0000\\ud800"}'),
  ],
  ["a NUL byte", "400 malformed_json", submit('{"a":"\0"}')],
  [
    "UTF-16, Latin-1",
    "400 malformed_json",
    all(...(["utf16le", "latin1"] as const).map((code) => submit(Buffer.from('{"a":"é"}', code)))),
  ],
  [
    "UTF-8 with `charset=utf-16`, or with a byte order mark",
    "202",
    all(submit("{}", { "content-type": "application/json; charset=utf-16" }), submit("\ufeff{}")),
  ],
  [
    "gzip, with or without Content-Encoding",
    "400 malformed_json",
    all(submit(Bun.gzipSync("{}"), { "content-encoding": "gzip" }), submit(Bun.gzipSync("{}"))),
  ],
  ["a gzip bomb", "400 malformed_json", submit(Bun.gzipSync(Buffer.alloc(100 << 20)), { "content-encoding": "gzip" })],
  [
    "text/plain, a form, application/jsonx",
    "415 not_json",
    all(
      ...["text/plain", "application/x-www-form-urlencoded", "application/jsonx"].map((type) =>
        submit("{}", { "content-type": type }),
      ),
    ),
  ],
  [
    "application/ and 15,000 plus signs",
    "415 not_json",
    submit("{}", { "content-type": `application/${"+".repeat(15_000)}x` }),
  ],
  [
    "a body that is cut off",
    "closed",
    async (w) => {
      const one = w.raw(`${head("POST /work HTTP/1.1", "Content-Type: application/json", "Content-Length: 9")}{`, {
        ms: 200,
      });
      return (await one) === "silence" ? "closed" : one;
    },
  ],
];

const options: Case[] = [
  [
    "`?priority=10`, `-1`, `1.5`, empty",
    "422 invalid",
    query("priority=10", "priority=-1", "priority=1.5", "priority="),
  ],
  [
    "`?delay=31d`, `-1`, `1e3`, 400 digits",
    "422 invalid",
    query("delay=31d", "delay=-1", "delay=1e3", `delay=${"9".repeat(400)}`),
  ],
  ["`?delay=30d`", "202", submit("{}", {}, "/work?delay=30d")],
  [
    "`?run_at=9999-12-31T23:59:59Z`, `2026-02-30T00:00:00Z`",
    "422 invalid",
    query("run_at=9999-12-31T23:59:59Z", "run_at=2026-02-30T00:00:00Z"),
  ],
  ["`?run_at=0000-01-01T00:00:00Z`", "202", submit("{}", {}, "/work?run_at=0000-01-01T00:00:00Z")],
  ["`?timeout=0`, or more than the operation's", "422 invalid", query("timeout=0", "timeout=2h")],
  [
    "`?retries=101`, `?result_ttl=31d`, `?backoff=31d`",
    "422 invalid",
    query("retries=101", "result_ttl=31d", "backoff=31d"),
  ],
  [
    "17 tags, a tag of 65, `?tags=<script>`",
    "422 invalid",
    query(`tags=${"a,".repeat(16)}a`, `tags=${"a".repeat(65)}`, "tags=%3Cscript%3E"),
  ],
  ["`?nope=1`, `?__proto__=1`, `?constructor=1`", "422 invalid", query("nope=1", "__proto__=1", "constructor=1")],
  ["an option twice", "422 invalid", submit("{}", {}, "/work?priority=1&priority=2")],
  ["`?after=x`", "422 not_supported", submit("{}", {}, "/work?after=x")],
  [
    "POST /jobs with a query, `?wait=x` or `?priority=9`",
    "422 invalid",
    all(...["wait=x", "priority=9"].map((text) => submit('{"operation":"work","payload":{}}', {}, `/jobs?${text}`))),
  ],
  [
    "Idempotency-Key empty, or of 256",
    "400 bad_request",
    all(...["", "x".repeat(256)].map((key) => submit("{}", { "idempotency-key": key }))),
  ],
  ["Idempotency-Key of 255", "202", submit("{}", { "idempotency-key": "x".repeat(255) })],
  ["the same with another body", "422 idempotency_mismatch", submit('{"b":1}', { "idempotency-key": "x".repeat(255) })],
  [
    "Idempotency-Key of 256 at /queues/…/empty, /jobs/bulk, …/requeue",
    "400 bad_request",
    all(
      ...["/queues/away/empty", "/jobs/bulk", `/jobs/work_${"a".repeat(22)}/requeue`].map((path) =>
        submit('{"filter":{"state":"failed"},"action":"delete"}', { "idempotency-key": "x".repeat(256) }, path),
      ),
    ),
  ],
  [
    "50 times at once with one key, at two gateways",
    "202, 1 job",
    async (w) => {
      const ask = (_: unknown, i: number) =>
        w.whole("POST", "/work", {
          body: "{}",
          headers: { "idempotency-key": "fifty" },
          base: i % 2 ? w.other : w.stack.url,
        });
      const all = await Promise.all(Array.from({ length: 50 }, ask));
      return `${[...new Set(all.map(({ status }) => status))]}, ${new Set(all.map(({ text }) => text)).size} job`;
    },
  ],
  [
    "a service that is not deployed",
    "503 service_not_deployed",
    submit('{"input_filename":"a","output_filename":"b"}', {}, "/ifcconvert"),
  ],
];

const job = { operation: "work", payload: {} };
const batch = (jobs: unknown) => submit(JSON.stringify(jobs), {}, "/jobs");
const batches: Case[] = [
  ["no job", "422 invalid", batch([])],
  ["10,001 jobs", "422 invalid", batch(Array(10_001).fill(job))],
  [
    "good ones among bad ones",
    "422 invalid, 0 accepted",
    async (w) => {
      const count = async () =>
        Object.values((await w.stack.redis.client.info("keyspace")).match(/keys=(\d+)/) ?? [])[1];
      const before = await count();
      const answer = await batch([job, null, 1, [], { operation: "__proto__", payload: {} }, { ...job, zz: 1 }])(w);
      return `${answer}, ${Number(await count()) - Number(before)} accepted`;
    },
  ],
  ["a list in a list", "422 invalid", batch([[job]])],
  ["a payload over MAX_BODY_BYTES in it", "413 too_large", batch([{ ...job, payload: { a: "x".repeat(1_048_577) } }])],
  [
    "a Content-Length a byte over MAX_BATCH_BYTES",
    "413 too_large",
    async (w) => {
      const text = head("POST /jobs HTTP/1.1", "Content-Type: application/json", "Content-Length: 67108865");
      return w.raw(text, { ms: 3_000 });
    },
  ],
  [
    "an operation `nope`, `constructor`, `__proto__`",
    "422 unknown_operation",
    all(...["nope", "constructor", "__proto__"].map((operation) => batch({ operation, payload: {} }))),
  ],
  ["an option of a wrong type", "422 invalid", batch({ ...job, priority: {}, tags: {} })],
];

export const groups: Group[] = [
  { title: "Bodies (POST /work, an operation that takes anything)", cases: bodies },
  { title: "Options and keys", cases: options },
  { title: "POST /jobs and batches", cases: batches },
];

/** Large batches: read piece by piece, one at a time, a few waiting. */
import { afterAll, beforeAll, expect, spyOn, test } from "bun:test";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { parseJson } from "../shared/json.ts";
import { listPieces } from "../shared/json-list.ts";
import { Turns } from "../shared/turns.ts";
import { startGatewayApp, type TestGateway } from "./support/gateway.ts";
import { startRedis, type TestRedis } from "./support/redis.ts";

let redis: TestRedis;
let gateway: TestGateway;
beforeAll(async () => {
  redis = await startRedis();
  gateway = await startGatewayApp(redis.url, { MAX_BODY_BYTES: "64KiB", MAX_BATCH_BYTES: "8MiB" });
}, 60_000);
afterAll(async () => {
  gateway?.close();
  await redis?.stop();
});

const job = (text: string) => ({
  operation: "ifc2json",
  payload: { filename: "a.ifc", output_filename: "a.json", text },
  delay: "1h",
});
const batch = (n: number, bytes: number) => JSON.stringify(Array.from({ length: n }, () => job("x".repeat(bytes))));
const queued = () => redis.client.zcard("lh:{ifc2json}:scheduled");

const LIMITS = { depth: 64, items: 1_000, itemBytes: 1e6 };
const read = (text: string, pieceBytes: number, limits = LIMITS) =>
  [...listPieces(Buffer.from(text), limits, pieceBytes)].flat();

test("a list read in pieces is the list, and exactly what is JSON passes", () => {
  const inserts = [",", "[", "]", "{", "}", '"', "\\", " ", "1", ":", "\ufeff", "\u0000"];
  const edit = fc.tuple(fc.nat(), fc.constantFrom(...inserts), fc.boolean());
  fc.assert(
    fc.property(fc.array(fc.jsonValue()), fc.array(edit, { maxLength: 2 }), fc.nat(20), (list, edits, pieceBytes) => {
      let text = JSON.stringify(list, null, list.length % 2);
      for (const [at, insert, replaces] of edits) {
        const i = 1 + (at % text.length);
        text = text.slice(0, i) + insert + text.slice(replaces ? i + 1 : i);
      }
      let whole: unknown;
      try {
        whole = parseJson(Buffer.from(text), LIMITS.depth);
      } catch {}
      if (Array.isArray(whole)) expect(read(text, pieceBytes)).toEqual(whole);
      else expect(() => read(text, pieceBytes)).toThrow();
    }),
    { numRuns: 1_000 },
  );
});

test("what is no list is refused wherever the pieces end", () => {
  const wrong = [
    "[",
    "[1",
    "[1,",
    "[1,]",
    "[,1]",
    "[1,,2]",
    "[,]",
    "[1}",
    "[1]]",
    "[1],[2]",
    "[1]x",
    '["]',
    "\0[1]",
    "[{]",
  ];
  for (const text of wrong) {
    for (const pieceBytes of [0, 1, 1_000]) expect(() => read(text, pieceBytes)).toThrow("The body is not JSON");
  }
  expect(() => read("[1,2,x]", 0)).toThrow("Among the items 2 to 2: The body is not JSON");
  expect(() => read(`[1,"${"x".repeat(1_000)}"]`, 0, { ...LIMITS, itemBytes: 1_000 })).toThrow(
    "1: is larger than a job may be",
  );
  expect(() => read("[1,2,3]", 0, { ...LIMITS, items: 2 })).toThrow("more than 2 jobs");
  expect(() => read("[1,[[2]]]", 0, { ...LIMITS, depth: 2 })).toThrow("nested deeper than 2 levels");
  expect(read(" [ ] ", 0)).toEqual([]);
});

test("of a large batch little is parsed at once, and others are answered in between", async () => {
  const parse = spyOn(JSON, "parse");
  let breaths = 0;
  const answer = gateway.post("/jobs", batch(120, 60_000));
  const count = setInterval(() => breaths++, 0);
  expect((await answer).status).toBe(202);
  clearInterval(count);
  const most = Math.max(...parse.mock.calls.map(([text]) => String(text).length));
  parse.mockRestore();
  expect(most).toBeLessThan(400_000);
  expect(breaths).toBeGreaterThan(10);
  expect(await queued()).toBe(120);
});

test("faults of a large batch name their items, in whichever piece; an Idempotency-Key stands for the body as it was sent", async () => {
  const items = Array.from({ length: 40 }, () => job("x".repeat(60_000)));
  const headers = { "idempotency-key": "large" };
  const first = await (await gateway.post("/jobs", items, headers)).json();
  const again = await gateway.post("/jobs", items, headers);
  expect([again.headers.get("idempotent-replayed"), await again.json()]).toEqual(["true", first]);
  expect((await gateway.post("/jobs", items.slice(1), headers)).status).toBe(422);
  const bad = items.map((item, i) => (i === 7 || i === 39 ? { ...item, operation: "nope" } : item));
  const { errors } = (await (await gateway.post("/jobs", bad)).json()) as { errors: { path: string }[] };
  expect(errors.map((e) => e.path)).toEqual(["7.operation", "39.operation"]);
});

test("four large batches are in hand, one after another; a fifth is told to come again and nothing of it is kept", async () => {
  const before = await queued();
  const body = batch(20, 60_000);
  const answers = await Promise.all(Array.from({ length: 6 }, () => gateway.post("/jobs", body)));
  expect(answers.map((a) => a.status).sort()).toEqual([202, 202, 202, 202, 429, 429]);
  for (const late of answers.filter((a) => a.status === 429)) {
    expect(Number(late.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(await late.json()).toMatchObject({ code: "rate_limited", accepted: "no" });
  }
  expect(await queued()).toBe(before + 80);
  // small ones need no place, and places are free again, after a refusal too
  for (let i = 0; i < 5; i++) expect((await gateway.post("/jobs", `${" ".repeat(70_000)}[1]`)).status).toBe(422);
  expect((await gateway.post("/jobs", batch(2, 10))).status).toBe(202);
  expect((await gateway.post("/jobs", body)).status).toBe(202);
});

test("a large batch without a Content-Length takes its place when it has grown large", async () => {
  const body = () => new Blob([batch(20, 60_000)]).stream();
  const send = () => gateway.ask("POST", "/jobs", { body: body(), headers: { "content-type": "application/json" } });
  const answers = await Promise.all(Array.from({ length: 6 }, send));
  expect(answers.filter((a) => a.status === 429).length).toBe(2);
});

test("Turns go in the order of asking, whoever leaves without one", async () => {
  const turns = new Turns(3);
  const [a, b, c] = [turns.enter(), turns.enter(), turns.enter()];
  expect(turns.enter()).toBeUndefined();
  const said: string[] = [];
  await a?.turn();
  const wait = c?.turn().then(() => said.push("c"));
  b?.leave(); // was refused while it sent its body
  expect(turns.enter()).toBeDefined();
  await Bun.sleep(5);
  expect(said).toEqual([]);
  a?.leave();
  await wait;
  expect(said).toEqual(["c"]);
});

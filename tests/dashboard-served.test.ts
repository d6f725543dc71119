/** What the dashboard serves: its own files and no others, and jobs with their secrets hidden. */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import type { JobId } from "../shared/jobs.ts";
import { BASE, KEYS, OWN, startBoard, type TestBoard } from "./support/board.ts";

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

test("files: only the dashboard's own and the named packages; compressed; versioned ones for ever", async () => {
  for (const path of [
    "/../package.json",
    "/..%2fpackage.json",
    "/%2e%2e/package.json",
    "/lib/..%5c..%5cpackage.json",
    "/package.json",
    "/.env",
    "/lib",
    "/main.js/",
    "/main.js%00.css",
    "/vendor/../../package.json",
    "/vendor/11.2.0/../../../package.json",
    "/vendor/preact/package.json",
    "//etc/passwd",
    "/../node_modules/preact/dist/preact.mjs",
    "/..%2fnode_modules%2fpreact%2fdist%2fpreact.mjs",
    "/lib/..%2f..%2fnode_modules/htm/dist/htm.js",
  ]) {
    const answer = await ask(path);
    expect([path, answer.status]).toEqual([path, 404]);
    expect(answer.headers.get("content-type")).toBe("application/problem+json");
  }
  const page = await (await ask("/")).text();
  expect(page).not.toMatch(/<script(?![^>]* src=)|style=|https?:|\son\w+=/);
  const paths = [...page.matchAll(/(?:href|src)="([^"]+)"/g)].map((m) => new URL(m[1] as string, `${BASE}/`).pathname);
  for (const path of [...paths, "/lib/html.js"]) {
    for (const [accept, coding] of [
      ["br, gzip", "br"],
      ["gzip", "gzip"],
      ["identity", null],
    ] as const) {
      const answer = await ask(path, { headers: { "accept-encoding": accept } });
      expect([path, answer.status, answer.headers.get("content-encoding")]).toEqual([path, 200, coding]);
    }
    const first = await ask(path);
    const text = await first.text();
    expect([path, /from\s*"[a-z]/.test(text)]).toEqual([path, false]);
    expect([path, first.headers.get("cache-control")]).toEqual([
      path,
      path.startsWith("/vendor/") ? "public, max-age=31536000, immutable" : "no-cache",
    ]);
    const again = await ask(path, { headers: { "if-none-match": first.headers.get("etag") as string } });
    expect([path, again.status]).toEqual([path, 304]);
  }
});

test("secrets are hidden in records, lists, states and events; the result's own route gives it as it was", async () => {
  const session = await signedIn(KEYS.read);
  const { done, failed, waiting } = await jobs();
  const read = async (path: string) => (await ask(path, { headers: session })).text();
  for (const path of [
    ...[done, failed, waiting].map((id) => `/api/jobs/${id}`),
    `/api/jobs/${done}/status`,
    "/api/jobs?q=s3cr3t",
    "/state.json",
    `/api/jobs/${done}/events`,
  ]) {
    const text = await read(path);
    expect([path, text.includes("s3cr3t")]).toEqual([path, false]);
    expect([path, text.length > 50]).toEqual([path, true]);
  }
  expect(await read(`/api/jobs/${done}`)).toContain('"n":12345678901234567890,"password":"•••"');
  expect(await read(`/api/jobs/${done}/events`)).toContain('"api_key":"•••"');
  expect(await read(`/api/jobs/${done}/result`)).toBe('{"ok":true,"api_key":"s3cr3t"}');
});

test("edit and run again: hidden values come from the job that was edited, and from nowhere else", async () => {
  const session = { ...(await signedIn(KEYS.submit)), ...OWN };
  const { failed } = await jobs();
  const send = (body: unknown) => post("/submit", session, body);
  const answer = await send({
    operation: "work",
    of: failed,
    payload: { password: "•••", file: "b.ifc" },
    options: { tags: "x" },
  });
  expect(answer.status).toBe(202);
  const { job_id } = (await answer.json()) as { job_id: JobId };
  const made = await store.inspector.record(job_id);
  expect([made?.payload, made?.options.tags]).toEqual(['{"password":"s3cr3t","file":"b.ifc"}', ["x"]]);
  for (const body of [
    { operation: "work", payload: { password: "•••" } },
    { operation: "work", of: failed, payload: { inner: { password: "•••" } } },
    { operation: "work", of: "work_0000000000000000000000", payload: { password: "•••" } },
    { operation: "work", of: failed, payload: { token: "•••" } },
  ]) {
    expect([body, (await send(body)).status]).toEqual([body, 422]);
  }
  const shown = await send({ operation: "work", of: failed, payload: { shown: "•••", password: "new" } });
  const other = await store.inspector.record(((await shown.json()) as { job_id: JobId }).job_id);
  expect(other?.payload).toBe('{"shown":"•••","password":"new"}');
});

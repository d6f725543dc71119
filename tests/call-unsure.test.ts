/** A real worker over services whose answer is lost on its way: what may not run twice is not called again. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import type { Socket } from "node:net";
import { http, JSON_TYPE, type RawRequest, type RawServer, rawServer } from "./fixtures/raw-server.ts";
import { type Stack, startStack } from "./support/stack.ts";

const CUT = `HTTP/1.1 200 OK\r\n${JSON_TYPE}\r\nContent-Length: 100\r\n\r\n{"done": `;
const ENVOY = "upstream connect error or disconnect/reset before headers. reset reason: connection ";
const page = (status: number, text: string, ...headers: string[]) =>
  http(status, text, "Content-Type: text/plain", ...headers);
/** By operation: what is answered, and how many calls a job comes to where it may not run twice. */
const ANSWERS: Record<string, [Uint8Array | string, number]> = {
  cut: [CUT, 1],
  "bad-gateway": [page(502, "Bad Gateway"), 1],
  "gateway-timeout": [page(504, "Gateway Time-out"), 1],
  "envoy-lost": [page(503, `${ENVOY}termination`), 1],
  "envoy-refused": [page(503, `${ENVOY}failure`), 3],
  busy: [page(503, "busy"), 3],
  "too-many": [page(429, "slow down"), 3],
  asked: [page(502, "try me again", "X-Job-Retry: yes"), 3],
};

let stack: Stack;
let server: RawServer;
beforeAll(async () => {
  server = await rawServer((socket: Socket, { headers }: RawRequest) => {
    const name = (headers.get("x-job-id") as string).replace(/_.*/, "").replace(/^again-/, "");
    socket.write((ANSWERS[name] as [Uint8Array, number])[0]);
    setTimeout(() => socket.destroy(), 30);
  });
  const url = new URL(server.url).origin;
  const entries = Object.keys(ANSWERS).flatMap((name) => [
    [name, { url, backoff: "20ms", on_orphan: "fail" }],
    [`again-${name}`, { url, backoff: "20ms" }],
  ]);
  stack = await startStack({ operations: Object.fromEntries(entries) });
}, 60_000);
afterAll(async () => {
  server?.close();
  await stack?.stop();
}, 60_000);

test("an answer lost between: an operation that may not run twice is called once and fails", async () => {
  for (const [name, [, calls]] of Object.entries(ANSWERS)) {
    const id = await stack.submit({}, `/${name}`);
    expect((await stack.ended(id)).status).toBe("failed");
    const made = server.requests.filter(({ headers }) => headers.get("x-job-id") === id);
    expect([name, made.length]).toEqual([name, calls]);
    const { error } = await stack.get(`/jobs/${id}`);
    if (calls === 1) expect([name, error.message]).toEqual([name, expect.stringContaining("may not run twice")]);
  }
}, 90_000);

test("any other operation is called again, and a cut answer keeps its bytes either way", async () => {
  for (const name of ["bad-gateway", "cut"]) {
    const id = await stack.submit({}, `/again-${name}`);
    await stack.ended(id);
    expect(server.requests.filter(({ headers }) => headers.get("x-job-id") === id)).toHaveLength(3);
  }
  const id = await stack.submit({}, "/cut");
  await stack.ended(id);
  expect(await (await fetch(`${stack.url}/jobs/${id}/result`)).text()).toBe('{"done": ');
}, 60_000);

/** The document of a deployment with many services: it is made while others are answered. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assemble, gatewayApp } from "../gateway.ts";
import { readConfig } from "../shared/config.ts";
import { connect } from "../shared/store/redis.ts";

const dir = mkdtempSync(join(tmpdir(), "longhaul-large-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const SERVICES = 300;
function largeApp() {
  const schema = {
    properties: { n: { type: "integer" }, list: { items: { $ref: "#/$defs/item" } } },
    $defs: { item: {} },
  };
  const operations = Object.fromEntries(
    Array.from({ length: SERVICES }, (_, i) => [`op-${i}`, { url: "http://a", ...(i % 2 ? { schema } : {}) }]),
  );
  writeFileSync(join(dir, "s.json"), JSON.stringify({ operations }));
  const redis = connect("redis://127.0.0.1:9", "request", "never-asked");
  const app = gatewayApp(assemble(readConfig({ SERVICES: join(dir, "s.json") }), redis));
  redis.disconnect();
  return app;
}

test("while /openapi.json of 300 services is made, other requests are answered; it is made once", async () => {
  const app = largeApp();
  let isMade = false;
  const asked = Promise.all([app.request("/openapi.json"), app.request("/openapi.json")]).finally(() => {
    isMade = true;
  });
  let others = 0;
  while (!isMade) {
    expect((await app.request("/livez")).status).toBe(200);
    await new Promise((next) => setImmediate(next));
    others++;
  }
  expect(others).toBeGreaterThan(SERVICES / 10);
  const [first, second] = await asked;
  const text = await (first as Response).text();
  expect(await (second as Response).text()).toBe(text);
  const { paths, components } = JSON.parse(text);
  expect(Object.keys(paths).filter((path) => path.startsWith("/op-"))).toHaveLength(SERVICES);
  expect(components.schemas["op-1.item"]).toEqual({});
  // Made already: it is there before anybody else has a turn.
  let turns = 0;
  const again = (async () => app.request("/openapi.json"))().then(() => turns);
  for (; turns < 3; turns++) await new Promise((next) => setImmediate(next));
  expect(await again).toBeLessThan(2);
}, 60_000);

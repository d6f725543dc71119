/** A callback_url whose name leads to private addresses only is refused at submit: its callback would be refused later, unseen. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { checkCallbackNames } from "../shared/callback.ts";
import { readConfig } from "../shared/config.ts";
import { startGatewayApp, type TestGateway } from "./support/gateway.ts";
import { startRedis, type TestRedis } from "./support/redis.ts";

let redis: TestRedis;
let g: TestGateway;
const SECRET = `whsec_${btoa("x".repeat(32))}`;
beforeAll(async () => {
  redis = await startRedis();
  g = await startGatewayApp(redis.url, { WEBHOOK_SECRET: SECRET });
});
afterAll(async () => {
  g?.close();
  await redis?.stop();
});
const payload = { filename: "a.ifc", output_filename: "a.json" };
const item = (callback_url?: string) => ({ operation: "ifc2json", payload, ...(callback_url ? { callback_url } : {}) });

test("a submit and a batch with a callback to a private name are 422, and the text names CALLBACK_ALLOW", async () => {
  const url = "http://localhost:9/hook";
  const cases: [string, unknown, string][] = [
    [`/ifc2json?callback_url=${encodeURIComponent(url)}`, payload, "callback_url"],
    ["/jobs", item(url), "callback_url"],
    ["/jobs", [item(), item(url), item(url)], "1.callback_url"],
  ];
  for (const [path, body, at] of cases) {
    const answer = await g.post(path, body);
    const fault = (await answer.json()) as { detail: string; errors: { path: string }[] };
    expect([path, answer.status, fault.errors[0]?.path]).toEqual([path, 422, at]);
    expect(fault.detail).toContain("localhost has no public address; an operator may list it in CALLBACK_ALLOW");
  }
  expect(await redis.client.keys("*job:*")).toEqual([]);
});

test("a callback to a name that does not resolve, or not in time, is accepted; one that is listed too", async () => {
  const jobs = (url: string) => [{ options: { callback: url } }];
  const none = readConfig({ WEBHOOK_SECRET: SECRET });
  const listed = readConfig({ WEBHOOK_SECRET: SECRET, CALLBACK_ALLOW: "n8n:5678" });
  const to =
    (...addresses: string[]) =>
    async () =>
      addresses;
  await checkCallbackNames(jobs("http://n8n:5678/x"), none, undefined, () => Promise.reject(new Error("ENOTFOUND")));
  const began = performance.now();
  await checkCallbackNames(jobs("http://n8n:5678/x"), none, undefined, () => new Promise(() => {}));
  expect(performance.now() - began).toBeLessThan(1_500);
  await checkCallbackNames(jobs("http://n8n:5678/x"), listed, undefined, to("172.18.0.5"));
  await checkCallbackNames(jobs("http://n8n:5678/x"), none, undefined, to("172.18.0.5", "93.184.216.34"));
  for (const addresses of [["172.18.0.5"], ["127.0.0.1", "::1"], ["169.254.169.254"], ["fd00::1"]])
    await expect(checkCallbackNames(jobs("http://n8n:5678/x"), none, undefined, to(...addresses))).rejects.toThrow(
      "CALLBACK_ALLOW",
    );
});

test("ten thousand jobs with one callback ask the name server once", async () => {
  let asked = 0;
  const jobs = Array.from({ length: 10_000 }, () => ({ options: { callback: "https://hooks.example/x" } }));
  await checkCallbackNames(jobs, readConfig({ WEBHOOK_SECRET: SECRET }), undefined, async () => {
    asked++;
    return ["93.184.216.34"];
  });
  expect(asked).toBe(1);
});

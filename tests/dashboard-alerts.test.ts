/** The Alerts screen in a real browser, over what a real receiver was told. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import type { Browser, Locator } from "playwright-core";
import type { AlertEvent } from "../shared/alerts.ts";
import { startBrowser, visit } from "./support/browser.ts";
import { type Stack, startStack, until } from "./support/stack.ts";

setDefaultTimeout(60_000);
const ADMIN = "an-admin-key-of-tests";
const heard: AlertEvent[] = [];
const receiver = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  fetch: async (request) => new Response(String(heard.push((await request.json()) as AlertEvent))),
});
let stack: Stack;
let browser: Browser;
beforeAll(async () => {
  stack = await startStack({
    env: { API_KEYS: ADMIN, ALERT_WEBHOOK: `http://127.0.0.1:${receiver.port}/`, ALERT_PARKED: "1s", ALERT_HOLD: "1s" },
    operations: { away: { url: "http://127.0.0.1:1" } }, // nothing listens there
  });
  browser = await startBrowser();
});
afterAll(async () => {
  receiver.stop(true);
  await browser?.close();
  await stack?.stop();
});
const text = async (at: Locator) => (await at.allInnerTexts()).join("\n");

test("rules with their state and text, firing ones first; what was told; the same stands in the overview", async () => {
  const seen = await visit(browser, stack.dashboardUrl, "#/alerts", ADMIN);
  const { page } = seen;
  const rows = page.getByRole("region", { name: "Rules" }).getByRole("row");
  const parked = rows.filter({ hasText: "parked" }).filter({ hasText: "away" });
  await parked.getByText("quiet").waitFor();
  await page.getByText("None yet.").waitFor();
  const id = await stack.submit({}, "/away", { "x-api-key": ADMIN });
  await parked.getByText("firing").waitFor();
  expect(await text(parked)).toMatch(/away: the microservice cannot be reached/);
  expect(await text(rows.nth(1))).toContain("firing");
  expect(await text(rows.last())).toMatch(/quiet\s+memory\s+all\s+–\s+Redis has no memory limit/);
  await until(() => heard.length > 0);
  const told = page.locator("section", { has: page.getByRole("heading", { name: "Last deliveries" }) });
  await told.getByText(heard[0]?.data.text as string).waitFor();
  await told.getByText("sent", { exact: true }).waitFor();
  await page.goto(`${stack.dashboardUrl}/#/`);
  await page.getByText(/^away: the microservice cannot be reached/).waitFor();
  await page.goto(`${stack.dashboardUrl}/#/alerts`);
  await fetch(`${stack.url}/jobs/${id}`, { method: "DELETE", headers: { "x-api-key": ADMIN } });
  expect([seen.elsewhere, seen.faults]).toEqual([[], []]);
  expect(await page.getByText("ALERT_WEBHOOK").count()).toBe(0);
  await seen.close();
});

test("without ALERT_WEBHOOK it says that nobody is told", async () => {
  stack.gateway.kill("SIGTERM");
  await stack.gateway.exited;
  stack.gateway = await stack.startGateway({ ALERT_WEBHOOK: "" });
  const { page, close } = await visit(browser, stack.dashboardUrl, "#/alerts", ADMIN);
  await page.getByText("Nobody is told: ALERT_WEBHOOK is not set.").waitFor();
  await close();
});

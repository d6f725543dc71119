/** What the dashboard says of a queue's actions is what they do, in a real browser over real processes. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import type { Browser } from "playwright-core";
import { startBrowser, type Visit, visit } from "./support/browser.ts";
import { type Stack, startStack, until } from "./support/stack.ts";

setDefaultTimeout(60_000);
const ADMIN = "an-admin-key-of-tests";
const KEY = { "x-api-key": ADMIN };
let stack: Stack;
let browser: Browser;
let seen: Visit | undefined;

beforeAll(async () => {
  stack = await startStack({ workers: 0, env: { API_KEYS: `${ADMIN}:admin` } });
  browser = await startBrowser();
});
afterAll(async () => {
  await seen?.close();
  await browser?.close();
  await stack?.stop();
});
const open = async (hash: string) => {
  await seen?.close();
  seen = await visit(browser, stack.dashboardUrl, hash, ADMIN);
  return seen.page;
};
// biome-ignore lint/suspicious/noExplicitAny: read field by field
const get = async (path: string): Promise<any> => (await fetch(stack.url + path, { headers: KEY })).json();
const submit = (query = "") => stack.submit({ n: 1 }, `/work${query}`, KEY);

test("Empty names and cancels as many jobs as wait, scheduled ones among them", async () => {
  const ids = [await submit(), await submit(), await submit("?delay=1h")];
  const page = await open("#/");
  const card = page.getByRole("article", { name: "work" });
  await until(async () => (await card.innerText()).includes("blocked"));
  await card.getByRole("button", { name: "Empty" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("cancels the 3 jobs that wait now, 1 of them scheduled").waitFor();
  await dialog.getByRole("button", { name: /^Cancel 3 jobs$/ }).click();
  await page.getByText("work is emptied: 3 canceled.").waitFor();
  for (const id of ids) await until(async () => (await get(`/jobs/${id}`)).status === "canceled");
  expect((await get("/audit")).entries[0]).toMatchObject({ action: "empty", target: "work", jobs: 3 });
});

test("Empty is on where only scheduled jobs wait", async () => {
  const id = await submit("?delay=1h");
  const page = await open("#/");
  const empty = page.getByRole("article", { name: "work" }).getByRole("button", { name: "Empty" });
  await until(() => empty.isEnabled());
  await empty.click();
  await page
    .getByRole("dialog")
    .getByRole("button", { name: /^Cancel 1 job$/ })
    .click();
  await until(async () => (await get(`/jobs/${id}`)).status === "canceled");
  await until(() => empty.isDisabled());
});

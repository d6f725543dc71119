/** How the dashboard's page learns the state: one stream for all windows of a browser, polls where streams do not pass. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import type { Browser, Page } from "playwright-core";
import { startBrowser, type Visit, visit } from "./support/browser.ts";
import { startProxy, type TestProxy } from "./support/proxy.ts";
import { type Stack, startStack, until } from "./support/stack.ts";

setDefaultTimeout(90_000);
let stack: Stack;
let browser: Browser;
let seen: Visit | undefined;
let proxy: TestProxy | undefined;

beforeAll(async () => {
  stack = await startStack({ operation: { slots: 20 } });
  browser = await startBrowser();
});
afterAll(async () => {
  await browser?.close();
  await stack?.stop();
});

const through = async (answer?: Parameters<typeof startProxy>[1]) => {
  await seen?.close();
  await proxy?.stop();
  proxy = startProxy(stack.dashboardUrl, answer);
  seen = await visit(browser, proxy.url, "#/");
  return seen;
};
const link = (page: Page) => page.locator("#link");
const isStream = (request: Request) => new URL(request.url).pathname.endsWith("/events");

test("eight windows on running jobs hold one stream, and a cancel in the last one works", async () => {
  const ids = await Promise.all(Array.from({ length: 8 }, () => stack.submit({ sleep: 60_000 })));
  const { context, page: first } = await through();
  const pages = [first];
  for (const id of ids.slice(1)) {
    const page = await context.newPage();
    await page.goto(`${proxy?.url}/#/jobs/${id}`);
    await page.getByRole("heading", { name: /^Running for/ }).waitFor();
    pages.push(page);
  }
  await until(() => proxy?.open.filter((path) => path.endsWith("/events")).length === 1, 10_000);
  const last = pages.at(-1) as Page;
  await last.getByRole("button", { name: "Cancel", exact: true }).click();
  await last.getByRole("dialog").getByRole("button", { name: "Cancel the job" }).click();
  await last.getByRole("heading", { name: /^Canceled/ }).waitFor();
  expect((await stack.get(`/jobs/${ids.at(-1)}`)).status).toBe("canceled");
  await Promise.all(ids.map((id) => stack.post(`/jobs/${id}/cancel`)));
});

test("a running job's progress moves on its page without a stream of its own", async () => {
  const id = await stack.submit({ sleep: 60_000 });
  const { page } = await through();
  await until(() => stack.service.byJob(id).length === 1);
  const to = stack.service.byJob(id)[0]?.headers.get("x-progress-url") as string;
  await page.goto(`${proxy?.url}/#/jobs/${id}`);
  await page.getByRole("heading", { name: /^Running for/ }).waitFor();
  await fetch(to, { method: "POST", body: JSON.stringify({ progress: 0.37, message: "walls" }) });
  await page.getByText("37 %: walls").waitFor();
  await stack.post(`/jobs/${id}/cancel`);
  await page.getByRole("heading", { name: /^Canceled/ }).waitFor();
});

test("with event streams refused or swallowed on the way the page is there at once, polls, and never turns red", async () => {
  const watch = async (answer: (request: Request) => Response | Promise<Response> | undefined) => {
    const broken = startProxy(stack.dashboardUrl, answer);
    const { page, close } = await visit(browser, broken.url, "#/");
    const began = performance.now();
    await page.getByRole("article", { name: "work" }).waitFor();
    const shownMs = performance.now() - began;
    // what the page says of its link, over a whole turn of polls and the next try of a stream
    const words = new Set<string>();
    for (const end = performance.now() + 38_000; performance.now() < end; await Bun.sleep(100)) {
      words.add(((await link(page).textContent()) ?? "").replace(/;.*/, ""));
    }
    await close();
    await broken.stop();
    return { words: [...words], shownMs };
  };
  const results = await Promise.all([
    watch((request) => (isStream(request) ? new Response(null, { status: 502 }) : undefined)),
    watch((request) => (isStream(request) ? new Promise<Response>(() => {}) : undefined)),
  ]);
  for (const { words, shownMs } of results) {
    expect(words.filter((word) => !/^(?:Connecting …|Live|Live, by polling)$/.test(word))).toEqual([]);
    expect(words).toContain("Live, by polling");
    expect(shownMs).toBeLessThan(6_000); // a dead stream is given up after as long
  }
});

test("an address that is no text shows that there is nothing, instead of the panel before", async () => {
  const { page } = await through();
  await page.getByRole("article", { name: "work" }).waitFor();
  await page.evaluate(() => {
    location.hash = "#/jobs/%E0";
  });
  await page.getByText(/There is no such job|is no job/).waitFor();
  expect(seen?.faults).toEqual([]);
});

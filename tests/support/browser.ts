/** A real Chromium for the dashboard's tests, that notes everything a page should not do. */

import { type Browser, type BrowserContext, type BrowserContextOptions, chromium, type Page } from "playwright-core";
import { limit } from "./patience.ts";

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export const startBrowser = (): Promise<Browser> =>
  chromium.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    args: FLAGS,
    timeout: limit(60_000),
  });

const replaced = new WeakMap<Browser, Promise<Browser>>();
/** The browser, or another in its place where it has died: that failed one test, and must not fail all after it. */
async function alive(browser: Browser): Promise<Browser> {
  if (browser.isConnected()) return browser;
  let other = replaced.get(browser);
  if (!other) {
    other = startBrowser();
    replaced.set(browser, other);
    const close = browser.close.bind(browser);
    browser.close = async (...args) => {
      await close(...args);
      await (await other)?.close();
    };
  }
  return alive(await other);
}

export type Visit = {
  page: Page;
  context: BrowserContext;
  /** requests to any other origin than the page's */
  elsewhere: string[];
  /** errors of scripts, and what the content security policy refused */
  faults: string[];
  close(): Promise<void>;
};

/** Opens a page, signed in with `key` when one is given. */
export async function visit(
  browser: Browser,
  base: string,
  hash = "",
  key?: string,
  options: BrowserContextOptions = {},
): Promise<Visit> {
  const context = await (await alive(browser)).newContext({ viewport: { width: 1440, height: 900 }, ...options });
  context.setDefaultTimeout(limit(15_000));
  if (key !== undefined) {
    const answer = await context.request.post(`${base}/signin`, { data: { key }, headers: { origin: base } });
    if (!answer.ok()) throw new Error(`sign-in: ${answer.status()} ${await answer.text()}`);
  }
  const page = await context.newPage();
  const elsewhere: string[] = [];
  const faults: string[] = [];
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol !== "data:" && url.protocol !== "blob:" && url.origin !== base) elsewhere.push(request.url());
  });
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (message) => {
    if (/Content Security Policy|Refused to|violates/i.test(message.text())) faults.push(message.text());
  });
  await page.goto(`${base}/${hash}`);
  return { page, context, elsewhere, faults, close: () => context.close() };
}

/** The dashboard with hostile texts everywhere, for whoever sees, hears or types, and for a key that may only read. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { startBrowser, type Visit, visit } from "./support/browser.ts";
import { type Stack, startStack, until } from "./support/stack.ts";

setDefaultTimeout(120_000);
const KEYS = { admin: "an-admin-key-of-tests", read: "a-read-key-of-the-tests" };
const KEY = { "x-api-key": KEYS.admin };
/** Each runs, when it is taken for markup, and is told apart by its number. */
const EVIL = (n: number) => `<img src=x onerror="window.evil=${n}"><svg onload="window.evil=${n}">"'\`;javascript:${n}`;
let stack: Stack;
let browser: Browser;
let beating: ReturnType<typeof setInterval> | undefined;
const ids: Record<"failed" | "done" | "running" | "text", string> = { failed: "", done: "", running: "", text: "" };

beforeAll(async () => {
  stack = await startStack({
    env: { API_KEYS: `${KEYS.admin}:admin,${KEYS.read}:read` },
    operation: { accepts: ["application/json", "text/html"], summary: EVIL(1) },
  });
  browser = await startBrowser();
  const post = (payload: unknown) => stack.submit(payload, "/work", KEY);
  ids.failed = await post({ status: 400, detail: EVIL(2), [EVIL(3)]: EVIL(4) });
  ids.done = await post({ answer: { [EVIL(5)]: [EVIL(6), { a: EVIL(7) }] } });
  ids.text = await post({ raw: `<h1>${EVIL(8)}</h1>`, type: "text/html" });
  ids.running = await post({ sleep: 100_000 });
  await until(() => stack.service.byJob(ids.running).length > 0);
  const progress = stack.service.byJob(ids.running)[0]?.headers.get("x-progress-url") as string;
  const told = { progress: 0.5, message: EVIL(9) };
  await fetch(progress, {
    method: "POST",
    body: JSON.stringify(told),
    headers: { "content-type": "application/json" },
  });
  const redis = stack.redis.client;
  for (const id of Object.values(ids)) {
    // no client can send such a tag; whoever writes to Redis can
    await redis.hset(`lh:{work}:job:${id}`, "o", JSON.stringify({ tags: [EVIL(10)], callback: EVIL(11) }));
  }
  const worker = {
    ...{ id: EVIL(12), host: EVIL(13), pid: 1, version: EVIL(14), runtime: EVIL(15), startedAt: 0, state: EVIL(16) },
    rssBytes: 1,
    lanes: { [EVIL(17)]: { slots: 1, busy: 1, parked: EVIL(18), runs: [{ id: EVIL(19), op: EVIL(20), since: 0 }] } },
  };
  const beat = () => redis.hset("lh:workers", "evil", JSON.stringify({ ...worker, beatAt: Date.now() }));
  await beat();
  beating = setInterval(beat, 1_000);
  await redis.lpush("lh:audit", JSON.stringify({ at: EVIL(21), who: EVIL(22), action: EVIL(23), target: EVIL(24) }));
  for (const volume of ["uploads", "output", "examples"]) mkdirSync(join(stack.dir, volume), { recursive: true });
  for (const name of ["house.ifc", `${EVIL(25).replaceAll("/", "")}.ifc`])
    writeFileSync(join(stack.dir, "uploads", name), "x");
}, 60_000);
afterAll(async () => {
  clearInterval(beating);
  await browser?.close();
  await stack?.stop();
});

const SCREENS = (): Record<string, (page: Page) => Promise<unknown>> => ({
  "#/": (page) => page.getByText(/All services, last 1 h/).waitFor(),
  "#/jobs": (page) => page.getByRole("table").getByRole("row").nth(3).waitFor(),
  [`#/jobs?q=${encodeURIComponent(EVIL(30))}&tag=${encodeURIComponent("<b>x")}`]: (page) =>
    page.getByText("No job matches.").waitFor(),
  [`#/jobs/${ids.failed}`]: (page) => page.getByRole("heading", { name: /^Error/ }).waitFor(),
  [`#/jobs/${ids.done}`]: (page) => page.getByRole("heading", { name: /^Result/ }).waitFor(),
  [`#/jobs/${ids.text}`]: (page) => page.getByText(/^text\/html, /).waitFor(),
  [`#/jobs/${ids.running}`]: (page) => page.getByText("50 %").waitFor(),
  [`#/jobs/${encodeURIComponent(EVIL(32))}`]: (page) => page.getByText("There is no such job.").waitFor(),
  "#/workers": (page) => page.getByRole("article").nth(1).waitFor(),
  "#/files": (page) => page.getByText("house.ifc").first().waitFor(),
  "#/alerts": (page) => page.getByRole("table").last().waitFor(),
  "#/submit": (page) => page.getByRole("button", { name: "Send the job" }).waitFor(),
  [`#/${EVIL(33)}`]: (page) => page.getByText("There is no such panel.").waitFor(),
});

async function eachScreen(
  key: string,
  options: BrowserContextOptions,
  look: (seen: Visit, hash: string) => Promise<void>,
) {
  const seen = await visit(browser, stack.dashboardUrl, "", key, options);
  for (const [hash, shown] of Object.entries(SCREENS())) {
    await seen.page.goto(`${stack.dashboardUrl}/${hash}`);
    await shown(seen.page);
    await look(seen, hash);
  }
  expect([seen.elsewhere, seen.faults]).toEqual([[], []]);
  await seen.close();
}

test("markup in payload, result, error, tag, progress, file, worker, operation and address stays text", async () => {
  const found = new Set<string>();
  await eachScreen(KEYS.admin, {}, async ({ page }, hash) => {
    const closed = page.locator("details:not([open]) > summary");
    for (let i = 0; i < 20 && (await closed.count()) > 0; i++) await closed.first().click();
    await page.waitForTimeout(200);
    const state = await page.evaluate(() => ({
      evil: (window as { evil?: number }).evil,
      images: document.querySelectorAll("#app img, #app script, #app iframe, #app [onload], #app [onerror]").length,
      links: [...document.querySelectorAll("#app a")].filter((a) => !/^(#|api\/)/.test(a.getAttribute("href") ?? ""))
        .length,
      text: document.body.textContent ?? "",
    }));
    for (const [, n] of state.text.matchAll(/window\.evil=(\d+)/g)) found.add(n as string);
    expect([hash, state.evil, state.images, state.links]).toEqual([hash, undefined, 0, 0]);
  });
  // the texts were there to be seen, so each of these places was tried
  for (const n of [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 22, 23, 24, 25]) {
    expect([n, found.has(String(n))]).toEqual([n, true]);
  }
});

test("a result that is markup is saved, never shown in the dashboard's name", async () => {
  const seen = await visit(browser, stack.dashboardUrl, `#/jobs/${ids.text}`, KEYS.admin);
  const download = seen.page.waitForEvent("download");
  await seen.page.getByRole("link", { name: "Download" }).click();
  expect((await download).suggestedFilename()).toContain(ids.text);
  const answer = await seen.context.request.get(`${stack.dashboardUrl}/api/jobs/${ids.text}/result`);
  expect(answer.headers()["content-security-policy"]).toStartWith("sandbox;");
  await seen.close();
});

const axe = await Bun.file(require.resolve("axe-core/axe.min.js")).text();
type Violation = { id: string; impact: string; nodes: { html: string; failureSummary: string }[] };

for (const [name, options] of Object.entries({
  "wide, light": { colorScheme: "light" },
  "phone, dark": { colorScheme: "dark", viewport: { width: 390, height: 844 } },
} satisfies Record<string, BrowserContextOptions>)) {
  test(`axe finds nothing serious on any screen; nothing is wider than the screen: ${name}`, async () => {
    await eachScreen(KEYS.admin, { ...options, bypassCSP: true, reducedMotion: "reduce" }, async ({ page }, hash) => {
      await page.evaluate(axe);
      const run = "axe.run(document, { resultTypes: ['violations'] }).then((r) => r.violations)";
      const all = (await page.evaluate(run)) as Violation[];
      const serious = all
        .filter(({ impact }) => impact === "serious" || impact === "critical")
        .map(({ id, nodes }) => `${id}: ${nodes[0]?.html.slice(0, 200)} ${nodes[0]?.failureSummary.slice(0, 200)}`);
      expect([hash, serious]).toEqual([hash, []]);
      const over = await page.evaluate(
        () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
      );
      expect([hash, over]).toEqual([hash, 0]);
      const broken = await page.evaluate(() =>
        [...document.querySelectorAll(".lines .word, .lines time, .attention a, .files .buttons > *")]
          .filter((one) => one.getClientRects().length > 1 || one.getBoundingClientRect().height > 40)
          .map((one) => one.outerHTML),
      );
      expect([hash, broken]).toEqual([hash, []]); // a word of the page's own is never broken into letters
    });
  });
}

test("axe finds nothing serious on the sign-in, in a question and in a notice", async () => {
  const seen = await visit(browser, stack.dashboardUrl, "", undefined, { bypassCSP: true, reducedMotion: "reduce" });
  const { page } = seen;
  const serious = async () => {
    await page.evaluate(axe);
    const all = (await page.evaluate("axe.run(document).then((r) => r.violations)")) as Violation[];
    return all
      .filter(({ impact }) => impact === "serious" || impact === "critical")
      .map(({ id, nodes }) => [id, nodes[0]?.html]);
  };
  await page.getByLabel("API key").fill("not-a-key-at-all");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").getByText("This API key is not known").waitFor();
  expect(await serious()).toEqual([]);
  await page.getByLabel("API key").fill(KEYS.admin);
  await page.keyboard.press("Enter");
  await page.getByRole("article", { name: "work" }).getByRole("button", { name: "Pause" }).click();
  await page.getByRole("dialog").waitFor();
  expect(await serious()).toEqual([]);
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await page.goto(`${stack.dashboardUrl}/#/jobs/${ids.done}`);
  await page.getByRole("button", { name: "Copy as curl" }).click();
  await page.getByText("The command is copied.").waitFor();
  expect(await serious()).toEqual([]);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("API key").waitFor();
  await seen.close();
});

test("who searches goes on typing where he was; who clears, or goes to another panel, starts at its title", async () => {
  const seen = await visit(browser, stack.dashboardUrl, "#/jobs", KEYS.admin);
  const { page } = seen;
  const focus = () => page.evaluate(() => document.activeElement?.id);
  const at = (id: string) => page.waitForFunction((wanted) => document.activeElement?.id === wanted, id);
  await page.locator("#q").fill("no such");
  await page.keyboard.press("Enter");
  await page.getByText("No job matches.").waitFor();
  expect(await focus()).toBe("q");
  await page.keyboard.type(" thing");
  expect(await page.locator("#q").inputValue()).toBe("no such thing");
  await page.getByRole("button", { name: "Search" }).click();
  await page.waitForURL(/thing/);
  await at("search");
  await page.getByRole("button", { name: "failed" }).first().click();
  await page.waitForURL(/state=failed/);
  expect(await page.evaluate(() => document.activeElement?.textContent)).toBe("failed");
  await page.getByRole("link", { name: "Clear" }).click();
  await at("title");
  expect(await page.locator("#q").inputValue()).toBe("");
  await page.getByRole("link", { name: /^Workers/ }).click();
  await at("title");
  expect(await page.locator("h1").textContent()).toBe("Workers");
  await seen.close();
});

test("by keyboard alone: skip the navigation, choose a job, act, confirm", async () => {
  const id = await stack.submit({ status: 400, detail: "no" }, "/work?tags=keys", KEY);
  const record = async () =>
    (await fetch(`${stack.url}/jobs/${id}`, { headers: KEY })).json() as Promise<{ status: string; run: number }>;
  await until(async () => (await record()).status === "failed");
  const seen = await visit(browser, stack.dashboardUrl, "#/jobs?tag=keys", KEYS.admin);
  const { page } = seen;
  const focus = () =>
    page.evaluate(
      () => document.activeElement?.getAttribute("aria-label") ?? document.activeElement?.textContent ?? "",
    );
  const tabTo = async (name: RegExp) => {
    for (let i = 0; i < 60; i++) {
      await page.keyboard.press("Tab");
      if (name.test(await focus())) return;
    }
    throw new Error(`no way by Tab to ${name}`);
  };
  await page.getByRole("checkbox", { name: `Choose ${id}` }).waitFor();
  await tabTo(/^Skip to/);
  await page.keyboard.press("Enter");
  expect(await page.evaluate(() => document.activeElement?.id)).toBe("main");
  await tabTo(new RegExp(`^Choose ${id}`));
  await page.keyboard.press("Space");
  await page.getByText("1 chosen").waitFor();
  for (let i = 0; !/^Queue again/.test(await focus()); i++) {
    if (i > 30) throw new Error("no way back by Shift+Tab");
    await page.keyboard.press("Shift+Tab");
  }
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  expect(await focus()).toBe("Leave it"); // what does no harm comes first
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await until(async () => (await record()).run === 1);
  await seen.close();
});

test("a key that may read is shown no way to act", async () => {
  const seen = await visit(browser, stack.dashboardUrl, "#/", KEYS.read);
  const { page } = seen;
  const pause = page.getByRole("article", { name: "work" }).getByRole("button", { name: "Pause" });
  await pause.waitFor();
  expect([await pause.isDisabled(), await pause.getAttribute("title")]).toEqual([
    true,
    "Your key has the scope read; this needs admin.",
  ]);
  expect(await page.getByRole("link", { name: "New job" }).count()).toBe(0);
  for (const hash of [`#/jobs/${ids.failed}`, `#/jobs/${ids.running}`, "#/workers", "#/jobs?state=failed"]) {
    await page.goto(`${stack.dashboardUrl}/${hash}`);
    await page.getByRole("heading", { level: 1 }).waitFor();
    await page.waitForTimeout(500);
    for (const name of [/^Queue again/, /^Cancel/, /^Edit/, /^Delete/, /^Quiet/, /^Stop/]) {
      for (const button of await page.getByRole("button", { name }).all()) expect(await button.isDisabled()).toBe(true);
    }
  }
  await page.goto(`${stack.dashboardUrl}/#/submit`);
  await page.getByText("Your key may read, not submit.").waitFor();
  await page.goto(`${stack.dashboardUrl}/#/files`);
  await page.getByText("Your key may look and fetch, not upload.").waitFor();
  await page.goto(`${stack.dashboardUrl}/#/alerts`);
  await page.getByText("Shown to keys of the scope admin.").waitFor();
  await seen.close();
});

test("times are told in the reader's zone, the absolute one on hover", async () => {
  const seen = await visit(browser, stack.dashboardUrl, `#/jobs/${ids.done}`, KEYS.read, {
    timezoneId: "Asia/Kolkata",
    locale: "en-GB",
  });
  const time = seen.page.locator("time").first();
  await time.waitFor();
  const [iso, title] = [await time.getAttribute("datetime"), await time.getAttribute("title")];
  const hour = new Date(Date.parse(iso as string) + 5.5 * 3_600_000).toISOString().slice(11, 16);
  expect(title).toContain(hour);
  expect(title).toContain("(Asia/Calcutta)");
  await seen.close();
});

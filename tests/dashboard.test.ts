/** Every screen and every action of the dashboard, in a real browser over real processes. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import type { Browser, Locator } from "playwright-core";
import { startBrowser, type Visit, visit } from "./support/browser.ts";
import { type Stack, startStack, until } from "./support/stack.ts";

setDefaultTimeout(60_000);
const ADMIN = "an-admin-key-of-tests";
const KEY = { "x-api-key": ADMIN };
let stack: Stack;
let browser: Browser;
let seen: Visit;

/** What a fresh page needs again and again. */
const open = async (hash: string) => {
  await seen?.close();
  seen = await visit(browser, stack.dashboardUrl, hash, ADMIN);
  return seen.page;
};
const text = async (at: Locator) => (await at.allInnerTexts()).join("\n");
const confirm = (name: RegExp) => seen.page.getByRole("dialog").getByRole("button", { name }).click();
// biome-ignore lint/suspicious/noExplicitAny: read field by field
const record = async (id: string): Promise<any> => (await fetch(`${stack.url}/jobs/${id}`, { headers: KEY })).json();
const ends = (id: string, status: string) => until(async () => (await record(id)).status === status, 15_000);
const submit = (payload: unknown, query = "") => stack.submit(payload, `/work${query}`, KEY);

beforeAll(async () => {
  stack = await startStack({
    env: { API_KEYS: `${ADMIN}:admin` },
    operations: { other: { url: "http://127.0.0.1:1", schema: SCHEMA, files: ["file"], summary: "Something else" } },
  });
  browser = await startBrowser();
});
afterAll(async () => {
  await browser?.close();
  await stack?.stop();
});

const SCHEMA = {
  type: "object",
  required: ["file"],
  properties: {
    file: { type: "string", minLength: 3, description: "the file to look at" },
    mode: { enum: ["fast", "slow"], default: "fast" },
    deep: { type: "boolean", default: false },
    n: { type: "integer", default: 3 },
  },
};

test("overview: cards with figures, words for what is wrong, a chart, Redis; nothing from another host", async () => {
  const ok = await submit({ answer: { fine: true } });
  const bad = await submit({ status: 400, detail: "no such wall" });
  await Promise.all([ends(ok, "finished"), ends(bad, "failed")]);
  await stack.submit({ file: "x.ifc" }, "/other", KEY); // parks: nothing listens there
  const page = await open("#/");
  const card = page.getByRole("article", { name: "work" });
  await card.waitFor();
  expect(await text(card)).toMatch(/idle[\s\S]*waiting[\s\S]*running[\s\S]*failed, 1 h/);
  expect(await text(card)).toMatch(/slots busy\s+0 of 8/);
  await page
    .getByRole("region", { name: "Attention" })
    .getByText(/other: .*cannot be reached|other: 1 job/)
    .waitFor();
  await page.getByText(/All services, last 1 h: \d+ submitted, \d+ finished, \d+ failed/).waitFor();
  for (const [button, text] of [
    ["24 h", "last 24 h"],
    ["7 d", "last 7 d"],
  ] as const) {
    await page.getByRole("button", { name: button }).click();
    await page.getByText(`All services, ${text}`).first().waitFor();
  }
  await page
    .getByRole("region", { name: /^Redis/ })
    .getByText("append-only file")
    .waitFor();
  await page.getByRole("status").filter({ hasText: "Live" }).waitFor();
  await page.getByRole("table", { name: "Newest jobs" }).getByText("no such wall").waitFor();
  expect([seen.elsewhere, seen.faults]).toEqual([[], []]);
});

test("first load: under 100 KB over the wire", async () => {
  await seen?.close();
  seen = await visit(browser, stack.dashboardUrl, "#/", ADMIN);
  await seen.page.getByRole("article", { name: "work" }).waitFor();
  const [bytes, files] = await seen.page.evaluate(() => {
    const all = performance.getEntriesByType("resource") as PerformanceResourceTiming[];
    const nav = performance.getEntriesByType("navigation")[0] as PerformanceResourceTiming;
    return [all.reduce((sum, one) => sum + one.transferSize, nav.transferSize), all.length];
  });
  console.log(`first load: ${bytes} bytes in ${files} files`);
  expect(bytes).toBeLessThan(100_000);
  expect(bytes).toBeGreaterThan(20_000);
});

test("jobs: by state, service, tag and text; paged by the cursor; an id leads to the job", async () => {
  const tagged = await submit({ answer: 1, needle: "quadrilateral" }, "?tags=blue");
  await ends(tagged, "finished");
  for (let i = 0; i < 60; i++) await ends(await submit({ answer: i }, "?tags=many"), "finished");
  const page = await open("#/jobs");
  const rows = page.getByRole("table").getByRole("row");
  await rows.nth(1).waitFor();
  await page.getByRole("button", { name: "finished", exact: true }).click();
  await page.getByRole("button", { name: "Older jobs" }).click();
  await until(async () => (await rows.count()) > 55, 10_000);
  await page.getByLabel("Tag", { exact: true }).fill("blue");
  await page.getByLabel("Tag", { exact: true }).press("Enter");
  await until(async () => (await rows.count()) === 2, 10_000);
  await page.getByText(/Looked at all \d+ jobs/).waitFor();
  await page.getByRole("link", { name: "Clear" }).click();
  await until(async () => (await rows.count()) > 2, 10_000); // else the one row of the tag passes for the search's
  await page.getByLabel("Id, payload or error").fill("QUADRILATERAL");
  await page.getByLabel("Id, payload or error").press("Enter");
  await until(async () => (await rows.count()) === 2, 10_000);
  expect(await text(rows.nth(1))).toContain("blue");
  await page.getByLabel("Age").selectOption("1h");
  await page.getByText("No job matches.").waitFor();
  await page.getByLabel("Id, payload or error").fill(tagged);
  await page.getByRole("button", { name: "Search" }).click();
  await page.getByRole("heading", { level: 1, name: /^Job / }).waitFor();
  expect(page.url()).toContain(tagged);
});

test("bulk: those chosen and all that match, each counted first, with progress at the end", async () => {
  const ids = await Promise.all([0, 1, 2].map(() => submit({ status: 422, detail: "bad" }, "?tags=again")));
  await Promise.all(ids.map((id) => ends(id, "failed")));
  const page = await open("#/jobs?state=failed&tag=again");
  await page.getByRole("checkbox", { name: `Choose ${ids[0]}` }).check();
  await page.getByRole("button", { name: "Delete …" }).click();
  await page.getByText("1 of the 1 chosen fit").waitFor();
  await confirm(/^Delete 1 job$/);
  await page.getByText("1 of 1 deleted.").waitFor();
  await until(async () => (await record(ids[0] as string)).status === 404);
  await page.getByRole("button", { name: "Queue again …" }).click();
  await page.getByText("All that match now (state failed, all services, tag again): 2 jobs").waitFor();
  await confirm(/^Leave it$/);
  expect((await record(ids[1] as string)).run).toBe(0);
  await page.getByRole("button", { name: "Queue again …" }).click();
  await confirm(/^Queue again 2 jobs$/);
  await page.getByText("2 of 2 queued again.").waitFor();
  await until(async () => (await record(ids[1] as string)).run === 1 && (await record(ids[2] as string)).run === 1);
});

test("job: timeline, error, payload, curl; queue again; edit and run again keeps hidden values", async () => {
  const id = await submit({
    status: 400,
    detail: "no such wall",
    db_password: "hunter2",
    deep: { big: "y".repeat(2_000) },
  });
  await ends(id, "failed");
  const page = await open(`#/jobs/${id}`);
  await page
    .getByRole("region", { name: /^Error/ })
    .getByText("no such wall")
    .waitFor();
  await page.getByRole("list", { name: "Moments" }).getByText("taken by a worker").waitFor();
  await page.getByRole("list", { name: "Attempts" }).getByText("attempt 1: http_error, HTTP 400").waitFor();
  const payload = page.getByRole("region", { name: "Payload" });
  await payload.getByRole("button", { name: "all 2,000 characters" }).waitFor();
  expect(await page.content()).not.toContain("hunter2");
  await seen.context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: stack.dashboardUrl });
  await page.getByRole("button", { name: "Copy as curl" }).click();
  await page
    .getByText("The command is copied, but it lacks hidden values: write the real ones in place of •••.")
    .waitFor();
  const curl = await page.evaluate(() => navigator.clipboard.readText());
  expect(curl).toStartWith(`curl -X POST '${stack.url}/work'`);
  expect(curl).not.toContain("hunter2");
  await page.getByRole("button", { name: "Queue again" }).click();
  await until(async () => (await record(id)).run === 1);

  await page.getByRole("button", { name: "Edit and run again" }).click();
  await page.getByRole("button", { name: "JSON", exact: true }).click();
  const box = page.getByRole("textbox", { name: "Payload" });
  const edited = { ...JSON.parse(await box.inputValue()), status: undefined, answer: { fixed: true } };
  expect(edited.db_password).toBe("•••");
  await box.fill(JSON.stringify(edited));
  await page.getByRole("button", { name: "Send the job" }).click();
  await page.getByRole("heading", { level: 1, name: /^Job / }).waitFor();
  await until(() => page.url().includes("#/jobs/") && !page.url().includes(id));
  const next = decodeURIComponent(page.url().split("#/jobs/")[1] as string);
  await ends(next, "finished");
  expect((await record(next)).payload.db_password).toBe("hunter2");
  await page.getByRole("region", { name: "Result" }).getByText("fixed").first().waitFor();
  await page.getByRole("button", { name: "Delete" }).click();
  await confirm(/^Delete$/);
  await until(async () => (await record(next)).status === 404);
  expect(seen.faults).toEqual([]);
});

test("job: a running one shows its progress as it comes, its deadline, and is canceled", async () => {
  const id = await submit({ sleep: 60_000 });
  await ends(id, "started");
  const page = await open(`#/jobs/${id}`);
  await page.getByRole("heading", { name: /^Running for/ }).waitFor();
  await page.getByText("until the deadline").waitFor();
  await until(() => stack.service.byJob(id).length > 0);
  const url = stack.service.byJob(id)[0]?.headers.get("x-progress-url") as string;
  await fetch(url, {
    method: "POST",
    body: JSON.stringify({ progress: 0.42, message: "walls" }),
    headers: { "content-type": "application/json" },
  });
  await page.getByText("42 %: walls").waitFor();
  await page.getByRole("button", { name: "Cancel" }).click();
  await confirm(/^Cancel the job$/);
  await page.getByText("settled: canceled").waitFor();
});

test("job: neighbours of the same batch", async () => {
  const answer = await stack.post(
    "/jobs",
    [1, 2, 3].map((n) => ({ operation: "work", payload: { answer: n } })),
    KEY,
  );
  const { job_ids } = (await answer.json()) as { job_ids: string[] };
  await ends(job_ids[1] as string, "finished");
  const page = await open(`#/jobs/${job_ids[1]}`);
  await page.getByRole("region", { name: "Batch" }).getByText("2 of 3").waitFor();
  await page.getByRole("link", { name: "after →" }).click();
  await until(() => page.url().includes(job_ids[2] as string));
});

test("queues: pause, resume and empty, each confirmed with the jobs it hits", async () => {
  const page = await open("#/");
  const card = page.getByRole("article", { name: "work" });
  await card.getByRole("button", { name: "Pause" }).click();
  await page.getByRole("dialog").getByText("Workers take nothing more").waitFor();
  await confirm(/^Pause$/);
  await card.getByRole("button", { name: "Resume" }).waitFor();
  const waiting = [await submit({ answer: 1 }), await submit({ answer: 2 })];
  await page.getByText("work: paused while 2 jobs wait").waitFor();
  await card.getByRole("button", { name: "Empty" }).click();
  await page.getByRole("dialog").getByText("cancels the 2 jobs that wait now").waitFor();
  await confirm(/^Cancel 2 jobs$/);
  await Promise.all(waiting.map((id) => ends(id, "canceled")));
  await submit({ answer: 3 });
  const attention = page.getByRole("region", { name: "Attention" });
  await attention.getByRole("button", { name: "Resume work" }).click(); // two clicks from the sentence that says so
  await confirm(/^Resume$/);
  await card.getByRole("button", { name: "Pause" }).waitFor();
});

test("submit by hand: a form from the schema tells at the field what is wrong", async () => {
  const page = await open("#/submit?op=other");
  await page.getByText("the file to look at").waitFor();
  await page.getByLabel(/^file/).fill("ab");
  await page.getByRole("button", { name: "Send the job" }).click();
  await page.getByRole("alert").getByText(/file/).waitFor();
  expect(await page.getByLabel(/^file/).getAttribute("aria-invalid")).toBe("true");
  await page.getByLabel(/^file/).fill("house.ifc");
  await page.getByText("3 more with defaults").click();
  await page.getByLabel("mode").selectOption("slow");
  await page.getByLabel("deep").check();
  await page.getByText("Options", { exact: true }).click();
  await page.getByLabel("priority").fill("7");
  await page.getByRole("button", { name: "Send the job" }).click();
  await until(() => page.url().includes("#/jobs/other_"));
  const made = await record(decodeURIComponent(page.url().split("#/jobs/")[1] as string));
  expect([made.payload, made.priority]).toEqual([{ file: "house.ifc", mode: "slow", deep: true, n: 3 }, 7]);
});

test("files: upload by drop and by choice with a progress bar, download, use in a job", async () => {
  const page = await open("#/files");
  const drop = page.locator(".drop");
  const data = await page.evaluateHandle(() => {
    const transfer = new DataTransfer();
    transfer.items.add(new File(["ISO-10303-21;"], "dropped.ifc"));
    return transfer;
  });
  await drop.dispatchEvent("dragenter", { dataTransfer: data });
  await drop.dispatchEvent("drop", { dataTransfer: data });
  await page.getByRole("list", { name: "Uploads" }).getByText("/uploads/dropped.ifc").waitFor();
  // a connection slow enough that the bar is seen
  const slow = await seen.context.newCDPSession(page);
  await slow.send("Network.emulateNetworkConditions", {
    ...{ offline: false, latency: 0, downloadThroughput: -1, uploadThroughput: 2_000_000 },
  });
  const name = "chosen.csv";
  await page
    .locator("input[type=file]")
    .setInputFiles({ name, mimeType: "text/csv", buffer: Buffer.alloc(6_000_000, "a,b\n") });
  await page.getByRole("progressbar", { name: /^chosen.csv: \d+ %/ }).waitFor();
  await page.getByRole("list", { name: "Uploads" }).getByText("/uploads/chosen.csv").waitFor();
  const saved = page.waitForEvent("download");
  await page.getByRole("button", { name: "Download /uploads/dropped.ifc" }).click();
  const stream = await (await saved).createReadStream();
  expect(await new Response(stream as never).text()).toBe("ISO-10303-21;");
  expect((await saved).suggestedFilename()).toBe("dropped.ifc");
  // typed as slowly as by hand: what the page learns meanwhile leaves the text as it is
  await page.getByLabel("Name").pressSequentially("nothing-like-it", { delay: 150 });
  expect(await page.getByLabel("Name").inputValue()).toBe("nothing-like-it");
  await page.getByLabel("Name").press("Enter");
  await page.getByText("Empty.").first().waitFor();
  await page.getByLabel("Name").fill("dropped");
  await page.getByLabel("Name").press("Enter");
  await page.getByRole("link", { name: "Use" }).click();
  await page.getByLabel("Operation").selectOption("other");
  await page.getByRole("combobox", { name: /^file/ }).waitFor();
  expect(
    await page.locator("datalist option").evaluateAll((all) => all.map((o) => (o as HTMLOptionElement).value)),
  ).toContain("/uploads/dropped.ifc");
});

test("an upload through the dashboard is streamed: the gateway does not grow by the file", async () => {
  const peak = () => Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${stack.gateway.pid}/status`, "utf8"))?.[1]);
  const send = async (bytes: number) => {
    const form = new FormData();
    form.append("file", new Blob([new Uint8Array(bytes)]), "large.ifc");
    const answer = await fetch(`${stack.dashboardUrl}/api/upload/ifc`, { method: "POST", headers: KEY, body: form });
    expect(answer.status).toBe(200);
  };
  await send(1_000_000);
  const before = peak();
  await send(200_000_000);
  expect(peak() - before).toBeLessThan(100_000); // kB
});

test("alerts: what operators did, with who and what", async () => {
  const page = await open("#/alerts");
  const table = page.getByRole("region", { name: "What operators did" }).first();
  await table.getByText("empty", { exact: true }).first().waitFor();
  const told = await text(table);
  for (const what of ["pause", "resume", "requeue", "cancel", "submit", "delete"]) expect(told).toContain(what);
});

test("workers: what runs and for how long; quiet and stop", async () => {
  const id = await submit({ sleep: 4_000 });
  await ends(id, "started");
  const page = await open("#/workers");
  await page.getByRole("link", { name: /^work / }).waitFor();
  expect(await text(page.getByRole("article").first())).toMatch(/host[\s\S]*pid \d+[\s\S]*memory\s+\d+/);
  await page.getByRole("button", { name: "Quiet" }).click();
  await page.getByRole("dialog").getByText("takes nothing more").waitFor();
  await confirm(/quiet$/);
  await page.getByRole("article").getByText("quiet", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Stop" }).click();
  await confirm(/^Stop it$/);
  await page.getByText("No worker beats.").waitFor();
});

test("the page rests while hidden, and says when the gateway or Redis is away", async () => {
  const page = await open("#/");
  const link = page.locator("#link");
  await link.getByText("Live").waitFor();
  await stack.redis.kill9();
  await link.getByText(/Redis does not answer; as of/).waitFor();
  await stack.redis.restart();
  await link.getByText("Live").waitFor();
  stack.gateway.kill("SIGKILL");
  await link.getByText(/Disconnected|Stale/).waitFor();
  await stack.gateway.exited;
  stack.gateway = await stack.startGateway();
  await link.getByText("Live").waitFor();
  await page.evaluate(() => {
    Object.defineProperty(document, "hidden", { value: true, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  });
  await link.getByText("Resting").waitFor();
  let asked = 0;
  page.on("request", () => asked++);
  await Bun.sleep(3_000);
  expect(asked).toBe(0);
  await page.evaluate(() => {
    Object.defineProperty(document, "hidden", { value: false, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  });
  await link.getByText("Live").waitFor();
});

test("a gateway that hangs: the page says that what it shows is old, and comes back by itself", async () => {
  const page = await open("#/");
  await page.locator("#link").getByText("Live", { exact: true }).waitFor();
  stack.gateway.kill("SIGSTOP");
  try {
    await page
      .locator("#link")
      .getByText(/^(Stale|Disconnected).*; as of/)
      .waitFor();
  } finally {
    stack.gateway.kill("SIGCONT");
  }
  await page.locator("#link").getByText(/^Live/).waitFor();
});

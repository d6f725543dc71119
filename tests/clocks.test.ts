/** Machines whose clocks are off, or are set while everything runs: what Redis's clock says is all that counts. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { Buffer } from "node:buffer";
import type { Server } from "bun";
import { Webhook } from "standardwebhooks";
import { startBrowser, visit } from "./support/browser.ts";
import { type FakeClock, fakeClock, HOUR, MINUTE, noFakeClock } from "./support/clock.ts";
import { limit } from "./support/patience.ts";
import { freePort } from "./support/redis.ts";
import { type Stack, startStack, until } from "./support/stack.ts";

setDefaultTimeout(90_000);
const KEY = "an-admin-key-of-tests";
const AUTH = { "x-api-key": KEY };
const SECRET = `whsec_${Buffer.alloc(32, 1).toString("base64")}`;
/** What each clock is set to, one after the other, while everything runs. */
const STEPS = [2 * MINUTE, -2 * MINUTE, 2 * HOUR, -2 * HOUR, 25 * HOUR, -25 * HOUR];
/** ms within which a process has a step, and has beaten under it (LEASE 3 s) */
const SEEN_MS = 2_300;

type Got = { path: string; headers: Headers; body: string };
// biome-ignore lint/suspicious/noExplicitAny: answers of many shapes, read field by field
type Json = any;

for (const runtime of ["bun", "deno"]) {
  const why = await noFakeClock(runtime);
  if (why) console.warn(`SKIPPED: clocks under ${runtime}: ${why}`);

  describe.skipIf(why !== undefined)(`clocks under ${runtime}`, () => {
    const got: Got[] = [];
    let receiver: Server<undefined>;
    let stack: Stack;
    const clocks: FakeClock[] = [];
    const set = async (ms: number) => {
      for (const clock of clocks) clock.set(ms);
      await Bun.sleep(SEEN_MS);
    };
    const get = async (path: string, base = stack.url): Promise<Json> =>
      (await fetch(base + path, { headers: AUTH })).json();
    const post = (path: string, body: unknown) => stack.post(path, body, AUTH);
    const submit = (payload: unknown, query = "") => stack.submit(payload, `/work${query}`, AUTH);
    const at = (path: string) => got.filter((one) => one.path === path);
    const hook = (path: string) => `http://127.0.0.1:${receiver.port}${path}`;
    const ended = async (id: string) => {
      let status: Json;
      await until(async () => {
        status = await get(`/jobs/${id}/status`);
        return status.status === "finished" || status.status === "failed";
      });
      return status;
    };

    beforeAll(async () => {
      receiver = Bun.serve({
        port: 0,
        hostname: "127.0.0.1",
        async fetch(request) {
          const path = new URL(request.url).pathname;
          if (path === "/slow-file") {
            const pieces = ["ISO-10303-21;", "END-ISO-10303-21;"];
            const pull = async (out: ReadableStreamDefaultController) => {
              if (pieces.length === 1) await Bun.sleep(4_000);
              const piece = pieces.shift();
              if (piece) out.enqueue(Buffer.from(piece));
              else out.close();
            };
            return new Response(new ReadableStream({ pull }));
          }
          got.push({ path, headers: request.headers, body: await request.text() });
          return new Response("", { status: /first/.test(path) && at(path).length === 1 ? 500 : 200 });
        },
      });
      clocks.push(fakeClock(25 * HOUR), fakeClock(25 * HOUR));
      stack = await startStack({
        runtime,
        gatewayEnv: clocks[0]?.env ?? {},
        workers: 0,
        env: {
          API_KEYS: KEY,
          WEBHOOK_SECRET: SECRET,
          CALLBACK_ALLOW: "127.0.0.1",
          DOWNLOAD_ALLOW: "127.0.0.1",
          ALERT_WEBHOOK: hook("/alert-first"),
          ALERT_PARKED: "1s",
          ALERT_HOLD: "1s",
        },
        operations: { away: { url: `http://127.0.0.1:${await freePort()}` } },
      });
      await stack.startWorker(clocks[1]?.env);
    });
    afterAll(async () => {
      receiver.stop(true);
      await stack?.stop();
      for (const clock of clocks) clock.remove();
    });

    test("a callback of a worker 25 h ahead is tried again after a 500, signed with the true time", async () => {
      await set(25 * HOUR);
      const response = await post("/jobs", { operation: "work", payload: {}, callback_url: hook("/first") });
      const { job_id } = (await response.json()) as { job_id: string };
      await until(() => at("/first").length === 2, 20_000);
      const [, second] = at("/first") as [Got, Got];
      // the library refuses a timestamp that is 5 min off
      expect(new Webhook(SECRET).verify(second.body, Object.fromEntries(second.headers))).toBeTruthy();
      await until(async () => (await get(`/jobs/${job_id}/deliveries`)).delivered);
      const { deliveries } = await get(`/jobs/${job_id}/deliveries`);
      expect(deliveries.map((line: Json) => [line.ok, line.gave_up ?? false])).toEqual([
        [true, false],
        [false, false],
      ]);
      for (const line of deliveries) expect(Math.abs(Date.parse(line.at) - Date.now())).toBeLessThan(MINUTE);
      const { attempts, started_at, ended_at } = await get(`/jobs/${job_id}`);
      for (const time of [started_at, ended_at, attempts[0].started_at, attempts[0].ended_at])
        expect(Math.abs(Date.parse(time) - Date.now())).toBeLessThan(MINUTE);
      const deadline = stack.service.byJob(job_id)[0]?.headers.get("x-job-deadline") as string;
      expect(Math.abs(Date.parse(deadline) - Date.now() - HOUR)).toBeLessThan(MINUTE);
    });

    test("a refused job of a worker 25 h ahead waits parked, and its alert is tried again", async () => {
      await set(25 * HOUR);
      // another worker noted it a moment ago, by the true time: 25 h before this one's
      await stack.redis.client.hset("lh:{away}:counts", "parked", Date.now());
      const id = await stack.submit({}, "/away", AUTH);
      await until(async () => /^parked/.test((await get("/health")).services.away ?? ""), 10_000);
      const text = (await get("/health")).services.away as string;
      expect(Number(/for (\d+) s\)$/.exec(text)?.[1])).toBeLessThan(30);
      await until(() => at("/alert-first").length === 2, 20_000);
      await until(async () => (await get("/alerts")).deliveries.some((line: Json) => line.ok));
      const { deliveries, rules } = await get("/alerts");
      expect(JSON.stringify(deliveries)).not.toContain("given up");
      const parked = rules.find((rule: Json) => rule.rule === "parked" && rule.firing);
      expect(Math.abs(Date.parse(parked.since) - Date.now())).toBeLessThan(MINUTE);
      expect((await get(`/jobs/${id}/status`)).status).toBe("queued");
      await post(`/jobs/${id}/cancel`, {});
    });

    test("steps of ±2 min, ±2 h and ±25 h leave health, dashboard, lists, links and sessions true", async () => {
      const signIn = await fetch(`${stack.dashboardUrl}/signin`, {
        method: "POST",
        headers: { "content-type": "application/json", origin: stack.dashboardUrl },
        body: JSON.stringify({ key: KEY }),
      });
      const cookie = (signIn.headers.get("set-cookie") ?? "").split(";")[0] as string;
      const state = async (): Promise<Json> => {
        const response = await fetch(`${stack.dashboardUrl}/state.json`, { headers: { cookie } });
        expect(response.status).toBe(200); // the session goes on
        return response.json();
      };
      const hold = await Promise.all(Array.from({ length: 8 }, () => submit({ sleep: 300_000 })));
      const waits = await submit({});
      await Bun.sleep(5_500); // the last hour is read every 5 s
      let before = 0;
      for (const step of STEPS) {
        await set(step);
        const told = (what: string, value: unknown) => [step / MINUTE, what, value] as unknown[];
        const { services } = await get("/health");
        expect(told("health", services.work)).toEqual(told("health", "healthy")); // and not "no worker"
        expect(told("slots", (await get("/autoscale")).services.work.slots)).toEqual(told("slots", 8));
        const seen = await state();
        expect(told("fresh", Math.abs(seen.at - Date.now()) < 5_000)).toEqual(told("fresh", true));
        expect(told("moves", seen.at > before)).toEqual(told("moves", true));
        await Bun.sleep(1_200);
        expect(told("goes on", (await state()).at > seen.at)).toEqual(told("goes on", true));
        before = seen.at;
        expect(
          told(
            "attention",
            seen.attention.filter((one: Json) => one.worker),
          ),
        ).toEqual(told("attention", []));
        const [worker] = seen.workers;
        expect(told("beat", Math.abs(worker.beatAt - Date.now()) < 5_000)).toEqual(told("beat", true));
        expect(told("up", Math.abs(worker.startedAt - Date.now()) < 10 * MINUTE)).toEqual(told("up", true));
        const [run] = worker.lanes.work.runs;
        expect(told("run", Math.abs(run.since - Date.now()) < 10 * MINUTE)).toEqual(told("run", true));
        const { hour } = seen.services.find((service: Json) => service.service === "work");
        expect(told("last hour", hour.submitted >= 9)).toEqual(told("last hour", true));
        expect(told("older", (await get("/jobs?older_than=1h")).jobs)).toEqual(told("older", []));
        expect(told("older", (await get("/jobs?older_than=0")).jobs.length > 0)).toEqual(told("older", true));
        const status = await get(`/jobs/${hold[0]}/status`);
        expect(told("eta", status.eta_s !== null && status.eta_s < 3_600)).toEqual(told("eta", true));
      }
      expect((await get(`/jobs/${waits}/status`)).status).toBe("queued"); // all the while
      for (const id of hold) await post(`/jobs/${id}/cancel`, {});
      await ended(waits);
      const { entries } = await get("/audit");
      for (const { at: time } of entries) expect(Math.abs(Date.parse(time) - Date.now())).toBeLessThan(10 * MINUTE);
    });

    test("delay=2s lasts 2 s on a gateway 2 min behind, and no longer on one 25 h ahead", async () => {
      for (const step of [-2 * MINUTE, 25 * HOUR]) {
        await set(step);
        const began = performance.now();
        const response = await fetch(`${stack.url}/work?delay=2s`, { method: "POST", headers: AUTH, body: "{}" });
        expect(response.headers.get("retry-after")).toBe("2");
        const one = (await response.json()) as { job_id: string; status: string };
        expect(one.status).toBe("scheduled");
        const due = Date.parse((await get(`/jobs/${one.job_id}`)).due_at);
        expect(Math.abs(due - Date.now() - 2_000)).toBeLessThan(1_500);
        const batch = await post("/jobs", [{ operation: "work", payload: { of: "a batch" }, delay: "2s" }]);
        const [two] = ((await batch.json()) as { job_ids: string[] }).job_ids as [string];
        for (const id of [one.job_id, two]) await ended(id);
        for (const id of [one.job_id, two]) {
          const call = stack.service.byJob(id)[0]?.at as number;
          expect(call - (Date.now() - (performance.now() - began))).toBeGreaterThan(1_800);
        }
        expect(performance.now() - began).toBeLessThan(limit(10_000));
      }
      // a time of day is judged by Redis's clock, however far the gateway's is off
      const late = await submit({}, `?run_at=${new Date(Date.now() + 3_000).toISOString()}`);
      expect((await get(`/jobs/${late}/status`)).status).toBe("scheduled");
      await ended(late);
    });

    test("an upload and a download under way go on when the gateway's clock steps 25 h ahead", async () => {
      await set(0);
      await Bun.$`mkdir -p ${stack.dir}/uploads`.quiet();
      const fetched = post("/download-from-url", { url: hook("/slow-file"), output_filename: "slow.ifc" });
      const head = '--b\r\nContent-Disposition: form-data; name="file"; filename="step.ifc"\r\n\r\n';
      const pieces = [`${head}ISO-10303-21;`, "\r\n--b--\r\n"];
      const body = new ReadableStream({
        async pull(out) {
          if (pieces.length === 1) await Bun.sleep(7_000); // the gateway looks for silent senders every 5 s
          const piece = pieces.shift();
          if (piece) out.enqueue(Buffer.from(piece));
          else out.close();
        },
      });
      const headers = { ...AUTH, "content-type": "multipart/form-data; boundary=b" };
      const upload = fetch(`${stack.url}/upload/ifc`, { method: "POST", headers, body, duplex: "half" } as RequestInit);
      await Bun.sleep(500);
      await set(25 * HOUR);
      expect((await fetched).status).toBe(200);
      expect((await upload).status).toBe(200);
      const link = await (await post("/create_download_link", { file_path: "/uploads/step.ifc" })).json();
      const lastsMs = Date.parse((link as Json).expiry) - Date.now();
      expect(Math.abs(lastsMs - 30 * MINUTE)).toBeLessThan(MINUTE);
    });

    test.if(runtime === "bun")("ages on the dashboard are true though gateway and browser are hours off", async () => {
      await set(2 * HOUR);
      const id = await submit({});
      await ended(id);
      const browser = await startBrowser();
      const seen = await visit(browser, stack.dashboardUrl, "", KEY);
      await seen.page.addInitScript(() => {
        const now = Date.now;
        Date.now = () => now() - 3 * 3_600_000;
      });
      await seen.page.goto(`${stack.dashboardUrl}/#/workers`);
      await seen.page.reload();
      const beat = seen.page.locator("dt:has-text('last beat') + dd").first();
      await beat.waitFor();
      expect(await beat.textContent()).toMatch(/^(now|\d+ s ago)$/);
      await seen.page.goto(`${stack.dashboardUrl}/#/jobs/${id}`);
      const submitted = seen.page.locator("dt:has-text('submitted') + dd").first();
      await submitted.waitFor();
      expect(await submitted.textContent()).toMatch(/now|\d+ s ago/);
      await browser.close();
    });
  });
}

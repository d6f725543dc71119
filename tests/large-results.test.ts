/** A JSON result that lies in a file stands in every answer that a small one stands in, digit for digit. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type Stack, startStack, until } from "./support/stack.ts";

const ROWS = Array.from({ length: 40_000 }, (_, i) => `{"n":${i}.0,"b":[]}`).join(",");
/** 700 KB, with what a parser would not give back: digits, order, spaces */
const RAW = `{ "z":1, "a":1.0, "big":12345678901234567890, "rows":[${ROWS}]}`;

for (const runtime of ["bun", "deno"]) {
  describe(runtime, () => {
    let stack: Stack;
    let id: string;
    beforeAll(async () => {
      stack = await startStack({
        runtime,
        env: { RESULT_INLINE_BYTES: "64KiB", WEBHOOK_SECRET: `whsec_${btoa("x".repeat(32))}` },
      });
      id = await stack.submit({ raw: RAW });
      await until(async () => /"finished"/.test(await (await fetch(`${stack.url}/jobs/${id}`)).text()), 40_000);
    }, 60_000);
    afterAll(() => stack?.stop());
    const text = async (path: string, init?: RequestInit) => (await fetch(stack.url + path, init)).text();
    const folder = () => join(stack.dir, "data/results/work", id);

    test("the status and the record hold it, as it was stored", async () => {
      for (const path of [`/jobs/${id}/status`, `/jobs/${id}`, `/jobs/${id}/status?wait=1`]) {
        const answer = await fetch(stack.url + path);
        const body = await answer.text();
        expect([path, answer.status, answer.headers.get("content-type")]).toEqual([path, 200, "application/json"]);
        expect(body.includes(`"result":${RAW}`)).toBe(true);
        expect(JSON.parse(body)).toMatchObject({ job_id: id, status: "finished", error: null, progress: 1 });
      }
    });

    test("a submit that waits gets it", async () => {
      const body = await text("/work", {
        method: "POST",
        headers: { "content-type": "application/json", prefer: "wait=30" },
        body: JSON.stringify({ raw: RAW }),
      });
      expect(JSON.parse(body).status).toBe("finished");
      expect(body.includes(`"result":${RAW}`)).toBe(true);
    });

    test("whoever has the revision gets 304, and a HEAD no body", async () => {
      const first = await fetch(`${stack.url}/jobs/${id}/status`);
      await first.body?.cancel();
      const headers = { "if-none-match": first.headers.get("etag") as string };
      for (const path of [`/jobs/${id}/status`, `/jobs/${id}`])
        expect((await fetch(stack.url + path, { headers })).status).toBe(304);
      const head = await fetch(`${stack.url}/jobs/${id}`, { method: "HEAD" });
      expect([head.status, await head.text()]).toEqual([200, ""]);
    });

    test("events and the dashboard name it by its link", async () => {
      const link = `"href":"/jobs/${id}/result"`;
      expect(await text(`/jobs/${id}/events`)).toContain(link);
      for (const path of [`/api/jobs/${id}`, `/api/jobs/${id}/status`])
        expect((await (await fetch(stack.dashboardUrl + path)).json()).result.href).toBe(`/jobs/${id}/result`);
    });

    test("clients that go away in the middle leave no open file", async () => {
      for (let i = 0; i < 20; i++) {
        const answer = await fetch(`${stack.url}/jobs/${id}`);
        await answer.body?.getReader().cancel();
      }
      const { readdirSync, readlinkSync } = await import("node:fs");
      const open = () =>
        readdirSync(`/proc/${stack.gateway.pid}/fd`).filter((fd) => {
          try {
            return readlinkSync(`/proc/${stack.gateway.pid}/fd/${fd}`).includes("/results/");
          } catch {
            return false;
          }
        });
      await until(() => open().length === 0, 10_000);
    });

    test("a file that is missing, or has another size, reads as a failure that says so, and comes back with its file", async () => {
      renameSync(folder(), `${folder()}-away`);
      const status = await fetch(`${stack.url}/jobs/${id}/status`);
      expect([status.status, status.headers.get("etag"), status.headers.get("cache-control")]).toEqual([
        200,
        null,
        "no-store",
      ]);
      const body = await status.json();
      expect(body).toMatchObject({ job_id: id, status: "failed", result: null });
      expect(body.error).toContain("is not in RESULTS_DIR of this gateway");
      expect(await stack.get(`/jobs/${id}`)).toMatchObject({
        ...{ status: "finished", result: null, error: { code: "result_lost", retryable: false } },
      });
      expect((await fetch(`${stack.url}/jobs/${id}/result`)).status).toBe(404);
      renameSync(`${folder()}-away`, folder());
      expect((await stack.get(`/jobs/${id}/status`)).status).toBe("finished");
      rmSync(folder(), { recursive: true });
      expect((await stack.get(`/jobs/${id}/status`)).status).toBe("failed");
    });
  });
}

/** GET /download/{token}: the bytes, their parts, and what is said of them. */
import { beforeAll, describe, expect, test } from "bun:test";
import { randomBytes } from "node:crypto";
import { readdirSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { gatewayForFiles, LIMIT, RUNTIMES } from "./support/files.ts";
import { until } from "./support/stack.ts";

for (const runtime of RUNTIMES) {
  describe(`downloads under ${runtime}`, () => {
    const at = gatewayForFiles(runtime);
    const { call, send, answer, link } = at;

    let url = "";
    const content = randomBytes(300_000);
    beforeAll(async () => {
      await send('Häuser "1".ifc'.replaceAll('"', "'"), content);
      url = (await link("/uploads/Häuser '1'.ifc")).url;
    });
    const get = (headers: Record<string, string> = {}, method = "GET") => call(url, { headers, method }, "");

    test("the whole: an attachment by its name, of its length and type, with validators", async () => {
      const response = await get();
      expect(response.status).toBe(200);
      expect(Object.fromEntries(response.headers)).toMatchObject({
        "content-disposition": `attachment; filename="H?user '1'.ifc"; filename*=UTF-8''H%C3%A4user%20%271%27.ifc`,
        "content-length": "300000",
        "content-type": "application/octet-stream",
        "accept-ranges": "bytes",
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox; default-src 'none'",
        "last-modified": expect.stringMatching(/GMT$/),
        etag: expect.stringMatching(/^"[\w-]+"$/),
      });
      expect(Buffer.compare(Buffer.from(await response.arrayBuffer()), content)).toBe(0);
    });

    test("HEAD says the same without a body", async () => {
      const response = await get({}, "HEAD");
      expect([response.status, response.headers.get("content-length"), await response.text()]).toEqual([
        200,
        "300000",
        "",
      ]);
    });

    test("ranges: 206 with the very bytes, 416 outside, the whole where If-Range does not hold", async () => {
      const ranges: [string, number, number][] = [
        ["bytes=0-0", 0, 1],
        ["bytes=100-199", 100, 200],
        ["bytes=299990-", 299_990, 300_000],
        ["bytes=-10", 299_990, 300_000],
        ["bytes=1000-999999999", 1_000, 300_000],
      ];
      for (const [range, start, end] of ranges) {
        const response = await get({ range });
        expect([
          range,
          response.status,
          response.headers.get("content-range"),
          response.headers.get("content-length"),
        ]).toEqual([range, 206, `bytes ${start}-${end - 1}/300000`, String(end - start)]);
        expect(Buffer.compare(Buffer.from(await response.arrayBuffer()), content.subarray(start, end))).toBe(0);
      }
      const outside = await get({ range: "bytes=300000-" });
      expect([outside.status, outside.headers.get("content-range")]).toEqual([416, "bytes */300000"]);
      expect((await get({ range: "bytes=0-9", "if-range": '"another"' })).status).toBe(200);
      const etag = (await get({}, "HEAD")).headers.get("etag") as string;
      expect((await get({ range: "bytes=0-9", "if-range": etag })).status).toBe(206);
      expect((await get({ range: "lines=1-2" })).status).toBe(200);
    });

    test("a resumed download of a file that was replaced is the whole file, by tag and by date", async () => {
      const path = join(at.uploads, "resumed.ifc");
      writeFileSync(path, "A".repeat(1_000));
      const second = Math.floor(Date.now() / 1_000);
      utimesSync(path, second, second);
      const { url } = await link("/uploads/resumed.ifc");
      const first = await call(url, {}, "");
      const tag = first.headers.get("etag") as string;
      const date = first.headers.get("last-modified") as string;
      await first.body?.cancel();
      await Bun.sleep(20); // a file system's clock ticks every few ms
      writeFileSync(path, "B".repeat(1_000));
      // within the second, or by a copy that keeps times; Deno tells no ctime, so there only the first
      if (runtime === "bun") utimesSync(path, second, second);
      for (const since of [tag, date, `W/${tag}`, new Date(0).toUTCString()]) {
        const answer = await call(url, { headers: { range: "bytes=500-", "if-range": since } }, "");
        expect([since, answer.status, await answer.text()]).toEqual([since, 200, "B".repeat(1_000)]);
      }
    });

    test("304 while the client has it, by tag and by date; a changed file has another tag", async () => {
      const head = await get({}, "HEAD");
      const etag = head.headers.get("etag") as string;
      const date = head.headers.get("last-modified") as string;
      expect((await get({ "if-none-match": etag })).status).toBe(304);
      expect((await get({ "if-modified-since": date })).status).toBe(304);
      expect((await get({ "if-modified-since": new Date(Date.parse(date) - 1_000).toUTCString() })).status).toBe(200);
      expect((await get({ "if-none-match": '"another"', "if-modified-since": date })).status).toBe(200);
      await send("Häuser '1'.ifc", content);
      expect((await get({ "if-none-match": etag })).status).toBe(200);
    });

    test("types come from the name, and none is sniffed", async () => {
      for (const [name, type] of [
        ["page.html", "text/html"],
        ["data.json", "application/json"],
        ["x.constructor", "application/octet-stream"],
        ["x.__proto__", "application/octet-stream"],
        ["x", "application/octet-stream"],
      ]) {
        await send(name as string, "<script>alert(1)</script>", "other");
        const response = await call((await link(`/uploads/${name}`)).url, {}, "");
        expect(response.headers.get("content-type")).toStartWith(type as string);
        expect(response.headers.get("content-disposition")).toStartWith("attachment");
        expect(response.headers.get("x-content-type-options")).toBe("nosniff");
      }
    });

    test("an empty file is sent as such", async () => {
      await send("empty.ifc", "");
      const response = await call((await link("/uploads/empty.ifc")).url, {}, "");
      expect([response.status, response.headers.get("content-length"), await response.text()]).toEqual([200, "0", ""]);
    });

    test("an unknown, malformed or expired token is 404", async () => {
      for (const token of ["x", "A".repeat(43), "..%2f..%2fetc", "%00", "A".repeat(5_000)]) {
        expect((await call(`/download/${token}`, {}, "")).status).toBe(404);
      }
      await send("house.ifc", "x");
      const { token } = await link("/uploads/house.ifc");
      await at.stack.redis.client.pexpire(`lh:{token:${token}}`, 1);
      await Bun.sleep(20);
      expect(await answer(await call(`/download/${token}`, {}, ""))).toMatchObject({
        status: 404,
        code: "unknown_file",
      });
    });

    test("no file stays open: not after whole answers, parts, refusals, nor clients that leave", async () => {
      await send("large.ifc", randomBytes(LIMIT));
      const large = (await link("/uploads/large.ifc")).url;
      const openFiles = () =>
        readdirSync(`/proc/${at.stack.gateway.pid}/fd`).filter((fd) => {
          try {
            return statSync(`/proc/${at.stack.gateway.pid}/fd/${fd}`).size === LIMIT;
          } catch {
            return false;
          }
        }).length;
      for (const init of [
        {},
        { headers: { range: "bytes=1-2" } },
        { headers: { range: "bytes=99999999-" } },
        { method: "HEAD" },
      ]) {
        await (await call(large, init, "")).arrayBuffer();
      }
      const socket = connect(at.port(), "127.0.0.1");
      socket.write(`GET ${large} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
      socket.once("data", () => socket.destroy());
      await until(() => socket.destroyed);
      await until(
        () => openFiles() === 0,
        10_000,
        () => `${openFiles()} open`,
      );
    }, 20_000);
  });
}

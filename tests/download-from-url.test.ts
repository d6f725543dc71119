/** POST /download-from-url against a source of every kind; which addresses are public is ssrf.test.ts's. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { gatewayForFiles, LIMIT, RUNTIMES } from "./support/files.ts";

let source: Server;
let from = "";
beforeAll(async () => {
  source = createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://x");
    const to = url.searchParams.get("to");
    if (to) return response.writeHead(302, { location: to }).end();
    if (url.pathname === "/missing") return response.writeHead(404).end("no");
    if (url.pathname === "/named") {
      return response
        .setHeader("content-disposition", `attachment; filename="x.ifc"; filename*=UTF-8''h%C3%A4user.ifc`)
        .end("named");
    }
    if (url.pathname === "/hostile") {
      return response.setHeader("content-disposition", 'attachment; filename="../../evil.ifc"').end("x");
    }
    if (url.pathname === "/gz") return response.setHeader("content-encoding", "gzip").end(gzipSync("plain text"));
    if (url.pathname === "/bomb") {
      return response.setHeader("content-encoding", "gzip").end(gzipSync(Buffer.alloc(LIMIT + 1)));
    }
    if (url.pathname === "/notgz") return response.setHeader("content-encoding", "gzip").end("plain text");
    if (url.pathname === "/big") return response.end(Buffer.alloc(LIMIT + 1));
    if (url.pathname === "/cut") {
      response.writeHead(200, { "content-length": "1000" }).write("some");
      return void setTimeout(() => response.destroy(), 20);
    }
    response.end(`content of ${url.pathname}`);
  });
  await new Promise<void>((done) => source.listen(0, "127.0.0.1", done));
  from = `http://127.0.0.1:${(source.address() as AddressInfo).port}`;
});
afterAll(() => {
  source?.closeAllConnections();
  source?.close();
});

for (const runtime of RUNTIMES) {
  describe(`download-from-url under ${runtime}`, () => {
    const at = gatewayForFiles(runtime, () => ({ DOWNLOAD_ALLOW: from.slice("http://".length) }));
    const { json, answer, lying, nothingLeft } = at;

    const take = async (url: string, output_filename?: string) =>
      answer(await json("/download-from-url", { url, output_filename }));

    test("a file is fetched, by the name that is asked for, the server gives, or the URL has", async () => {
      expect(await take(`${from}/model.ifc?x=1`)).toEqual({
        status: 200,
        message: "File downloaded successfully as model.ifc",
        file_path: "/uploads/model.ifc",
      });
      expect(readFileSync(join(at.uploads, "model.ifc"), "utf8")).toBe("content of /model.ifc");
      expect(await take(`${from}/model.ifc`, "mine.ifc")).toMatchObject({
        status: 200,
        file_path: "/uploads/mine.ifc",
      });
      expect(await take(`${from}/named`)).toMatchObject({ status: 200, file_path: "/uploads/häuser.ifc" });
      expect(await take(`${from}/m%C3%BCller.ifc`)).toMatchObject({ file_path: "/uploads/müller.ifc" });
      expect(await take(`${from}/?to=${encodeURIComponent("/redirected.ifc")}`)).toMatchObject({
        file_path: "/uploads/redirected.ifc",
      });
    });

    test("a compressed answer is stored as the file that it is, and its limit holds for that", async () => {
      expect((await take(`${from}/gz`, "gz.txt")).status).toBe(200);
      expect(readFileSync(join(at.uploads, "gz.txt"), "utf8")).toBe("plain text");
      expect((await take(`${from}/bomb`, "evil.ifc")).status).toBe(413);
      expect((await take(`${from}/notgz`, "evil.ifc")).status).toBe(502);
    });

    test("the source's failure is a 502 with its status, and nothing is left", async () => {
      const before = lying();
      expect(await take(`${from}/missing`, "evil.ifc")).toMatchObject({
        status: 502,
        source_status: 404,
        detail: expect.stringContaining("404"),
      });
      expect(await take(`${from}/cut`, "evil.ifc")).toMatchObject({ status: 502, source_status: null });
      expect((await take(`${from}/big`, "evil.ifc")).status).toBe(413);
      expect((await take("http://no-such-name.invalid/evil.ifc")).status).toBe(502);
      await nothingLeft();
      expect(lying()).toEqual(before);
    }, 20_000);

    test("only public addresses, on each hop; no name that climbs", async () => {
      const before = lying();
      const redis = `127.0.0.1:${at.stack.redis.port}`;
      for (const url of [
        `http://${redis}/`,
        `http://localhost:${at.stack.redis.port}/x`,
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:7f00:1]/x",
        "file:///etc/passwd",
        `${from}/?to=${encodeURIComponent(`http://${redis}/evil.ifc`)}`,
        "nonsense",
      ]) {
        const refused = await take(url, "evil.ifc");
        expect([url, refused.status, refused.errors?.[0]?.path]).toEqual([url, 422, "url"]);
      }
      for (const name of ["..", "a/../..", "..%2fevil.ifc", ".hidden", "evil\0.ifc"]) {
        expect([name, (await take(`${from}/model.ifc`, name)).status]).toEqual([name, 422]);
      }
      expect(await take(`${from}/`)).toMatchObject({
        status: 422,
        detail: expect.stringContaining("output_filename"),
      });
      expect(lying()).toEqual(before);
    });

    test("directories in front of a name are dropped, also those that climb, whoever names the file", async () => {
      expect(await take(`${from}/hostile`)).toMatchObject({ status: 200, file_path: "/uploads/evil.ifc" });
      for (const name of ["../named.ifc", "a/../../named.ifc", "..\\named.ifc"]) {
        expect(await take(`${from}/model.ifc`, name)).toMatchObject({ status: 200, file_path: "/uploads/named.ifc" });
      }
      expect(lying()).toEqual(expect.arrayContaining(["evil.ifc", "named.ifc"]));
    });
  });
}

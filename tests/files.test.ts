import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { createServer, type Server } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { hostname } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { oneFile } from "../shared/form.ts";
import { freePort } from "./support/redis.ts";
import { type Stack, startStack, until } from "./support/stack.ts";

const READ = "reader-key-1";
const SUBMIT = "submitter-key-1";
const LIMIT = 4 * 1024 * 1024;

for (const runtime of ["bun", "deno"]) {
  describe(`files under ${runtime}`, () => {
    let stack: Stack;
    let uploads = "";
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
      stack = await startStack({
        workers: 0,
        runtime,
        env: {
          API_KEYS: `${READ}:read,${SUBMIT}:submit`,
          MAX_UPLOAD_BYTES: "4MiB",
          DOWNLOAD_ALLOW: from.slice("http://".length),
        },
      });
      uploads = join(stack.dir, "uploads");
      mkdirSync(uploads, { recursive: true });
    }, 30_000);
    afterAll(async () => {
      source?.closeAllConnections();
      source?.close();
      await stack?.stop();
    });

    const call = (path: string, init: RequestInit = {}, key = SUBMIT, base = stack.url) => {
      const headers = new Headers(init.headers);
      if (key) headers.set("x-api-key", key);
      return fetch(base + path, { ...init, headers });
    };
    const json = (path: string, body: unknown, key = SUBMIT) =>
      call(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) }, key);
    const form = (name: string, content: string | Uint8Array, field = "file") => {
      const data = new FormData();
      data.append(field, new File([content as BlobPart], name));
      return data;
    };
    const send = (name: string, content: string | Uint8Array, kind = "ifc") =>
      call(`/upload/${kind}`, { method: "POST", body: form(name, content) });
    // biome-ignore lint/suspicious/noExplicitAny: answers of many shapes, read field by field
    const answer = async (response: Response): Promise<any> => ({
      status: response.status,
      ...(await response.json()),
    });
    /** What lies in /uploads, hidden files too. */
    const lying = () => (existsSync(uploads) ? readdirSync(uploads).sort() : []);
    /** Nothing of an unfinished file may stay. */
    const nothingLeft = () =>
      until(
        () => !lying().some((name) => name.endsWith(".part")),
        5_000,
        () => lying().join(", "),
      );
    const link = async (path: string, key = READ) =>
      answer(await json("/create_download_link", { file_path: path }, key));

    /** A form by hand, for what no client would send. */
    const raw = (parts: string, path = "/upload/ifc", type = "multipart/form-data; boundary=b") =>
      call(path, { method: "POST", headers: { "content-type": type }, body: parts });
    const part = (disposition: string, content = "ISO-10303-21;") =>
      `--b\r\nContent-Disposition: form-data; ${disposition}\r\nContent-Type: application/octet-stream\r\n\r\n${content}\r\n`;

    test("an upload lies in /uploads under its name, with exactly the old gateway's answer", async () => {
      const response = await send("house.ifc", "ISO-10303-21;");
      expect(response.status).toBe(200);
      expect(await response.json()).toEqual({
        message: "IFC file house.ifc uploaded successfully",
        file_path: "/uploads/house.ifc",
      });
      expect(readFileSync(join(uploads, "house.ifc"), "utf8")).toBe("ISO-10303-21;");
      await nothingLeft();
    });

    test("bytes arrive as they were, of all kinds and sizes, also those that look like the form's own", async () => {
      for (const content of [randomBytes(3_000_001), Buffer.alloc(0), Buffer.from("\r\n--b\r\n--\r\n------")]) {
        expect((await send("bytes.ifc", content)).status).toBe(200);
        expect(Buffer.compare(readFileSync(join(uploads, "bytes.ifc")), content)).toBe(0);
      }
    });

    test("an upload without a declared length is taken as well", async () => {
      const pieces = [part('name="file"; filename="chunked.ifc"'), "--b--\r\n"].map((text) => Buffer.from(text));
      const body = new ReadableStream({
        async pull(controller) {
          await Bun.sleep(20);
          const next = pieces.shift();
          if (next) controller.enqueue(next);
          else controller.close();
        },
      });
      const headers = { "content-type": "multipart/form-data; boundary=b" };
      const response = await call("/upload/ifc", { method: "POST", headers, body, duplex: "half" } as RequestInit);
      expect(await answer(response)).toMatchObject({ status: 200, file_path: "/uploads/chunked.ifc" });
    });

    test("each kind takes its extensions, in any case; other takes all; an unknown kind is told", async () => {
      const fine = ["ifc a.IFC", "ifc a.ifcZIP", "ids a.ids", "bcf a.bcf", "bcf a.bcfzip", "csv a.csv", "csv a.XLSX"];
      for (const [kind, name] of [...fine, "csv a.ods", "other a.anything", "other noextension", "IFC a.ifc"].map((t) =>
        t.split(" "),
      )) {
        expect([name, (await send(name as string, "x", kind)).status]).toEqual([name as string, 200]);
      }
      for (const [kind, name] of ["ifc a.txt", "ifc ifc", "ids a.ifc", "bcf a.zip", "csv a.ifc", "ifc a.ifc.exe"].map(
        (t) => t.split(" "),
      )) {
        const refused = await answer(await send(name as string, "x", kind));
        expect([name, refused.status, refused.detail]).toEqual([
          name,
          400,
          expect.stringMatching(/^File must have one of these extensions: \./),
        ]);
      }
      for (const kind of ["exe", "constructor", "__proto__"]) {
        expect(await answer(await send("a.ifc", "x", kind))).toMatchObject({
          status: 400,
          detail: expect.stringContaining("ifc, ids, bcf, csv, other"),
        });
      }
      await nothingLeft();
    });

    test("names: directories in front are dropped, Unicode is kept", async () => {
      const names = {
        "C:\\models\\tower.ifc": "tower.ifc",
        "/etc/cron.d/tower.ifc": "tower.ifc",
        "sub/dir/tower.ifc": "tower.ifc",
        "Häuser & Brücken (2).ifc": "Häuser & Brücken (2).ifc",
        "模型.ifc": "模型.ifc",
        "100%.ifc": "100%.ifc",
      };
      for (const [given, kept] of Object.entries(names)) {
        const response = await raw(`${part(`name="file"; filename="${given.replaceAll("\\", "\\\\")}"`)}--b--\r\n`);
        expect(await answer(response)).toMatchObject({ status: 200, file_path: `/uploads/${kept}` });
        expect(existsSync(join(uploads, kept))).toBe(true);
      }
    });

    const HOSTILE_NAMES = {
      climbs: "../../evil.ifc",
      "climbs by backslash": "..\\\\..\\\\evil.ifc",
      "climbs in the middle": "a/../../evil.ifc",
      "climbs, encoded": "%2e%2e%2fevil.ifc",
      "climbs, encoded backslash": "..%5cevil.ifc",
      "an encoded slash": "a%2fevil.ifc",
      "an absolute path, encoded": "%2fetc%2fevil.ifc",
      NUL: "evil.ifc\0.ifc",
      "NUL, encoded": "evil.ifc%00.ifc",
      "a line end": "evil\u0085.ifc",
      hidden: ".evil.ifc",
      "a part of ours": ".longhaul-x-1-y.part.ifc",
      "only dots": "..",
      "a directory": "evil.ifc/",
      "too long": `${"e".repeat(252)}.ifc`,
      "too long in UTF-8": `${"ü".repeat(130)}.ifc`,
    };
    for (const [what, name] of Object.entries(HOSTILE_NAMES)) {
      test(`a name that is refused: ${what}`, async () => {
        const before = lying();
        const refused = await answer(await raw(`${part(`name="file"; filename="${name}"`)}--b--\r\n`));
        expect(refused.status).toBe(what === "NUL" ? refused.status : 422);
        expect(refused.status).toBeGreaterThanOrEqual(400);
        expect(refused.status).toBeLessThan(500);
        expect(refused.detail).toMatch(/\w+ .*\.$/);
        await nothingLeft();
        expect(lying()).toEqual(before);
        expect(existsSync(join(stack.dir, "evil.ifc"))).toBe(false);
      });
    }

    const BAD_FORMS: Record<string, [parts: string, status: number, detail: RegExp]> = {
      "no file": ["--b--\r\n", 422, /no file in the field file/],
      "an empty body": ["", 400, /cannot be read/],
      "the wrong field": [`${part('name="data"; filename="evil.ifc"')}--b--\r\n`, 422, /belongs in file/],
      "text instead of a file": [
        '--b\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n--b--\r\n',
        422,
        /-F file=@/,
      ],
      "no name": [`${part('name="file"')}--b--\r\n`, 422, /no name/],
      "two files": [
        `${part('name="file"; filename="evil.ifc"')}${part('name="file"; filename="evil2.ifc"')}--b--\r\n`,
        422,
        /more than one file/,
      ],
      "a file, then one in another field": [
        `${part('name="file"; filename="evil.ifc"')}${part('name="more"; filename="evil2.ifc"')}--b--\r\n`,
        422,
        /belongs in file/,
      ],
      "no end": [part('name="file"; filename="evil.ifc"'), 400, /cannot be read/],
      "another boundary": [
        `${part('name="file"; filename="evil.ifc"')}--b--\r\n`.replaceAll("--b", "--c"),
        400,
        /cannot be read/,
      ],
      "too many fields": [
        `${'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n'.repeat(50)}--b--\r\n`,
        422,
        /too many parts/,
      ],
    };
    for (const [what, [parts, status, detail]] of Object.entries(BAD_FORMS)) {
      test(`a form that is refused: ${what}`, async () => {
        const before = lying();
        const refused = await answer(await raw(parts));
        expect(refused).toMatchObject({ status, detail: expect.stringMatching(detail) });
        await nothingLeft();
        expect(lying()).toEqual(before);
      });
    }

    test("further text fields are ignored", async () => {
      const field = '--b\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n';
      const response = await raw(`${field}${part('name="file"; filename="noted.ifc"')}${field}--b--\r\n`);
      expect(response.status).toBe(200);
    });

    test("what is no form is told with the way to do it", async () => {
      for (const type of ["application/json", "multipart/mixed; boundary=b", "text/plain"]) {
        expect(await answer(await raw("x", "/upload/ifc", type))).toMatchObject({
          status: 415,
          detail: expect.stringContaining("-F file=@"),
        });
      }
      expect((await raw("x", "/upload/ifc", "multipart/form-data")).status).toBe(400);
    });

    test("over MAX_UPLOAD_BYTES: 413 with a readable answer, declared or not, and nothing is left", async () => {
      expect((await send("limit.ifc", Buffer.alloc(LIMIT))).status).toBe(200);
      const before = lying();
      expect(await answer(await send("evil.ifc", Buffer.alloc(LIMIT + 1)))).toMatchObject({
        status: 413,
        detail: expect.stringContaining("MAX_UPLOAD_BYTES"),
      });
      expect((await send("evil.ifc", Buffer.alloc(4 * LIMIT))).status).toBe(413);
      let left = 4 * LIMIT;
      const body = new ReadableStream({
        pull(controller) {
          if (left === 4 * LIMIT) controller.enqueue(Buffer.from(part('name="file"; filename="evil.ifc"', "")));
          controller.enqueue(Buffer.alloc(65_536));
          left -= 65_536;
          if (left <= 0) controller.close();
        },
      });
      const headers = { "content-type": "multipart/form-data; boundary=b" };
      const response = await call("/upload/ifc", { method: "POST", headers, body, duplex: "half" } as RequestInit);
      expect(await answer(response)).toMatchObject({ status: 413, code: "too_large" });
      await nothingLeft();
      expect(lying()).toEqual(before);
    }, 20_000);

    test("JSON keeps its own limit", async () => {
      const response = await json("/create_download_link", { file_path: "x".repeat(1_100_000) });
      expect(await answer(response)).toMatchObject({ status: 413, detail: expect.stringContaining("MAX_BODY_BYTES") });
    });

    for (const [what, length] of [
      ["with a declared length", "Content-Length: 1000000"],
      ["in chunks", "Transfer-Encoding: chunked"],
    ]) {
      test(`a connection cut in the middle leaves nothing, ${what}`, async () => {
        const before = lying();
        const socket = connect(Number(new URL(stack.url).port), "127.0.0.1");
        const content = part('name="file"; filename="evil.ifc"', "x".repeat(100_000));
        const head = `POST /upload/ifc HTTP/1.1\r\nHost: localhost\r\nX-API-Key: ${SUBMIT}\r\nContent-Type: multipart/form-data; boundary=b\r\n${length}\r\n\r\n`;
        socket.write(
          head + (length?.includes("chunked") ? `${content.length.toString(16)}\r\n${content}\r\n` : content),
        );
        await until(() => lying().some((name) => name.endsWith(".part")));
        socket.destroy();
        await nothingLeft();
        expect(lying()).toEqual(before);
      });
    }

    test("a name that is taken is replaced in one step: a reader keeps the file it has open", async () => {
      await send("twice.ifc", "first");
      linkSync(join(uploads, "twice.ifc"), join(uploads, "kept.ifc"));
      await send("twice.ifc", "second");
      expect(readFileSync(join(uploads, "twice.ifc"), "utf8")).toBe("second");
      expect(readFileSync(join(uploads, "kept.ifc"), "utf8")).toBe("first");
    });

    test("a link of that name is replaced and not written through; a directory is told", async () => {
      const outside = join(stack.dir, "outside.ifc");
      writeFileSync(outside, "outside");
      symlinkSync(outside, join(uploads, "linked.ifc"));
      mkdirSync(join(uploads, "dir.ifc"), { recursive: true });
      expect((await send("linked.ifc", "inside")).status).toBe(200);
      expect(readFileSync(outside, "utf8")).toBe("outside");
      expect((await send("dir.ifc", "x")).status).toBe(409);
      await nothingLeft();
    });

    test("scopes: a reader may list, link and download, not upload", async () => {
      expect((await call("/list_directories", {}, READ)).status).toBe(200);
      expect((await call("/upload/ifc", { method: "POST", body: form("evil.ifc", "x") }, READ)).status).toBe(403);
      expect((await json("/download-from-url", { url: "http://example.com/x" }, READ)).status).toBe(403);
      expect((await call("/upload/ifc", { method: "POST", body: form("evil.ifc", "x") }, "")).status).toBe(401);
      for (const path of ["/list_directories", "/ifc2json/x.json"]) expect((await call(path, {}, "")).status).toBe(401);
      expect((await json("/create_download_link", { file_path: "/uploads/a.ifc" }, "")).status).toBe(401);
    });

    describe("listing and links", () => {
      beforeAll(() => {
        const output = join(stack.dir, "output");
        for (const dir of ["json/deep", ".hidden"]) mkdirSync(join(output, dir), { recursive: true });
        writeFileSync(join(uploads, "house.ifc"), "ISO-10303-21;");
        writeFileSync(join(output, "json/house.json"), '{"a": [1, 2]}');
        writeFileSync(join(output, "json/deep/x.json"), "{}");
        writeFileSync(join(output, ".hidden/secret.ifc"), "x");
        writeFileSync(join(output, ".gitkeep"), "");
        writeFileSync(join(stack.dir, "outside.json"), '{"outside": true}');
        symlinkSync(join(stack.dir, "outside.json"), join(output, "json/out.json"));
        symlinkSync(join(output, "json/house.json"), join(output, "json/in.json"));
        symlinkSync(stack.dir, join(output, "json/outdir"));
        symlinkSync(output, join(output, "json/loop"));
        Bun.spawnSync(["mkfifo", join(output, "pipe.json")]);
      });

      test("the listing has files and structure, without hidden files, pipes and links that lead out", async () => {
        const { files, directory_structure } = await (await call("/list_directories", {}, READ)).json();
        const output = files.filter((file: string) => file.startsWith("/output/"));
        expect(output).toEqual(["/output/json/deep/x.json", "/output/json/house.json", "/output/json/in.json"]);
        expect(files).toContain("/uploads/house.ifc");
        expect(files).toEqual([...files].sort());
        expect(Object.keys(directory_structure)).toEqual(["uploads", "output", "examples"]);
        expect(directory_structure.output).toEqual({
          files: [],
          sub: { json: { files: ["house.json", "in.json"], sub: { deep: { files: ["x.json"], sub: {} } } } },
        });
        expect(directory_structure.examples).toEqual({ files: [], sub: {} });
      });

      test("the listing is bounded and says so", async () => {
        const { files, truncated, limit } = await (await call("/list_directories?limit=2", {}, READ)).json();
        expect([files.length, truncated, limit]).toEqual([2, true, 2]);
        expect((await call("/list_directories?limit=0", {}, READ)).status).toBe(422);
        expect((await call("/list_directories?limit=10001", {}, READ)).status).toBe(422);
      });

      test("a link has a token by both names, an expiry and a URL; anybody may use it, at every gateway", async () => {
        const made = await link("/uploads/house.ifc");
        expect(made).toEqual({
          status: 200,
          download_token: made.token,
          token: expect.stringMatching(/^[\w-]{43}$/),
          expiry: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
          url: `/download/${made.token}`,
        });
        expect(Date.parse(made.expiry) - Date.now()).toBeGreaterThan(29 * 60_000);
        expect(await stack.redis.client.pttl(`lh:{token:${made.token}}`)).toBeLessThanOrEqual(30 * 60_000);
        const port = String(await freePort());
        await stack.startGateway({ PORT: port, DASHBOARD_PORT: "0" });
        for (const base of [stack.url, `http://127.0.0.1:${port}`]) {
          const response = await call(made.url, {}, "", base);
          expect(response.status).toBe(200);
          expect(await response.text()).toBe("ISO-10303-21;");
        }
      }, 20_000);

      test("relative paths mean /uploads, as in payloads", async () => {
        for (const path of ["house.ifc", "uploads/house.ifc", "./house.ifc", "/uploads//house.ifc"]) {
          const { token } = await link(path);
          expect(await (await call(`/download/${token}`, {}, "")).text()).toBe("ISO-10303-21;");
        }
      });

      const REFUSED: Record<string, [path: string, status: number]> = {
        "no such file": ["/uploads/none.ifc", 404],
        "no such directory": ["/uploads/house.ifc/x", 404],
        "a directory": ["/output/json", 404],
        "a pipe": ["/output/pipe.json", 404],
        "a link that leads out": ["/output/json/out.json", 422],
        "a linked directory that leads out": ["/output/json/outdir/outside.json", 422],
        dots: ["/uploads/../outside.json", 422],
        "dots, relative": ["../outside.json", 422],
        "dots, encoded": ["/uploads/%2e%2e/outside.json", 422],
        "dots by backslash": ["/uploads/..\\outside.json", 422],
        "an absolute path outside": ["/etc/passwd", 422],
        "a volume by its beginning": ["/uploads2/x", 422],
        "this machine's own path": ["REAL/uploads/house.ifc", 422],
        NUL: ["/uploads/house.ifc\0.txt", 422],
        "NUL, encoded": ["/uploads/house.ifc%00.txt", 422],
        "a volume itself": ["/uploads", 422],
        "a file URL": ["file:///etc/passwd", 404],
        empty: ["", 422],
        "too long": [`/uploads/${"a".repeat(2_000)}`, 422],
        "a name too long for a disk": [`/uploads/${"a".repeat(400)}`, 404],
      };
      for (const [what, [path, status]] of Object.entries(REFUSED)) {
        test(`no link to ${what}`, async () => {
          const refused = await link(path.replace("REAL", stack.dir));
          expect([refused.status, refused.token]).toEqual([status, undefined]);
          expect(refused.detail).toMatch(/\w/);
          if (status === 404 && what === "no such file") expect(refused.detail).toStartWith("File not found");
        });
      }

      test("a link is judged again when it is used: the file may have become a link to elsewhere, or be gone", async () => {
        await send("swap.ifc", "mine");
        const { token } = await link("/uploads/swap.ifc");
        rmSync(join(uploads, "swap.ifc"));
        expect((await call(`/download/${token}`, {}, "")).status).toBe(404);
        symlinkSync(join(stack.dir, "outside.json"), join(uploads, "swap.ifc"));
        const refused = await call(`/download/${token}`, {}, "");
        expect(refused.status).toBe(422);
        expect(await refused.text()).not.toContain('"outside"');
      });

      test("a directory that turns into a link to elsewhere, again and again, never gives what lies there", async () => {
        const race = join(uploads, "race");
        mkdirSync(race, { recursive: true });
        mkdirSync(join(stack.dir, "elsewhere"));
        writeFileSync(join(race, "x.ifc"), "inside");
        writeFileSync(join(stack.dir, "elsewhere", "x.ifc"), "elsewhere");
        const { url } = await link("/uploads/race/x.ifc");
        const swap = `const fs = require("fs"); const [race, other] = process.argv.slice(-2);
          for (;;) {
            fs.renameSync(race, race + "2"); fs.symlinkSync(other, race);
            fs.unlinkSync(race); fs.renameSync(race + "2", race);
          }`;
        const swapper = Bun.spawn([process.execPath, "-e", swap, race, join(stack.dir, "elsewhere")]);
        const seen = new Map<string, number>();
        try {
          for (let round = 0; round < 60; round++) {
            const texts = await Promise.all(
              Array.from({ length: 10 }, async () => {
                const response = await call(url, {}, "");
                return response.status === 200 ? await response.text() : String(response.status);
              }),
            );
            for (const text of texts) seen.set(text, (seen.get(text) ?? 0) + 1);
          }
        } finally {
          swapper.kill("SIGKILL");
          await swapper.exited;
        }
        expect([...seen.keys()].filter((text) => !["inside", "404", "422"].includes(text))).toEqual([]);
        expect(seen.get("inside") ?? 0).toBeGreaterThan(0);
      }, 30_000);

      test("GET /ifc2json takes a bare name and an absolute path, also with the double slash", async () => {
        for (const path of [
          "house.json",
          "/output/json/house.json",
          "deep/x.json",
          "%2Foutput%2Fjson%2Fhouse.json",
          "in.json",
        ]) {
          const response = await call(`/ifc2json/${path}`, {}, READ);
          expect([path, response.status, response.headers.get("content-type")]).toEqual([
            path,
            200,
            "application/json",
          ]);
          if (path.includes("house")) expect(await response.json()).toEqual({ a: [1, 2] });
        }
      });

      test("GET /ifc2json gives nothing else", async () => {
        const refused: Record<string, number> = {
          "none.json": 404,
          "out.json": 422,
          "outdir/outside.json": 422,
          "/uploads/house.ifc": 422,
          "/etc/passwd": 422,
          "%2e%2e%2f%2e%2e%2foutside.json": 422,
          "..%2f..%2foutside.json": 422,
          "%252e%252e/outside.json": 422,
          "..%5coutside.json": 422,
          "x%00.json": 422,
          "%": 400,
          json: 404,
        };
        for (const [path, status] of Object.entries(refused)) {
          const response = await call(`/ifc2json/${path}`, {}, READ);
          expect([path, response.status]).toEqual([path, status]);
          expect(await response.text()).not.toContain('"outside": true');
        }
        // as no client would send it, past the URL's own clean-up
        const socket = connect(Number(new URL(stack.url).port), "127.0.0.1");
        let text = "";
        socket.on("data", (bytes) => {
          text += bytes;
        });
        const lines = ["/ifc2json/../../outside.json", "/ifc2json//../../../etc/passwd", "//etc/passwd"];
        for (const line of lines) socket.write(`GET ${line} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: ${READ}\r\n\r\n`);
        await until(() => text.split("HTTP/1.1 ").length > lines.length);
        socket.destroy();
        expect(text).not.toMatch(/HTTP\/1\.1 [25]|outside": true|root:/);
      });
    });

    describe("downloads", () => {
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
        expect([response.status, response.headers.get("content-length"), await response.text()]).toEqual([
          200,
          "0",
          "",
        ]);
      });

      test("an unknown, malformed or expired token is 404", async () => {
        for (const token of ["x", "A".repeat(43), "..%2f..%2fetc", "%00", "A".repeat(5_000)]) {
          expect((await call(`/download/${token}`, {}, "")).status).toBe(404);
        }
        const { token } = await link("/uploads/house.ifc");
        await stack.redis.client.pexpire(`lh:{token:${token}}`, 1);
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
          readdirSync(`/proc/${stack.gateway.pid}/fd`).filter((fd) => {
            try {
              return statSync(`/proc/${stack.gateway.pid}/fd/${fd}`).size === LIMIT;
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
        const socket = connect(Number(new URL(stack.url).port), "127.0.0.1");
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

    describe("download-from-url", () => {
      const take = async (url: string, output_filename?: string) =>
        answer(await json("/download-from-url", { url, output_filename }));

      test("a file is fetched, by the name that is asked for, the server gives, or the URL has", async () => {
        expect(await take(`${from}/model.ifc?x=1`)).toEqual({
          status: 200,
          message: "File downloaded successfully as model.ifc",
          file_path: "/uploads/model.ifc",
        });
        expect(readFileSync(join(uploads, "model.ifc"), "utf8")).toBe("content of /model.ifc");
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
        expect(readFileSync(join(uploads, "gz.txt"), "utf8")).toBe("plain text");
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
        const redis = `127.0.0.1:${stack.redis.port}`;
        for (const url of [
          `http://${redis}/`,
          `http://localhost:${stack.redis.port}/x`,
          "http://169.254.169.254/latest/meta-data",
          "http://[::ffff:7f00:1]/x",
          "file:///etc/passwd",
          `${from}/?to=${encodeURIComponent(`http://${redis}/evil.ifc`)}`,
          "nonsense",
        ]) {
          const refused = await take(url, "evil.ifc");
          expect([url, refused.status, refused.errors?.[0]?.path]).toEqual([url, 422, "url"]);
        }
        for (const name of ["../evil.ifc", "a/../../evil.ifc", "..%2fevil.ifc", ".hidden", "evil\0.ifc"]) {
          expect([name, (await take(`${from}/model.ifc`, name)).status]).toEqual([name, 422]);
        }
        expect((await take(`${from}/hostile`)).status).toBe(422);
        expect(await take(`${from}/`)).toMatchObject({
          status: 422,
          detail: expect.stringContaining("output_filename"),
        });
        expect(lying()).toEqual(before);
      });
    });

    test("a gateway that was killed leaves a part; the next start clears it, and none of the living", async () => {
      const socket = connect(Number(new URL(stack.url).port), "127.0.0.1");
      socket.on("error", () => {});
      const head = `POST /upload/ifc HTTP/1.1\r\nHost: localhost\r\nX-API-Key: ${SUBMIT}\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000000\r\n\r\n`;
      socket.write(head + part('name="file"; filename="evil.ifc"', "x".repeat(100_000)));
      const parts = () => lying().filter((name) => name.endsWith(".part"));
      await until(() => parts().length === 1);
      const host = hostname()
        .replace(/[^\w.-]/g, "_")
        .slice(0, 64);
      const living = `.longhaul-${host}-${process.pid}-abc.part`;
      const elsewhere = ".longhaul-another-host-4194303-abc.part"; // no process here has that number
      const ancient = ".longhaul-another-host-2-abc.part";
      for (const name of [living, elsewhere, ancient]) writeFileSync(join(uploads, name), "x");
      utimesSync(join(uploads, ancient), new Date(Date.now() - 25 * 3_600_000), new Date(Date.now() - 25 * 3_600_000));
      stack.gateway.kill("SIGKILL");
      await stack.gateway.exited;
      socket.destroy();
      expect(parts().length).toBe(4);
      stack.gateway = await stack.startGateway();
      await until(
        () => parts().length === 2,
        5_000,
        () => parts().join(" "),
      );
      expect(parts()).toEqual([elsewhere, living].sort());
    }, 30_000);
  });
}

describe("a form in pieces of any size is the same file, whether its reader is fast or slow", () => {
  const lines = ["\r\n--", "\r\n--bound", "\r", "\n", "-", "\r\n", "bound", "--boundary", "\r\n--boundar"];
  for (const [size, times] of [
    [1, 2_000],
    [7, 10_000],
    [1_000, 50_000],
    [40_000, 300_000],
    [65_536, 300_000],
    [200_000, 300_000],
  ] as const) {
    for (const slow of [false, true]) {
      test(`${size} bytes a piece, ${slow ? "slow" : "fast"}`, async () => {
        const content = Buffer.concat(
          Array.from({ length: Math.ceil(times / 5) }, (_, i) =>
            Buffer.from(lines[(i * 7 + (i >> 4)) % lines.length] as string),
          ),
        );
        const form = Buffer.concat([
          Buffer.from('--boundary\r\nContent-Disposition: form-data; name="file"; filename="a.ifc"\r\n\r\n'),
          content,
          Buffer.from("\r\n--boundary--\r\n"),
        ]);
        let at = 0;
        const body = new ReadableStream<Uint8Array>({
          pull(controller) {
            // a copy with memory of its own, as a runtime's chunks have
            controller.enqueue(Uint8Array.from(form.subarray(at, at + size)));
            at += size;
            if (at >= form.length) controller.close();
          },
        });
        const headers = { "content-type": "multipart/form-data; boundary=boundary" };
        const request = new Request("http://x/", { method: "POST", headers, body, duplex: "half" } as RequestInit);
        const take = async (_name: string, pieces: AsyncIterable<Uint8Array>) => {
          const all: Uint8Array[] = [];
          for await (const piece of pieces) {
            if (slow && Math.random() < 0.02) await Bun.sleep(1);
            all.push(Uint8Array.from(piece));
          }
          return Buffer.concat(all);
        };
        expect(Buffer.compare(await oneFile(request, "file", take, async () => {}), content)).toBe(0);
      }, 20_000);
    }
  }
});

test("a file that is whole is dropped when what comes after it is unfit", async () => {
  const part = (name: string) =>
    `--b\r\nContent-Disposition: form-data; name="file"; filename="${name}"\r\n\r\n${"x".repeat(1_000)}\r\n`;
  const pieces = [`${part("a.ifc")}--b\r\n`, part("b.ifc").slice("--b\r\n".length), "--b--\r\n"];
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const next = pieces.shift();
      if (next === undefined) return controller.close();
      controller.enqueue(new TextEncoder().encode(next));
      await Bun.sleep(50);
    },
  });
  const headers = { "content-type": "multipart/form-data; boundary=b" };
  const request = new Request("http://x/", { method: "POST", headers, body, duplex: "half" } as RequestInit);
  const dropped: string[] = [];
  const take = async (name: string, given: AsyncIterable<Uint8Array>) => {
    for await (const _ of given);
    return name;
  };
  const drop = async (name: string) => void dropped.push(name);
  expect(await oneFile(request, "file", take, drop).catch((error) => error)).toMatchObject({ code: "invalid" });
  expect(dropped).toEqual(["a.ifc"]);
});

test("a sender that falls silent is given up, and what it sent is dropped", async () => {
  let ended: unknown;
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      const head = '--b\r\nContent-Disposition: form-data; name="file"; filename="a.ifc"\r\n\r\nsome';
      controller.enqueue(new TextEncoder().encode(head));
    },
  });
  const headers = { "content-type": "multipart/form-data; boundary=b" };
  const request = new Request("http://x/", { method: "POST", headers, body, duplex: "half" } as RequestInit);
  const take = async (_name: string, pieces: AsyncIterable<Uint8Array>) => {
    try {
      for await (const _ of pieces);
    } catch (error) {
      ended = error;
      throw error;
    }
  };
  const answered = oneFile(request, "file", take, async () => {}, 100).catch((error) => error);
  expect(await answered).toMatchObject({ code: "bad_request", detail: "Nothing arrived for 0.1 s." });
  expect(ended).toBe(await answered);
});

test("the same content has the same digest after 40 MiB through upload and download, side by side", async () => {
  const stack = await startStack({ workers: 0 });
  const contents = Array.from({ length: 4 }, () => randomBytes(10 * 1024 * 1024));
  const digest = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
  const found = await Promise.all(
    contents.map(async (content, i) => {
      const data = new FormData();
      data.append("file", new File([content], `side${i}.ifc`));
      expect((await fetch(`${stack.url}/upload/ifc`, { method: "POST", body: data })).status).toBe(200);
      const { url } = (await (await stack.post("/create_download_link", { file_path: `side${i}.ifc` })).json()) as {
        url: string;
      };
      return digest(new Uint8Array(await (await fetch(stack.url + url)).arrayBuffer()));
    }),
  );
  expect(found).toEqual(contents.map(digest));
  await stack.stop();
}, 60_000);

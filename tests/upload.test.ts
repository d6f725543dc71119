/** POST /upload: what lies in /uploads afterwards, and that nothing else does. */
import { describe, expect, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import { existsSync, linkSync, mkdirSync, readFileSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { hostname } from "node:os";
import { join } from "node:path";
import { gatewayForFiles, LIMIT, part, RUNTIMES, SUBMIT } from "./support/files.ts";
import { startStack, until } from "./support/stack.ts";

for (const runtime of RUNTIMES) {
  describe(`uploads under ${runtime}`, () => {
    const at = gatewayForFiles(runtime);
    const { call, json, send, raw, answer, lying, nothingLeft } = at;

    test("an upload lies in /uploads under its name, with exactly the old gateway's answer", async () => {
      const response = await send("house.ifc", "ISO-10303-21;");
      expect(response.status).toBe(200);
      expect(await response.json()).toEqual({
        message: "IFC file house.ifc uploaded successfully",
        file_path: "/uploads/house.ifc",
      });
      expect(readFileSync(join(at.uploads, "house.ifc"), "utf8")).toBe("ISO-10303-21;");
      await nothingLeft();
    });

    test("bytes arrive as they were, of all kinds and sizes, also those that look like the form's own", async () => {
      for (const content of [randomBytes(3_000_001), Buffer.alloc(0), Buffer.from("\r\n--b\r\n--\r\n------")]) {
        expect((await send("bytes.ifc", content)).status).toBe(200);
        expect(Buffer.compare(readFileSync(join(at.uploads, "bytes.ifc")), content)).toBe(0);
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
        expect(existsSync(join(at.uploads, kept))).toBe(true);
      }
    });

    test("a name that is not UTF-8 is refused, so that no two such names are one file", async () => {
      const before = lying();
      const form = `${part('name="file"; filename="Geb\u00e4ude.ifc"')}--b--\r\n`;
      const body = Buffer.from(form, "latin1");
      const headers = { "content-type": "multipart/form-data; boundary=b" };
      const refused = await answer(await at.call("/upload/ifc", { method: "POST", headers, body }));
      expect(refused).toMatchObject({ status: 422, detail: expect.stringContaining("send the name as UTF-8") });
      expect(lying()).toEqual(before);
      // as .NET sends it: no quotes around names, quotes around the boundary
      const words =
        "form-data; name=file; filename=\"=?utf-8?B?R2Viw6R1ZGUuaWZj?=\"; filename*=utf-8''Geb%C3%A4ude.ifc";
      const net = `--b\r\nContent-Disposition: ${words}\r\n\r\nISO-10303-21;\r\n--b--\r\n`;
      const taken = await answer(await raw(net, "/upload/ifc", 'multipart/form-data; boundary="b"'));
      expect(taken).toMatchObject({ status: 200, file_path: "/uploads/Geb\u00e4ude.ifc" });
    });

    const HOSTILE_NAMES = {
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
      "climbs to a directory": "../..",
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
        expect(existsSync(join(at.stack.dir, "evil.ifc"))).toBe(false);
      });
    }

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
        const socket = connect(at.port(), "127.0.0.1");
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
      linkSync(join(at.uploads, "twice.ifc"), join(at.uploads, "kept.ifc"));
      await send("twice.ifc", "second");
      expect(readFileSync(join(at.uploads, "twice.ifc"), "utf8")).toBe("second");
      expect(readFileSync(join(at.uploads, "kept.ifc"), "utf8")).toBe("first");
    });

    test("a link of that name is replaced and not written through; a directory is told", async () => {
      const outside = join(at.stack.dir, "outside.ifc");
      writeFileSync(outside, "outside");
      symlinkSync(outside, join(at.uploads, "linked.ifc"));
      mkdirSync(join(at.uploads, "dir.ifc"), { recursive: true });
      expect((await send("linked.ifc", "inside")).status).toBe(200);
      expect(readFileSync(outside, "utf8")).toBe("outside");
      expect((await send("dir.ifc", "x")).status).toBe(409);
      await nothingLeft();
    });

    test("a gateway that was killed leaves a part; the next start clears it, and none of the living", async () => {
      const socket = connect(at.port(), "127.0.0.1");
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
      for (const name of [living, elsewhere, ancient]) writeFileSync(join(at.uploads, name), "x");
      utimesSync(
        join(at.uploads, ancient),
        new Date(Date.now() - 25 * 3_600_000),
        new Date(Date.now() - 25 * 3_600_000),
      );
      at.stack.gateway.kill("SIGKILL");
      await at.stack.gateway.exited;
      socket.destroy();
      expect(parts().length).toBe(4);
      at.stack.gateway = await at.stack.startGateway();
      await until(
        () => parts().length === 2,
        5_000,
        () => parts().join(" "),
      );
      expect(parts()).toEqual([elsewhere, living].sort());
      for (const name of parts()) rmSync(join(at.uploads, name));
    }, 30_000);
  });
}

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

/** Which file a path means, and which it must never mean: the listing, links, /ifc2json. */
import { beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { gatewayForFiles, READ, RUNTIMES } from "./support/files.ts";
import { freePort } from "./support/redis.ts";
import { until } from "./support/stack.ts";

for (const runtime of RUNTIMES) {
  describe(`paths under ${runtime}`, () => {
    const at = gatewayForFiles(runtime, () => ({ IFC2JSON_URL: "http://127.0.0.1:9" }));
    const { call, json, send, link } = at;

    beforeAll(() => {
      const output = join(at.stack.dir, "output");
      for (const dir of ["json/deep", ".hidden"]) mkdirSync(join(output, dir), { recursive: true });
      writeFileSync(join(at.uploads, "house.ifc"), "ISO-10303-21;");
      writeFileSync(join(output, "json/house.json"), '{"a": [1, 2]}');
      writeFileSync(join(output, "json/deep/x.json"), "{}");
      writeFileSync(join(output, ".hidden/secret.ifc"), "x");
      writeFileSync(join(output, ".gitkeep"), "");
      writeFileSync(join(output, "json/.hidden.json"), "{}");
      writeFileSync(join(at.uploads, ".longhaul-h-1-a.part"), "not yet whole");
      writeFileSync(join(at.stack.dir, "outside.json"), '{"outside": true}');
      symlinkSync(join(at.stack.dir, "outside.json"), join(output, "json/out.json"));
      symlinkSync(join(output, "json/house.json"), join(output, "json/in.json"));
      symlinkSync(at.stack.dir, join(output, "json/outdir"));
      symlinkSync(output, join(output, "json/loop"));
      Bun.spawnSync(["mkfifo", join(output, "pipe.json")]);
    });

    test("scopes: a reader may list, link and download, not upload", async () => {
      expect((await call("/list_directories", {}, READ)).status).toBe(200);
      expect((await send("evil.ifc", "x", "ifc", READ)).status).toBe(403);
      expect((await json("/download-from-url", { url: "http://example.com/x" }, READ)).status).toBe(403);
      expect((await send("evil.ifc", "x", "ifc", "")).status).toBe(401);
      for (const path of ["/list_directories", "/ifc2json/x.json"]) expect((await call(path, {}, "")).status).toBe(401);
      expect((await json("/create_download_link", { file_path: "/uploads/a.ifc" }, "")).status).toBe(401);
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
      expect(await at.stack.redis.client.pttl(`lh:{token:${made.token}}`)).toBeLessThanOrEqual(30 * 60_000);
      const port = String(await freePort());
      await at.stack.startGateway({ PORT: port, DASHBOARD_PORT: "0" });
      for (const base of [at.stack.url, `http://127.0.0.1:${port}`]) {
        const response = await call(made.url, {}, "", base);
        expect(response.status).toBe(200);
        expect(await response.text()).toBe("ISO-10303-21;");
      }
    }, 20_000);

    test("a file is found under its name as macOS spells it, by links and in payloads", async () => {
      const apart = "Bu\u0308ro.ifc";
      await at.send(apart, "ISO-10303-21;");
      expect(at.lying()).toContain("B\u00fcro.ifc");
      const made = await link(`/uploads/${apart}`);
      expect([made.status, await (await call(made.url, {}, "")).text()]).toEqual([200, "ISO-10303-21;"]);
      const sent = async (filename: string) => {
        const answer = await at.json("/ifc2json", { filename, output_filename: apart });
        const { job_id: id } = (await answer.json()) as { job_id: string };
        const { payload } = (await (await call(`/jobs/${id}`)).json()) as { payload: Record<string, string> };
        return [payload.filename, payload.output_filename];
      };
      expect(await sent(apart)).toEqual(["B\u00fcro.ifc", "B\u00fcro.ifc"]);
      expect(await sent(`/uploads/${apart}`)).toEqual([`/uploads/B\u00fcro.ifc`, "B\u00fcro.ifc"]);
      // what nobody uploaded, or lies there under that very name, passes as it came
      writeFileSync(join(at.uploads, "Ha\u0308user.ifc"), "");
      writeFileSync(join(at.uploads, "H\u00e4user.ifc"), "");
      for (const name of ["Tu\u0308r.ifc", "Ha\u0308user.ifc"]) expect((await sent(name))[0]).toBe(name);
    });

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
      "a hidden file": ["/output/.gitkeep", 404],
      "a file in a hidden directory": ["/output/.hidden/secret.ifc", 404],
      "what another client is sending": ["/uploads/.longhaul-h-1-a.part", 404],
      "the same, relative": ["./.longhaul-h-1-a.part", 404],
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
        const refused = await link(path.replace("REAL", at.stack.dir));
        expect([refused.status, refused.token]).toEqual([status, undefined]);
        expect(refused.detail).toMatch(/\w/);
        if (status === 404 && what === "no such file") expect(refused.detail).toStartWith("File not found");
      });
    }

    test("a link may end at a hidden file, as every file of a volume does that Kubernetes mounts", async () => {
      symlinkSync(".hidden/secret.ifc", join(at.stack.dir, "output", "shown.ifc"));
      const { token } = await link("/output/shown.ifc");
      rmSync(join(at.stack.dir, "output", "shown.ifc"));
      expect(token).toMatch(/^[\w-]{43}$/);
    });

    test("a link is judged again when it is used: the file may have become a link to elsewhere, or be gone", async () => {
      await send("swap.ifc", "mine");
      const { token } = await link("/uploads/swap.ifc");
      rmSync(join(at.uploads, "swap.ifc"));
      expect((await call(`/download/${token}`, {}, "")).status).toBe(404);
      symlinkSync(join(at.stack.dir, "outside.json"), join(at.uploads, "swap.ifc"));
      const refused = await call(`/download/${token}`, {}, "");
      expect(refused.status).toBe(422);
      expect(await refused.text()).not.toContain('"outside"');
    });

    test("a directory that turns into a link to elsewhere, again and again, never gives what lies there", async () => {
      const race = join(at.uploads, "race");
      mkdirSync(race, { recursive: true });
      mkdirSync(join(at.stack.dir, "elsewhere"));
      writeFileSync(join(race, "x.ifc"), "inside");
      writeFileSync(join(at.stack.dir, "elsewhere", "x.ifc"), "elsewhere");
      const { url } = await link("/uploads/race/x.ifc");
      const swap = `const fs = require("fs"); const [race, other] = process.argv.slice(-2);
        for (;;) {
          fs.renameSync(race, race + "2"); fs.symlinkSync(other, race);
          fs.unlinkSync(race); fs.renameSync(race + "2", race);
        }`;
      const swapper = Bun.spawn([process.execPath, "-e", swap, race, join(at.stack.dir, "elsewhere")]);
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
        expect([path, response.status, response.headers.get("content-type")]).toEqual([path, 200, "application/json"]);
        if (path.includes("house")) expect(await response.json()).toEqual({ a: [1, 2] });
      }
    });

    test("GET /ifc2json gives nothing else", async () => {
      const refused: Record<string, number> = {
        "none.json": 404,
        ".hidden.json": 404,
        "%2ehidden.json": 404,
        "/output/.hidden/secret.ifc": 404,
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
      const socket = connect(at.port(), "127.0.0.1");
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
}

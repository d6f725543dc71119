import { describe, expect, test } from "bun:test";
import { mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { app as json } from "../ifc2json.ts";
import { app as clash } from "../ifcclash.ts";
import { app as convert } from "../ifcconvert.ts";
import { call, perforatedWall, sandbox } from "./setup.ts";

const box = await sandbox();
const apps = {
  ifcconvert: (file: string, out = "x.glb") =>
    call(convert, "/ifcconvert", { input_filename: file, output_filename: out }),
  ifc2json: (file: string, out = "x.json") => call(json, "/ifc2json", { filename: file, output_filename: out }),
  ifcclash: (file: string, out = "x.json") =>
    call(clash, "/ifcclash", { clash_sets: [{ name: "s", a: [{ file }] }], output_filename: out }),
};

for (const [name, ask] of Object.entries(apps)) {
  describe(name, () => {
    test("a missing file is 404 by the name that was given", async () => {
      for (const file of ["nope.ifc", "/uploads/no/such.ifc", "/output/nope.ifc", "house.ifc/nope.ifc"]) {
        expect(await ask(file)).toEqual({ status: 404, body: { detail: `File ${file} not found` } });
      }
    });

    const house = perforatedWall(1);
    const unusable: Record<string, [content: string | Uint8Array, says: string]> = {
      empty: ["", "empty"],
      "not IFC": ["<html>hello</html>", "does not begin with ISO-10303-21;"],
      "random bytes": [new Uint8Array(5000).map((_, i) => (i * 7919) % 251), "does not begin"],
      "cut short": [house.slice(0, 2000), "cut short"],
      "a zip": [`PK\u0003\u0004${house}`, "ZIP"],
      "only the envelope": ["ISO-10303-21;\nEND-ISO-10303-21;\n", "usable"],
      "an unknown schema": [house.replace("'IFC4'", "'AP214'"), "usable"],
      "no data": [house.replace(/DATA;[\s\S]*?ENDSEC;/, "DATA;\nENDSEC;"), "no IfcProject"],
      "no products": [house.replaceAll(/^#\d+=IFC(SITE|BUILDING\w*|WALL|OPENINGELEMENT)\(.*$/gm, ""), "no products"],
    };
    for (const [what, [content, says]] of Object.entries(unusable)) {
      test(`${what}: 422 with a readable detail`, async () => {
        await Bun.write(box.uploads("unusable.ifc"), content);
        const { status, body } = await ask("unusable.ifc");
        expect(body.detail).toContain(says);
        expect(status).toBe(422);
      });
    }

    test("a file full of broken references answers, and does not crash", async () => {
      await Bun.write(box.uploads("broken.ifc"), house.replaceAll(/#(\d)(?=[,)])/g, "#99$1"));
      const { status, body } = await ask("broken.ifc");
      expect([200, 422]).toContain(status);
      if (status !== 200) expect(typeof body.detail).toBe("string");
    });

    test("a body that is not JSON is 400, a wrong field 422 by its name", async () => {
      const [app, path] = { ifcconvert: [convert, "/ifcconvert"], ifc2json: [json, "/ifc2json"] }[name] ?? [
        clash,
        "/ifcclash",
      ];
      const call_ = call as (...args: unknown[]) => ReturnType<typeof call>;
      expect((await call_(app, path, "{")).body).toEqual({ detail: "The body is not valid JSON" });
      expect((await call_(app, path, {})).body.detail).toContain("output_filename: is required");
      const { status, body } = await call_(app, path, { output_filename: 7 });
      expect(status).toBe(422);
      expect(body.detail).toContain("output_filename");
      expect(body.errors.map((error: { path: string }) => error.path)).toContain("output_filename");
      expect((await call_(app, path, "null")).status).toBe(422);
    });
  });
}

describe("paths", () => {
  mkdirSync(box.uploads("folder"), { recursive: true });
  mkdirSync(join(box.dir, "uploads-secret"));
  symlinkSync("/etc", box.uploads("etc"));
  symlinkSync("/etc/passwd", box.uploads("link.ifc"));
  symlinkSync("loop.ifc", box.uploads("loop.ifc"));

  const harmless = ["../uploads-secret/a.ifc", "etc/passwd", "link.ifc", "loop.ifc", "folder"];
  const escapes = [
    "../../etc/passwd",
    "/etc/passwd",
    "/uploads/../../../etc/passwd",
    "folder/../../../etc/passwd",
    "/uploadsx/a.ifc",
    "../uploads-secret/a.ifc",
    "etc/passwd",
    "link.ifc",
    "/uploads/etc/../etc/passwd",
    "loop.ifc",
    "a\0.ifc",
    "..\\..\\windows\\system.ini",
    "/proc/self/environ",
    `${"a/".repeat(3000)}a.ifc`,
    "   ",
    "/",
    "folder",
    "/uploads",
  ];
  for (const path of escapes) {
    test(`${JSON.stringify(path.slice(0, 40))} is refused for reading and for writing`, async () => {
      const read = await apps.ifc2json(path);
      expect(read.status).toBe(400);
      expect(read.body.detail).toBeString();
      // Under /output/json a relative name is another file, and a harmless one where no link is in its way.
      if (harmless.includes(path)) return;
      expect((await apps.ifc2json("house.ifc", path)).status).toBe(400);
    });
  }

  test("a link inside the volumes is followed", async () => {
    symlinkSync(box.uploads("house.ifc"), box.uploads("same.ifc"));
    expect((await apps.ifc2json("same.ifc")).status).toBe(200);
  });

  test("an output link that points out of the volumes is refused", async () => {
    expect((await apps.ifc2json("house.ifc", "/uploads/link.ifc")).status).toBe(400);
    expect((await apps.ifc2json("house.ifc", "/uploads/etc/x.json")).status).toBe(400);
    expect((await apps.ifc2json("house.ifc", "/uploads/loop.ifc")).status).toBe(400);
  });

  test("an output under a file is refused", async () => {
    expect((await apps.ifc2json("house.ifc", "/uploads/house.ifc/x.json")).status).toBe(400);
  });

  test("folders of an output are made", async () => {
    const { body } = await apps.ifc2json("house.ifc", "a/b/c.json");
    expect(body.output_path).toBe("/output/json/a/b/c.json");
    expect(await Bun.file(box.output("json/a/b/c.json")).exists()).toBe(true);
  });
});

test("every answer names its job, a refusal and an unknown route too; without X-Job-Id none is named", async () => {
  const answer = (path: string, headers: Record<string, string>) =>
    convert.request(path, { method: "POST", headers: { "content-type": "application/json", ...headers }, body: "{}" });
  for (const [path, status] of [
    ["/ifcconvert", 422],
    ["/nowhere", 404],
  ] as const) {
    const named = await answer(path, { "x-job-id": "ifcconvert_1" });
    expect([named.status, named.headers.get("x-job-id")]).toEqual([status, "ifcconvert_1"]);
    expect((await answer(path, {})).headers.get("x-job-id")).toBeNull();
  }
});

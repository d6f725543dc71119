/** The form of an upload: those that are refused, and one that arrives in pieces of any size. */
import { describe, expect, test } from "bun:test";
import { oneFile } from "../shared/form.ts";
import { gatewayForFiles, part, RUNTIMES } from "./support/files.ts";

for (const runtime of RUNTIMES) {
  describe(`forms under ${runtime}`, () => {
    const at = gatewayForFiles(runtime);
    const { raw, answer, lying, nothingLeft } = at;

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
  expect(await answered).toMatchObject({
    code: "bad_request",
    detail: "Nothing of the file arrived for 100 ms; send it again.",
  });
  expect(ended).toBe(await answered);
});

/** Answers of old servers and frameworks: readable in one way only, so that their job need not fail. */
import { expect, test } from "bun:test";
import { deflateSync } from "node:zlib";
import { keptOf, messageOf, says, serve, sleep, underBoth } from "./fixtures/call-harness.ts";
import { http, JSON_TYPE } from "./fixtures/raw-server.ts";

const FOLDED = `HTTP/1.1 200 OK\r\nX-Trace: one\r\n two\r\n\tthree\r\n${JSON_TYPE}\r\nContent-Length: 2\r\n\r\n{}`;

underBoth(({ call }) => {
  test("a header that goes on in the next line is read, however it is cut", async () => {
    for (const text of [
      FOLDED,
      FOLDED.replace("Content-Length: 2", "Content-Length:\r\n 2"),
      `HTTP/1.1 103 H\r\n\r\n${FOLDED}`,
    ]) {
      for (const cut of [0, text.indexOf("one") + 5, text.indexOf("two"), text.length - 3]) {
        const { url } = await serve(async (socket) => {
          socket.write(text.slice(0, cut));
          if (cut > 0) await sleep(20);
          socket.write(text.slice(cut));
        });
        expect([cut, await call({ url })]).toMatchObject([cut, { kind: "finished", result: "{}" }]);
      }
    }
  });

  test("a head that cannot be read fails at once, and the job keeps the bytes that came in one piece", async () => {
    for (const text of [
      `HTTP/1.1 200 OK\r\n folded: behind the status\r\n${JSON_TYPE}\r\n\r\n{"hours": 2}`,
      `HTTP/1.1 200 OK\r\nno colon here\r\n${JSON_TYPE}\r\n\r\n{"hours": 2}`,
    ]) {
      const { url } = await says(text);
      const outcome = await call({ url, timeoutMs: 5_000 });
      expect(outcome).toMatchObject({ kind: "failed", error: { code: "bad_answer" } });
      expect(keptOf(outcome)?.bytes.toString()).toBe(text);
    }
  });

  // Bun's fetch takes a reset for the end
  test("a number without a length is cut short by a reset: it may be the beginning of another", async () => {
    const { url } = await serve((socket) => {
      socket.write(`HTTP/1.0 200 OK\r\n${JSON_TYPE}\r\n\r\n12`);
      setTimeout(() => socket.resetAndDestroy(), 50);
    });
    expect(await call({ url })).toMatchObject({ kind: "retry", error: { code: "cut_short" } });
  });
});

underBoth(({ call }) => {
  test("JSON in the charset that its type names is stored as UTF-8", async () => {
    const text = '{"name": "Müller", "n": 10.50}';
    const utf16 = Buffer.from(text, "utf16le");
    for (const [bytes, type] of [
      [Buffer.from(text, "latin1"), "application/json; charset=iso-8859-1"],
      [Buffer.from(text, "latin1"), 'application/json;charset="ISO-8859-1"; v=1'],
      [Buffer.from(text, "latin1"), "application/json; charset=windows-1252"],
      [utf16, "application/json; charset=utf-16le"],
      [Buffer.concat([Buffer.from([0xff, 0xfe]), utf16]), "application/json"],
      [Buffer.from(text), "application/json; charset=iso-8859-1"], // it says so, and sends UTF-8
    ] as const) {
      const { url } = await says(http(200, bytes, `Content-Type: ${type}`));
      expect([type, await call({ url })]).toMatchObject([type, { kind: "finished", result: text, type: "" }]);
    }
    const own = await says(
      http(200, Buffer.from(text, "latin1"), "Content-Type: application/geo+json; charset=latin1"),
    );
    expect(await call({ url: own.url })).toMatchObject({ result: text, type: "application/geo+json" });
  });

  test("bytes that are text in no charset that their type names are still no JSON", async () => {
    for (const charset of ["", "; charset=utf-8", "; charset=us-ascii2", "; charset=utf-16le"]) {
      const { url } = await says(
        http(200, Buffer.from('{"n": "Mü', "latin1"), `Content-Type: application/json${charset}`),
      );
      expect(await call({ url })).toMatchObject({ kind: "failed", error: { code: "bad_answer" } });
    }
  });

  test("an error's text is read in its charset", async () => {
    const { url } = await says(
      http(
        400,
        Buffer.from('{"detail": "Datei für Tür fehlt"}', "latin1"),
        "Content-Type: application/json; charset=iso-8859-1",
      ),
    );
    expect(messageOf(await call({ url }))).toBe("ifcconvert answered 400: Datei für Tür fehlt");
  });

  test("whole JSON without a length is the answer though its connection is reset behind it", async () => {
    const head = `HTTP/1.0 200 OK\r\n${JSON_TYPE}\r\n`;
    const answers: [string | Uint8Array, boolean][] = [
      [`${head}\r\n{"v": [1, 2]}`, true],
      [`${head}\r\n{"v": [1, 2`, false],
      [`${head}Content-Length: 20\r\n\r\n{"v": [1, 2]}`, false],
      [`HTTP/1.1 200 OK\r\n${JSON_TYPE}\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n{"v": [1, 2]}\r\n`, false],
      [
        Buffer.concat([Buffer.from(`${head}Content-Encoding: deflate\r\n\r\n`), deflateSync("[1]").subarray(0, -4)]),
        false,
      ],
    ];
    for (const [answer, isWhole] of answers) {
      const { url } = await serve((socket) => {
        socket.write(answer);
        setTimeout(() => socket.resetAndDestroy(), 50);
      });
      const { kind } = await call({ url });
      expect([String(answer), kind === "finished"]).toEqual([String(answer), isWhole]);
    }
  });
}, true);

/** What an error's text keeps of a long answer, a traceback and a page of HTML; and what a list shows of it. */

import { expect, test } from "bun:test";
import { Buffer } from "node:buffer";
import { bothEnds, detail, excerpt, headline } from "../shared/answer.ts";
import { limit } from "./support/patience.ts";
import { startStack } from "./support/stack.ts";

const TRACEBACK = [
  "Traceback (most recent call last):",
  ...Array.from({ length: 300 }, (_, i) => `  File "/app/step_${i}.py", line ${i}, in run\n    self.next(model)`),
  "ifcopenshell.Error: Instance #4711 not found",
].join("\n");
const page = (html: string) => detail(Buffer.from(html), "text/html");

test("a long traceback keeps its first and last lines, and says how much stood between", () => {
  for (const [body, type] of [
    [TRACEBACK, "text/plain"],
    [JSON.stringify({ detail: TRACEBACK }), "application/json"],
  ] as const) {
    const said = detail(Buffer.from(body), type);
    expect(said).toStartWith("Traceback (most recent call last):\n");
    expect(said).toEndWith("\nifcopenshell.Error: Instance #4711 not found");
    expect(said).toContain(`\n… ${(TRACEBACK.length - 4_096).toLocaleString("en-US")} characters …\n`);
    expect(said.length).toBeLessThan(4_200);
  }
});

test("a text of exactly both ends stays whole, one of a character more is cut", () => {
  expect(bothEnds("a".repeat(20), 10)).toBe("a".repeat(20));
  expect(bothEnds(`${"a".repeat(10)}b${"c".repeat(10)}`, 10)).toBe(
    `${"a".repeat(10)}\n… 1 character …\n${"c".repeat(10)}`,
  );
  expect(bothEnds(`${"a".repeat(9)}😀${"b".repeat(20)}😀${"c".repeat(9)}`, 10).isWellFormed()).toBe(true);
});

test("a page of HTML becomes its title and its text, without scripts and file paths", () => {
  const flask = `<!doctype html><html><head><title>KeyError: &#39;storeys&#39; // Werkzeug Debugger</title><style>b{}</style>
    <script>evil("<title>")</script></head><body><h1>KeyError</h1>
    <pre>File "/usr/lib/python3/dist-packages/flask/app.py", line 9, in full &lt;b&gt; C:\\srv\\app\\main.py</pre></body></html>`;
  expect(page(flask)).toBe(
    `(a page of HTML) KeyError: 'storeys' // Werkzeug Debugger: KeyError File "app.py", line 9, in full <b> main.py`,
  );
  expect(page("<html><head><title>502 Bad Gateway</title></head><h1>502 Bad Gateway</h1><hr>nginx</html>")).toBe(
    "(a page of HTML) 502 Bad Gateway nginx",
  );
  expect(page("<title>Only a title</title>")).toBe("(a page of HTML) Only a title");
  expect(page("<pre>Cannot POST /ifcclash/run</pre>")).toBe("(a page of HTML) Cannot POST /ifcclash/run");
  const began = performance.now();
  page("<title>".repeat(40_000) + "<".repeat(40_000));
  expect(performance.now() - began).toBeLessThan(limit(1_000));
});

test("a path in a service's own words stays: it names the client's file", () => {
  const said = detail(Buffer.from('{"detail": "File /uploads/house.ifc not found"}'), "application/json");
  expect(said).toBe("File /uploads/house.ifc not found");
});

test("an excerpt is one short beginning", () => {
  expect(excerpt(Buffer.from("x".repeat(1_000)), "text/plain")).toBe(`${"x".repeat(199)}…`);
});

test("a list's line of a traceback is its last line, of any other text the text", () => {
  expect(headline(`ifcclash answered 500: ${TRACEBACK}`)).toBe(
    "ifcclash answered 500: ifcopenshell.Error: Instance #4711 not found",
  );
  const cut = bothEnds(`${"warning\n".repeat(1_000)}${TRACEBACK}`, 2_048);
  expect(headline(cut)).toEndWith("ifcopenshell.Error: Instance #4711 not found");
  for (const text of ["answered 404: File x.ifc not found", "TypeError: x\n    at run (main.js:1:2)"])
    expect(headline(text)).toBe(text);
});

test("a service's traceback: whole ends in the record, the attempt and the status, its last line in lists", async () => {
  const stack = await startStack();
  try {
    const id = await stack.submit({ status: 500, detail: TRACEBACK });
    const last = "ifcopenshell.Error: Instance #4711 not found";
    expect((await stack.ended(id)).error).toContain(last);
    const record = await stack.get(`/jobs/${id}`);
    expect(record.error.message).toEndWith(last);
    expect(record.attempts[0].message).toEndWith(last);
    const { jobs } = await stack.get("/jobs?q=%234711");
    expect(jobs[0].error.message).toBe(`work answered 500: ${last}`);
  } finally {
    await stack.stop();
  }
}, 60_000);

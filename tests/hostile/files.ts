/** Files: paths, uploads, and URLs that the gateway is asked to fetch or to call. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { all, type Case, type Group, head, type World } from "./world.ts";

/** Puts the traps into /uploads, once. */
function lay(w: World): void {
  const uploads = join(w.stack.dir, "uploads");
  mkdirSync(uploads, { recursive: true });
  if (readdirSync(uploads).includes("in.ifc")) return;
  writeFileSync(join(uploads, "a.ifc"), "hello");
  writeFileSync(join(uploads, ".hidden.ifc"), "secret");
  mkdirSync(join(uploads, "dir"));
  writeFileSync(join(w.stack.dir, "uploads-evil"), "secret");
  const links = {
    "in.ifc": "a.ifc",
    "out.ifc": "/etc/passwd",
    etc: "/etc",
    loop: "loop",
    up: "..",
    env: "/proc/self/environ",
    zero: "/dev/zero",
  };
  for (const [name, target] of Object.entries(links)) symlinkSync(target, join(uploads, name));
  execFileSync("mkfifo", [join(uploads, "pipe")]);
}
const link = (path: string) => (w: World) => {
  lay(w);
  return w.ask("POST", "/create_download_link", { body: JSON.stringify({ file_path: path }) });
};
const links = (...paths: string[]) => all(...paths.map(link));
const get = (path: string) => (w: World) => w.ask("GET", path);

const paths: Case[] = [
  [
    "`../x`, `/uploads/../x`, `%2e%2e%2fx`, `a\\b`, `C:\\x`, a NUL, `%00`",
    "422 invalid",
    links("../x", "/uploads/../x", "%2e%2e%2fx", "a\\b", "C:\\x", "a\0", "a%00"),
  ],
  [
    "`/etc/passwd`, `//etc/passwd`, `/uploads-evil`",
    "422 invalid",
    links("/etc/passwd", "//etc/passwd", "/uploads-evil"),
  ],
  [
    "a link out: to a file, a directory, /proc/self/environ, /dev/zero",
    "422 invalid",
    links("out.ifc", "etc/passwd", "env", "zero"),
  ],
  ["`up/uploads-evil` over a link to ..", "422 invalid", link("up/uploads-evil")],
  ["a link inside", "200", link("in.ifc")],
  [
    "a link to itself, a pipe, a directory, `file:///etc/passwd`, `%252e%252e/x`",
    "404 unknown_file",
    links("loop", "pipe", "/uploads/dir", "file:///etc/passwd", "%252e%252e/x"),
  ],
  [
    "a hidden file, such as another client's upload in the making",
    "404 unknown_file",
    links(".hidden.ifc", "/uploads/.hidden.ifc"),
  ],
  ["a name of 300, a lone surrogate", "404 unknown_file", links("x".repeat(300), "\ud800")],
  ["a path of 1,025, none", "422 invalid", links("x".repeat(1_025), "")],
  [
    "/download/ and 43 letters, `%00`, 5,000 letters",
    "404 unknown_file",
    all(...["a".repeat(43), "%00", "a".repeat(5_000)].map((token) => get(`/download/${token}`))),
  ],
  [
    "/ifc2json/`..%2f..%2fx`, `/etc/passwd`, `/uploads/a.ifc`",
    "422 invalid",
    all(...["..%2f..%2fx", "/etc/passwd", "/uploads/a.ifc"].map((name) => get(`/ifc2json/${name}`))),
  ],
  ["/ifc2json/`%zz`", "400 bad_request", get("/ifc2json/%zz")],
  [
    "/list_directories?limit=0, 1e9",
    "422 invalid",
    all(get("/list_directories?limit=0"), get("/list_directories?limit=1e9")),
  ],
  [
    "a page of HTML, by a link",
    "200, an attachment, sandbox; default-src 'none'",
    async (w) => {
      writeFileSync(join(w.stack.dir, "uploads", '"x;\u202e.html'), "<script>alert(1)</script>");
      const { text } = await w.whole("POST", "/create_download_link", { body: '{"file_path":"\\"x;\u202e.html"}' });
      const { status, headers } = await w.whole("GET", JSON.parse(text).url, { key: null });
      const how = headers.get("content-disposition")?.split(";", 1);
      return `${status}, an ${how}, ${headers.get("content-security-policy")}`;
    },
  ],
];

const FORM = "multipart/form-data; boundary=b";
const part = (name: string, content = "x", field = "file") =>
  `--b\r\nContent-Disposition: form-data; name="${field}"; filename="${name}"\r\n\r\n${content}\r\n`;
const post =
  (body: string, type = FORM, kind = "ifc") =>
  async (w: World) => {
    const answer = await w.ask("POST", `/upload/${kind}`, { body, headers: { "content-type": type } });
    const left = readdirSync(join(w.stack.dir, "uploads")).filter((name) => name.endsWith(".part"));
    return left.length === 0 ? answer : `${answer}, left behind: ${left}`;
  };
const named = (name: string) => post(`${part(name)}--b--\r\n`);
const endless = (begin: string) => (w: World) => {
  const text = head("POST /upload/ifc HTTP/1.1", `Content-Type: ${FORM}`, "Transfer-Encoding: chunked");
  const piece = `4000\r\n${"x".repeat(0x4000)}\r\n`;
  return w.raw(`${text}${begin.length.toString(16)}\r\n${begin}\r\n${piece.repeat(200)}`, { ms: 3_000 });
};

const uploads: Case[] = [
  [
    "`..`, `../..`, `a%2f..%2fb.ifc`, `filename*=UTF-8''..%2fx.ifc`",
    "422 invalid",
    all(
      named(".."),
      named("../.."),
      named("a%2f..%2fb.ifc"),
      post("--b\r\nContent-Disposition: form-data; name=\"file\"; filename*=UTF-8''..%2fx.ifc\r\n\r\nx\r\n--b--\r\n"),
    ),
  ],
  [
    "`.ifc`, `...ifc`, `.longhaul-h-1-a.part.ifc`",
    "422 invalid",
    all(...[".ifc", "...ifc", ".longhaul-h-1-a.part.ifc"].map(named)),
  ],
  [
    "a NUL, a tab, 256 bytes, no name",
    "422 invalid",
    all(...["a\0.ifc", "a\tb.ifc", `${"x".repeat(252)}.ifc`, ""].map(named)),
  ],
  ["`a.ifc.`, `a.ifc::$DATA`, `a.exe`", "400 bad_request", all(...["a.ifc.", "a.ifc::$DATA", "a.exe"].map(named))],
  [
    "`C:\\a\\b.ifc`, `CON.ifc`, `-rf.ifc`, `$(id).ifc`, `<img onerror=…>.ifc`: names like others",
    "200",
    all(...["C:\\\\a\\\\b.ifc", "CON.ifc", "-rf.ifc", "$(id).ifc", "<img src=x onerror=alert(1)>.ifc"].map(named)),
  ],
  ["exactly MAX_UPLOAD_BYTES", "200", post(`${part("full.ifc", "x".repeat(1_048_576))}--b--\r\n`)],
  ["a byte more", "413 too_large", post(`${part("over.ifc", "x".repeat(1_048_577))}--b--\r\n`)],
  ["a file without end, chunked", "413 too_large", endless(part("endless.ifc").slice(0, -2))],
  ["no file at all, but a preamble without end", "413 too_large", endless("nothing")],
  ["a field without end", "413 too_large", endless('--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n')],
  [
    "cut short, no boundary, no part, a boundary of 5,000",
    "400 bad_request",
    all(
      post(part("cut.ifc")),
      post(part("a.ifc"), "multipart/form-data"),
      post("nothing"),
      post(part("a.ifc"), `multipart/form-data; boundary=${"b".repeat(5_000)}`),
    ),
  ],
  [
    "two files, another field, text in the field, 1,000 fields, a part's header of 200 KB",
    "422 invalid",
    all(
      post(`${part("a.ifc")}${part("b.ifc")}--b--\r\n`),
      post(`${part("a.ifc", "x", "model")}--b--\r\n`),
      post('--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n'),
      post(`${'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\nx\r\n'.repeat(1_000)}${part("a.ifc")}--b--\r\n`),
      post(`--b\r\nX: ${"a".repeat(200_000)}\r\n${part("a.ifc").slice(5)}--b--\r\n`),
    ),
  ],
  ["JSON, text", "415 not_multipart", all(post("{}", "application/json"), post("x", "text/plain"))],
  [
    "/upload/nope, /upload/__proto__, /upload/%00",
    "400 bad_request",
    all(...["nope", "__proto__", "%00"].map((kind) => post(`${part("a.ifc")}--b--\r\n`, FORM, kind))),
  ],
];

const fetched = (url: string) => (w: World) => w.ask("POST", "/download-from-url", { body: JSON.stringify({ url }) });
const urls = (list: string[]) => all(...list.map(fetched));
const called = (url: string) => (w: World) =>
  w.ask("POST", "/jobs", { body: JSON.stringify({ operation: "work", payload: {}, callback_url: url }) });
const targets: Case[] = [
  [
    "`127.0.0.1`, `127.1`, `2130706433`, `0x7f.1`, `0177.0.0.1`, `①②⑦.⓪.⓪.①`, `127.0.0.1.`, `0`",
    "422 invalid",
    urls(
      ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "①②⑦.⓪.⓪.①", "127.0.0.1.", "0"].map(
        (host) => `http://${host}/`,
      ),
    ),
  ],
  [
    "`[::1]`, `[::]`, IPv4 within IPv6: mapped, NAT64, 6to4",
    "422 invalid",
    urls(
      [
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::127.0.0.1",
        "fd00:ec2::254",
      ].map((host) => `http://[${host}]/`),
    ),
  ],
  [
    "`169.254.169.254`, `100.100.100.200`, `168.63.129.16`, `10.0.0.1`, `192.168.0.1`, `224.0.0.1`, `192.0.2.1`",
    "422 invalid",
    urls(
      ["169.254.169.254", "100.100.100.200", "168.63.129.16", "10.0.0.1", "192.168.0.1", "224.0.0.1", "192.0.2.1"].map(
        (host) => `http://${host}/`,
      ),
    ),
  ],
  ["a name with a private address", "422 invalid", fetched("http://localhost/")],
  [
    "`user:pass@`, `example.com@127.0.0.1`, `127.0.0.1#@example.com`, `127.0.0.1\\@example.com`",
    "422 invalid",
    urls([
      "http://u:p@example.com/",
      "http://example.com@127.0.0.1/",
      "http://127.0.0.1#@example.com/",
      "http://127.0.0.1\\@example.com/",
    ]),
  ],
  [
    "file:, ftp:, gopher:, data:, javascript:, no URL, port 0, port 99999, CR and LF",
    "422 invalid",
    urls([
      "file:///etc/passwd",
      "ftp://x/",
      "gopher://127.0.0.1:6379/_INFO",
      "data:,x",
      "javascript:1",
      "//127.0.0.1/",
      "x",
      "http://1.1.1.1:0/",
      "http://1.1.1.1:99999/",
      "http://a\r\nHost: b/",
    ]),
  ],
  [
    "an allowed server that redirects to 169.254.169.254, to another port of its own, to file:",
    "422 invalid",
    async (w) => {
      const heard = [];
      for (const at of ["http://169.254.169.254/", w.stack.url, "file:///etc/passwd"])
        heard.push(await fetched(`${w.source}/to?at=${encodeURIComponent(at)}`)(w));
      return [...new Set(heard)].join();
    },
  ],
  ["one that redirects to itself for ever", "502 source_failed", (w) => fetched(`${w.source}/to`)(w)],
  [
    "one that sends a gzip bomb, a file without end, a byte too many",
    "413 too_large",
    async (w) => {
      const heard = [];
      for (const path of ["bomb", "endless", "large"]) heard.push(await fetched(`${w.source}/${path}.ifc`)(w));
      return [...new Set(heard)].join();
    },
  ],
  ["one that sends gzip that is none", "502 source_failed", (w) => fetched(`${w.source}/packed.ifc`)(w)],
  ["one that names the file `../../climb.ifc`", "422 invalid", (w) => fetched(`${w.source}/climb.ifc`)(w)],
  ["a name that does not exist", "502 source_failed", fetched("http://nope.invalid/")],
  [
    "callback_url: `10.0.0.1`, `[::ffff:7f00:1]`, `ftp:`, `u:p@`, 2,049 characters",
    "422 invalid",
    all(
      ...[
        "http://10.0.0.1/",
        "http://[::ffff:7f00:1]/",
        "ftp://x/",
        "http://u:p@example.com/",
        `http://example.com/${"a".repeat(2_031)}`,
      ].map(called),
    ),
  ],
];

export const groups: Group[] = [
  { title: "Paths of files (POST /create_download_link and others)", cases: paths },
  { title: "Uploads", cases: uploads },
  { title: "URLs to fetch and to call", cases: targets },
];

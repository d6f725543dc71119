import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { allowance, checkTarget, GuardError, type GuardOptions, guardedFetch, isPublic } from "../shared/ssrf.ts";
import { DENO } from "./support/deno.ts";

type Seen = { method: string; url: string; headers: IncomingMessage["headers"]; body: string };
const seen: Seen[] = [];
let port = 0;
let other = 0;
const LOCAL = allowance(["127.0.0.1"], "ALLOW");

async function respond(request: IncomingMessage, response: ServerResponse) {
  let body = "";
  for await (const piece of request) body += piece;
  seen.push({ method: request.method ?? "", url: request.url ?? "", headers: request.headers, body });
  const url = new URL(request.url ?? "/", "http://x");
  const to = url.searchParams.get("to");
  if (to) return response.writeHead(Number(url.searchParams.get("status") ?? 302), { location: to }).end();
  if (url.pathname === "/loop") return response.writeHead(302, { location: "/loop" }).end();
  if (url.pathname === "/silent") return;
  if (url.pathname === "/stall") return void response.writeHead(200).write("some");
  if (url.pathname === "/cut") {
    response.writeHead(200, { "content-length": "1000" }).write("some");
    return void setTimeout(() => response.destroy(), 20);
  }
  if (url.pathname === "/big") return response.end("x".repeat(50_000));
  if (url.pathname === "/chunked") {
    response.write("x".repeat(25_000));
    return response.end("x".repeat(25_000));
  }
  if (url.pathname === "/declared") return void response.writeHead(200, { "content-length": "9999999" }).write("x");
  response.end(`hello from ${request.headers.host}`);
}
const server = createServer(respond);
const second = createServer(respond);
beforeAll(async () => {
  for (const each of [server, second]) await new Promise<void>((done) => each.listen(0, "127.0.0.1", done));
  port = (server.address() as AddressInfo).port;
  other = (second.address() as AddressInfo).port;
});
afterAll(() => {
  for (const each of [server, second]) {
    each.closeAllConnections();
    each.close();
  }
});

const get = (url: string, options: Partial<GuardOptions> = {}) =>
  guardedFetch(url, { maxBytes: 1_000_000, timeoutMs: 5_000, ...options });
async function text(url: string, options: Partial<GuardOptions> = {}) {
  const answer = await get(url, options);
  let all = "";
  for await (const piece of answer.body) all += new TextDecoder().decode(piece);
  return all;
}
/** How it failed. */
async function kind(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return "no error";
  } catch (error) {
    return error instanceof GuardError ? error.kind : `another error: ${error}`;
  }
}

/** Each leads to a place that only this machine can reach, or to none. */
const HOSTILE = {
  loopback: "http://127.0.0.1:PORT/",
  "loopback, another of the /8": "http://127.8.9.10:PORT/",
  "localhost by name": "http://localhost:PORT/",
  "one number": "http://2130706433:PORT/",
  hexadecimal: "http://0x7f000001:PORT/",
  "hexadecimal parts": "http://0x7f.0x0.0x0.0x1:PORT/",
  octal: "http://0177.0.0.1:PORT/",
  "octal, one number": "http://017700000001:PORT/",
  "short form": "http://127.1:PORT/",
  "trailing dot": "http://127.0.0.1.:PORT/",
  "full-width digits": "http://１２７.０.０.１:PORT/",
  "circled digits": "http://①②⑦.⓪.⓪.①:PORT/",
  "ideographic full stop": "http://127。0。0。1:PORT/",
  "percent-encoded": "http://%31%32%37.0.0.1:PORT/",
  zero: "http://0.0.0.0:PORT/",
  "zero, short": "http://0:PORT/",
  "private 10/8": "http://10.0.0.1/",
  "private 172.16/12": "http://172.31.255.1/",
  "private 192.168/16": "http://192.168.1.1/",
  "shared (CGNAT)": "http://100.64.1.1/",
  "metadata of most clouds": "http://169.254.169.254/latest/meta-data/",
  "metadata, one number": "http://2852039166/",
  "metadata of Azure": "http://168.63.129.16/",
  "metadata of Alibaba": "http://100.100.100.200/",
  "metadata of Oracle": "http://192.0.0.192/",
  "metadata of AWS by IPv6": "http://[fd00:ec2::254]/",
  benchmarking: "http://198.18.0.1/",
  documentation: "http://203.0.113.1/",
  multicast: "http://224.0.0.1/",
  broadcast: "http://255.255.255.255/",
  reserved: "http://240.0.0.1/",
  "IPv6 loopback": "http://[::1]:PORT/",
  "IPv6 loopback, written out": "http://[0:0:0:0:0:0:0:1]:PORT/",
  "IPv6 unspecified": "http://[::]:PORT/",
  "IPv4-mapped": "http://[::ffff:127.0.0.1]:PORT/",
  "IPv4-mapped, hexadecimal": "http://[::ffff:7f00:1]:PORT/",
  "IPv4-compatible": "http://[::127.0.0.1]:PORT/",
  "IPv4-translated": "http://[::ffff:0:127.0.0.1]:PORT/",
  NAT64: "http://[64:ff9b::127.0.0.1]:PORT/",
  "NAT64, local use": "http://[64:ff9b:1::127.0.0.1]:PORT/",
  "6to4": "http://[2002:7f00:1::]:PORT/",
  Teredo: "http://[2001:0:7f00:1::1]:PORT/",
  "IPv6 link-local": "http://[fe80::1]/",
  "IPv6 site-local": "http://[fec0::1]/",
  "IPv6 unique local": "http://[fc00::1]/",
  "IPv6 multicast": "http://[ff02::1]/",
  "IPv6 documentation": "http://[2001:db8::1]/",
  "IPv6 not assigned": "http://[4000::1]/",
  "a user in front": "http://example.com@127.0.0.1:PORT/",
  "a password": "http://user:secret@example.com/",
  "backslash in the authority": "http://127.0.0.1:PORT\\@example.com/",
  "tabs and line ends": "http://127.0\t.0.\n1:PORT/",
  file: "file:///etc/passwd",
  gopher: "gopher://127.0.0.1:6379/_FLUSHALL",
  ftp: "ftp://127.0.0.1/",
  data: "data:text/plain,hello",
  "unix socket": "unix:/var/run/docker.sock",
  "no scheme": "127.0.0.1:6379",
  "no host": "http://",
  "a zone": "http://[fe80::1%25lo]/",
  "port 0": "http://example.com:0/",
  "no URL at all": "wherever",
};

describe("guardedFetch refuses", () => {
  for (const [name, url] of Object.entries(HOSTILE)) {
    test(name, async () => {
      const before = seen.length;
      expect(await kind(get(url.replace("PORT", String(port)), { timeoutMs: 1_000 }))).toBe("refused");
      expect(seen.length).toBe(before);
    });
  }
  const NAMES: Record<string, string[]> = {
    "a name of a private address": ["10.0.0.7"],
    "a name of the metadata service": ["169.254.169.254"],
    "a name of a mapped address": ["::ffff:127.0.0.1"],
    "a name of nothing readable": ["0x7f.1"],
  };
  for (const [name, addresses] of Object.entries(NAMES)) {
    test(name, async () => {
      expect(await kind(get("http://inner.example/", { resolve: async () => addresses }))).toBe("refused");
    });
  }
});

test("isPublic holds for what anybody may reach, and not for what cannot be read", () => {
  for (const address of ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"]) {
    expect([address, isPublic(address)]).toEqual([address, true]);
  }
  for (const address of ["", "localhost", "8.8.8.8/0", "8.8.8.8:80"]) expect(isPublic(address)).toBe(false);
});

test("checkTarget tells at first sight what needs no name server, and leaves names for later", () => {
  expect(() => checkTarget("http://10.0.0.1/")).toThrow("has no public address");
  expect(() => checkTarget("ftp://example.com/")).toThrow("only http and https");
  expect(checkTarget("http://n8n:5678/hook").host).toBe("n8n:5678");
  expect(checkTarget("http://10.0.0.1/", allowance(["10.0.0.0/8"], "A")).host).toBe("10.0.0.1");
});

test("allowance: hosts with and without port, addresses, ranges; anything else is told", () => {
  const allow = allowance(["n8n:5678", "hooks", "10.0.0.0/8", "fd00::/8", "[::1]", "192.168.1.5"], "CALLBACK_ALLOW");
  const may = (url: string, address: string) => allow(new URL(url), address);
  expect(may("http://n8n:5678/", "172.20.0.3")).toBe(true);
  expect(may("http://n8n/", "172.20.0.3")).toBe(false);
  expect(may("https://hooks/", "172.20.0.3")).toBe(true);
  expect(may("http://hooks.example/", "172.20.0.3")).toBe(false);
  expect(may("http://x/", "10.9.8.7")).toBe(true);
  expect(may("http://x/", "::ffff:10.9.8.7")).toBe(true);
  expect(may("http://x/", "fd12::1")).toBe(true);
  expect(may("http://x/", "::1")).toBe(true);
  expect(may("http://x/", "192.168.1.5")).toBe(true);
  expect(may("http://x/", "192.168.1.6")).toBe(false);
  for (const wrong of ["10.0.0.0/99", "http://n8n", "10.0.0", "a b", "*"]) {
    expect(() => allowance([wrong], "CALLBACK_ALLOW")).toThrow("CALLBACK_ALLOW");
  }
});

test("an allowed address is reached, with method, headers and body", async () => {
  const answer = await get(`http://127.0.0.1:${port}/hook?x=1`, {
    allow: LOCAL,
    method: "POST",
    headers: { "content-type": "application/json", "webhook-id": "m1" },
    body: '{"ü":1}',
  });
  expect(answer).toMatchObject({ status: 200, address: "127.0.0.1" });
  answer.discard();
  expect(seen.at(-1)).toMatchObject({ method: "POST", url: "/hook?x=1", body: '{"ü":1}' });
  expect(seen.at(-1)?.headers).toMatchObject({ "webhook-id": "m1", "content-type": "application/json" });
});

test("a name is resolved once, and the connection goes to that address (DNS rebinding)", async () => {
  let asked = 0;
  const resolve = async () => (++asked === 1 ? ["127.0.0.1"] : ["10.0.0.1"]);
  const url = `http://rebind.example:${port}/`;
  expect(await text(url, { allow: LOCAL, resolve })).toBe(`hello from rebind.example:${port}`);
  expect(asked).toBe(1);
});

test("of several addresses the refused ones are left out, and the next is tried when one is closed", async () => {
  const url = `http://many.example:${port}/`;
  const allow = allowance(["127.0.0.0/8"], "ALLOW");
  const resolve = async () => ["10.0.0.1", "127.0.0.9", "127.0.0.1"];
  expect(await text(url, { allow, resolve })).toBe(`hello from many.example:${port}`);
});

describe("redirects", () => {
  const through = (to: string, status = 302) =>
    `http://127.0.0.1:${port}/?status=${status}&to=${encodeURIComponent(to)}`;
  const allow = () => allowance([`here.example:${port}`, "127.0.0.1"], "ALLOW");

  test("to a private address are refused, on each hop", async () => {
    const only = allowance([`here.example:${port}`], "ALLOW");
    const resolve = async () => ["127.0.0.1"];
    const start = (to: string) => `http://here.example:${port}/?to=${encodeURIComponent(to)}`;
    for (const to of [
      "http://127.0.0.1:1/",
      "http://169.254.169.254/",
      "file:///etc/passwd",
      "//[::1]/",
      "http://2130706433/",
    ]) {
      const options = { allow: only, resolve, maxRedirects: 5 };
      expect([to, await kind(get(start(to), options))]).toEqual([to, "refused"]);
      expect([to, await kind(get(start(start(to)), options))]).toEqual([to, "refused"]);
    }
  });
  test("are followed up to the limit", async () => {
    const url = through(through(`http://127.0.0.1:${port}/end`));
    expect(await text(url, { allow: allow(), maxRedirects: 2 })).toBe(`hello from 127.0.0.1:${port}`);
    expect(await kind(get(url, { allow: allow(), maxRedirects: 1 }))).toBe("redirects");
    expect(await kind(get(`http://127.0.0.1:${port}/loop`, { allow: allow(), maxRedirects: 5 }))).toBe("redirects");
  });
  test("are the answer to a POST, and where none may be followed", async () => {
    for (const options of [{ method: "POST", body: "x", maxRedirects: 5 }, { maxRedirects: 0 }]) {
      const answer = await get(through("/end"), { allow: allow(), ...options });
      expect(answer.status).toBe(302);
      answer.discard();
    }
  });
  test("carry the caller's headers to the same origin only", async () => {
    const headers = { authorization: "Bearer k" };
    await text(through(`http://127.0.0.1:${port}/end`), { allow: allow(), headers, maxRedirects: 1 });
    expect(seen.at(-1)?.headers.authorization).toBe("Bearer k");
    await text(through(`http://127.0.0.1:${other}/end`), { allow: allow(), headers, maxRedirects: 1 });
    expect(seen.at(-1)?.headers.authorization).toBeUndefined();
  });
});

describe("limits", () => {
  const at = (path: string) => `http://127.0.0.1:${port}${path}`;
  test("a body over maxBytes is cut off, declared or not", async () => {
    expect(await kind(text(at("/big"), { allow: LOCAL, maxBytes: 49_999 }))).toBe("too_large");
    expect(await kind(text(at("/chunked"), { allow: LOCAL, maxBytes: 49_999 }))).toBe("too_large");
    for (const path of ["/big", "/chunked"]) {
      expect((await text(at(path), { allow: LOCAL, maxBytes: 50_000 })).length).toBe(50_000);
    }
    expect(await kind(text(at("/declared"), { allow: LOCAL }))).toBe("too_large");
  });
  test("silence before the answer, and within it, ends in time", async () => {
    expect(await kind(text(at("/silent"), { allow: LOCAL, timeoutMs: 200 }))).toBe("timeout");
    expect(await kind(text(at("/stall"), { allow: LOCAL, silenceMs: 200 }))).toBe("timeout");
    const never = new Promise<string[]>(() => {});
    expect(await kind(get("http://slow.example/", { resolve: () => never, timeoutMs: 200 }))).toBe("timeout");
  });
  test("a caller that leaves ends it", async () => {
    const signal = AbortSignal.timeout(100);
    expect(await kind(text(at("/stall"), { allow: LOCAL, signal }))).toBe("timeout");
  });
  test("an answer cut short is no answer", async () => {
    expect(await kind(text(at("/cut"), { allow: LOCAL }))).toBe("cut");
  });
  test("a closed port, an unknown name and what is not HTTP are told as unreachable", async () => {
    expect(await kind(get("http://127.0.0.1:1/", { allow: LOCAL }))).toBe("unreachable");
    expect(await kind(get("http://no-such-name.invalid/"))).toBe("unreachable");
    const tcp = createTcpServer((socket) => socket.end("-ERR unknown command\r\n\r\n"));
    await new Promise<void>((done) => tcp.listen(0, "127.0.0.1", done));
    const { port: raw } = tcp.address() as AddressInfo;
    expect(["unreachable", "cut"]).toContain(await kind(text(`http://127.0.0.1:${raw}/`, { allow: LOCAL })));
    tcp.close();
  });
});

/** The same in a process of its own. */
async function apart(runtime: string, ask: object, env: Record<string, string> = {}) {
  const command = runtime === "deno" ? [DENO ?? "deno", "run", "-A", "--quiet"] : [process.execPath];
  const child = Bun.spawn([...command, "tests/support/guarded.ts", JSON.stringify(ask)], {
    cwd: join(import.meta.dir, ".."),
    env: { PATH: process.env.PATH ?? "", HOME: process.env.HOME ?? "", ...env },
    stdout: "pipe",
  });
  return JSON.parse(await new Response(child.stdout).text());
}

for (const runtime of ["bun", "deno"]) {
  describe(`under ${runtime}`, () => {
    const names = { "pinned.example": ["127.0.0.1"] };
    test("the connection goes to the address that was judged, past any proxy of the environment", async () => {
      const proxy = `http://127.0.0.1:${other}`;
      const env = { HTTP_PROXY: proxy, http_proxy: proxy, ALL_PROXY: proxy };
      const ask = { url: `http://pinned.example:${port}/`, allow: ["127.0.0.1"], names };
      const answer = await apart(runtime, ask, env);
      expect(answer).toEqual({ status: 200, address: "127.0.0.1", text: `hello from pinned.example:${port}` });
      expect((await apart(runtime, { ...ask, allow: [] })).kind).toBe("refused");
    }, 20_000);
    test.skipIf(!Bun.which("openssl"))(
      "a certificate must fit the name, not the address",
      async () => {
        const dir = mkdtempSync(join(tmpdir(), "longhaul-tls-"));
        const made = Bun.spawnSync(
          [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=pinned.example",
          ].concat(["-addext", "subjectAltName=DNS:pinned.example", "-keyout", `${dir}/key`, "-out", `${dir}/cert`]),
        );
        expect(made.exitCode).toBe(0);
        const pair = { key: readFileSync(`${dir}/key`), cert: readFileSync(`${dir}/cert`) };
        const tls = createTlsServer(pair, (_request, response) => void response.end("safe"));
        await new Promise<void>((done) => tls.listen(0, "127.0.0.1", done));
        const { port: secure } = tls.address() as AddressInfo;
        const env = { NODE_EXTRA_CA_CERTS: `${dir}/cert`, DENO_CERT: `${dir}/cert` };
        const ask = (host: string) => ({
          url: `https://${host}:${secure}/`,
          allow: ["127.0.0.1"],
          names: { ...names, "other.example": ["127.0.0.1"] },
        });
        expect(await apart(runtime, ask("pinned.example"), env)).toMatchObject({ status: 200, text: "safe" });
        expect(await apart(runtime, ask("other.example"), env)).toMatchObject({ kind: "unreachable" });
        expect(await apart(runtime, ask("pinned.example"))).toMatchObject({ kind: "unreachable" });
        tls.closeAllConnections();
        tls.close();
        rmSync(dir, { recursive: true });
      },
      30_000,
    );
  });
}

/**
 * What a large upload costs the gateway (issue 4: a 1 GiB upload grows it by less than 30 MB and leaves nothing behind
 * when cut). A gateway process of its own, over a real socket:
 *
 *   bun tests/slow/upload.ts [MiB = 1024] [runtime = bun]
 *
 * Prints resident memory before, at the peak and after of an upload, of a download, and of an upload that is cut in
 * the middle. Exit code 1 when the upload grew the gateway by 30 MB or more, or anything was left behind.
 */
import { createHash, randomBytes } from "node:crypto";
import { createReadStream, readdirSync, readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { bunStart } from "../../shared/runtime.ts";
import { startStack, until } from "../support/stack.ts";

const MIB = Number(process.argv[2] ?? 1_024);
const RUNTIME = process.argv[3] ?? "bun";
const LIMIT_MB = 30;

const stack = await startStack({ workers: 0, runtime: RUNTIME, env: bunStart(process.env) });
const uploads = join(stack.dir, "uploads");
const piece = randomBytes(1_048_576);
const before = '--b\r\nContent-Disposition: form-data; name="file"; filename="big.ifc"\r\n\r\n';
const after = "\r\n--b--\r\n";

/** MB: all resident, and what is the process's own (without files mapped into it). */
function memory() {
  const status = readFileSync(`/proc/${stack.gateway.pid}/status`, "utf8");
  const mb = (field: string) => (Number(new RegExp(`${field}:\\s+(\\d+)`).exec(status)?.[1]) * 1_024) / 1e6;
  return { all: mb("VmRSS"), own: mb("RssAnon") };
}

/** Runs `work` and prints what the gateway's memory did. @returns its growth at the peak, MB */
async function watched(what: string, work: () => Promise<unknown>): Promise<number> {
  const start = memory();
  let peak = start;
  const timer = setInterval(() => {
    const now = memory();
    peak = { all: Math.max(peak.all, now.all), own: Math.max(peak.own, now.own) };
  }, 20);
  const began = performance.now();
  await work();
  const seconds = (performance.now() - began) / 1_000;
  clearInterval(timer);
  await Bun.sleep(2_000);
  const end = memory();
  const mb = (n: number) => n.toFixed(1).padStart(6);
  console.log(
    `${what.padEnd(18)} before ${mb(start.all)}  peak ${mb(peak.all)} (+${mb(peak.all - start.all)}, own +${mb(peak.own - start.own)})  after ${mb(end.all)} MB  ${seconds.toFixed(1)} s`,
  );
  return peak.all - start.all;
}

/** Opens an upload of `mib` MiB and sends `sent` of them, as fast as the gateway takes them. */
async function send(mib: number, sent = mib): Promise<Socket> {
  const socket = connect(Number(new URL(stack.url).port), "127.0.0.1");
  socket.on("error", () => {});
  const length = before.length + mib * piece.length + after.length;
  socket.write(
    `POST /upload/ifc HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: ${length}\r\n\r\n${before}`,
  );
  for (let i = 0; i < sent; i++) {
    if (!socket.write(piece)) await new Promise((done) => socket.once("drain", done));
  }
  return socket;
}

async function upload(mib: number): Promise<void> {
  const socket = await send(mib);
  socket.write(after);
  let text = "";
  for await (const bytes of socket) text += bytes;
  if (!text.startsWith("HTTP/1.1 200")) throw new Error(text);
}

async function download(): Promise<void> {
  const { url } = (await (await stack.post("/create_download_link", { file_path: "big.ifc" })).json()) as {
    url: string;
  };
  const hash = createHash("sha256");
  const response = await fetch(stack.url + url);
  for await (const bytes of response.body as unknown as AsyncIterable<Uint8Array>) hash.update(bytes);
  const own = createHash("sha256");
  for await (const bytes of createReadStream(join(uploads, "big.ifc"))) own.update(bytes);
  if (hash.digest("hex") !== own.digest("hex")) throw new Error("the download differs from the file");
}

for (let i = 0; i < 3; i++) await upload(8); // code compiled, buffers there
await Bun.sleep(1_000);
console.log(`${MIB} MiB, gateway under ${RUNTIME}`);
const grown = await watched("upload", () => upload(MIB));
const again = await watched("upload again", () => upload(MIB));
await watched("download", download);
await watched("upload cut", async () => {
  const socket = await send(MIB, Math.floor(MIB / 2));
  socket.destroy();
  await until(() => !readdirSync(uploads).some((name) => name.endsWith(".part")));
});
const left = readdirSync(uploads).filter((name) => name !== "big.ifc");
console.log(left.length === 0 ? "nothing left behind" : `left behind: ${left.join(", ")}`);
await stack.stop();
process.exit(left.length === 0 && Math.max(grown, again) < LIMIT_MB ? 0 : 1);

/**
 * A microservice silent for 390 s, then answering, must finish: no runtime's default may cut it (contract.md §4).
 * Too slow for the normal run:  bun tests/slow/silence.ts [seconds]
 * It calls from Bun and, where there is deno, from Deno at the same time; status 1 when one of them did not finish.
 */
import { createServer } from "node:net";
import { Abort } from "../../shared/abort.ts";
import { call } from "../../shared/call.ts";
import { noLog } from "../../shared/log.ts";

const LIMIT_MS = 7_200_000;

async function silentCall(runtime: string, url: string): Promise<boolean> {
  const outcome = await call({
    service: "sleeper",
    url,
    body: "{}",
    headers: {},
    timeoutMs: LIMIT_MS,
    abort: new Abort(),
    accepts: [],
    maxResultBytes: 1_000,
    retry500: false,
    freshConnection: false,
    keepAlive: false,
    connectTimeoutMs: 10_000,
    log: noLog,
  });
  console.log(runtime, JSON.stringify(outcome));
  return outcome.kind === "finished" && outcome.result === '{"slept":true}';
}

if ("Deno" in globalThis) {
  process.exit((await silentCall("deno", process.argv[2] as string)) ? 0 : 1);
}
const seconds = Number(process.argv[2] ?? 390);
const server = createServer((socket) => {
  socket.on("error", () => {});
  const answer = () =>
    socket.write('HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{"slept":true}');
  socket.once("data", () => setTimeout(answer, seconds * 1_000));
});
await new Promise<void>((ready) => server.listen(0, "127.0.0.1", ready));
const url = `http://127.0.0.1:${(server.address() as { port: number }).port}/`;
const deno = Bun.which("deno");
if (!deno) console.log("deno: not installed, SKIPPED");
const child = deno
  ? Bun.spawn([deno, "run", "-A", import.meta.path, url], { stdout: "inherit", stderr: "inherit" })
  : undefined;
const [bunDone, denoStatus] = await Promise.all([silentCall("bun", url), child?.exited ?? 0]);
process.exit(bunDone && denoStatus === 0 ? 0 : 1);

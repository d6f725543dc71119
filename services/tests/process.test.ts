/** What only a real process shows: health beside work, a caller that hangs up, signals. */
import { expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { limit } from "../../tests/support/patience.ts";
import { childrenOf, cpuSeconds, perforatedWall, perforatedWalls, post, runs, sandbox, start, until } from "./setup.ts";

const box = await sandbox();
await Bun.write(box.uploads("slow.ifc"), perforatedWall(2000));
const slow = post({ input_filename: "slow.ifc", output_filename: "slow.glb" });
const onLinux = existsSync("/proc/self/stat");

const working = (pid: number) => childrenOf(pid).filter((child) => cpuSeconds(child) > 1);

test("GET /health answers within a second during a long conversion", async () => {
  const { url } = await start("ifcconvert", box.env);
  const stop = new AbortController();
  const call = fetch(`${url}/ifcconvert`, { ...slow, signal: stop.signal }).catch(() => "aborted");
  await Bun.sleep(500);
  for (let i = 0; i < 5; i++) {
    const started = performance.now();
    const health = await fetch(`${url}/health`);
    expect(await health.json()).toEqual({ status: "healthy" });
    expect(performance.now() - started).toBeLessThan(limit(1000));
    await Bun.sleep(200);
  }
  stop.abort();
  expect(await call).toBe("aborted");
});

test.skipIf(!onLinux)("a caller that hangs up ends the work, leaves no file, and the service serves on", async () => {
  const { url, child } = await start("ifcconvert", box.env);
  const stop = new AbortController();
  const call = fetch(`${url}/ifcconvert`, { ...slow, signal: stop.signal }).catch(() => "aborted");
  await until("the work runs", () => working(child.pid).length === 1, 20_000);
  stop.abort();
  await call;
  await until("the work is gone", () => working(child.pid).length === 0, 2000);
  await until("the folder is clean", () => !readdirSync(box.output("converted")).some((name) => /partial/.test(name)));
  expect(existsSync(box.output("converted/slow.glb"))).toBe(false);
  const house = post({ input_filename: "house.ifc", output_filename: "house.glb" });
  expect((await fetch(`${url}/ifcconvert`, house)).status).toBe(200);
});

test.skipIf(!onLinux)("a caller that hangs up while waiting in line gives its place away", async () => {
  const { url, child } = await start("ifcconvert", { ...box.env, WORK_SLOTS: "1" });
  const [first, second] = [new AbortController(), new AbortController()];
  const one = fetch(`${url}/ifcconvert`, { ...slow, signal: first.signal }).catch(() => "aborted");
  await until("the work runs", () => working(child.pid).length === 1, 20_000);
  const two = fetch(`${url}/ifcconvert`, { ...slow, signal: second.signal }).catch(() => "aborted");
  const house = post({ input_filename: "house.ifc", output_filename: "third.glb" });
  const third = fetch(`${url}/ifcconvert`, house);
  await Bun.sleep(300);
  second.abort();
  await two;
  first.abort();
  await one;
  expect((await third).status).toBe(200);
});

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  test.skipIf(!onLinux)(`${signal} stops the service and its work`, async () => {
    const { url, child } = await start("ifcconvert", box.env);
    const call = fetch(`${url}/ifcconvert`, slow).catch(() => "cut");
    await until("the work runs", () => working(child.pid).length === 1, 20_000);
    const children = childrenOf(child.pid);
    child.kill(signal);
    expect(await Promise.race([child.exited, Bun.sleep(3000)])).toBe(0);
    expect(await call).toBe("cut");
    await until("no process is left", () => !children.some(runs));
  });
}

test.skipIf(!onLinux)("a work process that dies costs its own call only", async () => {
  const { url, child } = await start("ifcconvert", box.env);
  const call = fetch(`${url}/ifcconvert`, slow);
  await until("the work runs", () => working(child.pid).length === 1, 20_000);
  process.kill(working(child.pid)[0]!, "SIGKILL");
  const response = await call;
  expect(response.status).toBe(500);
  expect((await response.json()).detail).toContain("SIGKILL");
  const house = post({ input_filename: "house.ifc", output_filename: "house.glb" });
  expect((await fetch(`${url}/ifcconvert`, house)).status).toBe(200);
});

test.skipIf(!onLinux)("work ends soon after its service was killed with -9", async () => {
  // Many small elements: the work looks up between two of them.
  await Bun.write(box.uploads("many.ifc"), perforatedWalls(6000, 1));
  const { url, child } = await start("ifcconvert", box.env);
  const call = fetch(`${url}/ifcconvert`, post({ input_filename: "many.ifc", output_filename: "many.glb" }));
  call.catch(() => {});
  await until("the work runs", () => working(child.pid).length === 1, 20_000);
  const orphans = childrenOf(child.pid);
  child.kill("SIGKILL");
  await until("no process is left", () => !orphans.some(runs), 2000);
});

test.skipIf(!onLinux)(
  "work inside of one heavy element ends within seconds when its service is killed -9",
  async () => {
    // One element with thousands of openings: minutes in one call of WASM, in which the main thread looks at nothing.
    const { url, child } = await start("ifcconvert", box.env);
    const call = fetch(`${url}/ifcconvert`, slow);
    call.catch(() => {});
    await until("the work runs", () => working(child.pid).length === 1, 20_000);
    const orphans = childrenOf(child.pid); // the idle one that is kept ready, too
    expect(orphans.length).toBeGreaterThan(0);
    child.kill("SIGKILL");
    await until("no process is left", () => !orphans.some(runs), 5_000);
  },
);

test("progress is posted to X-Progress-Url", async () => {
  const posted: { progress: number; message: string }[] = [];
  const gateway = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    async fetch(request) {
      posted.push((await request.json()) as (typeof posted)[number]);
      return new Response(null, { status: 204 });
    },
  });
  const { url } = await start("ifc2json", box.env);
  const headers = { "content-type": "application/json", "x-progress-url": `http://127.0.0.1:${gateway.port}/p?t=1` };
  const body = JSON.stringify({ filename: "house.ifc", output_filename: "house.json" });
  expect((await fetch(`${url}/ifc2json`, { method: "POST", headers, body })).status).toBe(200);
  await until("a post arrived", () => posted.length > 0);
  expect(posted[0]!.progress).toBeGreaterThanOrEqual(0);
  expect(posted[0]!.message).toBeString();
  gateway.stop(true);
});

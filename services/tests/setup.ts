/** A sandbox a test file: three fresh volumes with the sample house, and services as real processes where asked. */
import { afterAll, setDefaultTimeout } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Hono } from "hono";
import { limit } from "../../tests/support/patience.ts";
import { Building } from "../lib/building.ts";
import { makeHouse } from "../make-house.ts";

/** Volumes in a temporary directory, named in this process's environment; removed after the file's tests. */
export async function sandbox() {
  // Each call starts a process that loads the engine; on a busy machine that adds up. It counts for one file only.
  setDefaultTimeout(60_000);
  const dir = await mkdtemp(join(tmpdir(), "longhaul-services-"));
  const dirs = { UPLOADS_DIR: join(dir, "uploads"), OUTPUT_DIR: join(dir, "output"), EXAMPLES_DIR: join(dir, "ex") };
  Object.assign(process.env, dirs);
  await makeHouse(dirs.EXAMPLES_DIR);
  await makeHouse(dirs.UPLOADS_DIR);
  afterAll(() => rm(dir, { recursive: true, force: true }));
  return {
    ...{ dir, env: dirs },
    uploads: (name: string) => join(dirs.UPLOADS_DIR, name),
    output: (name: string) => join(dirs.OUTPUT_DIR, name),
  };
}

export const post = (body: unknown): RequestInit => ({
  method: "POST",
  headers: { "content-type": "application/json" },
  body: typeof body === "string" ? body : JSON.stringify(body),
});

// biome-ignore lint/suspicious/noExplicitAny: an answer is what the test says it is
export type Answer = { status: number; body: any };

/** A call without a socket. */
export async function call(app: Hono, path: string, body: unknown): Promise<Answer> {
  const response = await app.request(path, post(body));
  return { status: response.status, body: await response.json() };
}

/** The service as a process of its own on a free port; killed after the tests. */
export async function start(name: string, env: Record<string, string>) {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "..", `${name}.ts`)], {
    env: { ...process.env, ...env, PORT: "0", HOST: "127.0.0.1" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  afterAll(() => child.kill("SIGKILL"));
  let said = "";
  for await (const chunk of child.stdout) {
    said += new TextDecoder().decode(chunk);
    const url = /http:\/\/\S+/.exec(said)?.[0];
    if (url) return { child, url };
  }
  throw new Error(`${name} ended before it listened: ${said}`);
}

/** Ids of the processes that a process has started and that run still (Linux). */
export function childrenOf(pid: number): number[] {
  const path = `/proc/${pid}/task/${pid}/children`;
  return existsSync(path) ? readFileSync(path, "utf8").trim().split(" ").filter(Boolean).map(Number) : [];
}

/** Whether a process still runs (Linux). An ended orphan stays a zombie until init finds the time: it does not run. */
export function runs(pid: number): boolean {
  try {
    return !readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.startsWith("Z");
  } catch {
    return false;
  }
}

/** Processor seconds a process has used (Linux, 100 ticks a second); 0 when it is gone. */
export function cpuSeconds(pid: number): number {
  if (!existsSync(`/proc/${pid}/stat`)) return 0;
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

/** Walls with openings, a wall a metre. */
export function perforatedWalls(walls: number, openings: number): string {
  const b = new Building("walls.ifc", 1);
  const storey = b.storey("Ground floor", 0);
  for (let w = 0; w < walls; w++) {
    const shape = b.shape([b.box({ min: [0, w, 0], max: [openings, w + 0.3, 3] })], [1, 1, 1]);
    const wall = b.element({ type: "IfcWall", name: `Wall ${w}`, shape, rest: [null], storey });
    for (let i = 0; i < openings; i++) {
      b.opening(`Opening ${w}/${i}`, wall, { min: [i + 0.1, w - 0.5, 1], max: [i + 0.6, w + 0.5, 2] });
    }
  }
  return b.finish();
}

/** So many openings that cutting them keeps the geometry engine busy: 300 take two seconds, 2000 minutes. */
export const perforatedWall = (openings: number): string => perforatedWalls(1, openings);

export async function until(what: string, condition: () => boolean, withinMs = 5000): Promise<void> {
  for (const end = performance.now() + limit(withinMs); !condition(); await Bun.sleep(20)) {
    if (performance.now() > end) throw new Error(`not within ${withinMs} ms: ${what}`);
  }
}

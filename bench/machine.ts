/** Processes and a Redis of the bench's own, and what they cost. Everything on loopback; everything ends with the run. */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import IORedis from "ioredis";

/** About 200 bytes, as performance.md §1 measures. */
export const BODY = JSON.stringify({
  input_filename: "/uploads/building-architecture.ifc",
  output_filename: "/output/converted/building-architecture.glb",
  weld_vertices: true,
  include: ["IfcWall", "IfcSlab", "IfcWindow", "IfcDoor"],
  note: "x".repeat(30),
});

export const ROOT = new URL("..", import.meta.url).pathname;

export function freePort(): Promise<number> {
  return new Promise((done) => {
    const server = createServer();
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => done(port));
    });
  });
}

type Started = { kill(signal: "SIGKILL"): void; exited: Promise<number> };
/** They end with this process, also when the run ends in an error. */
const started = new Set<Started>();
process.on("exit", () => {
  for (const child of started) child.kill("SIGKILL");
});
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));
export const endsWithUs = (child: Started) => {
  started.add(child);
  void child.exited.then(() => started.delete(child));
};

export type Child = { pid: number; stop(): Promise<void>; kill(): void; output: Promise<string> };

/** Connections of the client, and calls that a worker makes at once. */
export const CONCURRENCY = 50;

/** Starts a script and waits for a line that matches; without a pattern, it is run to its end by `output`. */
export async function start(
  file: string,
  env: Record<string, string>,
  ready?: RegExp,
  flags: string[] = [],
  program = process.execPath,
): Promise<Child> {
  const child = Bun.spawn([program, ...flags, file], {
    cwd: ROOT,
    env: { PATH: process.env.PATH ?? "", HOME: process.env.HOME ?? "", NODE_ENV: "production", ...env },
    stdout: "pipe",
    stderr: "inherit",
  });
  endsWithUs(child);
  let text = "";
  let matched: () => void = () => {};
  const waiting = new Promise<void>((done) => {
    matched = done;
  });
  const output = (async () => {
    const decoder = new TextDecoder();
    for await (const part of child.stdout as unknown as AsyncIterable<Uint8Array>) {
      text += decoder.decode(part, { stream: true });
      if (ready?.test(text)) matched();
    }
    await child.exited;
    return text;
  })();
  if (ready) {
    await Promise.race([waiting, output.then((said) => Promise.reject(new Error(`${file} ended:\n${said}`)))]);
  }
  return {
    pid: child.pid,
    output,
    kill: () => child.kill("SIGKILL"),
    async stop() {
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), 8_000);
      await child.exited;
      clearTimeout(timer);
    },
  };
}

export type BenchRedis = {
  pid: number;
  url: string;
  client: IORedis;
  memory(): Promise<number>;
  /** CPU seconds that Redis has used so far */
  cpu(): Promise<number>;
  commands(): Promise<number>;
  stop(): Promise<void>;
};

/** Append-only and never evicting, for every contender. @param settings  what its own deployment adds */
export async function startRedis(settings = ""): Promise<BenchRedis> {
  const dir = mkdtempSync(join(tmpdir(), "longhaul-bench-"));
  const port = await freePort();
  const args =
    `--port ${port} --bind 127.0.0.1 --dir ${dir} --appendonly yes --appendfsync everysec --maxmemory-policy noeviction ${settings}`.trim();
  const child = Bun.spawn(["redis-server", ...args.split(" "), "--save", ""], { stdout: "ignore", stderr: "inherit" });
  endsWithUs(child);
  const client = new IORedis({ port, retryStrategy: () => 50, maxRetriesPerRequest: null });
  client.on("error", () => {});
  await client.ping();
  const info = async (section: string, field: string) =>
    Number(new RegExp(`^${field}:([\\d.]+)`, "m").exec(await client.info(section))?.[1]);
  return {
    pid: child.pid,
    url: `redis://127.0.0.1:${port}`,
    client,
    memory: () => info("memory", "used_memory"),
    cpu: async () => (await info("cpu", "used_cpu_user")) + (await info("cpu", "used_cpu_sys")),
    commands: () => info("stats", "total_commands_processed"),
    async stop() {
      client.disconnect();
      child.kill("SIGKILL");
      await child.exited;
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** CPU seconds of a process so far, from the kernel. @see proc(5), fields 14 and 15, in clock ticks of 10 ms */
export async function cpuOf(pid: number): Promise<number> {
  const text = await Bun.file(`/proc/${pid}/stat`).text();
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

export const median = (values: number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
};
/** The median, and from where to where; "–" of nothing. */
export const range = (list: number[], digits: number) =>
  list.length
    ? `${median(list).toFixed(digits)} (${Math.min(...list).toFixed(digits)}–${Math.max(...list).toFixed(digits)})`
    : "–";
export const quantile = (values: number[], q: number): number => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] as number;
};

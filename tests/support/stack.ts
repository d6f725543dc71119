/** Real gateways and workers as processes of their own, over a real Redis and a fake microservice. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DENO } from "./deno.ts";
import { limit } from "./patience.ts";
import { freePort, startRedis, type TestRedis } from "./redis.ts";
import { type FakeService, startService } from "./service.ts";

const ROOT = new URL("../..", import.meta.url).pathname;

export type Process = {
  pid: number;
  /** everything it printed so far */
  output(): string;
  /** waits until it printed something that matches. @throws after `ms`, with what it did print */
  says(pattern: RegExp, ms?: number): Promise<void>;
  kill(signal: NodeJS.Signals): void;
  /** null while it runs */
  readonly exitCode: number | null;
  exited: Promise<number>;
};

/** Starts an entry file. @param file  may have arguments behind it. @param runtime "bun" or "deno" */
export function startProcess(file: string, env: Record<string, string>, runtime = "bun"): Process {
  const command =
    runtime === "deno"
      ? [DENO ?? "deno", "run", "-A", "--quiet", ...file.split(" ")]
      : [process.execPath, ...file.split(" ")];
  const child = Bun.spawn(command, {
    cwd: ROOT,
    env: { PATH: process.env.PATH ?? "", HOME: process.env.HOME ?? "/root", NODE_ENV: "production", ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
  let text = "";
  const read = async (stream: ReadableStream<Uint8Array>) => {
    const decoder = new TextDecoder();
    for await (const part of stream as unknown as AsyncIterable<Uint8Array>)
      text += decoder.decode(part, { stream: true });
  };
  void read(child.stdout);
  void read(child.stderr);
  return {
    pid: child.pid,
    output: () => text,
    async says(pattern, ms = 40_000) {
      await until(
        () => pattern.test(text) || child.exitCode !== null,
        ms,
        () => `${file} did not say ${pattern}:\n${text}\n${threadsOf(child.pid)}`,
      );
      if (!pattern.test(text)) throw new Error(`${file} ended with ${child.exitCode}:\n${text}`);
    },
    kill: (signal) => child.kill(signal),
    get exitCode() {
      return child.exitCode ?? (child.signalCode ? 128 : null);
    },
    exited: child.exited,
  };
}

/** What each thread of a silent process waits for: seen once in some hundred runs of the tests, a start that said nothing at all. */
function threadsOf(pid: number): string {
  try {
    const of = (tid: string, what: string) => readFileSync(`/proc/${pid}/task/${tid}/${what}`, "utf8").trim();
    const told = (tid: string) => `${of(tid, "comm")}: ${of(tid, "wchan")}, ${of(tid, "schedstat")}`;
    return readdirSync(`/proc/${pid}/task`).map(told).join("\n");
  } catch (error) {
    return String(error); // gone, or no Linux
  }
}

/** Polls until `test` holds. @throws after `ms`, longer on a slow machine, with what `otherwise` says */
export async function until(
  test: () => unknown,
  ms = 30_000,
  otherwise: () => string = () => "it never held",
): Promise<void> {
  const end = performance.now() + limit(ms);
  while (!(await test())) {
    if (performance.now() > end) throw new Error(`after ${limit(ms)} ms: ${otherwise()}`);
    await Bun.sleep(20);
  }
}

export type Stack = {
  redis: TestRedis;
  service: FakeService;
  dir: string;
  url: string;
  dashboardUrl: string;
  gateway: Process;
  workers: Process[];
  env: Record<string, string>;
  startGateway(env?: Record<string, string>, runtime?: string): Promise<Process>;
  startWorker(env?: Record<string, string>, runtime?: string): Promise<Process>;
  /** POSTs to a route and returns the job's id. @throws unless 202 */
  submit(payload: unknown, route?: string, headers?: Record<string, string>): Promise<string>;
  // biome-ignore lint/suspicious/noExplicitAny: answers of many shapes, read field by field in tests
  get(path: string): Promise<any>;
  post(path: string, body?: unknown, headers?: Record<string, string>): Promise<Response>;
  /** polls the status until the job is finished or failed */
  // biome-ignore lint/suspicious/noExplicitAny: as above
  ended(id: string, ms?: number): Promise<any>;
  stop(): Promise<void>;
};

/** Options of an operation "work" on the fake service; further ones by `operations`. */
export type StackOptions = {
  workers?: number;
  runtime?: string;
  env?: Record<string, string>;
  /** of the gateway alone */
  gatewayEnv?: Record<string, string>;
  operation?: Record<string, unknown>;
  operations?: Record<string, unknown>;
  /** further operations of the fake service, as `work` is without options */
  names?: string[];
  redis?: Record<string, string>;
};

/**
 * A Redis, a fake microservice, a gateway and workers. One operation, `work`, on POST /work.
 * A start that fails is tried twice more, on other ports: a port may be taken meanwhile, and once in some hundred runs a
 * process says nothing at all. All tests of a file would fail with it.
 */
export async function startStack(options: StackOptions = {}): Promise<Stack> {
  for (let tries = 1; ; tries++) {
    try {
      return await startOnce(options);
    } catch (error) {
      if (tries === 3) throw error;
      console.error(`# the stack did not start, trying again: ${error}`);
    }
  }
}

async function startOnce(options: StackOptions): Promise<Stack> {
  const runtime = options.runtime ?? "bun";
  const dir = mkdtempSync(join(tmpdir(), "longhaul-stack-"));
  const [redis, service, port, dashboardPort] = await Promise.all([
    startRedis(options.redis),
    startService(),
    freePort(),
    freePort(),
  ]);
  const operations = {
    work: { url: service.url, slots: 8, backoff: "100ms", ...options.operation },
    ...Object.fromEntries(
      (options.names ?? []).map((name) => [name, { url: service.url, slots: 8, backoff: "100ms" }]),
    ),
    ...options.operations,
  };
  writeFileSync(join(dir, "services.json"), JSON.stringify({ operations }));
  const env: Record<string, string> = {
    REDIS_URL: redis.url,
    PORT: String(port),
    DASHBOARD_PORT: String(dashboardPort),
    SERVICES: join(dir, "services.json"),
    DATA_DIR: join(dir, "data"),
    UPLOADS_DIR: join(dir, "uploads"),
    OUTPUT_DIR: join(dir, "output"),
    EXAMPLES_DIR: join(dir, "examples"),
    LEASE: "3s",
    DRAIN_TIMEOUT: "2s",
    GATEWAY_URL: `http://127.0.0.1:${port}`,
    ...options.env,
  };
  const url = `http://127.0.0.1:${port}`;
  const running: Process[] = [];
  const stack: Stack = {
    redis,
    service,
    dir,
    env,
    url,
    dashboardUrl: `http://127.0.0.1:${dashboardPort}`,
    gateway: undefined as never,
    workers: [],
    async startGateway(more = {}, kind = runtime) {
      const gateway = startProcess("gateway.ts", { ...env, ...more }, kind);
      running.push(gateway);
      await gateway.says(/gateway ready/);
      const base = more.PORT ? `http://127.0.0.1:${more.PORT}` : url;
      await until(async () => (await fetch(`${base}/readyz`).catch(() => undefined))?.ok, 40_000, gateway.output);
      return gateway;
    },
    async startWorker(more = {}, kind = runtime) {
      const worker = startProcess("worker.ts", { ...env, ...more }, kind);
      running.push(worker);
      stack.workers.push(worker);
      await worker.says(/ready under/);
      return worker;
    },
    async submit(payload, route = "/work", headers = {}) {
      const response = await stack.post(route, payload, headers);
      const body = (await response.json()) as { job_id: string };
      if (response.status !== 202) throw new Error(`${response.status} ${JSON.stringify(body)}`);
      return body.job_id;
    },
    get: async (path) => (await fetch(url + path)).json(),
    post: (path, body, headers = {}) =>
      fetch(url + path, {
        method: "POST",
        headers: { "content-type": "application/json", ...headers },
        ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
      }),
    async ended(id, ms = 40_000) {
      let status = await stack.get(`/jobs/${id}/status`);
      await until(
        async () => {
          status = await stack.get(`/jobs/${id}/status`);
          return status.status === "finished" || status.status === "failed";
        },
        ms,
        () => `${JSON.stringify(status)}\n${stack.workers.map((w) => w.output()).join("\n")}`,
      );
      return status;
    },
    async stop() {
      for (const process of running) process.kill("SIGKILL");
      await Promise.all(running.map((process) => process.exited));
      await service.stop();
      await redis.stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
  try {
    stack.gateway = await stack.startGateway(options.gatewayEnv);
    for (let i = 0; i < (options.workers ?? 1); i++) await stack.startWorker();
  } catch (error) {
    await stack.stop(); // nobody else knows of it yet
    throw error;
  }
  return stack;
}

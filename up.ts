/**
 * Everything on one machine, by one command:
 *
 *   npx -y bun@1.4.5 run up
 *
 * Installs what is missing, starts Redis, the bundled microservices, the worker and the gateway, says how to use them,
 * keeps them running, and stops them in order on Ctrl-C. Configured by the same variables as its parts (README), so
 * that two copies run beside each other: DATA_DIR, PORT, DASHBOARD_PORT. Knows nothing of jobs.
 */
import { existsSync, mkdirSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { bunStart } from "./shared/runtime.ts";
import { ECHO_MS, ignoresHangup } from "./shared/signals.ts";
import { Children, type Program } from "./up/children.ts";
import { endCommands, output, packages, Trouble } from "./up/install.ts";
import { type Lock, lock } from "./up/lock.ts";
import { onOrphaned } from "./up/processes.ts";
import { freePort, given, own, silence } from "./up/redis.ts";
import { localDefaults, ROOT, type Settings, settings } from "./up/settings.ts";

/** Microservices of services/, each started where no *_URL names another. */
const BUNDLED = ["ifcconvert", "ifc2json", "ifcclash"];
/** ms: one that dies is seen at once, so this is only for one that hangs, and a starved machine takes its time. */
const START_MS = 180_000;
const WIDTH = 10;
const colors = process.stdout.isTTY && !process.env.NO_COLOR;

function show(name: string, line: string): void {
  const label = name.padEnd(WIDTH);
  process.stdout.write(`${colors ? `\x1b[2m${label} |\x1b[0m` : `${label} |`} ${line}\n`);
}
const say = (text: string) => {
  for (const line of text.split("\n")) show("up", line);
};

/** Where a listening address is reached from this machine. */
const origin = (host: string, port: number) =>
  `http://${host === "0.0.0.0" || host === "localhost" ? "127.0.0.1" : host === "::" ? "[::1]" : host.includes(":") ? `[${host}]` : host}:${port}`;

/** @returns a sentence that names the port and the variable that moves it; undefined when it is free */
async function whyNotFree(host: string, port: number, variable: string): Promise<string | undefined> {
  // Both ways: macOS lets two listen on one port if one of them listens on all addresses.
  const taken = await new Promise<string | undefined>((resolve) => {
    const server = createServer();
    server.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(undefined)));
  });
  const answered = await new Promise<boolean>((resolve) => {
    const url = new URL(origin(host, port));
    const socket = connect({ host: url.hostname.replace(/[[\]]/g, ""), port, timeout: 500 });
    const end = (open: boolean) => () => {
      socket.destroy();
      resolve(open);
    };
    socket.on("connect", end(true)).on("error", end(false)).on("timeout", end(false));
  });
  if (taken === undefined && !answered) return undefined;
  if (answered || taken === "EADDRINUSE") return `Port ${port} is in use; ${variable} sets another.`;
  return `Cannot listen on ${host}:${port}: ${taken}. Set HOST or ${variable} to something else.`;
}

/** @throws Trouble with every port that is taken, and one command that moves them all */
async function mustBeFree(wanted: Settings): Promise<void> {
  const ports: [host: string, port: number, variable: string][] = [[wanted.host, wanted.port, "PORT"]];
  if (wanted.dashboardPort) ports.push([wanted.dashboardHost, wanted.dashboardPort, "DASHBOARD_PORT"]);
  const faults: string[] = [];
  const moved: string[] = [];
  for (const [host, port, variable] of ports) {
    const why = await whyNotFree(host, port, variable);
    if (why === undefined) continue;
    faults.push(why);
    moved.push(`${variable}=${await freePort()}`);
  }
  if (faults.length > 0) {
    throw new Trouble(`${faults.join("\n")}\nFor example: ${moved.join(" ")} npx -y bun@1.4.5 run up`);
  }
}

/** Answers 2xx within a second. */
const answers = (url: string) => async () => {
  try {
    return (await fetch(url, { signal: AbortSignal.timeout(1_000) })).ok;
  } catch {
    return false;
  }
};

const bun = (file: string) => [process.execPath, join(ROOT, file)];

/** The bundled services that are needed here, and the variables that name them. */
async function bundled(wanted: Settings, env: Record<string, string>) {
  const names = BUNDLED.filter(
    (name) => wanted.homeless.includes(name) && existsSync(join(ROOT, `services/${name}.ts`)),
  );
  const urls: Record<string, string> = {};
  const programs: Program[] = [];
  for (const name of names) {
    const url = `http://127.0.0.1:${await freePort()}`;
    urls[`${name.toUpperCase()}_URL`] = url;
    programs.push({
      name,
      command: bun(`services/${name}.ts`),
      env: { ...env, HOST: "127.0.0.1", PORT: new URL(url).port, NODE_ENV: "production" },
      ready: answers(`${url}/health`),
      startMs: START_MS,
      stopMs: 5_000,
    });
  }
  return { programs, urls };
}

/** A small building to try everything with. Its absence is no reason not to start. */
async function sampleModel(dir: string): Promise<string | undefined> {
  const script = join(ROOT, "services/make-house.ts");
  if (!existsSync(script)) return undefined;
  if (!existsSync(join(dir, "house.ifc"))) {
    const { ok, text } = await output([process.execPath, script, dir]);
    if (!ok) say(`no sample model: ${text}`);
  }
  return existsSync(join(dir, "house.ifc")) ? "/examples/house.ifc" : undefined;
}

/** What to do next, ready to be pasted. */
function welcome(wanted: Settings, base: string, sample: string | undefined, redis: string): void {
  const board = wanted.dashboardPort ? origin(wanted.dashboardHost, wanted.dashboardPort) : "off (DASHBOARD_PORT=0)";
  const key = wanted.hasKeys ? ' -H "X-API-Key: $API_KEY"' : "";
  say(`\nReady.\n\n  API        ${base}\n  Dashboard  ${board}\n  Redis      ${redis}\n`);
  if (sample) {
    const body = `{"input_filename": "${sample}", "output_filename": "/output/converted/house.glb"}`;
    say(`Try it: turn a small house into a GLB, and follow the job.${key ? " $API_KEY is one of API_KEYS." : ""}\n`);
    // Without the prefix, so that it can be copied as it stands.
    process.stdout.write(
      `told=$(curl -s${key} ${base}/ifcconvert -H 'content-type: application/json' \\\n` +
        `  -d '${body}'); printf '%s\\n' "$told"\n` +
        `id=$(printf %s "$told" | sed -n 's/.*"job_id": *"\\([^"]*\\)".*/\\1/p')\n` +
        `while [ -n "$id" ] && s=$(curl -s${key} ${base}/jobs/$id/status) && printf '%s\\n' "$s" &&\n` +
        `  ! printf %s "$s" | grep -qE '"status": *("(finished|failed)"|4)'; do sleep 1; done\n\n`,
    );
  }
  say("Ctrl-C stops everything.");
}

async function main(): Promise<number> {
  let held: Lock | undefined;
  let children: Children | undefined;
  let stops = 0;
  const stopped = Promise.withResolvers<number>();

  let lastMs = -Infinity;
  const onSignal = (signal: NodeJS.Signals) => {
    // One Ctrl-C arrives up to three times: from the terminal, from npx and from `bun run`, which both pass it on.
    const isEcho = performance.now() - lastMs < ECHO_MS;
    lastMs = performance.now();
    if (isEcho) return;
    stops++;
    children?.cease();
    endCommands();
    if (stops === 1) {
      const what = children
        ? "Running jobs may finish for DRAIN_TIMEOUT; Ctrl-C again to stop at once."
        : "Nothing was started yet.";
      say(`${signal}: stopping. ${what}`);
      stopped.resolve(0);
    } else {
      children?.hurry();
      stopped.resolve(130);
    }
  };
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, onSignal);
  if (!ignoresHangup()) process.on("SIGHUP", onSignal); // nohup, and the terminal was closed
  onOrphaned(() => !stops && onSignal("SIGTERM"));
  // Whoever reads the output has gone (`up | head`): nobody would see what happens from here on.
  process.stdout.on("error", () => !stops && onSignal("SIGHUP"));

  const checkpoint = () => {
    if (stops) throw new Trouble("stopped before everything was started");
  };

  async function begin(): Promise<void> {
    await packages(ROOT, { production: true }, say);
    const folders = localDefaults(process.env);
    const wanted = await settings({ ...process.env, ...folders });
    for (const [, warning] of wanted.mistyped) say(warning);
    if (!wanted.port) wanted.port = await freePort();
    held = await lock(wanted.dataDir, say, checkpoint, wanted.drainMs);
    await mustBeFree(wanted);
    for (const name of ["UPLOADS_DIR", "OUTPUT_DIR", "EXAMPLES_DIR"] as const) {
      mkdirSync(folders[name] as string, { recursive: true });
    }
    const base = origin(wanted.host, wanted.port);
    const env: Record<string, string> = {
      ...Object.fromEntries(wanted.mistyped.map(([name]) => [name, ""])), // said above; worker and gateway need not
      ...folders,
      PORT: String(wanted.port),
      GATEWAY_URL: process.env.GATEWAY_URL || base,
      NODE_ENV: "production", // else an exception page shows source code
      ...bunStart(process.env),
    };
    checkpoint();

    // Services first: their packages are the slow part of a first start.
    const services = await bundled(wanted, folders);
    if (services.programs.length) await packages(join(ROOT, "services"), { production: true }, say);
    const sample = services.programs.length ? await sampleModel(wanted.examplesDir) : undefined;
    checkpoint();

    const gatewayStopMs = wanted.shutdownMs + 15_000;
    const keep = new Children(
      show,
      say,
      (trouble) => stopped.reject(trouble),
      Math.max(wanted.drainMs, gatewayStopMs - 10_000),
    );
    children = keep;
    held.note({ guard: keep.guardPid });
    let redisUrl = process.env.REDIS_URL;
    if (redisUrl) await given(redisUrl);
    else {
      const redis = await own(wanted.dataDir, say);
      redisUrl = redis.url;
      held.note({ redisPort: redis.port });
      const ready = async () => (await silence(redis.url, 1_000)) === undefined;
      // A long append-only file takes its time to load.
      await keep.start({ name: "redis", command: redis.command, ready, startMs: 300_000, stopMs: 60_000, quiet: true });
      say(`${redis.command[0]} on port ${redis.port}, data in ${join(wanted.dataDir, "redis")}`);
    }
    env.REDIS_URL = redisUrl;
    checkpoint();

    await Promise.all(services.programs.map((program) => keep.start(program)));
    Object.assign(env, services.urls);
    checkpoint();
    const stopMs = wanted.drainMs + 10_000;
    await keep.start({ name: "worker", command: bun("worker.ts"), env, startMs: START_MS, stopMs });
    const ready = answers(`${base}/readyz`);
    await keep.start({
      name: "gateway",
      command: bun("gateway.ts"),
      env,
      ready,
      startMs: START_MS,
      stopMs: gatewayStopMs,
    });
    checkpoint();
    welcome(wanted, base, sample, process.env.REDIS_URL ? "REDIS_URL" : redisUrl);
  }

  let code: number;
  try {
    const begun = begin();
    // A signal while starting counts at once, though a step that is under way ends first.
    await Promise.race([begun, stopped.promise]);
    code = await stopped.promise;
    if (stops === 1) await begun.catch(() => {}); // ends at its next checkpoint
  } catch (error) {
    if (!(error instanceof Trouble)) throw error;
    if (!stops) say(error.message);
    code = stops ? 0 : 1;
  } finally {
    await children?.stop();
    (held as Lock | undefined)?.release();
  }
  if (stops) say("Stopped; nothing is left running.");
  return stops > 1 ? 130 : code;
}

process.exit(await main());

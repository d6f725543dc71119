/**
 * Sets up what a fresh machine lacks: npm packages by Bun, programs by the system's package manager.
 * Built-ins only, here and in the whole folder: this runs before anything is installed.
 */

export type Say = (line: string) => void;

/** A sentence for a person; no stack is shown. */
export class Trouble extends Error {}

/** The first of these programs that is on PATH. */
export function onPath(...names: string[]): string | undefined {
  for (const name of names) {
    const path = Bun.which(name);
    if (path) return path;
  }
  return undefined;
}

const running = new Set<Bun.Subprocess>();

/** Ends the commands that run, because everything is to stop: an install may take a minute. */
export function endCommands(): void {
  for (const child of running) child.kill("SIGTERM");
}

/**
 * Runs a command to its end. `text` is what it printed, errors last. It has a process group of its own: a Ctrl-C in a terminal reaches
 * `up` alone, which would otherwise take its end for a failure.
 */
export async function output(
  command: string[],
  options: { cwd?: string; env?: Record<string, string | undefined> } = {},
) {
  const child = Bun.spawn(command, { ...options, detached: true, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  running.add(child);
  const [out, err] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()]);
  const ok = (await child.exited) === 0;
  running.delete(child);
  return { ok, out, text: `${out}${err}`.trimEnd() };
}

/**
 * Installs the packages of bun.lock. Takes 30 ms and no network when all are there.
 * `production` leaves out what only tests and checks need, and removes nothing that is there already.
 * @throws Trouble with Bun's own output
 */
export async function packages(dir: string, { production }: { production: boolean }, say: Say): Promise<void> {
  // process.execPath: with npx the only bun is in npm's cache, not on PATH.
  const command = [process.execPath, "install", "--frozen-lockfile", ...(production ? ["--production"] : [])];
  const { ok, out, text } = await output(command, { cwd: dir });
  if (!ok) throw new Trouble(whyNotInstalled(dir, text));
  const done = /^\d+ packages? installed.*$/m.exec(out)?.[0];
  if (done) say(`${dir}: ${done}`);
}

/** A failed install in one sentence where the registry is away; else in Bun's own words. */
function whyNotInstalled(dir: string, text: string): string {
  const away =
    /\b(ConnectionRefused|ConnectionClosed|ConnectionReset|FailedToOpenSocket|HostNotFound|DNS\w*|ENOTFOUND|EAI_AGAIN|ECONN\w+|ETIMEDOUT|Timeout|CERT_\w+|\w+_CERTIFICATE|SELF_SIGNED\w*|\w*Certificate\w*)\b/i.exec(
      text,
    )?.[1];
  if (away === undefined) return `bun install failed in ${dir}:\n${text}`;
  const registry = process.env.NPM_CONFIG_REGISTRY || process.env.npm_config_registry;
  const where = registry && URL.canParse(registry) ? ` at ${new URL(registry).host}` : "";
  return (
    `The packages of ${dir} cannot be installed: the package registry${where} cannot be reached (${away}). ` +
    "Look at the network, or set NPM_CONFIG_REGISTRY or HTTPS_PROXY, and start again."
  );
}

/** What may be missing, by its name with each package manager. */
const WANTED = {
  redis: {
    programs: ["redis-server", "valkey-server"],
    names: { "apt-get": "redis-server", dnf: "valkey", apk: "redis", pacman: "valkey", brew: "redis", zypper: "redis" },
  },
  chromium: {
    programs: ["chromium", "chromium-browser", "google-chrome"],
    names: {
      ...{ "apt-get": "chromium", dnf: "chromium", apk: "chromium", pacman: "chromium" },
      ...{ brew: "--cask chromium", zypper: "chromium" },
    },
  },
  faketime: {
    programs: ["faketime"],
    names: {
      ...{ "apt-get": "faketime", dnf: "libfaketime", apk: "libfaketime", pacman: "libfaketime" },
      ...{ brew: "libfaketime", zypper: "libfaketime" },
    },
  },
  nginx: {
    programs: ["nginx"],
    names: {
      ...{ "apt-get": "nginx-light", dnf: "nginx", apk: "nginx", pacman: "nginx" },
      ...{ brew: "nginx", zypper: "nginx" },
    },
  },
} as const;

type Manager = keyof (typeof WANTED)["redis"]["names"];
const INSTALL: Record<Manager, string[]> = {
  "apt-get": ["install", "-y", "--no-install-recommends"],
  dnf: ["install", "-y"],
  apk: ["add"],
  pacman: ["-S", "--noconfirm"],
  brew: ["install"],
  zypper: ["--non-interactive", "install"],
};

async function run(command: string[], say: Say, env: Record<string, string | undefined> = {}): Promise<boolean> {
  say(`$ ${command.join(" ")}`);
  const { ok, text } = await output(command, { env: { ...process.env, ...env } });
  if (!ok) for (const line of text.split("\n").slice(-8)) say(line);
  return ok;
}

/**
 * The path of a program, installed by the system's package manager where it is missing, after saying so.
 * @param otherwise  what a person may do instead, the end of the error
 * @throws Trouble that says exactly what to type
 */
export async function program(what: keyof typeof WANTED, otherwise: string, say: Say): Promise<string> {
  const { programs, names } = WANTED[what];
  const found = onPath(...programs);
  if (found) return found;

  const missing = `${programs.slice(0, 2).join(" or ")} is not on PATH`;
  const manager = (Object.keys(INSTALL) as Manager[]).find((name) => onPath(name));
  if (!manager) {
    throw new Trouble(
      `${missing}, and no package manager that is known here.\n` +
        `Install it (Debian, Ubuntu: apt-get install ${names["apt-get"]}; macOS: brew install ${names.brew}), ${otherwise}`,
    );
  }
  const command = [manager, ...INSTALL[manager], ...names[manager].split(" ")];
  const isRoot = process.getuid?.() === 0;
  const byHand = `Type: ${isRoot || manager === "brew" ? "" : "sudo "}${command.join(" ")}\nthen start again, ${otherwise}`;
  // Homebrew refuses to run as root; the others need it. sudo only where it asks for no password: nobody may be there.
  const sudo = isRoot || manager === "brew" ? [] : ["sudo", "-n"];
  if (sudo.length && !(onPath("sudo") && Bun.spawnSync([...sudo, "true"]).success)) {
    throw new Trouble(`${missing}, and installing it needs root.\n${byHand}`);
  }
  say(`${missing}; installing it with ${manager}`);
  const quiet = { DEBIAN_FRONTEND: "noninteractive" };
  if (manager === "apt-get") await run([...sudo, "apt-get", "update", "-qq"], say, quiet);
  const done = await run([...sudo, ...command], say, quiet);
  const path = onPath(...programs);
  if (!done || !path) throw new Trouble(`${missing}, and ${manager} could not install it.\n${byHand}`);
  return path;
}

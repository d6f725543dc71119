/**
 * The configuration as `up` needs it. shared/config.ts has dependencies, and a process that began before they were
 * installed does not find them afterwards (Bun remembers that there was no node_modules). So a child reads it:
 *
 *   bun up/settings.ts      prints Settings as JSON, or every mistake, with exit code 1
 */
import { resolve } from "node:path";
import { output, Trouble } from "./install.ts";

export const ROOT = resolve(import.meta.dir, "..");

export interface Settings {
  port: number;
  /** 0: no dashboard. */
  dashboardPort: number;
  host: string;
  dashboardHost: string;
  dataDir: string;
  examplesDir: string;
  drainMs: number;
  shutdownMs: number;
  hasKeys: boolean;
  /** Services without an address, for which a bundled one may be started. */
  homeless: string[];
  /** Variables that nobody reads, with a sentence for each. */
  mistyped: [name: string, warning: string][];
}

type Env = Record<string, string | undefined>;

/** On one machine the shared volumes are folders of the project, not of the root directory. */
export function localDefaults(env: Env): Record<string, string> {
  const dataDir = resolve(ROOT, env.DATA_DIR || ".data");
  const folder = (name: string, fallback: string) => resolve(ROOT, env[name] || fallback);
  return {
    DATA_DIR: dataDir,
    UPLOADS_DIR: folder("UPLOADS_DIR", `${dataDir}/uploads`),
    OUTPUT_DIR: folder("OUTPUT_DIR", `${dataDir}/output`),
    EXAMPLES_DIR: folder("EXAMPLES_DIR", "examples"),
    RESULTS_DIR: folder("RESULTS_DIR", `${dataDir}/results`),
  };
}

/** @throws Trouble with every mistake at once */
export async function settings(env: Env): Promise<Settings> {
  const { ok, out, text } = await output([process.execPath, `${ROOT}/up/settings.ts`], { env, cwd: ROOT });
  if (!ok) throw new Trouble(text);
  return JSON.parse(out) as Settings;
}

if (import.meta.main) {
  const { ConfigError, readConfig } = await import("../shared/config.ts");
  try {
    const config = readConfig(process.env, { listens: true });
    const told: Settings = {
      ...{ port: config.port, dashboardPort: config.dashboardPort },
      ...{ host: config.host, dashboardHost: config.dashboardHost },
      ...{ dataDir: config.dataDir, examplesDir: config.examplesDir, drainMs: config.drainMs },
      shutdownMs: config.shutdownMs,
      hasKeys: config.apiKeys.length > 0,
      homeless: config.registry.operations.filter((op) => !op.url).map((op) => op.service),
      mistyped: [...config.mistyped],
    };
    console.log(JSON.stringify(told));
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    console.error(error.message);
    process.exitCode = 1;
  }
}

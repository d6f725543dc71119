/**
 * Where Deno lies. npm's command of that name is a Node script that starts the real one: a signal ends the script alone,
 * and the Deno process goes on for good.
 */
import { join } from "node:path";

const ROOT = new URL("../..", import.meta.url).pathname;
const [own] = new Bun.Glob("node_modules/@deno/*/deno").scanSync({ cwd: ROOT });

/** null where there is none */
export const DENO: string | null = own ? join(ROOT, own) : Bun.which("deno");

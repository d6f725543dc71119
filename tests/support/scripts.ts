/** Every script of the store with its binding: what script.ts knows of it. */
import { Glob } from "bun";
import { boundScripts } from "../../shared/script.ts";

const store = new URL("../../shared/store/", import.meta.url).pathname;
for (const file of new Glob("*.ts").scanSync({ cwd: store })) await import(store + file);

export const ALL_SCRIPTS = boundScripts();

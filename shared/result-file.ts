/** Large results as files on the volume: see jobs.ts, resultDir, for where and why. */
import { mkdir, rename, writeFile } from "node:fs/promises";
import { resultDir } from "./jobs.ts";
import type { Taken } from "./store/consume.ts";

/** Writes a large result whole or not at all, under the attempt's own name. @throws Error of the file system */
export async function keepResult(resultsDir: string, { id, token }: Taken, result: string | Uint8Array): Promise<void> {
  const dir = resultDir(resultsDir, id);
  const temporary = `${dir}/.${token}`;
  await mkdir(dir, { recursive: true });
  await writeFile(temporary, result, { flush: true });
  await rename(temporary, `${dir}/${token}`);
}

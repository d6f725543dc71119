/** A file system of a few MiB that can be filled up and freed again. Needs the right to mount. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export type SmallDisk = { dir: string; fill(): void; free(): void; remove(): void };

/** @returns undefined where this process may not mount */
export function smallDisk(mib = 16): SmallDisk | undefined {
  const dir = mkdtempSync(join(tmpdir(), "longhaul-disk-"));
  const mounted = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", `size=${mib}m`, "tmpfs", dir]);
  if (mounted.exitCode !== 0) {
    rmSync(dir, { recursive: true });
    return undefined;
  }
  const ballast = join(dir, "ballast");
  mkdirSync(join(dir, "results"));
  return {
    dir: join(dir, "results"),
    fill() {
      for (const bytes of [1 << 20, 4_096]) {
        try {
          for (let i = 0; ; i++) writeFileSync(`${ballast}-${bytes}-${i}`, new Uint8Array(bytes));
        } catch {} // full
      }
    },
    free() {
      for (const name of new Bun.Glob("ballast-*").scanSync(dir)) rmSync(join(dir, name));
    },
    remove() {
      Bun.spawnSync(["umount", "-l", dir]);
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** Small file systems in memory that a chaos run can fill. Needs root; without it the faults of full disks are left out, aloud. */
import { mkdirSync, rmSync, statfsSync } from "node:fs";

export type Disk = {
  /** takes all space that is left */
  fill(): void;
  empty(): void;
  unmount(): void;
};

/** Mounts a tmpfs of its own at `dir`. @returns undefined where this user or this machine may not */
export function mountDisk(dir: string, sizeMiB: number): Disk | undefined {
  mkdirSync(dir, { recursive: true });
  const mounted = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", `size=${sizeMiB}m,mode=0700`, "longhaul-chaos", dir]);
  if (mounted.exitCode !== 0) return undefined;
  const ballast = `${dir}/ballast`;
  return {
    fill() {
      const { bavail, bsize } = statfsSync(dir);
      // leaves less than a page: a file may be made, and nothing written to it
      if (bavail > 0) Bun.spawnSync(["fallocate", "-l", String(bavail * bsize), ballast]);
    },
    empty() {
      rmSync(ballast, { force: true });
    },
    unmount() {
      Bun.spawnSync(["umount", "-l", dir]);
    },
  };
}

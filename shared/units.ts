/** Durations and sizes as people type them. */
export const UNITS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** "30s", "5m", "2h", "1d", "250ms", or a number of seconds → ms; undefined when it is none. */
export function durationMs(text: string): number | undefined {
  const m = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)?$/.exec(text.trim());
  return m ? Math.round(Number(m[1]) * (UNITS[m[2] ?? "s"] as number)) : undefined;
}

/** "16MiB", "2GiB", "512KiB", "1000" → bytes; undefined when it is none. */
export function sizeBytes(text: string): number | undefined {
  const m = /^(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|KB|MB|GB)?$/i.exec(text.trim());
  if (!m) return undefined;
  const power = { b: 0, k: 1, m: 2, g: 3 }[(m[2] ?? "B").charAt(0).toLowerCase()] as number;
  const base = (m[2] ?? "").toLowerCase().includes("ib") ? 1024 : 1000;
  return Math.round(Number(m[1]) * base ** power);
}

export const MAX_DURATION_MS = 30 * 86_400_000;

/** Durations and sizes as people type them, and as sentences show them. */
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

/** A limit as people say it: 3600000 → "1 h", 90000 → "1 min 30 s", 250 → "250 ms". */
export function durationText(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  const s = Math.round(ms / 10) / 100;
  const [h, min] = [Math.floor(s / 3_600), Math.floor((s % 3_600) / 60)];
  const rest = Math.round((s % 60) * 100) / 100;
  return [h && `${h} h`, min && `${min} min`, rest && `${rest} s`].filter(Boolean).join(" ");
}

/** A limit as it was set: 16777216 → "16 MiB", 5000000 → "5 MB", 1234 → "1234 bytes". */
export function sizeText(bytes: number): string {
  for (const [base, names] of [
    [1024, ["GiB", "MiB", "KiB"]],
    [1000, ["GB", "MB", "KB"]],
  ] as const) {
    for (const [i, name] of names.entries()) {
      const unit = base ** (names.length - i);
      if (bytes >= unit && bytes % unit === 0) return `${bytes / unit} ${name}`;
    }
  }
  return `${bytes} bytes`;
}

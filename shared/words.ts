/** Figures in words, for sentences that people read. */
const MINUTE = 60_000;

/** A time span: "40 s", "6 min", "3 h", "2 d". @param ms below 0 counts as 0 */
export const ago = (ms: number): string => {
  if (ms < 90_000) return `${Math.max(0, Math.round(ms / 1_000))} s`;
  if (ms < 90 * MINUTE) return `${Math.round(ms / MINUTE)} min`;
  if (ms < 36 * 60 * MINUTE) return `${Math.round(ms / (60 * MINUTE))} h`;
  return `${Math.round(ms / (24 * 60 * MINUTE))} d`;
};
export const jobs = (n: number) => `${n} ${n === 1 ? "job" : "jobs"}`;
/** The verb of so many jobs. */
export const wait = (n: number) => (n === 1 ? "waits" : "wait");
export const percent = (share: number) => `${Math.round(100 * share)} %`;

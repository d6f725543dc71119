// Figures and times as a reader wants them: in the reader's own language and zone.
const whole = new Intl.NumberFormat();
const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const dateTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const zone = new Intl.DateTimeFormat().resolvedOptions().timeZone;

export const num = (n) => (n === null || n === undefined ? "–" : whole.format(n));
/** For places with little room: 12.4K from ten thousand on. */
export const compact = (n) => (n >= 10_000 ? short.format(n) : whole.format(n));
export const jobs = (n) => `${num(n)} ${n === 1 ? "job" : "jobs"}`;

const two = (n) => String(n).padStart(2, "0");
/** A length of time from ms: 40 ms, 2.4 s, 3 min 20 s, 2 h 05 min, 3 d 4 h. */
export function span(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return "–";
  if (ms < 0) return "0 s";
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 9_950) return `${(ms / 1_000).toFixed(1)} s`;
  const s = Math.round(ms / 1_000);
  if (s < 90) return `${s} s`;
  if (s < 3_600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
  if (s < 86_400) return `${Math.floor(s / 3_600)} h ${two(Math.floor((s % 3_600) / 60))} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3_600)} h`;
}

/** A length of time in one unit, for what changes while one looks: 12 s, 6 min, 3 h, 2 d. */
export function about(ms) {
  const s = Math.max(0, Math.round(ms / 1_000));
  if (s < 90) return `${s} s`;
  if (s < 5_400) return `${Math.round(s / 60)} min`;
  if (s < 129_600) return `${Math.round(s / 3_600)} h`;
  return `${Math.round(s / 86_400)} d`;
}

/** "6 min ago", "in 3 h", "now". */
export function ago(ms, now) {
  const past = now - ms;
  if (Math.abs(past) < 1_500) return "now";
  return past > 0 ? `${about(past)} ago` : `in ${about(-past)}`;
}

export const absolute = (ms) => `${dateTime.format(ms)} (${zone})`;
export const timeOfDay = (ms) => clock.format(ms);

export function bytes(n) {
  if (n === null || n === undefined) return "–";
  if (n < 1_000) return `${n} B`;
  const unit = Math.min(3, Math.floor(Math.log10(n) / 3));
  const value = n / 1_000 ** unit;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${["B", "kB", "MB", "GB"][unit]}`;
}

/** A time from the API, ISO or ms, as ms. */
export const ms = (time) => (typeof time === "string" ? Date.parse(time) : (time ?? undefined));
/** The part of an id that tells it from others. */
export const shortId = (id) => (id.includes("_") ? id.slice(id.indexOf("_") + 1).slice(0, 8) : id.slice(0, 8));

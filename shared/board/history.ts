/**
 * What happened in the last hour, day and week, from the counters that the scripts keep (lua/lib/tally.lua).
 * Slices that are over never change, so each is read once, in bounded steps; only the newest two are read again.
 * Cost and memory are those of the slices, whatever the number of jobs and of viewers.
 */
import { type ServiceName, serviceName } from "../jobs.ts";
import type { Viewer } from "../store/view.ts";

/** Counters of one slice. Histograms have half-octave buckets: b covers 2^(b/2) ms up to 2^((b+1)/2) ms. */
type Slice = {
  submitted: number;
  started: number;
  finished: number;
  failed: number;
  canceled: number;
  retried: number;
  run: Map<number, number>;
  wait: Map<number, number>;
};
export type Span = { p50: number; p95: number; n: number };
/** Points of a chart, all services or one; a figure a step, oldest first. */
export type Series = Record<"submitted" | "finished" | "failed" | "canceled", number[]>;

const MINUTE = 60_000;
const HOUR = 3_600_000;
/** `slices` of `kind` shown as points of `each` slices. */
export const RANGES = {
  "1h": { kind: "m", sliceMs: MINUTE, slices: 60, each: 1, freshMs: 5_000 },
  "24h": { kind: "m", sliceMs: MINUTE, slices: 1_440, each: 15, freshMs: 30_000 },
  "7d": { kind: "h", sliceMs: HOUR, slices: 168, each: 2, freshMs: 60_000 },
} as const;
export type Range = keyof typeof RANGES;
/** Slices that one script call reads. */
const STEP = 60;

/** The last slice of a range: points begin at whole multiples of their width, so that they do not creep. */
const lastOf = (range: Range, now: number) => {
  const { sliceMs, each } = RANGES[range];
  return Math.floor(now / (sliceMs * each)) * each + each - 1;
};

const COUNTERS = ["submitted", "finished", "failed", "canceled", "retried"] as const;

function sliceOf(flat: string[]): Slice {
  const slice: Slice = {
    submitted: 0,
    started: 0,
    finished: 0,
    failed: 0,
    canceled: 0,
    retried: 0,
    run: new Map(),
    wait: new Map(),
  };
  for (let i = 0; i < flat.length; i += 2) {
    const field = flat[i] as string;
    const n = Number(flat[i + 1]);
    if ((COUNTERS as readonly string[]).includes(field)) slice[field as (typeof COUNTERS)[number]] = n;
    const bucket = /^([rw])(\d+)$/.exec(field);
    if (bucket?.[1] === "r") slice.run.set(Number(bucket[2]), n);
    if (bucket?.[1] === "w") {
      slice.wait.set(Number(bucket[2]), n);
      slice.started += n; // a first start observes its wait
    }
  }
  return slice;
}

/** p50 and p95 of a histogram in ms, interpolated inside the bucket; undefined when nothing was observed. */
export function span(histogram: Map<number, number>): Span | undefined {
  const buckets = [...histogram].sort(([a], [b]) => a - b);
  const n = buckets.reduce((sum, [, count]) => sum + count, 0);
  if (n === 0) return undefined;
  const at = (share: number) => {
    let before = 0;
    for (const [bucket, count] of buckets) {
      if (before + count >= share * n) return Math.round(2 ** ((bucket + (share * n - before) / count) / 2));
      before += count;
    }
    return 0;
  };
  return { p50: at(0.5), p95: at(0.95), n };
}

function merge(into: Map<number, number>, from: Map<number, number>): void {
  for (const [bucket, n] of from) into.set(bucket, (into.get(bucket) ?? 0) + n);
}

/** One service's last hour, as its card shows it. Times in ms. */
export type LastHour = {
  submitted: number;
  started: number;
  finished: number;
  failed: number;
  retried: number;
  run: Span | null;
  wait: Span | null;
  /** ends a minute, 60 of them, oldest first: [finished, failed] */
  ends: [number[], number[]];
};

type Read = { slices: Map<number, Slice>; readTo: number };

export class History {
  private readonly reads = new Map<string, Read>();
  private readonly answers = new Map<string, { until: number; work: Promise<unknown> }>();

  constructor(
    private readonly viewer: Pick<Viewer, "history">,
    private readonly services: string[],
    /** the time by Redis, ms since 1970: its clock says which slice a count falls into */
    private readonly now: () => number,
  ) {}

  /** The last hour of every service, at most 5 s old. @throws Fault redis_* */
  lastHour(): Promise<Record<string, LastHour>> {
    return this.cached("hour", RANGES["1h"].freshMs, async () => {
      const all = await Promise.all(this.services.map((name) => this.read(serviceName(name), "1h")));
      return Object.fromEntries(this.services.map((name, i) => [name, hourOf(all[i] as (Slice | undefined)[])]));
    });
  }

  /**
   * A chart's figures.
   * @param service  undefined = all together
   * @throws Fault redis_*
   */
  chart(range: Range, service: string | undefined): Promise<{ from: number; stepMs: number; series: Series }> {
    const { sliceMs, slices, each, freshMs } = RANGES[range];
    return this.cached(`${range} ${service ?? ""}`, freshMs, async () => {
      const names = service === undefined ? this.services : [service];
      const all = await Promise.all(names.map((name) => this.read(serviceName(name), range)));
      const points = slices / each;
      const zeros = () => new Array<number>(points).fill(0);
      const series: Series = { submitted: zeros(), finished: zeros(), failed: zeros(), canceled: zeros() };
      for (const list of all) {
        list.forEach((slice, i) => {
          if (!slice) return;
          const point = Math.floor(i / each);
          for (const name of Object.keys(series) as (keyof Series)[]) {
            series[name][point] = (series[name][point] ?? 0) + slice[name];
          }
        });
      }
      return { from: (lastOf(range, this.now()) - slices + 1) * sliceMs, stepMs: sliceMs * each, series };
    });
  }

  private cached<T>(name: string, freshMs: number, make: () => Promise<T>): Promise<T> {
    const known = this.answers.get(name);
    if (known && known.until > performance.now()) return known.work as Promise<T>;
    const work = make();
    this.answers.set(name, { until: performance.now() + freshMs, work });
    work.catch(() => this.answers.delete(name));
    return work;
  }

  /** Slices of a range, oldest first, undefined where nothing happened. */
  private async read(service: ServiceName, range: Range): Promise<(Slice | undefined)[]> {
    const { kind, sliceMs, slices } = RANGES[range];
    const name = `${service} ${range}`;
    const read = this.reads.get(name) ?? { slices: new Map<number, Slice>(), readTo: 0 };
    this.reads.set(name, read);
    const now = this.now();
    const last = Math.floor(now / sliceMs);
    const first = lastOf(range, now) - slices + 1;
    // What was counted at the end of a slice may be added up later: the one before the last is read anew. So is all where
    // the clock was set back.
    const from = read.readTo > last + 1 ? first : Math.max(first, read.readTo - 1);
    for (let at = from; at <= last; at += STEP) {
      const found = await this.viewer.history(service, kind, at, Math.min(last, at + STEP - 1));
      for (const [slice, flat] of found) read.slices.set(slice, sliceOf(flat));
    }
    read.readTo = last;
    for (const slice of read.slices.keys()) if (slice < first) read.slices.delete(slice);
    return Array.from({ length: slices }, (_, i) => read.slices.get(first + i));
  }
}

function hourOf(slices: (Slice | undefined)[]): LastHour {
  const run = new Map<number, number>();
  const wait = new Map<number, number>();
  const sum = (name: "submitted" | "started" | "finished" | "failed" | "retried") =>
    slices.reduce((n, slice) => n + (slice?.[name] ?? 0), 0);
  for (const slice of slices) {
    if (slice) {
      merge(run, slice.run);
      merge(wait, slice.wait);
    }
  }
  return {
    submitted: sum("submitted"),
    started: sum("started"),
    finished: sum("finished"),
    failed: sum("failed"),
    retried: sum("retried"),
    run: span(run) ?? null,
    wait: span(wait) ?? null,
    ends: [slices.map((slice) => slice?.finished ?? 0), slices.map((slice) => slice?.failed ?? 0)],
  };
}

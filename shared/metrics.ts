/** The shared snapshot as Prometheus text, and how many workers each service needs. */
import process from "node:process";
import { Counter, Gauge, type Metric, Registry } from "prom-client";
import type { Config } from "./config.ts";
import type { ServiceState, Snapshot } from "./snapshot.ts";

/** Answers of this process by method and status. */
export class Answers {
  readonly counts = new Map<string, Map<number, number>>();
  count(method: string, response: Response): Response {
    let byStatus = this.counts.get(method);
    if (!byStatus) {
      byStatus = new Map();
      this.counts.set(method, byStatus);
    }
    byStatus.set(response.status, (byStatus.get(response.status) ?? 0) + 1);
    return response;
  }
}

/** One a process, counted where it serves: a middleware would cost every request more. */
export const answers = new Answers();

/** What the scripts count (lua/lib/tally.lua) → metric and help. Counted in Redis, so they outlive every process. */
const COUNTED: Record<string, [name: string, help: string]> = {
  retried: ["retries", "Attempts that failed and were tried again"],
  redelivered: ["redeliveries", "Attempts that ended without a verdict: worker died, connection reset"],
  orphaned: ["orphans", "Jobs taken back from workers that died"],
  returned: ["returns", "Jobs handed back: shutdown, service refused the connection"],
  poison: ["poisoned", "Jobs failed because workers died under them too often"],
  stale: ["stale_settles", "Results refused because another attempt owns the job"],
  requeued: ["requeues", "Failed or canceled jobs started anew"],
};
const OUTCOMES = ["finished", "failed", "canceled"] as const;

/** Half-octave buckets that are shown: from 11 ms to 37 h; what lies below is in the first. */
const FIRST = 6;
const LAST = 53;
/** s, the upper bound of bucket b */
const upperS = (b: number) => Number((2 ** ((b + 1) / 2) / 1_000).toPrecision(4));

type Value = { labels: Record<string, string | number>; value: number; metricName?: string };

/** A histogram whose buckets were counted elsewhere; prom-client's own observes one value at a time. */
function histogram(name: string, help: string, values: () => Value[]): Metric {
  const get = async () => ({ name, help, type: "histogram", aggregator: "sum", values: values() });
  return { name, help, get, reset() {} } as unknown as Metric;
}

function bucketsOf(name: string, kind: "r" | "w", { service, counts }: ServiceState): Value[] {
  const values: Value[] = [];
  const add = (suffix: string, value: number, labels = {}) =>
    values.push({ metricName: `${name}_${suffix}`, labels: { ...labels, service }, value });
  let sum = 0;
  let all = 0;
  for (const [field, n] of counts.totals) if (/^\d+$/.test(field.slice(1)) && field[0] === kind) all += n;
  for (let b = 0; b <= LAST; b++) {
    sum += counts.totals.get(`${kind}${b}`) ?? 0;
    if (b >= FIRST) add("bucket", sum, { le: upperS(b) });
  }
  add("bucket", all, { le: "+Inf" });
  add("sum", (counts.totals.get(`${kind}sum`) ?? 0) / 1_000);
  add("count", all);
  return values;
}

/** Prometheus text, made at most once a snapshot: scrapes cost nothing more. */
export class Metrics {
  private readonly registry = new Registry();
  private readonly fill: ((snapshot: Snapshot | undefined) => void)[] = [];
  private snapshot: Snapshot | undefined;
  private made: { of: Snapshot; text: Promise<string> } | undefined;

  constructor() {
    const services = (name: string, help: string, value: (state: ServiceState) => number) =>
      this.gauge(name, help, (snapshot, set) => {
        for (const state of snapshot.services) set(value(state), { service: state.service });
      });
    const counters = (
      name: string,
      help: string,
      labels: string[],
      values: (state: ServiceState) => [string[], number][],
    ) => {
      const counter = new Counter({ name, help, labelNames: ["service", ...labels], registers: [this.registry] });
      this.fill.push((snapshot) => {
        counter.reset();
        for (const state of snapshot?.services ?? []) {
          for (const [more, n] of values(state)) counter.labels(state.service, ...more).inc(n);
        }
      });
    };
    const total = (state: ServiceState, field: string) => state.counts.totals.get(field) ?? 0;

    this.gauge("longhaul_redis_up", "1 when Redis answered within the last seconds", () => {}, true);
    counters("longhaul_jobs_submitted_total", "Jobs accepted", [], (s) => [[[], total(s, "submitted")]]);
    counters("longhaul_jobs_total", "Jobs that ended, by outcome", ["outcome"], (s) =>
      OUTCOMES.map((outcome) => [[outcome], total(s, outcome)]),
    );
    for (const [field, [name, help]] of Object.entries(COUNTED)) {
      counters(`longhaul_${name}_total`, help, [], (s) => [[[], total(s, field)]]);
    }
    services("longhaul_queued", "Jobs that wait for a worker", (s) => s.counts.queued);
    services("longhaul_scheduled", "Jobs that wait for their time: delay, backoff", (s) => s.counts.scheduled);
    services("longhaul_started", "Jobs that run", (s) => s.counts.started);
    services("longhaul_oldest_wait_seconds", "How long the oldest queued job has waited, 0 = none waits", (s) =>
      s.counts.oldest === undefined ? 0 : Math.max(0, s.counts.now - s.counts.oldest) / 1_000,
    );
    services("longhaul_paused", "1 when an operator paused the service", (s) => Number(s.counts.paused));
    services("longhaul_parked", "1 when the microservice refuses connections", (s) =>
      Number(s.standing.word === "parked"),
    );
    services("longhaul_slots", "Jobs that all live workers together can run", (s) => s.slots);
    services("longhaul_slots_busy", "Slots that run a job", (s) => s.busy);
    this.gauge("longhaul_workers", "Live workers by what they do", (snapshot, set) => {
      for (const state of ["running", "quiet", "draining"]) {
        set(snapshot.workers.filter((worker) => worker.state === state).length, { state });
      }
    });
    for (const [kind, name, help] of [
      ["r", "longhaul_run_seconds", "From the start of the attempt that finished a job to its end"],
      ["w", "longhaul_wait_seconds", "From submit, or due time, to the first start"],
    ] as const) {
      const values = () => (this.snapshot?.services ?? []).flatMap((state) => bucketsOf(name, kind, state));
      this.registry.registerMetric(histogram(name, help, values));
    }
    this.gauge("longhaul_redis_memory_bytes", "Memory that Redis uses", (snapshot, set) => {
      if (snapshot.memory) set(snapshot.memory.used, {});
    });
    this.gauge("longhaul_redis_memory_limit_bytes", "maxmemory of Redis, 0 = none", (snapshot, set) => {
      if (snapshot.memory) set(snapshot.memory.limit, {});
    });
    const http = new Counter({
      name: "longhaul_http_requests_total",
      help: "Requests that this gateway answered",
      labelNames: ["method", "status"],
      registers: [this.registry],
    });
    const memory = new Gauge({
      name: "longhaul_gateway_memory_bytes",
      help: "Resident memory of this gateway",
      registers: [this.registry],
    });
    this.fill.push(() => {
      http.reset();
      for (const [method, byStatus] of answers.counts) {
        for (const [status, n] of byStatus) http.labels(method, String(status)).inc(n);
      }
      memory.set(process.memoryUsage().rss);
    });
  }

  get contentType(): string {
    return this.registry.contentType;
  }

  /** @param snapshot  undefined = Redis does not answer: its figures are left out rather than shown old */
  text(snapshot: Snapshot | undefined): Promise<string> {
    if (snapshot && this.made?.of === snapshot) return this.made.text;
    this.snapshot = snapshot;
    for (const fill of this.fill) fill(snapshot);
    const text = this.registry.metrics();
    this.made = snapshot && { of: snapshot, text };
    return text;
  }

  private gauge(
    name: string,
    help: string,
    read: (snapshot: Snapshot, set: (value: number, labels: Record<string, string>) => void) => void,
    up = false,
  ): void {
    const labelNames = ["service", "state"];
    const gauge = new Gauge({ name, help, labelNames, registers: [this.registry] });
    this.fill.push((snapshot) => {
      gauge.reset();
      if (up) gauge.set(Number(snapshot !== undefined));
      else if (snapshot) read(snapshot, (value, labels) => gauge.set(labels, value));
    });
  }
}

/** One service's need of workers. */
export type Need = { queued: number; started: number; slots: number; desired_workers: number };

/**
 * How many workers there should be.
 *
 *   desired = ⌈(queued + started) ÷ (slots of one worker × AUTOSCALE_TARGET)⌉
 *
 * at most what `concurrency` lets run, from AUTOSCALE_MIN to AUTOSCALE_MAX. Queued jobs of a paused service need
 * nobody. Whatever AUTOSCALE_MIN says it is 1 while anything waits for its time: workers run the clocks that promote it.
 */
export function autoscale(snapshot: Snapshot, config: Config) {
  const { autoscaleMin, autoscaleMax, autoscaleTarget, registry, workerSlots } = config;
  const bounded = (n: number, scheduled: number) =>
    Math.min(autoscaleMax, Math.max(n, autoscaleMin, scheduled > 0 ? 1 : 0));
  const services: Record<string, Need> = {};
  const all: Need = { queued: 0, started: 0, slots: 0, desired_workers: 0 };
  let waiting = 0;
  for (const { service, known, counts, slots } of snapshot.services) {
    const { queued, started, scheduled, paused } = counts;
    waiting += scheduled;
    if (!known) continue; // no worker of this configuration would serve it
    const lane = registry.lane(service);
    const each = workerSlots.get(service) ?? workerSlots.get("*") ?? lane.slots;
    const wanted = ((paused ? 0 : queued) + started) / autoscaleTarget;
    const most = lane.concurrency > 0 ? Math.min(wanted, Math.max(lane.concurrency, started)) : wanted;
    services[service] = { queued, started, slots, desired_workers: bounded(Math.ceil(most / each), scheduled) };
    all.queued += queued;
    all.started += started;
    all.slots += slots;
    // one worker runs a lane for each service, so the neediest service decides
    all.desired_workers = Math.max(all.desired_workers, Math.ceil(most / each));
  }
  all.desired_workers = bounded(all.desired_workers, waiting);
  return { ...all, services };
}

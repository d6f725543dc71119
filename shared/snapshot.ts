/**
 * The state of everything in figures, read once a second however many ask: estimates, /health and the
 * dashboard share it. Its cost is independent of the number of jobs and of viewers.
 */
import { serviceName } from "./jobs.ts";
import type { Registry } from "./services.ts";
import type { Counts, Inspector, WorkerInfo } from "./store/inspect.ts";
import { jobs, wait } from "./words.ts";

/** How a service stands, in one word and in a sentence. */
export type Standing = {
  word: "healthy" | "waiting" | "blocked" | "parked" | "paused" | "not deployed";
  text: string;
  /** ms since 1970, of a parked one; and of a blocked one with `operations` */
  since?: number;
  /** blocked only so far: operations that no worker can run, though workers serve the queue; and how many jobs of them wait */
  operations?: string[];
  jobs?: number;
};

export type ServiceState = {
  service: string;
  /** whether SERVICES names it here; one that it does not name may still have jobs in Redis */
  known: boolean;
  standing: Standing;
  counts: Counts;
  /** slots of all live workers, and how many are busy */
  slots: number;
  busy: number;
};

export type Snapshot = {
  /** ms since 1970, by Redis */
  at: number;
  services: ServiceState[];
  workers: WorkerInfo[];
  memory: { used: number; limit: number } | undefined;
};

/** ms; a worker that has not beaten for this long is not counted. Beats come every lease / 6. */
const aliveMs = (leaseMs: number) => Math.max(leaseMs, 2_000);

/** ms that a snapshot is good for. */
const FRESH_MS = 1_000;
/** ms in which a request has been served that peeked: a snapshot takes a gateway, and Redis, about as long as ten requests. */
const SERVED_MS = 3;

export class Snapshots {
  private last: Snapshot | undefined;
  /** performance.now() of the last one: a step of the machine's clock makes it neither older nor younger */
  private readAt = 0;
  private reading: Promise<Snapshot> | undefined;
  private refreshing: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly inspector: Inspector,
    private readonly registry: Registry,
    private readonly leaseMs: number,
  ) {}

  /** The newest snapshot, at most `maxAgeMs` old. @throws Fault redis_* */
  get(maxAgeMs = FRESH_MS): Promise<Snapshot> {
    if (this.last && performance.now() - this.readAt <= maxAgeMs) return Promise.resolve(this.last);
    this.reading ??= this.read().finally(() => {
      this.reading = undefined;
    });
    return this.reading;
  }

  /** The last snapshot without waiting, however old; it is refreshed behind the caller's back, and not before it is served. */
  peek(): Snapshot | undefined {
    if (!this.refreshing && (!this.last || performance.now() - this.readAt > FRESH_MS)) {
      this.refreshing = setTimeout(() => {
        this.refreshing = undefined;
        this.get().catch(() => {});
      }, SERVED_MS);
    }
    return this.last;
  }

  /** The time by Redis, ms since 1970. */
  now(): number {
    return this.inspector.time.now();
  }

  private async read(): Promise<Snapshot> {
    const registered = this.registry.services;
    const [stored, workers, memory] = await Promise.all([
      this.inspector.services(),
      this.inspector.workers(aliveMs(this.leaseMs)),
      this.inspector.memory(),
    ]);
    const names = [...registered.keys(), ...stored.filter((name) => !registered.has(name)).sort()];
    const counts = await Promise.all(names.map((name) => this.inspector.counts(serviceName(name))));
    const services = names.map((service, i) => {
      const ops = registered.get(service) ?? [];
      const lanes = workers.flatMap((worker) =>
        worker.lanes[service] ? [{ worker, lane: worker.lanes[service] }] : [],
      );
      const taking = lanes.filter(({ worker }) => worker.state === "running");
      return {
        service,
        known: registered.has(service),
        counts: counts[i] as Counts,
        slots: lanes.reduce((sum, { lane }) => sum + lane.slots, 0),
        busy: lanes.reduce((sum, { lane }) => sum + lane.busy, 0),
        standing: standing(
          counts[i] as Counts,
          { known: registered.has(service), deployed: ops.some((op) => op.url) },
          taking.map(({ lane }) => lane),
          lanes.length > 0 && taking.length === 0,
        ),
      };
    });
    this.readAt = performance.now();
    this.last = { at: this.now(), services, workers, memory };
    return this.last;
  }
}

const minutes = (ms: number) => (ms < 90_000 ? `${Math.round(ms / 1000)} s` : `${Math.round(ms / 60_000)} min`);

function standing(
  counts: Counts,
  { known, deployed }: { known: boolean; deployed: boolean },
  lanes: WorkerInfo["lanes"][string][],
  draining: boolean,
): Standing {
  const { queued, started, scheduled, now } = counts;
  const later = known ? 0 : scheduled;
  if (!known && queued + started + later === 0) return { word: "not deployed", text: "not deployed" };
  if (counts.paused) return { word: "paused", text: `paused (${jobs(queued)} ${wait(queued)})` };
  if (!deployed && queued + started === 0) return { word: "not deployed", text: "not deployed" };
  const parked = lanes.filter((lane) => lane.parked);
  if (parked.length > 0 && parked.length === lanes.length) {
    const since = Math.min(...parked.map((lane) => lane.since ?? now));
    return {
      word: "parked",
      since,
      text: `parked (${parked[0]?.parked}; ${jobs(queued)} ${wait(queued)}, for ${minutes(Math.max(0, now - since))})`,
    };
  }
  if (lanes.length === 0 && queued + later > 0) {
    const why = draining ? ": draining" : known ? "" : ", and SERVICES does not name this service";
    return { word: "blocked", text: `blocked (${jobs(queued + later)}, no worker${why})` };
  }
  // A worker of protocol 4.0 lists no operations, and takes nothing that stands aside.
  const unknown = [...counts.aside].filter(([op]) => !lanes.some((lane) => lane.operations?.includes(op)));
  if (unknown.length > 0) {
    const operations = unknown.map(([op]) => op).sort();
    const n = unknown.reduce((sum, [, aside]) => sum + aside.jobs, 0);
    const since = Math.min(...unknown.map(([, aside]) => aside.since ?? counts.now));
    const text = `blocked (${jobs(n)}, no worker for ${operationsText(operations)})`;
    return { word: "blocked", since, operations, jobs: n, text };
  }
  if (!counts.totals.get("submitted")) return { word: "waiting", text: "waiting (no jobs yet)" };
  return { word: "healthy", text: "healthy" };
}

/** At most five of them by name: SERVICES may have hundreds. */
export function operationsText(names: string[]): string {
  const more = names.length > 5 ? ` and ${names.length - 5} more` : "";
  return `${names.length === 1 ? "the operation" : "the operations"} ${names.slice(0, 5).join(", ")}${more}`;
}

/** The jobs that a blocked service keeps waiting, and what cures it, as two parts of a sentence. */
export function blockedText({ known, standing, counts }: ServiceState): { waiting: string; cure: string } {
  const { operations, jobs: n = 0 } = standing;
  if (operations) {
    const waiting = `${jobs(n)} ${wait(n)} for ${operationsText(operations)}`;
    return { waiting, cure: "; no running worker has that in its SERVICES" };
  }
  const all = counts.queued + (known ? 0 : counts.scheduled);
  const cure = known ? "" : "; SERVICES does not name this service: name it for a worker again, or empty the queue";
  return { waiting: `${jobs(all)} ${wait(all)}`, cure };
}

/** Mean duration of an operation, ms: measured, else of the service, else a guess of 5 s. */
function meanMs(state: ServiceState, operation: string): number {
  const own = state.counts.totals.get(`mean:${operation}`);
  if (own !== undefined) return own;
  let other = otherMeans.get(state);
  if (other === undefined) {
    const others = [...state.counts.totals].filter(([field]) => field.startsWith("mean:")).map(([, ms]) => ms);
    other = others.length ? others.reduce((a, b) => a + b, 0) / others.length : 5_000;
    otherMeans.set(state, other);
  }
  return other;
}
/** of a service, for operations that have not run yet; each poll asks */
const otherMeans = new WeakMap<ServiceState, number>();

/**
 * When a job is likely to be done, from measured durations and the jobs ahead.
 * @param ahead      jobs before it; undefined = it runs already
 * @param elapsedMs  how long it has run
 * @returns seconds, at least 1
 */
export function etaS(state: ServiceState, operation: string, ahead: number | undefined, elapsedMs = 0): number {
  const mean = meanMs(state, operation);
  // A mean counts from the take, and so what waits in a lane (prefetch.ts): then that many are under way at once.
  const rounds = ahead === undefined ? 0 : ahead / Math.max(1, state.slots, state.counts.started);
  return Math.max(1, Math.ceil((rounds * mean + Math.max(0, mean - elapsedMs)) / 1_000));
}

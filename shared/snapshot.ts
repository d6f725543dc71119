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
  /** ms since 1970, of a parked one */
  since?: number;
};

export type ServiceState = {
  service: string;
  standing: Standing;
  counts: Counts;
  /** slots of all live workers, and how many are busy */
  slots: number;
  busy: number;
};

export type Snapshot = {
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
  private reading: Promise<Snapshot> | undefined;
  private refreshing: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly inspector: Inspector,
    private readonly registry: Registry,
    private readonly leaseMs: number,
  ) {}

  /** The newest snapshot, at most `maxAgeMs` old. @throws Fault redis_* */
  get(maxAgeMs = FRESH_MS): Promise<Snapshot> {
    if (this.last && Date.now() - this.last.at <= maxAgeMs) return Promise.resolve(this.last);
    this.reading ??= this.read().finally(() => {
      this.reading = undefined;
    });
    return this.reading;
  }

  /** The last snapshot without waiting, however old; it is refreshed behind the caller's back, and not before it is served. */
  peek(): Snapshot | undefined {
    if (!this.refreshing && (!this.last || Date.now() - this.last.at > FRESH_MS)) {
      this.refreshing = setTimeout(() => {
        this.refreshing = undefined;
        this.get().catch(() => {});
      }, SERVED_MS);
    }
    return this.last;
  }

  private async read(): Promise<Snapshot> {
    const [counts, workers, memory] = await Promise.all([
      Promise.all([...this.registry.services.keys()].map((name) => this.inspector.counts(serviceName(name)))),
      this.inspector.workers(aliveMs(this.leaseMs)),
      this.inspector.memory(),
    ]);
    const services = [...this.registry.services].map(([service, ops], i) => {
      const lanes = workers.flatMap((worker) =>
        worker.lanes[service] ? [{ worker, lane: worker.lanes[service] }] : [],
      );
      const taking = lanes.filter(({ worker }) => worker.state === "running");
      return {
        service,
        counts: counts[i] as Counts,
        slots: lanes.reduce((sum, { lane }) => sum + lane.slots, 0),
        busy: lanes.reduce((sum, { lane }) => sum + lane.busy, 0),
        standing: standing(
          counts[i] as Counts,
          ops.some((op) => op.url),
          taking.map(({ lane }) => lane),
          lanes.length > 0 && taking.length === 0,
        ),
      };
    });
    this.last = { at: Date.now(), services, workers, memory };
    return this.last;
  }
}

const minutes = (ms: number) => (ms < 90_000 ? `${Math.round(ms / 1000)} s` : `${Math.round(ms / 60_000)} min`);

function standing(
  counts: Counts,
  deployed: boolean,
  lanes: WorkerInfo["lanes"][string][],
  draining: boolean,
): Standing {
  const { queued, started } = counts;
  if (counts.paused) return { word: "paused", text: `paused (${jobs(queued)} ${wait(queued)})` };
  if (!deployed && queued + started === 0) return { word: "not deployed", text: "not deployed" };
  const parked = lanes.filter((lane) => lane.parked);
  if (parked.length > 0 && parked.length === lanes.length) {
    const since = Math.min(...parked.map((lane) => lane.since ?? Date.now()));
    return {
      word: "parked",
      since,
      text: `parked (${parked[0]?.parked}; ${jobs(queued)} ${wait(queued)}, for ${minutes(Date.now() - since)})`,
    };
  }
  if (lanes.length === 0 && queued > 0) {
    return { word: "blocked", text: `blocked (${jobs(queued)}, no worker${draining ? ": draining" : ""})` };
  }
  if (!counts.totals.get("submitted")) return { word: "waiting", text: "waiting (no jobs yet)" };
  return { word: "healthy", text: "healthy" };
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

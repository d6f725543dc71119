/**
 * The state that the dashboard shows, as text made once and sent to everybody: its cost is that of one viewer, and
 * without viewers it is none.
 */
import type { Config } from "../config.ts";
import { serviceName } from "../jobs.ts";
import { redactJson, secretKeys } from "../redact.ts";
import type { ServiceState, Snapshots } from "../snapshot.ts";
import type { JobLine, Persistence, Viewer } from "../store/view.ts";
import { VERSION } from "../version.ts";
import { attention } from "./attention.ts";
import type { History } from "./history.ts";

/** ms between two states. */
export const TICK_MS = 1_000;
/** ms; what moves slowly is read this often. */
const SLOW_MS = 5_000;
/** Newest jobs of each state and service that a state carries, and of all in the end. */
const NEWEST = 4;
const MOST_LINES = 24;

/** What is sent to all viewers at one tick, as the bytes of server-sent events. */
export type Tick = {
  /** undefined: Redis does not answer */
  state: Uint8Array | undefined;
  changed: boolean;
  /** a short sign of life, or that Redis gives none */
  beat: Uint8Array;
};
const encoder = new TextEncoder();
const eventOf = (name: string, data: string) => encoder.encode(`event: ${name}\ndata: ${data}\n\n`);

type Slow = { until: number; newest: JobLine[]; persistence: Persistence | undefined };

export class Feed {
  private readonly listeners = new Set<(tick: Tick) => void>();
  private timer: ReturnType<typeof setTimeout> | undefined;
  /** readAt: performance.now() · at: ms since 1970, by Redis */
  private last: { readAt: number; at: number; text: string } | undefined;
  private making: Promise<string> | undefined;
  private slow: Slow | undefined;
  private readonly secret: (key: string) => boolean;

  constructor(
    private readonly config: Pick<Config, "registry" | "leaseMs" | "redactKeys" | "alerts">,
    private readonly snapshots: Snapshots,
    private readonly history: History,
    private readonly viewer: Viewer,
  ) {
    this.secret = secretKeys(config.redactKeys);
  }

  get viewers(): number {
    return this.listeners.size;
  }

  /** The state as JSON, at most a tick old. @throws Fault redis_* */
  text(): Promise<string> {
    if (this.last && performance.now() - this.last.readAt <= TICK_MS) return Promise.resolve(this.last.text);
    this.making ??= this.make().finally(() => {
      this.making = undefined;
    });
    return this.making;
  }

  /** Calls `hear` at each tick. @returns what ends it */
  listen(hear: (tick: Tick) => void): () => void {
    this.listeners.add(hear);
    this.timer ??= setTimeout(() => void this.tick(), 0);
    return () => {
      this.listeners.delete(hear);
    };
  }

  private async tick(): Promise<void> {
    const before = this.last?.text;
    const text = await this.text().catch(() => "");
    const tick: Tick = {
      state: text === "" ? undefined : eventOf("state", text),
      changed: text === "" || bodyOf(text) !== bodyOf(before ?? ""),
      beat: eventOf(text === "" ? "down" : "beat", String(this.last?.at ?? 0)),
    };
    for (const hear of this.listeners) hear(tick);
    this.timer = this.listeners.size > 0 ? setTimeout(() => void this.tick(), TICK_MS) : undefined;
  }

  private async make(): Promise<string> {
    const { registry, leaseMs } = this.config;
    const [snapshot, hours, slow] = await this.viewer.together(() =>
      Promise.all([this.snapshots.get(TICK_MS / 2), this.history.lastHour(), this.slowly()]),
    );
    const state = {
      at: snapshot.at,
      version: VERSION,
      attention: attention(snapshot, hours, slow.persistence, leaseMs, this.config.alerts),
      services: snapshot.services.filter(shownInBoard).map(({ service, known, standing, counts, slots, busy }) => ({
        ...{ service, known, standing, slots, busy },
        ...{ queued: counts.queued, scheduled: counts.scheduled, started: counts.started },
        ...{ finished: counts.finished, failed: counts.failed, canceled: counts.canceled },
        ...{ paused: counts.paused, oldest: counts.oldest ?? null, hour: hours[service] ?? null },
        operations: registry.services.get(service)?.map((op) => op.name) ?? [],
      })),
      workers: snapshot.workers,
      redis: snapshot.memory || slow.persistence ? { ...snapshot.memory, ...slow.persistence } : null,
      newest: slow.newest,
    };
    this.last = { readAt: performance.now(), at: snapshot.at, text: JSON.stringify(state) };
    return this.last.text;
  }

  private async slowly(): Promise<Slow> {
    if (this.slow && this.slow.until > performance.now()) return this.slow;
    const { services } = await this.snapshots.get();
    const names = services.filter(shownInBoard).map(({ service }) => serviceName(service));
    const [lines, persistence] = await Promise.all([
      Promise.all(names.map((name) => this.viewer.newest(name, NEWEST))),
      this.viewer.persistence(),
    ]);
    const newest = lines
      .flat()
      .sort((a, b) => changedAt(b) - changedAt(a))
      .slice(0, MOST_LINES)
      .map((line) => ({ ...line, text: redactJson(line.text, this.secret).slice(0, 300) }));
    this.slow = { until: performance.now() + SLOW_MS, newest, persistence };
    return this.slow;
  }
}

/** A service that SERVICES does not name has a row as long as it has jobs that wait or run. */
const shownInBoard = ({ known, standing }: ServiceState) => known || standing.word !== "not deployed";
const changedAt = (line: JobLine) => line.ended ?? line.started ?? line.created;
/** The state without its time, which always differs. */
const bodyOf = (text: string) => text.slice(text.indexOf(",") + 1);

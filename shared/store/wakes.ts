/**
 * Who waits for what: one subscription to the channel of events a gateway, opened when the first one waits.
 * A message is a hint (rule 10): whoever waits also looks by itself every LOOK_MS.
 */
import { setTimeout } from "node:timers";
import { type JobId, type State, serviceOf } from "../jobs.ts";
import { GLOBAL, root } from "../keys.ts";
import { type Connection, script } from "../script.ts";
import { probe } from "./redis.ts";

const watchScript = script<{ id: "text" }, [] | [state: State, rev: number]>("watch", { id: "text" });

/** Marks a live record, so that its changes are published. @returns state and rev; undefined when there is no such job */
export async function watch(redis: Connection, id: JobId): Promise<{ state: State; rev: number } | undefined> {
  const [state, rev] = await watchScript(redis, root(serviceOf(id)), { id });
  return state === undefined ? undefined : { state, rev: Number(rev) };
}

/** ms between looks of whoever waits. */
export const LOOK_MS = 2_000;
/** ms to wait for the first subscription before going on without it: the looks are there too. */
const SUBSCRIBE_MS = 1_000;

/** One who waits. Rings that come while nobody listens are kept as one. */
export class Bell {
  private rung = false;
  private wake: (() => void) | undefined;

  ring(): void {
    this.rung = true;
    this.wake?.();
  }

  /** Waits for a ring, at most `ms`. */
  async next(ms: number): Promise<void> {
    if (!this.rung && ms > 0) {
      await new Promise<void>((done) => {
        const timer = setTimeout(done, ms);
        this.wake = () => {
          clearTimeout(timer);
          done();
        };
      });
    }
    this.wake = undefined;
    this.rung = false;
  }
}

export class Wakes {
  private readonly bells = new Map<string, Set<Bell>>();
  private subscribed: Promise<void> | undefined;
  /** how many wait */
  size = 0;

  /** @param open  opens the connection of the subscription */
  constructor(private readonly open: () => Connection) {}

  /** A bell that rings when something happens to `topic`. Give it back with `leave`. */
  async join(topic: string): Promise<Bell> {
    const bell = new Bell();
    this.size++;
    let ring = this.bells.get(topic);
    if (!ring) {
      ring = new Set();
      this.bells.set(topic, ring);
    }
    ring.add(bell);
    this.subscribed ??= this.subscribe();
    await this.subscribed;
    return bell;
  }

  leave(topic: string, bell: Bell): void {
    const ring = this.bells.get(topic);
    if (!ring?.delete(bell)) return;
    this.size--;
    if (ring.size === 0) this.bells.delete(topic);
  }

  /** Wakes everybody. */
  ringAll(): void {
    for (const ring of this.bells.values()) for (const bell of ring) bell.ring();
  }

  private subscribe(): Promise<void> {
    const connection = this.open();
    probe(connection);
    connection.on("message", (_channel: string, topic: string) => {
      for (const bell of this.bells.get(topic) ?? []) bell.ring();
    });
    const late = new Promise<void>((done) => setTimeout(done, SUBSCRIBE_MS));
    return Promise.race([connection.subscribe(GLOBAL.events).then(() => {}), late]).catch(() => {});
  }
}

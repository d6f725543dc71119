/**
 * The idle connections to one origin, and whether that origin may have any.
 *
 * HTTP/1.1 does not say which request an answer belongs to. A surplus answer therefore is taken for that of the next request on
 * the connection, and each later one for its successor's. So a connection serves a second call only
 *
 *   named    while every answer on it named its job: the service sends `X-Job-Id` back. An answer without it, or with another
 *            id, is refused (http1.ts)
 *   vouched  where the operator says that the service sends one answer a request (`keep_alive` of an operation)
 *
 * and the origin has not been caught sending what nobody asked for.
 */
import { setTimeout } from "node:timers";
import type { Home } from "./exchange.ts";
import type { Connection } from "./http1.ts";
import type { OtherJob } from "./job-name.ts";
import { type Log, noLog } from "./log.ts";

/** ms; servers close an idle connection after 2 to 75 s, and what is sent at that moment is lost. */
const IDLE_MS = 1_000;
/**
 * ms, give or take a quarter, after which a busy connection is replaced: a replica that joined behind a balancer of connections
 * gets its share, and a name whose address changed is looked up again.
 */
const LIFE_MS = 30_000;

/**
 * A service that closes so soon after a connection's first answer, without having said so, closes after each: the next request
 * would often be lost. It gets a connection a call for a while. (One that is restarted closes connections that have served for longer.)
 */
const SOON_MS = 100;
const DISTRUST_MS = 600_000;
const NEVER = Number.NEGATIVE_INFINITY;

export const lifeMs = () => LIFE_MS * (0.75 + Math.random() / 2);

export class Pool implements Home {
  /** the one that was used last at the end */
  private readonly idle: Connection[] = [];
  /** by performance.now() */
  private distrustedUntil = NEVER;
  private loggedUntil = NEVER;
  /** whether the origin's last answer named its job; undefined = there was none yet */
  private named: boolean | undefined;
  /** of the last call */
  log: Log = noLog;

  constructor(private readonly origin: string) {}

  /** Whether a connection may serve more than one call, as far as is known before the answer. */
  reuses(vouched: boolean): boolean {
    if (!vouched && this.named === false) return false;
    return this.distrustedUntil === NEVER || performance.now() >= this.distrustedUntil;
  }

  /**
   * @param now    performance.now()
   * @param jobId  a second attempt never follows its first: both answers would have the same name
   */
  take(now: number, jobId: string | undefined, vouched: boolean): Connection | undefined {
    for (let i = this.idle.length - 1; i >= 0; i--) {
      const connection = this.idle[i] as Connection;
      if (!connection.alive || now - connection.since >= IDLE_MS) connection.close();
      else if (vouched || (connection.named && connection.jobId !== jobId)) {
        this.idle.splice(i, 1);
        return connection;
      }
    }
    return undefined;
  }

  answered(named: boolean): void {
    this.named = named;
  }

  keep(connection: Connection): void {
    if (connection.since < this.distrustedUntil || connection.since > connection.retiredAt) {
      connection.close();
      return;
    }
    this.idle.push(connection);
    lookLater();
  }

  drop(connection: Connection, byPeer: boolean): void {
    const at = this.idle.indexOf(connection);
    if (at >= 0) this.idle.splice(at, 1);
    const now = performance.now();
    if (byPeer && now - connection.first < SOON_MS) this.distrustedUntil = now + DISTRUST_MS;
  }

  refused(error: OtherJob, jobId: string | undefined): void {
    this.loggedUntil = NEVER; // each of them is logged
    this.distrust(
      `answered ${jobId ? `job ${jobId}` : "a call"}, but ${error.message}: the answer is refused and the job sent again`,
    );
  }

  distrust(why: string): void {
    const now = performance.now();
    this.distrustedUntil = now + DISTRUST_MS;
    if (now >= this.loggedUntil) {
      this.loggedUntil = this.distrustedUntil;
      const fields = { origin: this.origin, why, for: `${DISTRUST_MS / 60_000} min` };
      this.log.warn("each call to this service gets a connection of its own", fields);
    }
    for (const connection of this.idle.splice(0)) connection.close();
  }

  /** @returns how many are left */
  closeOld(): number {
    const old = performance.now() - IDLE_MS;
    while (this.idle[0] && this.idle[0].since < old) this.idle.shift()?.close();
    return this.idle.length;
  }
}

const pools = new Map<string, Pool>();
let looking = false;

export function poolOf(origin: string): Pool {
  const pool = pools.get(origin) ?? new Pool(origin);
  pools.set(origin, pool);
  return pool;
}

/** Closes what is idle for too long, while anything is idle. */
function lookLater(): void {
  if (looking) return;
  looking = true;
  setTimeout(() => {
    looking = false;
    for (const pool of pools.values()) if (pool.closeOld() > 0) lookLater();
  }, IDLE_MS).unref();
}

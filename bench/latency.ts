/** How long a job takes from its submit to its end while there is little to do, seen from outside. */

import type { Client } from "./client.ts";
import type { Contender } from "./contenders.ts";
import { type BenchRedis, CONCURRENCY } from "./machine.ts";

const EVENT = "__keyevent@0__:hset";

/**
 * Ends are taken from Redis's own notices of writes, as they come to this process: what contenders write down as their end
 * are whole ms, and BullMQ takes them before it asks Redis to keep the result. The notice's way is part of every figure.
 * @param rate  jobs a second @returns ms a job
 * @see https://redis.io/docs/latest/develop/pubsub/keyspace-notifications/
 */
export async function latenciesOf(
  contender: Contender,
  redis: BenchRedis,
  client: Client,
  rate: number,
  seconds: number,
): Promise<number[]> {
  await Bun.sleep(1_000);
  await redis.client.config("SET", "notify-keyspace-events", "Eh");
  const written = new Map<string, number>();
  const ears = redis.client.duplicate();
  ears.on("message", (_, key: string) => written.set(key, performance.timeOrigin + performance.now()));
  await ears.subscribe(EVENT);
  const before = await contender.finished(redis);
  const sent = await client.pace(rate, seconds);
  // A job that has not ended has a last write, too: its submit's or its start's.
  const all = before + sent.length + CONCURRENCY; // so many the client sends before it measures
  for (let tries = 0; (await contender.finished(redis)) < all; tries++) {
    if (tries === 100) throw new Error(`${contender.name} has not ended every job 10 s after the last submit`);
    await Bun.sleep(100);
  }
  await Bun.sleep(100);
  ears.disconnect();
  return sent.map(([id, at]) => {
    const end = written.get(contender.record(id));
    if (end === undefined) throw new Error(`Redis told of no write to ${contender.record(id)}`);
    return end - at;
  });
}

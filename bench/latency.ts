/** How long a job takes from its submit to its end while there is little to do, seen from outside. */
import type { Contender } from "./contenders.ts";
import { type BenchRedis, load } from "./machine.ts";

const EVENT = "__keyevent@0__:hset";

/**
 * Ends are taken from Redis's own notices of writes, by this process's clock: what contenders write down as their end are whole
 * ms, and BullMQ takes them before it asks Redis to keep the result.
 * @param rate  jobs a second @returns ms a job
 * @see https://redis.io/docs/latest/develop/pubsub/keyspace-notifications/
 */
export async function latenciesOf(
  contender: Contender,
  redis: BenchRedis,
  url: string,
  rate: number,
  seconds: number,
): Promise<number[]> {
  await Bun.sleep(1_000);
  await redis.client.config("SET", "notify-keyspace-events", "Eh");
  const written = new Map<string, number>();
  const ears = redis.client.duplicate();
  ears.on("message", (_, key: string) => written.set(key, performance.timeOrigin + performance.now()));
  await ears.subscribe(EVENT);
  const said = await load({ MODE: "pace", URL: url, RATE: String(rate), SECONDS: String(seconds) });
  const { sent } = JSON.parse(said) as { sent: [id: string, at: number][] };
  await Bun.sleep(500);
  ears.disconnect();
  return sent.map(([id, at]) => (written.get(contender.record(id)) ?? Number.NaN) - at);
}

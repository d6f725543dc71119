/** Connections that only listen: what nobody hears any more is noticed. */
import { afterEach, expect, test } from "bun:test";
import { newJobId, serviceName } from "../shared/jobs.ts";
import { GLOBAL } from "../shared/keys.ts";
import type { Connection } from "../shared/script.ts";
import { connect } from "../shared/store/redis.ts";
import { Wakes } from "../shared/store/wakes.ts";
import { startLossyProxy } from "./chaos/proxy.ts";
import { startRedis } from "./support/redis.ts";
import { until } from "./support/stack.ts";

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

test("a subscription whose connection went half open is made anew, and its wake-ups come again", async () => {
  const redis = await startRedis();
  closing.push(() => redis.stop());
  const proxy = await startLossyProxy(redis.port, Math.random);
  closing.push(() => proxy.stop());
  let connection: Connection | undefined;
  const wakes = new Wakes(() => {
    connection = connect(`redis://127.0.0.1:${proxy.port}`, "work", "test");
    return connection;
  });
  closing.push(() => connection?.disconnect());
  const id = newJobId(serviceName("work"));
  const bell = await wakes.join(id);
  const rings = async () => {
    const since = performance.now();
    await redis.client.publish(GLOBAL.events, id);
    await bell.next(1_000);
    return performance.now() - since < 900;
  };
  expect(await rings()).toBe(true);
  proxy.lose({ kind: "half", chance: 1 });
  await redis.client.publish(GLOBAL.events, id);
  await until(() => proxy.hits > 0);
  proxy.lose(undefined);
  expect(await rings()).toBe(false);
  await until(rings, 30_000);
}, 60_000);

/**
 * The floor of taking jobs in: hono and ioredis with one script call for all that waits, and none of the promises: no
 * checks, no options, no counters, no limit, no sending again. What cannot be had for less is not worth looking for. PORT, REDIS_URL.
 */
import { Hono } from "hono";
import IORedis from "ioredis";

const redis = new IORedis(process.env.REDIS_URL as string);
redis.defineCommand("add", {
  numberOfKeys: 1,
  lua: `local ids = {}
    for i = 1, #ARGV, 2 do
      redis.call('HSET', 'floor:' .. ARGV[i], 's', 'queued', 'p', ARGV[i + 1])
      ids[#ids + 1] = ARGV[i]
    end
    redis.call('LPUSH', KEYS[1], unpack(ids))`,
});
const add = (values: string[]) =>
  (redis as unknown as { add(...list: string[]): Promise<null> }).add("ready", ...values);
let waiting: { id: string; payload: string; done: (value?: unknown) => void }[] = [];
let busy = false;
async function flush() {
  while (waiting.length > 0) {
    const batch = waiting;
    waiting = [];
    await add(batch.flatMap(({ id, payload }) => [id, payload]));
    for (const { done } of batch) done();
  }
  busy = false;
}
let n = 0;
const app = new Hono();
app.post("/noop", async (c) => {
  const id = `noop_${String(n++).padStart(22, "0")}`;
  const payload = JSON.stringify(await c.req.json());
  await new Promise((done) => {
    waiting.push({ id, payload, done });
    if (busy) return;
    busy = true;
    setImmediate(() => void flush());
  });
  return c.json({ job_id: id, status: "queued" }, 202);
});
Bun.serve({ port: Number(process.env.PORT), hostname: "127.0.0.1", fetch: app.fetch });
console.log("ready");

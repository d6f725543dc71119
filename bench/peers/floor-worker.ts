/**
 * The floor of working: one script call keeps the results and takes the next jobs, a plain fetch between, and none of the
 * promises: no fence, no lease, no life, no index, no counters but one. REDIS_URL, SERVICE_URL, CONCURRENCY.
 */
import IORedis from "ioredis";

const redis = new IORedis(process.env.REDIS_URL as string);
redis.defineCommand("turn", {
  numberOfKeys: 1,
  lua: `for i = 2, #ARGV, 2 do redis.call('HSET', 'floor:' .. ARGV[i], 's', 'finished', 'r', ARGV[i + 1]) end
    if #ARGV > 1 then redis.call('INCRBY', 'done', (#ARGV - 1) / 2) end
    local out = {}
    for _, id in ipairs(redis.call('RPOP', KEYS[1], ARGV[1]) or {}) do
      out[#out + 1] = id
      out[#out + 1] = redis.call('HGET', 'floor:' .. id, 'p')
      redis.call('HSET', 'floor:' .. id, 's', 'started')
    end
    return out`,
});
const turn = (free: number, settles: string[]) =>
  (redis as unknown as { turn(...list: (string | number)[]): Promise<string[]> }).turn("ready", free, ...settles);
const url = `${process.env.SERVICE_URL}/noop`;
const slots = Number(process.env.CONCURRENCY);
let running = 0;
let done: string[] = [];
let wake = () => {};
async function work(id: string, body: string) {
  const response = await fetch(url, { method: "POST", body, headers: { "content-type": "application/json" } });
  done.push(id, await response.text());
  running--;
  wake();
}
console.log("ready");
for (;;) {
  await new Promise((next) => setImmediate(next));
  const settles = done;
  done = [];
  const jobs = await turn(slots - running, settles);
  for (let i = 0; i < jobs.length; i += 2) {
    running++;
    void work(jobs[i] as string, jobs[i + 1] as string);
  }
  if (done.length === 0) {
    await new Promise<void>((next) => {
      wake = next;
      if (running === 0) setTimeout(next, 1);
    });
  }
}

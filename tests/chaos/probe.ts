/** After the last fault: does every worker work? A lane that sleeps for ever loses nothing while others are awake. */
import type { Redis } from "ioredis";
import { parseHead } from "../../shared/jobs.ts";
import { until } from "../support/stack.ts";
import type { Checker } from "./checker.ts";
import { SERVICE, type World } from "./world.ts";

/** Lets the lanes fall idle, then gives them more than the others can hold. */
export async function probe(world: World, redis: Redis, checker: Checker): Promise<void> {
  await Promise.all(world.workers.map((worker) => worker.process.says(/ready under/, 60_000)));
  await Bun.sleep(1_000);
  const sleepers = new Set(world.workers);
  const ids: string[] = [];
  const submit = async (i: number) => {
    const url = `${world.urls[i % world.urls.length]}/work`;
    const body = JSON.stringify({ n: -1 - i, sleep: 1_500 });
    const response = await fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body });
    if (response.status === 202) ids.push(((await response.json()) as { job_id: string }).job_id);
    return response.status === 202;
  };
  const count = world.workers.length * 16;
  // Every gateway accepts again; a Cluster's master takes a moment after its start.
  await until(async () => (await Promise.all(world.urls.map((_, i) => submit(i)))).every(Boolean), 30_000).catch(() =>
    checker.tell("a gateway does not accept any more", world.gateways.map((m) => m.process.output()).join("\n")),
  );
  const ended = async () => {
    for (const worker of sleepers) {
      const id = /worker ready .*worker=(\w+)/.exec(worker.process.output())?.[1];
      if ((await redis.scard(`lh:{${SERVICE}}:held:${id}`)) > 0) sleepers.delete(worker);
    }
    const states = await Promise.all(ids.map((id) => redis.hget(`lh:{${SERVICE}}:job:${id}`, "h")));
    return states.every((head) => parseHead(head)?.state === "finished");
  };
  // A connection that a fault left half open is found after 12 s: who takes nothing until then is not asleep.
  for (const begun = performance.now(); sleepers.size > 0 && performance.now() - begun < 20_000; ) {
    await Promise.all(Array.from({ length: count }, (_, i) => submit(i)));
    await until(ended, 30_000).catch(() => checker.tell("the last jobs did not all finish", ids.join(" ")));
  }
  for (const { name, process } of sleepers) checker.tell("a lane sleeps", `${name} took nothing:\n${process.output()}`);
}

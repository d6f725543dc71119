/** What goes wrong, one at a time or over each other; each heals itself. */
import { CLOCK_FAULT } from "./clocks.ts";
import type { Loss, LossyProxy } from "./proxy.ts";
import { LEASE_MS, type Member, type World } from "./world.ts";

export type Fault = {
  name: string;
  /** how often it is chosen, against the others */
  weight: number;
  /** by the proxies between our processes and a single Redis; clusters and sentinels name their own addresses */
  proxied?: true;
  run(world: World, random: () => number): Promise<void>;
};

const pick = <T>(list: T[], random: () => number): T | undefined => list[Math.floor(random() * list.length)];
/** Living members; one always stays, so that something moves. */
const living = (members: Member[]) => {
  const free = members.filter((m) => !m.stopped);
  return free.length > 1 ? free : [];
};

async function kill(world: World, members: Member[], random: () => number, signal: NodeJS.Signals = "SIGKILL") {
  const victim = pick(living(members), random);
  if (!victim) return;
  victim.stopped = true;
  victim.process.kill(signal);
  await Promise.race([victim.process.exited, Bun.sleep(6_000)]);
  victim.process.kill("SIGKILL");
  await victim.process.exited;
  await Bun.sleep(1_500 * random());
  await world.revive(victim);
  await victim.process.says(/ready/, 10_000).catch(() => {});
  victim.stopped = false;
}

/** Longer than the lease: others take its jobs, and then it wakes and does not know. */
async function freeze(members: Member[], random: () => number) {
  const victim = pick(living(members), random);
  if (!victim) return;
  victim.stopped = true;
  victim.turns++;
  victim.process.kill("SIGSTOP");
  await Bun.sleep(LEASE_MS * (1.2 + 1.3 * random()));
  victim.process.kill("SIGCONT");
  victim.turns++;
  victim.stopped = false;
}

async function lossy(proxy: LossyProxy, loss: Loss, ms: number) {
  proxy.lose(loss);
  await Bun.sleep(ms);
  proxy.lose(undefined);
}

/** While it is true, nothing else is done to Redis. */
let redisAway = false;
/** performance.now() of each kill -9 of Redis */
export const redisKills: number[] = [];

/**
 * Redis refuses writes while its disk is full (MISCONF), and goes on by itself. It is not killed meanwhile, nor before its file is whole again:
 * what it acknowledged since then it may lose by its own contract. With appendfsync always it would end itself, so it syncs every second.
 */
async function fillRedis({ disks, redis }: World, random: () => number) {
  if (!disks.redis || redisAway) return;
  redisAway = true;
  const { client } = redis;
  const [, before = "always"] = (await client.config("GET", "appendfsync")) as string[];
  await client.config("SET", "appendfsync", "everysec");
  disks.redis.fill();
  await Bun.sleep(1_000 + 2_000 * random());
  disks.redis.empty();
  while (!/aof_last_write_status:ok/.test(await client.info("persistence"))) await Bun.sleep(100);
  // A write that was cut short can leave a broken place in the middle of the file, which Redis 7.0 finds only when it starts again: so
  // the file is written anew first, as docs/operating.md tells operators to.
  await client.bgrewriteaof();
  while (/aof_rewrite_(?:in_progress|scheduled):1/.test(await client.info("persistence"))) await Bun.sleep(100);
  await client.config("SET", "appendfsync", before);
  redisAway = false;
}

export const FAULTS: Fault[] = [
  CLOCK_FAULT,
  { name: "kill -9 worker", weight: 4, run: (w, r) => kill(w, w.workers, r) },
  { name: "SIGSTOP worker", weight: 3, run: (w, r) => freeze(w.workers, r) },
  { name: "SIGTERM worker", weight: 1, run: (w, r) => kill(w, w.workers, r, "SIGTERM") },
  { name: "kill -9 gateway", weight: 2, run: (w, r) => kill(w, w.gateways, r) },
  { name: "SIGSTOP gateway", weight: 1, run: (w, r) => freeze(w.gateways, r) },
  {
    name: "kill -9 Redis",
    weight: 2,
    async run(world, random) {
      if (redisAway) return;
      redisAway = true;
      redisKills.push(performance.now());
      await world.redis.kill9();
      await Bun.sleep(200 + 1_200 * random());
      await world.redis.restart();
      redisAway = false;
    },
  },
  {
    name: "results disk full",
    weight: 2,
    async run({ disks: { results } }, random) {
      results?.fill();
      await Bun.sleep(500 + 2_000 * random());
      results?.empty();
    },
  },
  {
    name: "Redis disk full",
    weight: 1,
    run: (world, random) => fillRedis(world, random),
  },
  {
    name: "SCRIPT FLUSH",
    weight: 1,
    run: async (world) => {
      if (!redisAway) await Promise.race([world.redis.client.script("FLUSH"), Bun.sleep(1_000)]);
    },
  },
  {
    name: "Redis replies dropped",
    weight: 5,
    proxied: true,
    run: (w, r) => lossy(w.proxies.workers, { kind: "drop", chance: 0.03 + 0.2 * r() }, 700),
  },
  {
    name: "Redis replies late",
    weight: 2,
    proxied: true,
    run: (w, r) => lossy(w.proxies.workers, { kind: "delay", chance: 0.3, delayMs: 600 * r() }, 700),
  },
  {
    name: "Redis half open",
    weight: 2,
    proxied: true,
    run: (w) => lossy(w.proxies.workers, { kind: "half", chance: 0.02 }, 300),
  },
  {
    name: "gateway replies dropped",
    weight: 3,
    proxied: true,
    run: (w, r) => lossy(w.proxies.gateways, { kind: "drop", chance: 0.03 + 0.1 * r() }, 500),
  },
  {
    name: "gateway half open",
    weight: 1,
    proxied: true,
    run: (w) => lossy(w.proxies.gateways, { kind: "half", chance: 0.02 }, 300),
  },
  { name: "answers dropped", weight: 2, run: (w) => lossy(w.proxies.service, { kind: "drop", chance: 0.05 }, 500) },
  { name: "answers cut", weight: 1, run: (w) => lossy(w.proxies.service, { kind: "cut", chance: 0.05 }, 500) },
  {
    name: "service refuses",
    weight: 1,
    run: (w, r) => lossy(w.proxies.service, { kind: "refuse", chance: 1 }, 200 + 500 * r()),
  },
];

/** Injects a fault every `everyMs` until told to stop, then waits until all have healed. */
export class Havoc {
  readonly counts = new Map<string, number>();
  private readonly healing = new Set<Promise<void>>();
  private stopped = false;

  constructor(
    private readonly world: World,
    private readonly random: () => number,
    private readonly names: string[] | undefined,
  ) {}

  get total(): number {
    return [...this.counts.values()].reduce((a, b) => a + b, 0);
  }

  async run(everyMs: number): Promise<void> {
    const chosen = FAULTS.filter(
      (f) => (!this.names || this.names.some((name) => f.name.includes(name))) && !(f.proxied && !this.world.proxied),
    );
    const sum = chosen.reduce((total, f) => total + f.weight, 0);
    while (!this.stopped && chosen.length > 0) {
      // A busy machine starts processes slowly: with everything broken at once nothing would be proved.
      if (this.healing.size >= 4) {
        await Bun.sleep(50);
        continue;
      }
      let dice = this.random() * sum;
      const fault = chosen.find((f) => {
        dice -= f.weight;
        return dice < 0;
      }) as Fault;
      this.counts.set(fault.name, (this.counts.get(fault.name) ?? 0) + 1);
      const healed: Promise<void> = fault
        .run(this.world, this.random)
        .catch((error) => console.error(`fault ${fault.name}: ${error}`))
        .finally(() => this.healing.delete(healed));
      this.healing.add(healed);
      await Bun.sleep(everyMs * (0.5 + 0.8 * this.random()));
    }
  }

  async stop(): Promise<void> {
    this.stopped = true;
    while (this.healing.size > 0) await Promise.all(this.healing);
  }
}

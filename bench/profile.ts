/**
 * Where the time goes: `bun bench/profile.ts submit|drain [jobs]` runs one contender's process under Bun's own profiler and
 * prints the heaviest functions by self time, the commands of Redis a job, and the CPU of each process a job.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "./client.ts";
import { longhaul } from "./contenders.ts";
import { cpuOf, freePort, start, startRedis } from "./machine.ts";

const [what = "submit", count = "40000"] = process.argv.slice(2);
const jobs = Number(count);
const dir = mkdtempSync(join(tmpdir(), "longhaul-profile-"));
const redis = await startRedis(longhaul.redis);
const port = await freePort();
const servicePort = await freePort();
const service = await start("bench/peers/noop-service.ts", { PORT: String(servicePort) }, /ready/);
const profiled = ["--cpu-prof", "--cpu-prof-interval=200", `--cpu-prof-dir=${dir}`];
const gateway = await longhaul.gateway(redis, port, dir, what === "submit" ? profiled : []);
const client = new Client(`http://127.0.0.1:${port}`);
await Bun.sleep(500);
await client.submit(2_000);
await redis.client.config("RESETSTAT");
const before = { redis: await redis.cpu(), gateway: await cpuOf(gateway.pid) };
const ms = await client.submit(jobs);
const each = (seconds: number) => `${((seconds * 1e6) / jobs).toFixed(1)} µs`;
console.log(
  `submit ${Math.round((jobs * 1_000) / ms)}/s: Redis ${each((await redis.cpu()) - before.redis)}, gateway ${each((await cpuOf(gateway.pid)) - before.gateway)} a job`,
);
const commands = async () => {
  for (const line of (await redis.client.info("commandstats")).split(/\r?\n/)) {
    const m = /^cmdstat_([^:]+):calls=(\d+),usec=(\d+)/.exec(line);
    if (m && Number(m[2]) > jobs / 1000)
      console.log(`  ${m[1]}: ${(Number(m[2]) / jobs).toFixed(3)} calls, ${(Number(m[3]) / jobs).toFixed(2)} µs a job`);
  }
  await redis.client.config("RESETSTAT");
};
await commands();
if (what === "drain") {
  const worker = await longhaul.worker(redis, `http://127.0.0.1:${servicePort}`, dir, profiled);
  let done = 0;
  while (done < 1_000) done = await longhaul.finished(redis);
  const [cpu0, worker0, service0, at0, done0] = [
    await redis.cpu(),
    await cpuOf(worker.pid),
    await cpuOf(service.pid),
    performance.now(),
    done,
  ];
  while (done < jobs + 2_000) {
    await Bun.sleep(5);
    done = await longhaul.finished(redis);
  }
  const n = done - done0;
  const per = (seconds: number) => `${((seconds * 1e6) / n).toFixed(1)} µs`;
  console.log(
    `drain ${Math.round(n / ((performance.now() - at0) / 1_000))}/s: Redis ${per((await redis.cpu()) - cpu0)}, worker ${per((await cpuOf(worker.pid)) - worker0)}, service ${per((await cpuOf(service.pid)) - service0)} a job`,
  );
  await commands();
  await worker.stop();
}
client.stop();
await gateway.stop();
await service.stop();
await redis.stop();

type Profile = {
  nodes: { id: number; children?: number[]; callFrame: { functionName: string; url: string; lineNumber: number } }[];
  samples: number[];
};
for (const file of readdirSync(dir).filter((name) => name.endsWith(".cpuprofile"))) {
  const profile = JSON.parse(readFileSync(join(dir, file), "utf8")) as Profile;
  const names = new Map(
    profile.nodes.map(({ id, callFrame: f }) => [
      id,
      `${f.functionName || "(anonymous)"} ${f.url.replace(/^.*\/(?=[^/]+\/[^/]+$)/, "")}:${f.lineNumber + 1}`,
    ]),
  );
  const self = new Map<string, number>();
  for (const id of profile.samples) {
    const name = names.get(id) ?? "?";
    self.set(name, (self.get(name) ?? 0) + 1);
  }
  const parent = new Map(
    profile.nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id] as const)),
  );
  const total = new Map<string, number>();
  for (const id of profile.samples) {
    const seen = new Set<string>();
    for (let at: number | undefined = id; at !== undefined; at = parent.get(at)) seen.add(names.get(at) ?? "?");
    for (const name of seen) total.set(name, (total.get(name) ?? 0) + 1);
  }
  console.log(`\n${file}: ${profile.samples.length} samples`);
  for (const [title, list] of [
    ["self", self],
    ["with what it calls", total],
  ] as const) {
    console.log(`  ${title}`);
    for (const [name, n] of [...list].sort((a, b) => b[1] - a[1]).slice(0, 50))
      console.log(`  ${((100 * n) / profile.samples.length).toFixed(1).padStart(5)} %  ${name}`);
  }
}
rmSync(dir, { recursive: true, force: true });
process.exit(0);

/**
 * Pictures of every screen of the dashboard over a deployment in trouble, to be looked at: wide and phone, dark and light.
 *
 *   bun tests/slow/screens.ts [folder = /tmp/longhaul-screens] [part of a screen's name]
 *
 * One service parks, one has no worker, one fails often, one is paused; jobs run with progress, wait, failed with long
 * errors and have long file names; rules fire.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { serviceName } from "../../shared/jobs.ts";
import { keysOf } from "../../shared/keys.ts";
import { startBrowser, visit } from "../support/browser.ts";
import { startStack, until } from "../support/stack.ts";

const [folder = "/tmp/longhaul-screens", part = ""] = process.argv.slice(2);
const ADMIN = "an-admin-key-of-tests";
const KEY = { "x-api-key": ADMIN };
const SERVED = ["ifcconvert", "ifctester", "ifcdiff", "ifc5d", "ifccsv"];
const LONG =
  "Musterhaus_Tragwerk_Koordination_Geschoss-03_Stand-2026-11-23_freigegeben_v17 (final, wirklich final).ifc";
const TRACE = Array.from(
  { length: 40 },
  (_, i) => `  File "/app/ifcopenshell/geom/main.py", line ${100 + i}, in iterate`,
);
const ERROR = `IfcParseError: entity #184467 (IfcFacetedBrep) has an unresolved reference to #184466\n${TRACE.join("\n")}`;

const stack = await startStack({
  workers: 0,
  env: {
    API_KEYS: `${ADMIN}:admin,a-read-key-of-the-tests:read`,
    ALERT_NO_WORKER: "2s",
    ALERT_PARKED: "2s",
    ALERT_HOLD: "1s",
  },
});
const any = { schema: { type: "object" } };
const away = "http://127.0.0.1:1";
const operations: Record<string, unknown> = {
  ifcdiff: { url: away, ...any },
  ifcclash: { url: stack.service.url, ...any },
};
for (const name of ["ifcconvert", "ifctester", "calculate-qtos", "ifccsv"])
  operations[name] = { url: stack.service.url, ...any };
writeFileSync(join(stack.dir, "services.json"), JSON.stringify({ operations }));
stack.gateway.kill("SIGKILL");
await stack.gateway.exited;
const redis = stack.redis.client;
const minute = Math.floor(Date.now() / 60_000);
/** Figures of a week, as the scripts would have counted them. */
for (const [i, name] of SERVED.entries()) {
  const keys = keysOf(serviceName(name));
  const put = (slice: string, scale: number, at: number) => {
    const wave = 1 + Math.sin((at % 1_440) / 229 + i) * 0.8;
    const n = Math.round(scale * wave * (6 - i) * (0.7 + Math.random() * 0.6));
    const failed = name === "ifctester" ? Math.round(n * 0.42) : Math.random() < 0.05 ? 1 : 0;
    const f = {
      submitted: n + 1,
      finished: Math.max(0, n - failed),
      failed,
      r28: n >> 1,
      r30: n >> 2,
      r33: n >> 3,
      w12: n >> 1,
      w20: n >> 2,
    };
    return redis.hset(keys.stats(slice), f);
  };
  for (let m = 1; m < 1_440; m++) await put(`m${minute - m}`, 1, minute - m);
  for (let h = 1; h < 168; h++) await put(`h${Math.floor(minute / 60) - h}`, 60, h * 60);
}

const hook = Bun.serve({ port: 0, fetch: () => new Response("ok") });
Object.assign(stack.env, { ALERT_WEBHOOK: `http://127.0.0.1:${hook.port}/hooks/on-call` });
stack.gateway = await stack.startGateway();
await stack.startWorker({ WORKER_SERVICES: SERVED.join(","), WORKER_SLOTS: "ifcconvert:2,*:4" });
await stack.startWorker({ WORKER_SERVICES: "ifcconvert", WORKER_SLOTS: "ifcconvert:4" });

const post = (name: string, payload: unknown, query = "") => stack.submit(payload, `/${name}${query}`, KEY);
const many = <T>(n: number, make: (i: number) => Promise<T>) =>
  Promise.all(Array.from({ length: n }, (_, i) => make(i)));
await many(14, (i) =>
  post("ifcclash", { tolerance: 0.01, clash_sets: [{ name: `MEP ${i}`, a: [{ file: LONG }] }] }, "?tags=project-4711"),
);
await many(3, (i) => post("ifcdiff", { old: "a.ifc", new: `b-${i}.ifc` }));
const done = await post(
  "ifcconvert",
  {
    ...{
      input_filename: `/uploads/${LONG}`,
      output_filename: "/output/model.glb",
      api_token: "s3cr3t",
      tolerance: 0.01,
    },
    options: { use_world_coords: true, threads: 8, include: ["IfcWall", "IfcSlab", "IfcWindow", "IfcDoor"] },
    answer: {
      success: true,
      output: "/output/model.glb",
      elements: 48_213,
      warnings: ["2 walls without material"],
      bbox: { min: [0, 0, 0], max: [42.1, 18.9, 12.4] },
    },
  },
  "?tags=project-4711,nightly&priority=7",
);
const failed = await post(
  "ifctester",
  { ifc_filename: LONG, ids_filename: "EIR-2026.ids", status: 400, detail: ERROR },
  "?tags=nightly",
);
await many(5, (i) =>
  post("ifctester", {
    ifc_filename: `wing-${i}.ifc`,
    ids_filename: "EIR-2026.ids",
    status: 422,
    detail: `Specification ${i} cannot be read: the IDS file names no applicability`,
  }),
);
const retried = await post("ifcconvert", { input_filename: "tower.ifc", fail: 2 });
const batch = (await (
  await stack.post(
    "/jobs",
    [1, 2, 3, 4].map((n) => ({
      operation: "ifccsv",
      payload: { filename: `wing-${n}.ifc`, ...(n === 3 ? { status: 400, detail: "no such file" } : {}) },
    })),
    KEY,
  )
).json()) as { job_ids: string[] };
await Promise.all(
  [done, failed, ...batch.job_ids].map((id) =>
    until(async () => {
      const { status } = (await (await fetch(`${stack.url}/jobs/${id}`, { headers: KEY })).json()) as {
        status: string;
      };
      return status === "finished" || status === "failed";
    }),
  ),
);
const running = await many(7, (i) =>
  post("ifcconvert", { input_filename: i === 0 ? LONG : `storey-${i}.ifc`, sleep: 120_000 }),
);
await until(() => running.filter((id) => stack.service.byJob(id).length > 0).length >= 6);
for (const [i, id] of running.entries()) {
  const url = stack.service.byJob(id)[0]?.headers.get("x-progress-url");
  if (url && i < 4)
    await fetch(url, {
      method: "POST",
      body: JSON.stringify({ progress: 0.2 + i / 5, message: `storey ${i} of 5: triangulating` }),
      headers: { "content-type": "application/json" },
    });
  const key = keysOf(serviceName("ifcconvert")).job(id as never);
  const head = String(await redis.hget(key, "h"));
  const [created, started] = [Date.now() - 70_000 * (i + 1), Date.now() - 60_000 * (i + 1)];
  await redis.hset(key, "h", head.replace(/(\d+) \d+ (\S+)\|\d+ /, `$1 ${created} $2|${started} `));
}
await stack.post("/queues/ifc5d/pause", undefined, KEY);
await many(2, () => post("calculate-qtos", { input_file: "tower.ifc" }));
for (const volume of ["uploads", "output", "examples"]) mkdirSync(join(stack.dir, volume), { recursive: true });
for (const name of [LONG, "tower.ifc", "EIR-2026.ids", "clash.bcf"])
  writeFileSync(join(stack.dir, "uploads", name), "x".repeat(2_000));
writeFileSync(join(stack.dir, "output", "model.glb"), "x".repeat(90_000));
await Bun.sleep(6_000);

const screens: Record<string, string> = {
  overview: "#/",
  jobs: "#/jobs",
  "jobs-failed": "#/jobs?state=failed",
  "jobs-search": "#/jobs?q=applicability",
  "jobs-none": "#/jobs?tag=nothing",
  "job-done": `#/jobs/${done}`,
  "job-failed": `#/jobs/${failed}`,
  "job-running": `#/jobs/${running[1]}`,
  "job-retried": `#/jobs/${retried}`,
  "job-batch": `#/jobs/${batch.job_ids[2]}`,
  "job-gone": "#/jobs/ifcclash_AAAAAAAAAAAAAAAAAAAAAA",
  workers: "#/workers",
  files: "#/files",
  alerts: "#/alerts",
  submit: "#/submit?op=ifccsv-import",
};
mkdirSync(folder, { recursive: true });
const browser = await startBrowser();
try {
  for (const [size, viewport] of Object.entries({
    wide: { width: 1280, height: 800 },
    phone: { width: 390, height: 844 },
  })) {
    for (const colorScheme of ["light", "dark"] as const) {
      const seen = await visit(browser, stack.dashboardUrl, "", ADMIN, { viewport, colorScheme });
      for (const [name, hash] of Object.entries(screens).filter(([name]) => name.includes(part))) {
        await seen.page.goto(`${stack.dashboardUrl}/${hash}`);
        await Bun.sleep(1_200);
        await seen.page.screenshot({ path: join(folder, `${name}-${size}-${colorScheme}.png`), fullPage: true });
      }
      if (seen.faults.length > 0) console.log(size, colorScheme, seen.faults);
      await seen.close();
    }
  }
  const seen = await visit(browser, stack.dashboardUrl, "");
  await seen.page.getByLabel("API key").waitFor();
  await seen.page.screenshot({ path: join(folder, "signin.png") });
  await seen.close();
} finally {
  await browser.close();
  hook.stop(true);
  await stack.stop();
}
console.log(folder);

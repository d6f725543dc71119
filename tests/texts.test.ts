/** Texts for users: each says what is wrong, and names the setting, header or route that cures it. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { call } from "../shared/call.ts";
import { checkCallback } from "../shared/callback.ts";
import { readConfig } from "../shared/config.ts";
import { pathFault } from "../shared/paths.ts";
import { allowance, guardedFetch } from "../shared/ssrf.ts";
import { logText } from "../shared/store/redis.ts";
import { durationText, sizeText } from "../shared/units.ts";
import { startGatewayApp, type TestGateway } from "./support/gateway.ts";
import { startRedis, type TestRedis } from "./support/redis.ts";
import { ASK, settle } from "./support/store.ts";

let redis: TestRedis;
let g: TestGateway;
beforeAll(async () => {
  redis = await startRedis();
  g = await startGatewayApp(redis.url, { IFCTESTER_URL: "", MAX_QUEUED: "1", MAX_BODY_BYTES: "1KiB" });
});
afterAll(async () => {
  g?.close();
  await redis?.stop();
});
const detail = async (answer: Response | Promise<Response>) =>
  ((await (await answer).json()) as { detail: string }).detail;
const JSON_JOB = { filename: "a.ifc", output_filename: "a.json" };

test("limits are shown in the units in which they are set", () => {
  for (const [ms, text] of [
    [2_000, "2 s"],
    [1_500, "1.5 s"],
    [250, "250 ms"],
    [90_000, "1 min 30 s"],
    [3_600_000, "1 h"],
    [5_400_000, "1 h 30 min"],
    [86_400_000, "24 h"],
  ] as const) {
    expect([ms, durationText(ms)]).toEqual([ms, text]);
  }
  for (const [bytes, text] of [
    [16_777_216, "16 MiB"],
    [2_147_483_648, "2 GiB"],
    [1_024, "1 KiB"],
    [1_500_000, "1500 KB"],
    [1_234, "1234 bytes"],
    [0, "0 bytes"],
  ] as const) {
    expect([bytes, sizeText(bytes)]).toEqual([bytes, text]);
  }
});

test("a path is refused with the reason and with what a good one looks like", async () => {
  expect(pathFault("a/../b.ifc")).toBe('has a part ".."; name the file from its volume on, as /uploads/a.ifc');
  expect(pathFault("/etc/passwd")).toBe(
    "lies outside the volumes; begin it with one of /uploads/, /output/, /examples/",
  );
  expect(await detail(g.post("/create_download_link", { file_path: "/uploads" }))).toBe(
    'The path "/uploads" is a volume; name a file in it.',
  );
  const climbs = await detail(g.post("/ifc2json", { ...JSON_JOB, filename: "../a.ifc" }));
  expect(climbs).toBe(
    'filename: the path "../a.ifc" has a part ".."; name the file from its volume on, as /uploads/a.ifc.',
  );
});

test("a call that ran into its limit says so in hours and seconds, and where the limit is set", async () => {
  const silent = Bun.serve({ port: 0, fetch: () => Bun.sleep(5_000).then(() => new Response("late")) });
  const outcome = await call({
    ...{ service: "thumb", url: `http://127.0.0.1:${silent.port}/`, body: "{}", headers: {} },
    ...{ timeoutMs: 1_500, maxResultBytes: 1_000, accepts: ["application/json"], retry500: false },
    ...{ abort: new (await import("../shared/abort.ts")).Abort() },
  } as never);
  expect((outcome as { error: { message: string } }).error.message).toBe(
    "thumb did not finish within 1.5 s, its time limit; the job or its operation in SERVICES sets it",
  );
  await silent.stop(true);
  const timeout = await detail(g.post("/ifc2json?timeout=2h", JSON_JOB));
  expect(timeout).toBe("timeout: ifc2json may run for 1 h at most, its limit in SERVICES.");
});

test("a list that must not be empty is said in plain words", async () => {
  const text = await detail(g.post("/ifcclash", { clash_sets: [{ name: "s", a: [] }], output_filename: "c.json" }));
  expect(text).toStartWith("/ifcclash: clash_sets.0.a: ");
  expect(text).not.toMatch(/Too small|expected|>=/);
});

test("CALLBACK_ALLOW and DOWNLOAD_ALLOW are named where they help, and only there", async () => {
  const { webhookSecrets } = readConfig({ WEBHOOK_SECRET: `whsec_${btoa("x".repeat(24))}` });
  const settings = { webhookSecrets, callbackAllow: allowance([], "CALLBACK_ALLOW") } as never;
  const told = (url: string) => {
    try {
      checkCallback(url, settings);
    } catch (error) {
      return (error as Error).message;
    }
  };
  expect(told("http://10.0.0.1/x")).toBe(
    "callback_url: 10.0.0.1 has no public address; an operator may list it in CALLBACK_ALLOW.",
  );
  for (const url of ["http://u:p@n8n/x", "http://n8n:0/x", "ftp://n8n/x", "nonsense"]) {
    expect([url, told(url)]).toEqual([url, expect.not.stringContaining("CALLBACK_ALLOW")]);
  }
  const fetched = await detail(g.post("/download-from-url", { url: "http://127.0.0.1:9/x.ifc" }));
  expect(fetched).toBe("url: 127.0.0.1 has no public address; an operator may list it in DOWNLOAD_ALLOW.");
  const named = guardedFetch("http://inner.example/", {
    ...{ maxBytes: 1, timeoutMs: 1_000, allow: allowance([], "CALLBACK_ALLOW"), resolve: async () => ["10.0.0.1"] },
  });
  await expect(named).rejects.toThrow("inner.example has no public address; an operator may list it in CALLBACK_ALLOW");
});

test("a service that is not deployed names the variable of its address", async () => {
  const job = { ifc_filename: "a.ifc", ids_filename: "a.ids", output_filename: "r.json" };
  expect(await detail(g.post("/ifctester", job))).toBe(
    "The service ifctester is not deployed here: it has no address. Set IFCTESTER_URL for gateways and workers, or its url in SERVICES.",
  );
});

test("?wait on a submit names the header that waits", async () => {
  expect(await detail(g.post("/ifc2json?wait=5", JSON_JOB))).toBe(
    "The query: wait: is no option of a submit; to wait for the end send the header Prefer: wait=30.",
  );
});

test("a full backlog counts one job as one, and names MAX_QUEUED", async () => {
  await g.submit("/ifc2json", JSON_JOB);
  const full = await g.post("/ifc2json", JSON_JOB);
  expect([full.status, await detail(full)]).toEqual([
    429,
    "1 job waits for ifc2json, as many as MAX_QUEUED allows. Try again later.",
  ]);
  const batch = await g.post("/jobs", [{ operation: "ifc2json", payload: JSON_JOB }]);
  expect([batch.status, await detail(batch)]).toEqual([
    429,
    "1 job may wait for ifc2json (MAX_QUEUED); with this batch it would be more. Send it later, or in smaller batches.",
  ]);
  expect(await detail(g.post("/jobs", { payload: {} }))).toBe(
    "operation: must be the name of an operation, such as ifcconvert.",
  );
  await redis.client.flushall();
});

test("sizes of bodies are told in the unit in which they are set, with their variable", async () => {
  const large = await g.post("/ifc2json", { ...JSON_JOB, more: "x".repeat(2_000) });
  expect([large.status, await detail(large)]).toEqual([
    413,
    "The body is larger than 1 KiB (MAX_BODY_BYTES). Send large data as a file.",
  ]);
});

test("a job that waits for its next attempt says why, in its status and in its record", async () => {
  const id = await g.submit("/ifcdiff", { old_file: "a.ifc", new_file: "b.ifc" });
  expect((await g.json(`/jobs/${id}/status`)).message).toBeNull();
  const worker = g.worker("w1");
  const { jobs } = await worker.turn("ifcdiff" as never, [], { ...ASK, slots: 1, limits: "ifcdiff=3600000" });
  const entry = JSON.stringify({
    ...{ attempt: 1, worker: "w1", started: 1, ended: 2, outcome: "retried", message: "ifcdiff answered 503: busy" },
  });
  const retry = settle(jobs[0] as never, "retry", { delayMs: 60_000, entry } as never);
  await worker.turn("ifcdiff" as never, [retry], { ...ASK, slots: 0 });
  const why = "waits to be tried again: attempt 1 ended with: ifcdiff answered 503: busy";
  expect(await g.json(`/jobs/${id}/status`)).toMatchObject({ status: "scheduled", message: why });
  expect(await g.json(`/jobs/${id}`)).toMatchObject({ status: "scheduled", message: why });
});

test("a log says that Redis does not answer, never how its client is configured", async () => {
  for (const words of [
    "Stream isn't writeable and enableOfflineQueue options is false",
    "Connection is closed.",
    "connect ECONNREFUSED 127.0.0.1:6379",
    "getaddrinfo ENOTFOUND redis",
    "Reached the max retries per request limit (which is 0).",
    "All sentinels are unreachable. Retrying from scratch after 10ms.",
  ]) {
    expect([words, logText(new Error(words))]).toEqual([words, "Redis does not answer (REDIS_URL)"]);
  }
  expect(logText(new Error("MISCONF Redis is configured to save RDB snapshots"))).toStartWith("MISCONF");
});

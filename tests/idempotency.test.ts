/** What an Idempotency-Key stands for once its job has gone, and what a client is told that cannot know what became of a request. */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { type JobId, newBatchId, type ServiceName } from "../shared/jobs.ts";
import { keysOf } from "../shared/keys.ts";
import { Batches } from "../shared/store/batches.ts";
import { Maintainer } from "../shared/store/maintain.ts";
import { Producer } from "../shared/store/produce.ts";
import { startGatewayApp, type TestGateway } from "./support/gateway.ts";
import { startRedis, type TestRedis } from "./support/redis.ts";

const SERVICE = "ifc2json" as ServiceName;
const BODY = { filename: "a.ifc", output_filename: "a.json" };
const KEYED = { "idempotency-key": "order 66" };
let redis: TestRedis;
let g: TestGateway;
beforeAll(async () => {
  redis = await startRedis();
  g = await startGatewayApp(redis.url);
});
afterAll(async () => {
  g?.close();
  await redis?.stop();
});
beforeEach(() => redis.client.flushall());

/** Ends a job and erases it, as a client would; or lets it expire. */
async function vanish(id: JobId, how: "erased" | "expired") {
  if (how === "expired") return void (await redis.client.del(keysOf(SERVICE).job(id)));
  await g.post(`/jobs/${id}/cancel`);
  await new Maintainer(g.redis).sweepGhosts(SERVICE, "ready", 0); // its entry of the queue
  expect((await g.ask("DELETE", `/jobs/${id}`)).status).toBe(200);
}
const send = async (body: unknown = BODY, headers: Record<string, string> = KEYED, path = "/ifc2json") => {
  const answer = await g.post(path, body, headers);
  const replayed = answer.headers.get("idempotent-replayed") === "true";
  return {
    http: answer.status,
    replayed,
    ...((await answer.json()) as { job_id: JobId; status: string; job_ids?: JobId[] }),
  };
};

for (const how of ["erased", "expired"] as const) {
  test(`an Idempotency-Key whose job was ${how} starts a new job, of another body too`, async () => {
    const first = await send();
    await vanish(first.job_id, how);
    const second = await send({ ...BODY, filename: "b.ifc" });
    expect(second).toMatchObject({ http: 202, replayed: false, status: "queued" });
    expect(second.job_id).not.toBe(first.job_id);
    expect((await g.json(`/jobs/${second.job_id}`)).payload.filename).toBe("b.ifc");
    expect(await send({ ...BODY, filename: "b.ifc" })).toMatchObject({ replayed: true, job_id: second.job_id });
    expect((await send()).http).toBe(422);
  });

  test(`the Idempotency-Key of a batch whose members were ${how} starts a new batch; one that is left holds it`, async () => {
    const items = [1, 2].map(() => ({ operation: "ifc2json", payload: BODY }));
    const first = await send(items, KEYED, "/jobs");
    await vanish(first.job_ids?.[0] as JobId, how);
    expect(await send(items, KEYED, "/jobs")).toMatchObject({ replayed: true, job_ids: first.job_ids });
    expect((await send(items.slice(1), KEYED, "/jobs")).http).toBe(422);
    await vanish(first.job_ids?.[1] as JobId, how);
    const second = await send(items.slice(1), KEYED, "/jobs");
    expect(second).toMatchObject({ http: 202, replayed: false });
    expect((await g.json(`/jobs/${second.job_ids?.[0]}`)).status).toBe("queued");
    expect(await send(items.slice(1), KEYED, "/jobs")).toMatchObject({ replayed: true, job_ids: second.job_ids });
  });
}

test("the Idempotency-Key of a requeue whose job was erased is 404", async () => {
  const { job_id } = await send();
  await g.post(`/jobs/${job_id}/cancel`);
  expect((await g.post(`/jobs/${job_id}/requeue`, undefined, KEYED)).status).toBe(200);
  expect((await g.post(`/jobs/${job_id}/requeue`, undefined, KEYED)).status).toBe(200);
  const { producer, inspector } = g.gateway;
  await producer.cancel(job_id);
  const { rev } = (await inspector.glance(job_id)) as { rev: number };
  expect(await producer.requeue(job_id, rev, "k")).toBe("ok");
  expect(await producer.requeue(job_id, rev, "k")).toBe("again");
  await vanish(job_id, "expired");
  expect(await producer.requeue(job_id, rev, "k")).toBe("gone");
  expect((await g.post(`/jobs/${job_id}/requeue`, undefined, KEYED)).status).toBe(404);
});

test("a job that is erased while its repeated submit waits for it: the key starts a new one", async () => {
  const { job_id } = await send();
  const waiting = g.post("/ifc2json", BODY, { ...KEYED, prefer: "wait=2" });
  await Bun.sleep(200);
  await vanish(job_id, "expired");
  const answer = await waiting;
  expect([answer.status, answer.headers.get("idempotent-replayed")]).toEqual([202, null]);
  const { job_id: fresh } = (await answer.json()) as { job_id: JobId };
  expect((await g.json(`/jobs/${fresh}`)).status).toBe("queued");
});

test("a replay, and a wait that ran out, show the job's state as it is", async () => {
  const { job_id } = await send();
  expect((await send()).status).toBe("queued");
  const worker = g.worker("w");
  const ask = { slots: 1, concurrency: 0, limits: "ifc2json=1000" };
  const [taken] = (await worker.turn(SERVICE, [], ask)).jobs;
  expect((await send()).status).toBe("started");
  const waited = await g.post("/ifc2json", BODY, { ...KEYED, prefer: "wait=0.1" });
  expect(await waited.json()).toMatchObject({ job_id, status: "started" });
  const token = taken?.token as string;
  await worker.turn(SERVICE, [{ id: job_id, token, kind: "finish", ttlMs: 60_000, result: "1" }], { ...ask, slots: 0 });
  expect(await send()).toMatchObject({ http: 202, replayed: true, status: "finished" });
});

test("a 503 whose fate is unknown advises to send again only where a key was sent", async () => {
  const limits = { maxQueued: 0, idempotencyTtlMs: 60_000, failureTtlMs: 60_000 };
  const silent = new Proxy(g.redis, {
    get: (target, name) =>
      String(name).startsWith("lh_submit") ? () => new Promise(() => {}) : Reflect.get(target, name, target),
  });
  const producer = new Producer(silent as never, limits);
  const job = (more = {}) => ({
    id: `${SERVICE}_${"0".repeat(22)}` as JobId,
    operation: "ifc2json",
    payload: "{}",
    ...more,
  });
  const plain = (await producer.submit(job()).catch((error) => error)) as Error & { detail: string };
  expect(plain.detail).toContain(`look up GET /jobs/${SERVICE}_${"0".repeat(22)} before you send it again`);
  expect(plain.detail).not.toContain("with the same Idempotency-Key");
  const keyed = (await producer
    .submit(job({ idempotency: { key: "k", body: "b" } }))
    .catch((error) => error)) as typeof plain;
  expect(keyed.detail).toContain("send the request again with the same Idempotency-Key");

  const ending = new Proxy(g.redis, {
    get(target, name) {
      let calls = 0;
      if (name !== "lh_batch_end") return Reflect.get(target, name, target);
      return (...args: unknown[]) =>
        args[1] === "committed" && calls++ === 0
          ? new Promise(() => {})
          : (target as unknown as Record<string, (...list: unknown[]) => unknown>).lh_batch_end?.(...args);
    },
  });
  const batches = new Batches(ending as never, { ...limits, batchTimeoutMs: 60_000 });
  for (const name of [undefined, { key: newBatchId(), body: "b" }]) {
    const id = `${SERVICE}_${String(Math.random()).slice(2, 12).padEnd(22, "a")}` as JobId;
    const fault = (await batches.submit([{ ...job(), id }], 60_000, name).catch((error) => error)) as typeof plain;
    expect(fault.detail.includes("with the same Idempotency-Key")).toBe(name !== undefined);
    expect(fault.detail).toContain("GET /batches/");
  }
}, 20_000);

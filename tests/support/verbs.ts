/** What clients and operators can do, each thing once: a Redis that lets all of it pass lets Longhaul work. */
import { expect } from "bun:test";
import { type Stack, until } from "./stack.ts";

/** Every verb that a client or an operator has. @param names  services of the stack, each with an operation of its name */
export async function everyVerb(s: Stack, names: string[]): Promise<void> {
  const [first, second, third, fourth] = [0, 1, 2, 3].map((n) => names[n % names.length] as string);
  const ids = await Promise.all(names.map((name) => s.submit({ answer: name }, `/${name}`)));
  for (const [i, id] of ids.entries())
    expect(await s.ended(id)).toMatchObject({ status: "finished", result: names[i] });
  const failed = await s.submit({ status: 400, detail: "no" }, `/${second}`);
  expect((await s.ended(failed)).status).toBe("failed");
  expect((await s.post(`/jobs/${failed}/requeue`)).status).toBe(200);
  expect((await s.ended(failed)).status).toBe("failed");
  expect((await fetch(`${s.url}/jobs/${failed}`, { method: "DELETE" })).status).toBe(200);
  expect((await fetch(`${s.url}/jobs/${failed}/status`)).status).toBe(404);
  const running = await s.submit({ sleep: 30_000 }, `/${third}`);
  await until(async () => (await s.get(`/jobs/${running}/status`)).status === "started");
  expect((await s.post(`/jobs/${running}/cancel`)).status).toBe(202);
  expect((await s.ended(running)).error).toContain("canceled");
  await until(() => s.service.byJob(running)[0]?.aborted === true);
  const later = await s.submit({}, `/${fourth}?delay=1`);
  const high = await s.submit({}, `/${fourth}?priority=9`);
  for (const id of [later, high]) expect((await s.ended(id)).status).toBe("finished");
  const key = { "idempotency-key": `k${Math.random()}` };
  expect(await s.submit({ a: 1 }, `/${first}`, key)).toBe(await s.submit({ a: 1 }, `/${first}`, key));
  const batch = await s.post(
    "/jobs",
    names.map((operation) => ({ operation, payload: {} })),
  );
  expect(batch.status).toBe(202);
  const { batch_id, job_ids } = (await batch.json()) as { batch_id: string; job_ids: string[] };
  for (const id of job_ids) expect((await s.ended(id)).status).toBe("finished");
  await until(async () => (await s.get(`/batches/${batch_id}`)).done === true);
  expect((await s.post(`/queues/${first}/pause`)).status).toBe(200);
  const waiting = await s.submit({}, `/${first}`);
  await Bun.sleep(300);
  expect((await s.get(`/jobs/${waiting}/status`)).status).toBe("queued");
  expect((await s.post(`/queues/${first}/resume`)).status).toBe(200);
  expect((await s.ended(waiting)).status).toBe("finished");
  const wait = await s.submit({ sleep: 700 }, `/${second}`);
  expect((await s.get(`/jobs/${wait}/status?wait=20`)).status).toBe("finished");
  expect((await s.get("/jobs?limit=5")).jobs.length).toBe(5);
  expect((await s.get("/health")).services.redis).toMatch(/^healthy|INFO is barred/);
  expect((await s.get("/alerts")).rules.length).toBeGreaterThan(4 * names.length);
}

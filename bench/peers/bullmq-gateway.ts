/** BullMQ behind hono on Bun, as its docs recommend: one Queue for the process, jobs added as they come. PORT, REDIS_URL. */
import { Queue } from "bullmq";
import { Hono } from "hono";
import IORedis from "ioredis";

const connection = new IORedis(process.env.REDIS_URL as string, { enableOfflineQueue: false, maxRetriesPerRequest: 1 });
await new Promise((done) => connection.once("ready", done));
const queue = new Queue("noop", { connection: connection as never });
const app = new Hono();
app.post("/noop", async (c) => {
  const payload = await c.req.json();
  const job = await queue.add("noop", payload, { attempts: 3, backoff: { type: "exponential", delay: 2_000 } });
  return c.json({ job_id: job.id, status: "queued" }, 202);
});
app.get("/jobs/:id/status", async (c) => {
  const job = await queue.getJob(c.req.param("id"));
  if (!job) return c.json({ detail: "unknown" }, 404);
  return c.json({
    job_id: job.id,
    status: await job.getState(),
    result: job.returnvalue ?? null,
    error: job.failedReason ?? null,
  });
});
Bun.serve({ port: Number(process.env.PORT), hostname: "127.0.0.1", fetch: app.fetch });
console.log("ready");

/** A BullMQ worker that makes the HTTP call, on Bun. REDIS_URL, SERVICE_URL, CONCURRENCY. */
import { Worker } from "bullmq";
import IORedis from "ioredis";

const connection = new IORedis(process.env.REDIS_URL as string, { maxRetriesPerRequest: null });
const url = `${process.env.SERVICE_URL}/noop`;
const worker = new Worker(
  "noop",
  async (job) => {
    const response = await fetch(url, {
      method: "POST",
      body: JSON.stringify(job.data),
      headers: { "content-type": "application/json", "x-job-id": String(job.id) },
    });
    if (!response.ok) throw new Error(`noop answered ${response.status}`);
    return response.json();
  },
  { connection: connection as never, concurrency: Number(process.env.CONCURRENCY) },
);
await worker.waitUntilReady();
console.log("ready");

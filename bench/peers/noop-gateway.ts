/** The limit of submitting: hono that reads a body, parses it and answers. PORT. */
import { Hono } from "hono";

const app = new Hono();
app.post("/noop", async (c) => {
  await c.req.json();
  return c.json({ job_id: "noop_0000000000000000000000", status: "queued" }, 202);
});
Bun.serve({ port: Number(process.env.PORT), hostname: "127.0.0.1", fetch: app.fetch });
console.log("ready");

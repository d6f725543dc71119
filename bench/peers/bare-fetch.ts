/** The limit of working: Bun's own fetch against the no-op service. SERVICE_URL, JOBS, CONCURRENCY → calls a second. */
const body = process.env.BODY as string;
const url = `${process.env.SERVICE_URL}/noop`;
let left = Number(process.env.JOBS);
const start = performance.now();
await Promise.all(
  Array.from({ length: Number(process.env.CONCURRENCY) }, async () => {
    while (left-- > 0) {
      const response = await fetch(url, { method: "POST", body, headers: { "content-type": "application/json" } });
      await response.text();
    }
  }),
);
console.log(Math.round(Number(process.env.JOBS) / ((performance.now() - start) / 1_000)));

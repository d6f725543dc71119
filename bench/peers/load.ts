/**
 * The client of every contender. MODE=submit: JOBS posts over CONCURRENCY connections → {perSecond}.
 * MODE=pace: RATE posts a second for SECONDS → {sent: [[id, ms since 1970]…]}.
 */
const url = `${process.env.URL}/noop`;
const body = process.env.BODY as string;
const headers = { "content-type": "application/json" };
const post = async () => {
  const at = performance.timeOrigin + performance.now();
  const response = await fetch(url, { method: "POST", body, headers });
  const { job_id } = (await response.json()) as { job_id: string };
  if (response.status !== 202) throw new Error(`answered ${response.status}`);
  return [job_id, at] as const;
};
if (process.env.MODE === "submit") {
  let left = Number(process.env.JOBS);
  const start = performance.now();
  await Promise.all(
    Array.from({ length: Number(process.env.CONCURRENCY) }, async () => {
      while (left-- > 0) {
        const response = await fetch(url, { method: "POST", body, headers });
        await response.text();
        if (response.status !== 202) throw new Error(`answered ${response.status}`);
      }
    }),
  );
  console.log(JSON.stringify({ perSecond: Number(process.env.JOBS) / ((performance.now() - start) / 1_000) }));
} else {
  const every = 1_000 / Number(process.env.RATE);
  const total = Number(process.env.RATE) * Number(process.env.SECONDS);
  const sent: Promise<readonly [string, number]>[] = [];
  const start = performance.now();
  for (let i = 0; i < total; i++) {
    const wait = start + i * every - performance.now();
    if (wait > 0) await Bun.sleep(wait);
    sent.push(post());
  }
  console.log(JSON.stringify({ sent: await Promise.all(sent) }));
}

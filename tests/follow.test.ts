import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { connect } from "node:net";
import { parseHead } from "../shared/jobs.ts";
import { freePort } from "./support/redis.ts";
import { type Stack, startStack, until } from "./support/stack.ts";

let stack: Stack;
/** a second gateway over the same Redis */
let other: string;
beforeAll(async () => {
  stack = await startStack({
    env: { RESULT_INLINE_BYTES: "1KiB", EVENTS_HEARTBEAT: "300ms", GATEWAY_URL: "" },
    operation: { accepts: ["application/json", "text/csv", "image/png", "text/html"] },
  });
  const port = await freePort();
  await stack.startGateway({ PORT: String(port), DASHBOARD_PORT: "0" });
  other = `http://127.0.0.1:${port}`;
}, 30_000);
afterAll(() => stack?.stop());

const timed = async <T>(work: () => Promise<T>): Promise<[T, number]> => {
  const began = performance.now();
  return [await work(), performance.now() - began];
};

type Event = { id: number; data: { status: string; progress: number | null; result: unknown } };
/** Reads a stream of events to its end, or until `enough`. */
async function events(response: Response, enough: (all: Event[], text: string) => boolean = () => false) {
  const all: Event[] = [];
  const decoder = new TextDecoder();
  let text = "";
  for await (const part of response.body as unknown as AsyncIterable<Uint8Array>) {
    text += decoder.decode(part, { stream: true });
    all.length = 0;
    for (const block of text.split("\n\n").slice(0, -1)) {
      const data = [...block.matchAll(/^data: (.*)$/gm)].map((m) => m[1]).join("\n");
      if (data) all.push({ id: Number(/^id: (\d+)$/m.exec(block)?.[1]), data: JSON.parse(data) });
    }
    if (enough(all, text)) break;
  }
  return { all, text };
}

test("status?wait answers when the job ends, on another gateway than the submit's", async () => {
  const id = await stack.submit({ sleep: 700 });
  const [status, ms] = await timed(async () => (await fetch(`${other}/jobs/${id}/status?wait=30`)).json());
  expect(status).toMatchObject({ job_id: id, status: "finished" });
  expect(ms).toBeGreaterThan(400);
  expect(ms).toBeLessThan(1_900); // woken by the message, not by the look of every 2 s
});

test("Prefer: wait on GET says Preference-Applied; a wait that runs out answers the live state", async () => {
  const id = await stack.submit({ sleep: 2_500 });
  const [response, ms] = await timed(() =>
    fetch(`${stack.url}/jobs/${id}`, { headers: { prefer: "respond-async, wait=1" } }),
  );
  expect(response.headers.get("preference-applied")).toBe("wait=1");
  expect((await response.json()).status).toBe("started");
  expect(ms).toBeGreaterThan(900);
  expect(ms).toBeLessThan(1_700);
  await stack.ended(id);
});

test("Prefer: wait on submit answers the ended status with 200, or 202 as usual when the wait runs out", async () => {
  const done = await stack.post("/work", { sleep: 300, answer: { n: 1 } }, { prefer: "wait=20" });
  expect(done.status).toBe(200);
  expect(done.headers.get("preference-applied")).toBe("wait=20");
  const body = (await done.json()) as { job_id: string };
  expect(body).toMatchObject({ status: "finished", result: { n: 1 } });
  expect(done.headers.get("location")).toBe(`/jobs/${body.job_id}`);
  const late = await stack.post("/work", { sleep: 2_000 }, { prefer: "wait=1" });
  expect(late.status).toBe(202);
  expect(late.headers.get("preference-applied")).toBe("wait=1");
  expect(Number(late.headers.get("retry-after"))).toBeGreaterThan(0);
  const failed = await stack.post("/work", { status: 400, detail: "no such file" }, { prefer: "wait=20" });
  expect(failed.status).toBe(200);
  expect(await failed.json()).toMatchObject({ status: "failed", error: expect.stringContaining("no such file") });
});

test("a wait is cut to 60 s, an unreadable preference is ignored, an unreadable ?wait is 422", async () => {
  const id = await stack.submit({});
  await stack.ended(id);
  const long = await fetch(`${stack.url}/jobs/${id}/status`, { headers: { prefer: "wait=999999" } });
  expect(long.headers.get("preference-applied")).toBe("wait=60");
  for (const prefer of ["wait=abc", "wait=-1", "wait", "waits=5", "return=minimal"]) {
    const response = await fetch(`${stack.url}/jobs/${id}/status`, { headers: { prefer } });
    expect(response.status).toBe(200);
    expect(response.headers.get("preference-applied")).toBeNull();
  }
  for (const wait of ["abc", "-1", "1e3", "", "99999999999999999999x"]) {
    const response = await fetch(`${stack.url}/jobs/${id}/status?wait=${wait}`);
    expect(response.status).toBe(422);
    expect((await response.json()).errors[0].path).toBe("wait");
  }
  expect((await fetch(`${stack.url}/jobs/work_0000000000000000000000/status?wait=30`)).status).toBe(404);
});

test("a canceled job ends a wait, and so does the cancel of a running one", async () => {
  const id = await stack.submit({}, "/work?delay=1h");
  const waiting = fetch(`${other}/jobs/${id}/status?wait=30`);
  await Bun.sleep(200);
  const [, ms] = await timed(async () => {
    await stack.post(`/jobs/${id}/cancel`);
    expect((await (await waiting).json()).error).toStartWith("canceled");
  });
  expect(ms).toBeLessThan(1_000);
});

test("only a watched record is marked, and marking changes neither rev nor a terminal record", async () => {
  const id = await stack.submit({ sleep: 100 });
  const key = `lh:{work}:job:${id}`;
  expect(await stack.redis.client.hget(key, "w")).toBeNull();
  const before = (await stack.get(`/jobs/${id}`)).rev;
  await fetch(`${stack.url}/jobs/${id}/status?wait=10`);
  expect(await stack.redis.client.hget(key, "w")).toBe("1");
  expect(before).toBeLessThan((await stack.get(`/jobs/${id}`)).rev);
  const ended = await stack.submit({});
  await stack.ended(ended);
  await fetch(`${stack.url}/jobs/${ended}/status?wait=10`);
  expect(await stack.redis.client.hget(`lh:{work}:job:${ended}`, "w")).toBeNull();
});

test("without a message the wait ends by its own look (rule 10)", async () => {
  const id = await stack.submit({ sleep: 600 });
  const waiting = timed(async () => (await fetch(`${other}/jobs/${id}/status?wait=30`)).json());
  await Bun.sleep(150);
  await stack.redis.client.hdel(`lh:{work}:job:${id}`, "w"); // whatever would publish is told not to
  const [status, ms] = await waiting;
  expect(status.status).toBe("finished");
  expect(ms).toBeLessThan(4_500);
});

test("ETag and 304 on status and record; a change is a new tag", async () => {
  const id = await stack.submit({ sleep: 500 });
  await until(async () => (await stack.get(`/jobs/${id}/status`)).status === "started");
  for (const path of [`/jobs/${id}/status`, `/jobs/${id}`]) {
    const first = await fetch(stack.url + path);
    const etag = first.headers.get("etag") as string;
    expect(etag).toMatch(/^W\/"\d+"$/);
    expect(first.headers.get("cache-control")).toBe("private, no-cache");
    const again = await fetch(other + path, { headers: { "if-none-match": `"x", ${etag}` } });
    expect(again.status).toBe(304);
    expect(await again.text()).toBe("");
    expect(again.headers.get("etag")).toBe(etag);
  }
  const old = (await fetch(`${stack.url}/jobs/${id}/status`)).headers.get("etag") as string;
  await stack.ended(id);
  const changed = await fetch(`${stack.url}/jobs/${id}/status`, { headers: { "if-none-match": old } });
  expect(changed.status).toBe(200);
});

test("a scheduled job is to be looked for when it is due, or in a minute", async () => {
  for (const [delay, least, most] of [
    ["1h", 60, 60],
    ["30s", 28, 30],
  ] as const) {
    const taken = await stack.post(`/work?delay=${delay}`, {});
    const { job_id } = (await taken.json()) as { job_id: string };
    const seen = await fetch(`${stack.url}/jobs/${job_id}/status`);
    await seen.text();
    for (const { headers } of [taken, seen]) {
      const waitS = Number(headers.get("retry-after"));
      expect([delay, waitS, waitS >= least && waitS <= most]).toEqual([delay, waitS, true]);
    }
  }
});

test("events: changes of state and progress in order, id = rev, ends after the terminal one, 204 to who comes again", async () => {
  const id = await stack.submit({ sleep: 1_200, answer: [1] });
  const response = await fetch(`${other}/jobs/${id}/events`);
  expect(response.headers.get("content-type")).toStartWith("text/event-stream");
  const reading = events(response);
  await until(() => stack.service.byJob(id).length === 1);
  const token = parseHead(await stack.redis.client.hget(`lh:{work}:job:${id}`, "h"))?.start?.token;
  const noted = await stack.post(`/jobs/${id}/progress?t=${token}`, { progress: 0.4 });
  expect(noted.status).toBe(200);
  const { all, text } = await reading;
  expect(all.at(-1)?.data).toMatchObject({ status: "finished", result: [1], progress: 1 });
  expect(all.some((event) => event.data.progress === 0.4)).toBe(true);
  expect(all.map((event) => event.id)).toEqual([...all.map((event) => event.id)].sort((a, b) => a - b));
  expect(all.at(-1)?.id).toBe((await stack.get(`/jobs/${id}`)).rev);
  expect(text).toContain(": still here"); // heartbeats in a second of silence
  const last = String(all.at(-1)?.id);
  const again = await fetch(`${stack.url}/jobs/${id}/events`, { headers: { "last-event-id": last } });
  expect(again.status).toBe(204);
  const earlier = await events(await fetch(`${stack.url}/jobs/${id}/events`, { headers: { "last-event-id": "1" } }));
  expect(earlier.all.map((event) => event.data.status)).toEqual(["finished"]);
});

test("events tell of a start at once, and not at the next look", async () => {
  const port = await freePort();
  const gateway = await stack.startGateway({ PORT: String(port), DASHBOARD_PORT: "0", EVENTS_HEARTBEAT: "15s" });
  const id = await stack.submit({ sleep: 2_600 }, "/work?delay=2500ms");
  const response = await fetch(`http://127.0.0.1:${port}/jobs/${id}/events`);
  let seen = 0;
  await events(response, (all) => {
    seen = Date.now();
    return all.some((event) => event.data.status === "started");
  });
  expect(seen - Date.parse((await stack.get(`/jobs/${id}`)).started_at)).toBeLessThan(700);
  gateway.kill("SIGKILL");
});

test("a reconnect with Last-Event-ID gets no event it has, and the latest it lacks", async () => {
  const id = await stack.submit({ sleep: 900 });
  await until(async () => (await stack.get(`/jobs/${id}/status`)).status === "started");
  const { rev } = await stack.get(`/jobs/${id}`);
  const { all } = await events(
    await fetch(`${stack.url}/jobs/${id}/events`, { headers: { "last-event-id": String(rev) } }),
  );
  expect(all.map((event) => event.data.status)).toEqual(["finished"]);
});

test("a client that goes away frees its wait and its stream", async () => {
  const count = async () => {
    const channels = (await stack.redis.client.call("PUBSUB", "NUMSUB", "lh:events")) as [string, number];
    return channels[1];
  };
  const port = await freePort();
  const gateway = await stack.startGateway({ PORT: String(port), DASHBOARD_PORT: "0", MAX_WAITS: "2" });
  const before = await count();
  const id = await stack.submit({}, "/work?delay=1h");
  const away = new AbortController();
  const two = ["status?wait=60", "events"].map((path) =>
    fetch(`http://127.0.0.1:${port}/jobs/${id}/${path}`, { signal: away.signal })
      .then((r) => r.text())
      .catch(() => ""),
  );
  await until(async () => (await count()) === before + 1); // one subscription, however many wait
  await Bun.sleep(300);
  expect((await fetch(`http://127.0.0.1:${port}/jobs/${id}/events`)).status).toBe(429);
  const [at, ms] = await timed(() => fetch(`http://127.0.0.1:${port}/jobs/${id}/status?wait=10`));
  expect(at.status).toBe(200); // full: answered at once, nothing breaks
  expect(ms).toBeLessThan(1_000);
  away.abort();
  await Promise.all(two);
  // both places are free again: two streams find room at once
  const open: Response[] = [];
  await until(async () => {
    const response = await fetch(`http://127.0.0.1:${port}/jobs/${id}/events`);
    if (response.status === 200) open.push(response);
    return open.length === 2;
  }, 5_000);
  for (const response of open) await response.body?.cancel();
  gateway.kill("SIGKILL");
});

test("a gateway that stops answers whoever waits at once", async () => {
  const port = await freePort();
  const gateway = await stack.startGateway({ PORT: String(port), DASHBOARD_PORT: "0" });
  const id = await stack.submit({}, "/work?delay=1h");
  const poll = fetch(`http://127.0.0.1:${port}/jobs/${id}/status?wait=60`);
  const stream = fetch(`http://127.0.0.1:${port}/jobs/${id}/events`).then((r) => r.text());
  await Bun.sleep(400);
  const [, ms] = await timed(async () => {
    gateway.kill("SIGTERM");
    expect((await (await poll).json()).status).toBe("scheduled");
    expect(await stream).toContain('"scheduled"');
    expect(await gateway.exited).toBe(0);
  });
  expect(ms).toBeLessThan(2_500);
});

test("result: the bytes and the type as the microservice sent them, from Redis and from the volume", async () => {
  const exact = '{ "b" : 1.0,\n "a":12345678901234567890, "ü": [] }';
  const small = await stack.submit({ raw: exact });
  await stack.ended(small);
  const response = await fetch(`${other}/jobs/${small}/result`);
  expect(response.headers.get("content-type")).toBe("application/json");
  expect(response.headers.get("x-content-type-options")).toBe("nosniff");
  expect(await response.text()).toBe(exact);
  const csv = await stack.submit({ raw: "a;b\r\n1;2\r\n", type: "text/csv; charset=utf-8" });
  expect((await stack.ended(csv)).result).toEqual({
    content_type: "text/csv; charset=utf-8",
    size: 10,
    href: `/jobs/${csv}/result`,
  });
  const table = await fetch(`${stack.url}/jobs/${csv}/result`);
  expect(table.headers.get("content-type")).toBe("text/csv; charset=utf-8");
  expect(await table.text()).toBe("a;b\r\n1;2\r\n");
  const text = `"${"0123456789".repeat(50_000)}"`;
  const large = await stack.submit({ raw: text });
  await stack.ended(large);
  expect(existsSync(`${stack.dir}/data/results/work/${large}`)).toBe(true);
  const whole = await fetch(`${other}/jobs/${large}/result`);
  expect(whole.headers.get("content-length")).toBe(String(text.length));
  expect(await whole.text()).toBe(text);
});

test("result: Range, If-Range, If-None-Match and HEAD, from Redis and from the volume alike", async () => {
  for (const length of [400, 40_000]) {
    const text = `"${"abcdefgh".repeat(length / 8)}"`;
    const id = await stack.submit({ raw: text });
    await stack.ended(id);
    const url = `${stack.url}/jobs/${id}/result`;
    const get = (headers: Record<string, string>) => fetch(url, { headers });
    const size = text.length;
    for (const [range, from, to] of [
      ["bytes=0-9", 0, 10],
      [`bytes=${size - 5}-`, size - 5, size],
      ["bytes=-7", size - 7, size],
      [`bytes=5-${size * 2}`, 5, size],
      [`bytes=-${size * 2}`, 0, size],
    ] as const) {
      const part = await get({ range });
      expect(part.status).toBe(206);
      expect(part.headers.get("content-range")).toBe(`bytes ${from}-${to - 1}/${size}`);
      expect(await part.text()).toBe(text.slice(from, to));
    }
    for (const range of [`bytes=${size}-`, "bytes=-0", `bytes=${size * 3}-${size * 4}`]) {
      const outside = await get({ range });
      expect(outside.status).toBe(416);
      expect(outside.headers.get("content-range")).toBe(`bytes */${size}`);
      expect(outside.headers.get("content-type")).toBe("application/problem+json");
      await outside.text();
    }
    for (const range of ["bytes=5-2", "bytes=0-1,3-4", "items=0-1", "bytes=a-b", "bytes=-", "bytes=--5"]) {
      const whole = await get({ range });
      expect(whole.status).toBe(200);
      expect(await whole.text()).toBe(text);
    }
    const first = await get({});
    const etag = first.headers.get("etag") as string;
    expect(await first.text()).toBe(text);
    expect((await get({ "if-none-match": etag })).status).toBe(304);
    expect((await get({ range: "bytes=0-1", "if-range": etag })).status).toBe(206);
    expect((await get({ range: "bytes=0-1", "if-range": '"old"' })).status).toBe(200);
    const head = await fetch(url, { method: "HEAD" });
    expect(head.status).toBe(200);
    expect(head.headers.get("content-length")).toBe(String(size));
    expect(await head.text()).toBe("");
  }
});

test("result: 409 with the reason while there is none, 404 when its file is gone, never a script of ours to run", async () => {
  const live = await stack.submit({}, "/work?delay=1h");
  const early = await fetch(`${stack.url}/jobs/${live}/result`);
  expect(early.status).toBe(409);
  expect(early.headers.get("retry-after")).toBe("60"); // as its status says: nothing happens to it before
  expect((await early.json()).state).toBe("scheduled");
  const failed = await stack.submit({ status: 404, detail: "File x.ifc not found" });
  await stack.ended(failed);
  const none = await fetch(`${stack.url}/jobs/${failed}/result`);
  expect(none.status).toBe(409);
  expect((await none.json()).detail).toContain("File x.ifc not found");
  const html = await stack.submit({ raw: "<script>alert(1)</script>", type: "text/html" });
  await stack.ended(html);
  expect((await fetch(`${stack.url}/jobs/${html}/result`)).headers.get("content-security-policy")).toContain("sandbox");
  const large = await stack.submit({ raw: `"${"x".repeat(5_000)}"` });
  await stack.ended(large);
  const dir = `${stack.dir}/data/results/work/${large}`;
  await Bun.write(`${dir}/${readdirSync(dir)[0]}`, "short"); // another size than the record says
  expect((await fetch(`${stack.url}/jobs/${large}/result`)).status).toBe(404);
  for (const id of ["..%2f..%2fetc%2fpasswd", "work_..", `work_${"0".repeat(22)}`, "%00", "work_/../x"]) {
    expect((await fetch(`${stack.url}/jobs/${id}/result`)).status).toBe(404);
  }
});

test("result?wait waits for the end and then gives the answer itself", async () => {
  const id = await stack.submit({ sleep: 400, answer: { late: true } });
  expect(await (await fetch(`${other}/jobs/${id}/result?wait=20`)).json()).toEqual({ late: true });
});

test("an outage of Redis ends a wait with the result when it is back in time", async () => {
  const id = await stack.submit({ sleep: 4_500 });
  await until(async () => (await stack.get(`/jobs/${id}/status`)).status === "started");
  const waiting = fetch(`${stack.url}/jobs/${id}/status?wait=30`);
  await Bun.sleep(100);
  await stack.redis.kill9();
  await Bun.sleep(3_000); // longer than the time between two looks
  await stack.redis.restart();
  const response = await waiting;
  expect(response.status).toBe(200);
  expect((await response.json()).status).toBe("finished");
}, 40_000);

test("half a request line on a waiting connection harms nobody", async () => {
  const socket = connect(Number(new URL(stack.url).port), "127.0.0.1");
  socket.write(
    "GET /jobs/work_0000000000000000000000/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: \u0007x\r\n",
  );
  await Bun.sleep(50);
  socket.destroy();
  expect((await stack.get("/livez")).status).toBe("alive");
});

/** `retries: 0` with a job: one call at most, whatever ends it. What surely was no call stays free. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { createServer, type Socket } from "node:net";
import { newJobId } from "../shared/jobs.ts";
import { type Lanes, laneStage, type Stage } from "./support/lane.ts";
import { startStack, until } from "./support/stack.ts";
import { SERVICE, settle, type TestStore } from "./support/store.ts";

let s: TestStore;
let service: Stage["service"];
let lanes: Lanes;
laneStage((stage) => {
  ({ s, service, lanes } = stage);
});
const once = (more = {}) => s.submit({ options: { retries: 0 }, ...more });
const after: (() => unknown)[] = [];
beforeEach(() => {
  service.calls.length = 0;
});
afterEach(async () => {
  for (const step of after.splice(0)) await step();
}, 30_000);

test("a worker died in the call: failed as orphaned, and the attempts show the call", async () => {
  const id = await once();
  const w1 = s.worker("w1");
  const [taken] = await w1.take();
  expect(await w1.callOnce(SERVICE, id, taken!.token)).toBe("ok");
  expect(await w1.callOnce(SERVICE, id, taken!.token)).toBe("ok"); // sent again after a lost reply
  await s.age(w1, 31_000);
  expect(await s.worker("w2").reapOf(w1)).toEqual([0, 1, 0]);
  const record = (await s.inspector.record(id))!;
  expect(record).toMatchObject({ state: "failed", error: { code: "orphaned", retryable: false } });
  expect(record.error!.message).toBe("The worker died while the call ran, and the job may be called once (retries: 0)");
  expect(record.attempts).toMatchObject([{ attempt: 1, worker: "w1", outcome: "orphaned" }]);
  expect(await w1.settle(settle(taken!, "finish"))).toEqual(["lost"]);
});

test("a worker died before it called: the job goes back and is called once", async () => {
  const id = await once();
  const w1 = s.worker("w1");
  await w1.take();
  await s.age(w1, 31_000);
  await s.worker("w2").reapOf(w1);
  expect(await s.state(id)).toBe("queued");
  lanes.start("w3");
  await until(async () => (await s.state(id)) === "finished");
  expect(service.byJob(id)).toHaveLength(1);
});

test("a worker whose lease is lost between claim and call makes no call", async () => {
  const { lane, worker, lines } = lanes.start("w1");
  const callOnce = worker.callOnce.bind(worker);
  worker.callOnce = async (...given) => {
    await s.age(worker, 31_000);
    await s.worker("w2").reapOf(worker);
    return callOnce(...given);
  };
  const id = await once();
  await until(() => lines.join().includes("another worker has it now"));
  lane.hush();
  expect(await s.state(id)).toBe("queued");
  expect(service.byJob(id)).toHaveLength(0);
});

test("notes of other attempts, of unknown jobs and of ended ones change nothing", async () => {
  const id = await once();
  const w = s.worker("w1");
  const [taken] = await w.take();
  expect(await w.callOnce(SERVICE, newJobId(SERVICE), taken!.token)).toBe("gone");
  expect(await w.callOnce(SERVICE, id, "1.w2.other")).toBe("lost");
  await w.callOnce(SERVICE, id, taken!.token);
  await w.settle(settle(taken!, "redeliver")); // as a worker of an earlier version would
  const [again] = await w.take();
  expect(await w.callOnce(SERVICE, id, again!.token)).toBe("called");
  await w.settle(settle(again!, "finish"));
  expect(await w.callOnce(SERVICE, id, again!.token)).toBe("lost");
});

test("a hand-back and a requeue allow the one call anew", async () => {
  const id = await once();
  const w = s.worker("w1");
  const [taken] = await w.take();
  await w.callOnce(SERVICE, id, taken!.token);
  await w.settle(settle(taken!, "return"));
  const [again] = await w.take();
  expect(await w.callOnce(SERVICE, id, again!.token)).toBe("ok");
  await w.settle(settle(again!, "fail"));
  await s.producer.requeue(id, (await s.inspector.glance(id))!.rev);
  const [anew] = await w.take();
  expect(await w.callOnce(SERVICE, id, anew!.token)).toBe("ok");
});

test("a job without it is redelivered as before, its operation's own retries: 0 notwithstanding", async () => {
  const id = await s.submit();
  const w1 = s.worker("w1");
  await w1.take();
  await s.age(w1, 31_000);
  expect(await s.worker("w2").reapOf(w1)).toEqual([1, 0, 0]);
  expect(await s.state(id)).toBe("queued");
});

test("a service that dies in each call: one call with retries=0, four shown as redeliveries without", async () => {
  const sockets = new Set<Socket>();
  let calls = 0;
  const server = createServer((socket) => {
    sockets.add(socket);
    socket
      .on("error", () => {})
      .on("data", (data) => {
        if (!data.includes("POST")) return;
        calls++;
        socket.resetAndDestroy();
      });
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as { port: number };
  const stack = await startStack({
    operations: { dying: { url: `http://127.0.0.1:${port}`, retries: 0, backoff: "20ms" } },
  });
  after.push(
    () => stack.stop(),
    () => server.close(),
    () => sockets.forEach((socket) => void socket.destroy()),
  );
  const single = await stack.submit({}, "/dying?retries=0");
  expect(await stack.ended(single)).toMatchObject({ status: "failed", attempt: 1, redeliveries: 0 });
  const { error } = await stack.get(`/jobs/${single}`);
  expect(error).toMatchObject({ code: "reset", retryable: false });
  expect(error.message).toEndWith(", and the job may be called once (retries: 0)");
  expect(calls).toBe(1);
  const four = await stack.submit({}, "/dying");
  expect(await stack.ended(four)).toMatchObject({ status: "failed", attempt: 1, redeliveries: 4 });
  expect((await stack.get(`/jobs/${four}`)).attempts).toHaveLength(4);
  expect(calls).toBe(5);
}, 60_000);

test("a worker killed in the call of a job with retries=0: the service is called once", async () => {
  const stack = await startStack({ workers: 2, env: { LEASE: "1s" }, operation: { slots: 1 } });
  after.push(() => stack.stop());
  const id = await stack.submit({ sleep: 3_000 }, "/work?retries=0");
  await until(() => stack.service.byJob(id).length === 1);
  const { worker } = await stack.get(`/jobs/${id}`);
  stack.workers.find((one) => one.output().includes(worker))?.kill("SIGKILL");
  expect((await stack.ended(id)).status).toBe("failed");
  expect((await stack.get(`/jobs/${id}`)).error.code).toBe("orphaned");
  expect(stack.service.byJob(id)).toHaveLength(1);
}, 60_000);

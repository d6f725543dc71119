/** What a service says of its progress belongs to one attempt: none of it is shown when that has ended. */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { reportProgress } from "../shared/store/progress.ts";
import { SERVICE, settle, startStore, type TestStore } from "./support/store.ts";

let s: TestStore;
beforeAll(async () => {
  s = await startStore();
});
afterAll(() => s?.stop());
beforeEach(() => s.clear());

test("a message ends with its attempt: finished, failed, retried, handed back or orphaned", async () => {
  for (const end of ["finish", "fail", "retry", "redeliver", "return", "orphan"] as const) {
    const w = s.worker("w1");
    const id = await s.submit();
    const [taken] = await w.take();
    await reportProgress(s.connection, SERVICE, id, taken!.token, "0.4", "opening the model");
    expect([end, await s.inspector.status(id)]).toMatchObject([end, { message: "opening the model", progress: 0.4 }]);
    if (end === "orphan") {
      await s.age(w, 31_000);
      await s.worker("w2").reapOf(w);
    } else await w.settle(settle(taken!, end, { delayMs: 0 }));
    const [status, record] = [await s.inspector.status(id), await s.inspector.record(id)];
    const over = end === "finish" || end === "fail";
    for (const message of [status?.message, record?.message]) {
      if (over) expect([end, message]).toEqual([end, undefined]);
      else expect([end, String(message)]).not.toEqual([end, expect.stringContaining("opening the model")]);
    }
    if (over) continue;
    expect([end, status?.progress, record?.progress]).toEqual([end, undefined, undefined]);
    const [again] = await s.worker("w3").take();
    expect([end, again?.id]).toEqual([end, id]);
    expect([end, await s.inspector.status(id)]).toMatchObject([end, { message: undefined, progress: undefined }]);
    await s.worker("w3").settle(settle(again!, "finish"));
  }
});

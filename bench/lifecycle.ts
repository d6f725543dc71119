/** Jobs from submit to end against Redis alone, so many a call: no HTTP, no clocks. For those who measure the scripts. */
import { newJobId, type ServiceName } from "../shared/jobs.ts";
import type { Consumer, Settle } from "../shared/store/consume.ts";
import type { Producer } from "../shared/store/produce.ts";
import { BODY } from "./machine.ts";

const SERVICE = "noop" as ServiceName;
const ANSWER = '{"success":true,"message":"done","output_path":"/output/x.glb"}';
export const LIMITS = { maxQueued: 1_000_000, idempotencyTtlMs: 1_000, failureTtlMs: 1_000 };

/** Submits `jobs` jobs, `batch` a call. */
export async function submitAll(producer: Producer, jobs: number, batch: number): Promise<void> {
  for (let i = 0; i < jobs; i += batch) {
    const some = Array.from({ length: batch }, () => ({ id: newJobId(SERVICE), operation: "noop", payload: BODY }));
    await producer.send(SERVICE, some);
  }
}

/** Takes and finishes until nothing is queued, `batch` a call. */
export async function workAll(worker: Consumer, batch: number): Promise<void> {
  const ask = { slots: batch, concurrency: 0, limits: "noop=3600000" };
  let settles: Settle[] = [];
  do {
    const { jobs } = await worker.turn(SERVICE, settles, ask);
    settles = jobs.map(({ id, token, started, operation }) => ({
      ...{ id, token, started, operation, kind: "finish", ttlMs: 86_400_000, result: ANSWER, timing: "1,1" },
    }));
  } while (settles.length > 0);
}

/** Lanes over a real Redis and a fake microservice, without a process around them. */
import { afterAll, afterEach, beforeAll, beforeEach } from "bun:test";
import { z } from "zod";
import { Lane, type LaneSettings, type Wait } from "../../shared/lane.ts";
import type { Log } from "../../shared/log.ts";
import { type Operation, operation } from "../../shared/services.ts";
import { listLog } from "./log.ts";
import { type FakeService, startService } from "./service.ts";
import { DAY, SERVICE, startStore, type TestStore } from "./store.ts";

export type Stage = { s: TestStore; service: FakeService; lanes: Lanes };

/**
 * A store, a service and lanes for one file of tests: emptied before each test, stopped after all.
 * @param made   gets them before the first test
 * @param first  what is to be done before lanes can stop
 */
export function laneStage(made: (stage: Stage) => void, first = () => {}): void {
  let stage: Stage | undefined;
  beforeAll(async () => {
    const [s, service] = await Promise.all([startStore(), startService()]);
    stage = { s, service, lanes: new Lanes(s, service) };
    made(stage);
  });
  afterAll(async () => {
    await stage?.service.stop();
    await stage?.s.stop();
  });
  beforeEach(() => stage?.s.clear());
  afterEach(() => {
    first();
    return stage?.lanes.stop();
  });
}

export class Lanes {
  private running: { lane: Lane; done: Promise<void> }[] = [];

  constructor(
    private readonly store: TestStore,
    private readonly service: FakeService,
  ) {}

  /** A lane that runs. @param wait  what stands for BLMOVE; by default nothing ever arrives. @param log  instead of `lines`, which have warnings */
  start(
    name: string,
    more: Partial<LaneSettings> = {},
    wait: Wait = () => Bun.sleep(50).then(() => undefined),
    also: Partial<Operation> = {},
    log?: Log,
  ) {
    const worker = this.store.worker(name);
    const lines: string[] = [];
    const op = operation({
      ...{ name: "work", service: SERVICE, route: "/work", path: "/work", summary: "", schema: z.looseObject({}) },
      ...{ url: this.service.url, ...also },
    });
    const settings: LaneSettings = {
      ...{ slots: 2, concurrency: 0, resultTtlMs: DAY, failureTtlMs: DAY, resultInlineBytes: 1_000 },
      ...{
        maxResultBytes: 1e6,
        resultsDir: "/nowhere",
        parkLimitMs: DAY,
        connectTimeoutMs: 10_000,
        gatewayUrl: undefined,
        leaseMs: 30_000,
      },
      resultWriteRetryMs: 60_000,
      ...more,
    };
    const lane = new Lane(SERVICE, new Map([["work", op]]), settings, worker, wait, log ?? listLog(lines, "warn"));
    this.running.push({ lane, done: lane.run() });
    return { lane, worker, lines };
  }

  /** Nobody waits for those who wait for ever. */
  forget(): void {
    this.running = [];
  }

  async stop(): Promise<void> {
    for (const { lane } of this.running) lane.stop(true);
    await Promise.all(this.running.map(({ done }) => done));
    this.running = [];
  }
}

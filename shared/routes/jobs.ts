/** POST /jobs: one job of any operation, or a batch of up to 10,000, accepted whole or not at all. */
import { accept, refuseWhenFull } from "../accept.ts";
import { allow, type Gateway, jsonText, newApp, operationOf } from "../app.ts";
import type { Caller } from "../auth.ts";
import { forwardedOf } from "../call-headers.ts";
import { checkCallbackNames } from "../callback.ts";
import { Fault, type FieldFault } from "../faults.ts";
import { parseJson } from "../json.ts";
import { listPieces } from "../json-list.ts";
import { Batches } from "../store/batches.ts";
import type { NewJob } from "../store/produce.ts";
import {
  addForwarded,
  faultOf,
  fit,
  fromHeaders,
  idempotencyOf,
  newJob,
  OPTION_NAMES,
  OPTIONS,
  readBody,
  traceOf,
  under,
} from "../submit.ts";
import { type Place, Turns } from "../turns.ts";
import { sizeText } from "../units.ts";

/** Faults told of one batch: enough to see what is wrong, not a book. */
const MAX_FAULTS = 100;
/** Items checked between two breaths: a large batch must not keep the other requests waiting. */
const BREATH = 250;
/** Bytes that an item may have beside a payload as large as MAX_BODY_BYTES: its options. */
const BESIDE = 16_384;
/** Large batches in hand on one gateway, each of them up to MAX_BATCH_BYTES: one is worked on, the others wait. */
const MOST_LARGE = 4;

const breath = () => new Promise<void>((next) => setImmediate(next));

export function jobs(gateway: Gateway) {
  const { config, inspector } = gateway;
  const batches = new Batches(inspector.redis, config);
  const large = new Turns(MOST_LARGE);
  const app = newApp();

  app.post("/jobs", async (c) => {
    const caller = allow(gateway, c, "submit");
    if (c.req.raw.url.includes("?")) {
      // Taken for options they would be missed; and what is found wrong in them must not be told once the job is in.
      const message = "POST /jobs has no query: options are fields of the job, a wait is asked for by Prefer: wait=30";
      throw new Fault("invalid", `${message}.`, { errors: [{ path: "", message }] });
    }
    let place: Place | undefined;
    const ask = () => {
      place = large.enter();
      if (place) return;
      const detail = "Too many large batches are in hand on this gateway; send it again, or in smaller parts.";
      throw new Fault("rate_limited", detail, { retryAfterS: 5, members: { accepted: "no" } });
    };
    try {
      const most = Math.max(config.maxBodyBytes, config.maxBatchBytes);
      const body = await readBody(c.req.raw, most, undefined, { bytes: config.maxBodyBytes, ask });
      await place?.turn();
      return await take(c.req.raw, caller, body);
    } finally {
      place?.leave();
    }
  });

  async function take(request: Request, caller: Caller, body: Uint8Array): Promise<Response> {
    const isBatch = body[body.findIndex((byte) => byte > 0x20)] === 0x5b;
    const limit = isBatch ? config.maxBatchBytes : config.maxBodyBytes;
    if (body.length > limit) {
      const name = isBatch ? "MAX_BATCH_BYTES" : "MAX_BODY_BYTES";
      throw new Fault("too_large", `The body is larger than ${sizeText(limit)} (${name}).`);
    }
    const { headers } = request;
    // A payload may be nested as deep here as on its operation's own route, where it is the body.
    const depth = config.maxJsonDepth + (isBatch ? 2 : 1);
    let pieces: Iterable<unknown[]>;
    if (body.length > config.maxBodyBytes) {
      const limits = { depth, items: config.maxBatchJobs, itemBytes: config.maxBodyBytes + BESIDE };
      pieces = listPieces(body, limits);
    } else {
      const value = parseJson(body, depth);
      if (!Array.isArray(value)) {
        const job = fromHeaders(jobOf(value), headers, caller, body);
        return accept(gateway, request, addForwarded(job, forwarding(headers)(job.operation)));
      }
      pieces = [value];
    }
    const name = idempotencyOf(headers, caller, "batch", body); // now: the pieces overwrite the body
    const made = await jobsOf(pieces, headers);
    refuseWhenFull(gateway);
    await checkCallbackNames(made, config, (place) => `${place}.callback_url`);
    const { id, ids, replayed } = await batches.submit(made, lifeMs(made), name);
    return jsonText(JSON.stringify({ batch_id: id, job_ids: ids }), 202, {
      location: `/batches/${id}`,
      "retry-after": "1",
      ...(replayed ? { "idempotent-replayed": "true" } : {}),
    });
  }

  /** @throws Fault invalid, unknown_operation … of one item */
  function jobOf(item: unknown): NewJob {
    if (typeof item !== "object" || item === null || Array.isArray(item)) {
      throw new Fault("invalid", "A job must be an object {operation, payload, …options}.", {
        errors: [{ path: "", message: "expected an object {operation, payload, …options}" }],
      });
    }
    const { operation, payload, ...rest } = item as Record<string, unknown>;
    if (typeof operation !== "string") {
      const message = `must be the name of an operation, such as ${[...config.registry.byName.keys()][0]}`;
      throw new Fault("invalid", `operation: ${message}.`, { errors: [{ path: "operation", message }] });
    }
    const op = operationOf(gateway, operation);
    const unknown = Object.keys(rest).find((key) => !OPTION_NAMES.includes(key));
    if (unknown !== undefined) {
      const message = `is no option; there are ${OPTION_NAMES.join(", ")}. What the service takes goes into payload`;
      throw faultOf("invalid", [{ path: unknown.slice(0, 100), message }]);
    }
    return newJob(gateway, op, payload, fit(OPTIONS, rest, "The options"), "payload");
  }

  /** The headers that an operation passes on, read once each. */
  function forwarding(headers: Headers): (operation: string) => Record<string, string> | undefined {
    const known = new Map<string, Record<string, string> | undefined>();
    return (name) => {
      if (!known.has(name)) known.set(name, forwardedOf(headers, operationOf(gateway, name), config.apiKeys));
      return known.get(name);
    };
  }

  /** @throws Fault with the faults of all items, each path beginning with the item's index */
  async function jobsOf(pieces: Iterable<unknown[]>, headers: Headers): Promise<NewJob[]> {
    const trace = traceOf(headers);
    const forwarded = forwarding(headers);
    const made: NewJob[] = [];
    const errors: FieldFault[] = [];
    let first: Fault | undefined;
    let i = -1;
    for (const items of pieces) {
      if (i + items.length >= config.maxBatchJobs) {
        const most = `at most ${config.maxBatchJobs} (MAX_BATCH_JOBS)`;
        throw new Fault("invalid", `The batch has ${i + 1 + items.length} jobs; ${most}.`);
      }
      for (const item of items) {
        if (++i % BREATH === BREATH - 1) await breath();
        try {
          const job = under(String(i), () => jobOf(item));
          if (job.payload.length > config.maxBodyBytes) {
            const message = `is larger than ${sizeText(config.maxBodyBytes)} (MAX_BODY_BYTES)`;
            throw faultOf("too_large", [{ path: `${i}.payload`, message }]);
          }
          job.options = { ...job.options, ...trace };
          addForwarded(job, forwarded(job.operation));
          made.push(job);
        } catch (error) {
          if (!(error instanceof Fault)) throw error;
          first ??= error;
          errors.push(...(error.extra.errors ?? []));
          if (errors.length >= MAX_FAULTS) throw faultOf(first.code, errors.slice(0, MAX_FAULTS), first.extra);
        }
      }
      if (items.length > 0) await breath();
    }
    if (first) throw faultOf(first.code, errors, first.extra);
    if (i < 0) throw new Fault("invalid", "The batch is empty; send at least one job.");
    return made;
  }

  /** The longest that any member may outlive its end: so long are the batch's counts kept. */
  function lifeMs(all: NewJob[]): number {
    const own = (job: NewJob) =>
      job.ttlMs ?? config.registry.byName.get(job.operation)?.resultTtlMs ?? config.resultTtlMs;
    return all.reduce((most, job) => Math.max(most, own(job)), config.failureTtlMs);
  }
  return app;
}

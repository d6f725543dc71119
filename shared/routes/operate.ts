/** What operators do: pause, resume, empty, act on many jobs, quiet and stop workers; and the list of who did what. */
import { createHash } from "node:crypto";
import type { Context } from "hono";
import { z } from "zod";
import { allow, type Env, type Gateway, newApp } from "../app.ts";
import { Fault } from "../faults.ts";
import { type JobId, jobId, NAME, random62, type ServiceName, STATES, serviceName, serviceOf } from "../jobs.ts";
import { parseJson } from "../json.ts";
import { ACTIONS, MOST_IDS, Operator, type Order } from "../store/operate.ts";
import { fit, idempotencyKey, readBody } from "../submit.ts";
import { durationMs } from "../units.ts";

/** ms that a request itself carries out what it asked for; the clocks do the rest. A small wish is done at once. */
const AT_ONCE_MS = 250;

/** Which states an action is for. */
const FITS: Record<(typeof ACTIONS)[number], readonly string[]> = {
  cancel: ["scheduled", "queued", "started"],
  requeue: ["failed", "canceled"],
  delete: ["finished", "failed", "canceled"],
};

const age = (text: string) =>
  z
    .union([z.string(), z.number()])
    .refine((value) => durationMs(String(value)) !== undefined, "must be seconds, or a duration such as 30m or 2d")
    .describe(`only jobs that ended, or, not ended yet, were submitted, ${text}: seconds, 30m, 2d`);

/** The body of POST /jobs/bulk. */
export const BULK = z
  .strictObject({
    filter: z.strictObject({
      service: z.string().regex(NAME).optional().describe("one service; left out = all"),
      state: z.enum(STATES).optional().describe("needed unless ids are given"),
      tag: z
        .string()
        .min(1)
        .max(64)
        .regex(/^[\w.:/-]+$/, "is not a tag")
        .optional(),
      older_than: age("longer ago than this").optional(),
      newer_than: age("less long ago than this").optional(),
      ids: z.array(z.string()).min(1).max(MOST_IDS).optional(),
    }),
    action: z.enum(ACTIONS),
    dry_run: z.boolean().default(false).describe("count the jobs that match, change none"),
  })
  .superRefine(({ filter, action }, ctx) => {
    const { state, ids } = filter;
    if (!state && !ids) ctx.addIssue({ code: "custom", path: ["filter", "state"], message: "is needed, or ids" });
    if (state && !FITS[action].includes(state)) {
      const message = `${action} is for ${FITS[action].join(", ")}`;
      ctx.addIssue({ code: "custom", path: ["filter", "state"], message });
    }
    ids?.forEach((id, i) => {
      if (!jobId(id)) ctx.addIssue({ code: "custom", path: ["filter", "ids", i], message: "is no job's id" });
    });
  });

export function operate(gateway: Gateway) {
  const { config, inspector } = gateway;
  const operator = new Operator(inspector.redis, config.failureTtlMs, inspector.time);
  const app = newApp();
  type C = Context<Env>;

  const known = async () => new Set([...config.registry.services.keys(), ...(await inspector.services())]);
  const serviceIn = async (name: string): Promise<ServiceName> => {
    if (NAME.test(name) && (await known()).has(name)) return serviceName(name);
    const names = [...config.registry.services.keys()].join(", ");
    throw new Fault("unknown_service", `There is no service ${JSON.stringify(name.slice(0, 80))}; there are ${names}.`);
  };
  /** A name for this wish: a request that is sent again with the same Idempotency-Key is the same wish. */
  const wishOf = (c: C, key: string): string => {
    const given = idempotencyKey(c.req.raw.headers);
    return given === undefined
      ? random62(22)
      : createHash("sha256").update(`${key}\0${given}`).digest("hex").slice(0, 22);
  };

  app.post("/queues/:service/pause", async (c) => {
    const caller = allow(gateway, c, "admin");
    const service = await serviceIn(c.req.param("service"));
    const queued = await operator.pause(service);
    await operator.note({ who: caller.name, ip: caller.ip, action: "pause", target: service, jobs: queued });
    return c.json({ service, paused: true, queued });
  });
  app.post("/queues/:service/resume", async (c) => {
    const caller = allow(gateway, c, "admin");
    const service = await serviceIn(c.req.param("service"));
    const queued = await operator.resume(service);
    await operator.note({ who: caller.name, ip: caller.ip, action: "resume", target: service, jobs: queued });
    return c.json({ service, paused: false, queued });
  });
  app.post("/queues/:service/empty", async (c) => {
    const caller = allow(gateway, c, "admin");
    const service = await serviceIn(c.req.param("service"));
    const emptied = await operator.empty(service, wishOf(c, caller.key));
    await operator.note({ who: caller.name, ip: caller.ip, action: "empty", target: service, jobs: emptied });
    await operator.carryOut(service, AT_ONCE_MS).catch(() => {});
    return c.json({ service, emptied });
  });

  app.post("/jobs/bulk", async (c) => {
    const caller = allow(gateway, c, "admin");
    const body = parseJson(await readBody(c.req.raw, config.maxBodyBytes), config.maxJsonDepth);
    const { filter, action, dry_run } = fit(BULK, body, "The bulk action");
    const given = filter.ids as JobId[] | undefined;
    const asked = filter.service === undefined ? await known() : [await serviceIn(filter.service)];
    const about: About = {
      action,
      dry_run,
      filter: { ...filter, ...(given ? { ids: given.length } : {}) },
      by: caller.name,
    };
    const id = `bulk_${wishOf(c, caller.key)}`;
    const services = [...asked].map(serviceName);
    const parts = services.flatMap((service) => {
      const ids = given?.filter((one) => serviceOf(one) === service) ?? [];
      return given && ids.length === 0 ? [] : [{ service, ids }];
    });
    if (parts.length === 0) throw new Fault("unknown_service", "The ids name no service that is known here.");
    for (const { service, ids } of parts) {
      const olderMs = durationMs(String(filter.older_than ?? 0)) ?? 0;
      const newerMs = durationMs(String(filter.newer_than ?? 0)) ?? 0;
      const wish = { id, action, state: filter.state, tag: filter.tag, olderMs, newerMs, dry: dry_run, ids, about };
      if (!(await operator.startBulk(service, wish))) {
        // earlier services of the same wish go on; said here, because nobody else would
        await operator.note({
          who: caller.name,
          ip: caller.ip,
          action: `bulk ${action}`,
          target: service,
          id,
          status: "busy",
        });
        throw new Fault("rate_limited", `${service} has too many bulk actions in hand; wait until they are done.`, {
          retryAfterS: 10,
          members: { bulk_id: id },
        });
      }
    }
    const end = performance.now() + AT_ONCE_MS;
    for (const { service } of parts) await operator.carryOut(service, end - performance.now()).catch(() => {});
    const shown = await show(id, services);
    if (
      JSON.stringify([shown.action, shown.dry_run, shown.filter]) !== JSON.stringify([action, dry_run, about.filter])
    ) {
      const detail = "This Idempotency-Key was used with another bulk action. Use a new key for a new one.";
      throw new Fault("idempotency_mismatch", detail);
    }
    if (!dry_run) {
      const target = filter.service ?? "all services";
      const { matched, done, status } = shown;
      await operator.note({
        who: caller.name,
        ip: caller.ip,
        action: `bulk ${action}`,
        target,
        jobs: done,
        id,
        status,
        matched,
        filter: about.filter,
      });
    }
    return c.json(shown, 202, {
      location: `/jobs/bulk/${id}`,
      ...(shown.status === "done" ? {} : { "retry-after": "1" }),
    });
  });
  app.get("/jobs/bulk/:id", async (c) => {
    allow(gateway, c, "read");
    const id = c.req.param("id");
    if (!/^bulk_\w{22}$/.test(id)) throw noBulk(id);
    return c.json(await show(id, [...(await known())].map(serviceName)));
  });

  type About = { action: string; dry_run: boolean; filter: Record<string, unknown>; by: string };
  async function show(id: string, services: ServiceName[]) {
    const bulk = await operator.bulkOver(services, id);
    if (!bulk) throw noBulk(id);
    const { total, looked, matched, done, created, ended } = bulk;
    return {
      bulk_id: id,
      ...(bulk.about as About),
      status: ended === undefined ? "running" : "done",
      total,
      looked,
      matched,
      done,
      progress: ended === undefined ? Math.min(0.99, looked / Math.max(1, total)) : 1,
      created_at: new Date(created).toISOString(),
      ended_at: ended === undefined ? null : new Date(ended).toISOString(),
    };
  }
  const noBulk = (id: string) =>
    new Fault("unknown_bulk", `There is no bulk action ${id.slice(0, 80)}. It may have expired, or never existed.`);

  for (const order of ["quiet", "stop"] as const satisfies Order[]) {
    app.post(`/workers/:id/${order}`, async (c) => {
      const caller = allow(gateway, c, "admin");
      const id = c.req.param("id");
      const info = (await inspector.workers(Math.max(config.leaseMs, 2_000))).find((worker) => worker.id === id);
      if (!info)
        throw new Fault(
          "unknown_worker",
          `There is no worker ${id.slice(0, 80)} now; GET /workers lists those that run.`,
        );
      await operator.order(id, order);
      await operator.note({ who: caller.name, ip: caller.ip, action: order, target: `worker ${id}`, host: info.host });
      return c.json({ worker: id, order, state: info.state }, 202);
    });
  }

  app.get("/audit", async (c) => {
    allow(gateway, c, "admin");
    const limit = fit(z.coerce.number().int().min(1).max(1_000).default(100), c.req.query("limit"), "limit");
    return c.json({ entries: await operator.audit([...(await known())].map(serviceName), limit) });
  });
  return app;
}

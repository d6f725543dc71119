/** GET /jobs: newest first, paged by a cursor, filtered by service, state, tag and text. */
import { Buffer } from "node:buffer";
import { z } from "zod";
import { headline, short } from "../answer.ts";
import { allow, type Gateway, jsonText, newApp } from "../app.ts";
import { Fault } from "../faults.ts";
import { NAME, type ServiceName } from "../jobs.ts";
import { iso } from "../show.ts";
import { type Card, type Cursor, LISTED, Lister, type Page } from "../store/list.ts";
import { fit } from "../submit.ts";
import { Turns } from "../turns.ts";
import { durationMs } from "../units.ts";

const several = <T extends string>(one: z.ZodType<T, string>) =>
  z
    .string()
    .transform((text) => [...new Set(text.split(",").map((item) => item.trim()))])
    .pipe(z.array(one).min(1).max(100));

const CURSOR = z.strictObject({
  at: z.int().min(0),
  id: z.string().max(200),
  n: z.record(z.string().regex(NAME), z.int().min(0)),
});
const cursor = z
  .string()
  .max(8_000)
  .transform((text, ctx): Cursor => {
    try {
      const read = CURSOR.safeParse(JSON.parse(Buffer.from(text, "base64url").toString()));
      if (read.success) return read.data;
    } catch {
      // told below
    }
    ctx.addIssue("is none of ours; take it from `next` of the page before");
    return z.NEVER;
  });
const age = z
  .string()
  .transform((text, ctx) => {
    const ms = durationMs(text);
    if (ms !== undefined) return ms;
    ctx.addIssue("must be seconds, or a duration such as 30m or 2d");
    return z.NEVER;
  })
  .optional();
export const QUERY = z.strictObject({
  service: several(z.string().regex(NAME)).optional(),
  state: several(z.enum(LISTED, `must be some of ${LISTED.join(", ")}, separated by commas`)).optional(),
  tag: z.string().min(1).max(64).optional(),
  older_than: age.describe("only jobs that ended, or, not ended yet, were submitted, longer ago than this"),
  newer_than: age.describe("only jobs that ended, or, not ended yet, were submitted, less long ago than this"),
  q: z.string().min(1).max(200).optional(),
  cursor: cursor.optional(),
  limit: z.coerce.number().int().min(1).max(200).default(50),
});

/** Searches in hand on one gateway, half a second each at most: the last one still answers within two seconds. */
const MOST_SEARCHES = 3;

export function list(gateway: Gateway) {
  const { config, inspector } = gateway;
  const lister = new Lister(inspector.redis);
  const searches = new Turns(MOST_SEARCHES);
  const app = newApp();

  /**
   * One search after another: side by side they would keep Redis from everybody else for all their time together.
   * @throws Fault rate_limited, when others wait already
   */
  async function searched(q: string | undefined, signal: AbortSignal, work: () => Promise<Page>): Promise<Page> {
    if (q === undefined) return inspector.ask(work);
    const place = searches.enter();
    if (!place) {
      const detail = `${MOST_SEARCHES} searches are in hand on this gateway; ask again, or narrow the list by service, state or tag.`;
      throw new Fault("rate_limited", detail, { retryAfterS: 1 });
    }
    try {
      await Promise.race([place.turn(), new Promise((gone) => signal.addEventListener("abort", gone, { once: true }))]);
      if (signal.aborted) return { cards: [], scanned: 0, reached: undefined, next: undefined }; // nobody waits for it any more
      return await inspector.ask(work);
    } finally {
      place.leave();
    }
  }

  app.get("/jobs", async (c) => {
    allow(gateway, c, "read");
    const query = fit(QUERY, c.req.query(), "The query");
    // Redis may know more of them: a service that left SERVICES may still have jobs.
    const known = [...new Set([...config.registry.services.keys(), ...(await inspector.services())])];
    const unknown = query.service?.find((name) => !known.includes(name));
    if (unknown !== undefined) {
      throw new Fault("unknown_service", `There is no service ${unknown}; there are ${known.join(", ")}.`);
    }
    const page = await searched(query.q, c.req.raw.signal, () =>
      lister.page({
        signal: c.req.raw.signal,
        services: (query.service ?? known) as ServiceName[],
        states: query.state ?? LISTED,
        limit: query.limit,
        tag: query.tag,
        q: query.q,
        since: query.newer_than === undefined ? undefined : inspector.time.now() - query.newer_than,
        before: query.older_than === undefined ? undefined : inspector.time.now() - query.older_than,
        cursor: query.cursor,
      }),
    );
    const next = page.next ? Buffer.from(JSON.stringify(page.next)).toString("base64url") : null;
    const body = { jobs: page.cards.map(shown), next, scanned: page.scanned, reached: iso(page.reached) };
    return jsonText(JSON.stringify(body), 200, {
      "cache-control": "private, no-cache",
      ...(next ? { link: `<${nextUrl(c.req.url, next)}>; rel="next"` } : {}),
    });
  });
  return app;
}

/** The same request with another cursor, without host: a proxy may know the gateway by another name. */
function nextUrl(text: string, next: string): string {
  const url = new URL(text);
  url.searchParams.set("cursor", next);
  return url.pathname + url.search;
}

const shown = (card: Card) => ({
  job_id: card.id,
  operation: card.operation,
  service: card.service,
  status: card.state,
  at: iso(card.at),
  created_at: iso(card.created),
  started_at: iso(card.started),
  ended_at: iso(card.ended),
  due_at: iso(card.due),
  priority: card.priority,
  attempt: card.attempt,
  progress: card.progress ?? null,
  rev: card.rev,
  batch_id: card.batch ?? null,
  tags: card.tags,
  error: card.error ? { code: card.error.code, message: short(headline(card.error.message), 500) } : null,
});

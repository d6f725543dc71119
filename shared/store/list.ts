/**
 * Lists of jobs, newest first, at a cost that does not grow with their number.
 *
 * The order goes by the moment of a job's present state (`at`): its end, its start, the time it joined the queue, or,
 * for a scheduled one, the time it is due. Each state has an index in that order, so a page is the merge of the heads
 * of a few indexes. A queue's index is its list: its place in a cursor is a sequence number of the service.
 */
import type { JobError } from "../faults.ts";
import { isTerminal, type JobId, type JobOptions, type ServiceName, type State, TERMINAL } from "../jobs.ts";
import { root } from "../keys.ts";
import { type Connection, script } from "../script.ts";

type Flat = (string | number)[];
const indexScript = script<{ state: "text"; at: "int"; id: "text"; most: "int" }, Flat>("page-index", {
  state: "text",
  at: "int",
  id: "text",
  most: "int",
});
const queueScript = script<{ before: "int"; most: "int" }, Flat>("page-queue", { before: "int", most: "int" });
const heldScript = script<{ at: "int"; id: "text"; most: "int" }, Flat>("page-held", {
  at: "int",
  id: "text",
  most: "int",
});
const cardsScript = script<{ q: "text" }, ((string | null)[] | null)[]>("cards", { q: "text" }, ["id"]);

/** States that a list knows. A deferred job is on its way into a queue, within a second. */
export const LISTED = ["scheduled", "queued", "started", ...TERMINAL] as const;
export type Listed = (typeof LISTED)[number];

/** Where a list goes on: below (at, id), in each queue below a sequence. */
export type Cursor = { at: number; id: string; n: Record<string, number> };
export type Query = {
  services: ServiceName[];
  states: readonly Listed[];
  limit: number;
  tag: string | undefined;
  q: string | undefined;
  /** ms since 1970: only jobs that ended, or, not ended yet, were submitted, before it */
  before?: number | undefined;
  /** likewise, at or after it */
  since?: number | undefined;
  cursor: Cursor | undefined;
  /** of who waits for the page: a search that nobody waits for is not gone on with */
  signal?: AbortSignal | undefined;
};
/** A job in a list. Times in ms since 1970. */
export type Card = {
  id: JobId;
  service: ServiceName;
  state: State;
  at: number;
  operation: string;
  created: number;
  started: number | undefined;
  ended: number | undefined;
  due: number | undefined;
  priority: number;
  attempt: number;
  progress: number | undefined;
  rev: number;
  batch: string | undefined;
  tags: string[];
  error: JobError | undefined;
};
export type Page = { cards: Card[]; scanned: number; reached: number | undefined; next: Cursor | undefined };

/** Jobs looked at for one page at most; a filter that finds little says how far it came. */
export const MAX_SCANNED = 2_000;
/** Ids in one cards script. */
const SLICE = 100;
/** Ids in one, and ms in all, where payloads are searched: 64 KiB a job is work, and Redis does nothing else meanwhile. */
const SEARCHED = 20;
const SEARCH_MS = 500;
/** Candidates a round when a filter throws most of them away. */
const ROUND = 400;

type Candidate = { id: JobId; service: ServiceName; state: Listed; at: number; n?: number };

export class Lister {
  constructor(private readonly redis: Connection) {}

  async page(query: Query): Promise<Page> {
    const { limit, tag, q, before, since = 0, signal } = query;
    const filtered = Boolean(tag || q || before !== undefined || since > 0);
    const most = filtered ? ROUND : limit;
    const end = performance.now() + SEARCH_MS;
    const fits = (card: Card) =>
      (!tag || card.tags.includes(tag)) &&
      (before === undefined || (card.ended ?? card.created) <= before) &&
      (card.ended ?? card.created) >= since;
    const cards: Card[] = [];
    let cursor = query.cursor;
    let scanned = 0;
    let reached: number | undefined;
    for (;;) {
      const { merged, complete, queues } = await this.candidates(query, cursor, most);
      const at = cursor ?? { at: Number.MAX_SAFE_INTEGER, id: "", n: queues };
      cursor = { ...at, n: { ...at.n } };
      for (let from = 0; from < merged.length; ) {
        const slice = merged.slice(from, from + (q ? SEARCHED : filtered ? ROUND : limit - cards.length));
        from += slice.length;
        const shown = await this.cards(slice, q ?? "");
        for (const candidate of slice) {
          // the order falls, and no job was submitted after its place in it: all that follow are too old
          if (candidate.at < since) return { cards, scanned, reached, next: undefined };
          if (cards.length === limit || scanned === MAX_SCANNED) return { cards, scanned, reached, next: cursor };
          scanned++;
          reached = candidate.at;
          if (candidate.n !== undefined) cursor.n[candidate.service] = candidate.n;
          // the lowest so far: entries of one queue may stand in another order than their ids
          if (candidate.at < cursor.at || candidate.id < cursor.id) cursor.id = candidate.id;
          cursor.at = candidate.at;
          const card = shown.get(candidate.id);
          if (card && card.state === candidate.state && fits(card)) cards.push(card);
        }
        const more = from < merged.length || !complete;
        const late = q !== undefined && (performance.now() > end || signal?.aborted);
        if (cards.length === limit || scanned === MAX_SCANNED || late) {
          return { cards, scanned, reached, next: more ? cursor : undefined };
        }
      }
      if (complete) return { cards, scanned, reached, next: undefined };
    }
  }

  /**
   * The next candidates of all indexes in their common order, up to where the first of them must be asked again.
   * `complete`: none must be. `queues`: where each queue begins.
   */
  private async candidates({ services, states, before: until }: Query, cursor: Cursor | undefined, most: number) {
    const { redis } = this;
    const [at, id] = cursor ? [cursor.at, cursor.id] : [-1, ""];
    const queues: Record<string, number> = {};
    const sources = await Promise.all(
      services.flatMap((service) =>
        states.map(async (state): Promise<Candidate[]> => {
          if (state === "queued") {
            const before = cursor ? (cursor.n[service] ?? 0) : -1;
            const flat = await queueScript(redis, root(service), { before, most });
            queues[service] = flat.length ? Number(flat[1]) + 1 : 0;
            // A job that was retried or promoted late may have waited for longer than one behind it: the queue's
            // own order counts, so its times are made to fall.
            let falling = cursor?.at ?? Number.MAX_SAFE_INTEGER;
            return triples(flat).map(([one, n, since]) => {
              falling = Math.min(falling, since);
              return { id: one, service, state, at: falling, n };
            });
          }
          // what ended later than asked for is not even looked at: the index begins below it
          const jump = until !== undefined && isTerminal(state) && (at < 0 || at > until);
          const place = jump ? { at: until, id: "" } : { at, id };
          const flat =
            state === "started"
              ? await heldScript(redis, root(service), { at, id, most })
              : await indexScript(redis, root(service), { state, ...place, most });
          const found = pairs(flat).map(([one, score]) => ({ id: one, service, state, at: score }));
          // those of one millisecond come in no order
          return state === "finished" ? found.sort((x, y) => y.at - x.at || (x.id < y.id ? 1 : -1)) : found;
        }),
      ),
    );
    return { ...merge(sources, most), queues };
  }

  private async cards(candidates: Candidate[], q: string): Promise<Map<JobId, Card>> {
    const shown = new Map<JobId, Card>();
    const groups = new Map<ServiceName, Candidate[]>();
    for (const candidate of candidates) {
      const group = groups.get(candidate.service);
      if (group) group.push(candidate);
      else groups.set(candidate.service, [candidate]);
    }
    const work: Promise<void>[] = [];
    for (const [service, all] of groups) {
      for (let from = 0; from < all.length; from += SLICE) {
        const slice = all.slice(from, from + SLICE);
        const ids = slice.map(({ id }) => id);
        work.push(
          cardsScript(this.redis, root(service), { q: q.toLowerCase() }, ids).then((rows) => {
            rows.forEach((row, i) => {
              if (row) shown.set(ids[i] as JobId, cardOf(slice[i] as Candidate, row));
            });
          }),
        );
      }
    }
    await Promise.all(work);
    return shown;
  }
}

const pairs = (flat: Flat) =>
  Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i] as JobId, Number(flat[2 * i + 1])] as const);
const triples = (flat: Flat) =>
  Array.from(
    { length: flat.length / 3 },
    (_, i) => [flat[3 * i] as JobId, Number(flat[3 * i + 1]), Number(flat[3 * i + 2])] as const,
  );

/** Takes the newest head of all sources, again and again. Each source keeps its own order. */
function merge(sources: Candidate[][], most: number): { merged: Candidate[]; complete: boolean } {
  const heads = sources.filter((list) => list.length > 0).map((list) => ({ list, i: 0 }));
  const merged: Candidate[] = [];
  while (heads.length > 0) {
    let best = 0;
    for (let h = 1; h < heads.length; h++) {
      const [x, y] = [heads[h], heads[best]].map((head) => head?.list[head.i]) as [Candidate, Candidate];
      if (x.at > y.at || (x.at === y.at && x.id > y.id)) best = h;
    }
    const head = heads[best] as (typeof heads)[number];
    merged.push(head.list[head.i++] as Candidate);
    if (head.i < head.list.length) continue;
    // A source that gave as many as it was asked for may hold more, which would come next.
    if (head.list.length >= most) return { merged, complete: false };
    heads.splice(best, 1);
  }
  return { merged, complete: true };
}

function cardOf({ id, service, at }: Candidate, row: (string | null)[]): Card {
  const number = (i: number) => (row[i] === null || row[i] === undefined ? undefined : Number(row[i]));
  const json = <T>(i: number) => (row[i] ? (JSON.parse(row[i] as string) as T) : undefined);
  const state = row[0] as State;
  const ended = (TERMINAL as readonly string[]).includes(state);
  return {
    id,
    service,
    state,
    at,
    operation: row[1] as string,
    created: Number(row[2]),
    started: number(3),
    ended: ended ? number(4) : undefined,
    due: state === "scheduled" ? number(5) : undefined,
    priority: number(6) ?? 5,
    attempt: number(7) ?? 0,
    progress: state === "finished" ? 1 : number(8),
    rev: number(9) ?? 0,
    batch: row[10] ?? undefined,
    tags: json<JobOptions>(11)?.tags ?? [],
    error: ended ? json<JobError>(12) : undefined,
  };
}

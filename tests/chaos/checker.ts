/**
 * Reads Redis itself, not through the store, and judges the invariants of reliability.md §1 while everything runs.
 * One script is one moment: nothing moves between its lines, so no grace is needed.
 */
import type { Redis } from "ioredis";
import type { Ledger } from "./clients.ts";

/**
 * KEYS[1] "lh:{service}:" · ARGV ids to look at
 * reply { places, records }: places = name, ids of every list and set there is; records = of each id that was asked for
 * or stands in a place: id, state, token, attempt, redeliveries, rev, run, cancel asked, listed, pttl, ended, then
 * how often it stands in ended:finished, ended:failed, ended:canceled
 */
const MOMENT = `
local at = KEYS[1]
local workers, ids, order = {}, {}, {}
local function want(id) if id ~= '' and not ids[id] then ids[id] = true; order[#order + 1] = id end end
for _, id in ipairs(ARGV) do want(id) end
for _, w in ipairs(redis.call('ZRANGE', at .. 'leases', 0, -1)) do workers[w] = true end
local places = { 'leases', redis.call('ZRANGE', at .. 'leases', 0, -1) }
local function place(name, list)
  places[#places + 1] = name
  places[#places + 1] = list
  for i = 1, math.min(#list, 5000) do want(list[i]) end
end
place('ready', redis.call('LRANGE', at .. 'ready', 0, -1))
place('shelf', redis.call('LRANGE', at .. 'shelf', 0, -1))
place('backlog', redis.call('ZRANGE', at .. 'backlog', 0, -1))
for _, op in ipairs(redis.call('SMEMBERS', at .. 'asides')) do
  place('aside ' .. op, redis.call('ZRANGE', at .. 'aside:' .. op, 0, -1))
end
place('scheduled', redis.call('ZRANGE', at .. 'scheduled', 0, -1))
for _, part in ipairs(redis.call('ZRANGE', at .. 'condemned', 0, -1)) do
  place('condemned list ' .. part, redis.call('LRANGE', at .. 'condemned:l:' .. part, 0, -1))
  place('condemned set ' .. part, redis.call('ZRANGE', at .. 'condemned:z:' .. part, 0, -1))
end
for _, batch in ipairs(redis.call('ZRANGE', at .. 'staged', 0, -1)) do
  place('stage ' .. batch, redis.call('LRANGE', at .. 'stage:' .. batch, 0, -1))
end
for _, id in ipairs(ARGV) do
  local w = string.match(redis.call('HGET', at .. 'job:' .. id, 'h') or '', '|%d+ %d+ %d+ %d+%.(%w+)%.%w+')
  if w then workers[w] = true end
end
for w in pairs(workers) do
  place('wake ' .. w, redis.call('LRANGE', at .. 'wake:' .. w, 0, -1))
  place('held ' .. w, redis.call('SMEMBERS', at .. 'held:' .. w))
end
local records = {}
for i, id in ipairs(order) do
  local key = at .. 'job:' .. id
  local f = redis.call('HMGET', key, 'h', 'h', 'a', 'd', 'v', 'g', 'x', 'l')
  local state, bars = string.match(f[1] or '', '^(%l+) '), select(2, string.gsub(f[1] or '', '|', ''))
  f[1] = f[1] and (state or ({ [0] = 'queued', 'started', 'finished' })[bars])
  local rev, token, attempt = string.match(f[2] or '', '|%d+ %d+ (%d+) ((%d+)%.[^|]*)')
  f[9] = string.match(f[2] or '', '|[^|]*|(%d+)')
  f[2] = token and string.sub(token, -1) ~= '.' and token -- "1." is none
  f[5] = math.max(tonumber(f[5]) or 0, tonumber(rev) or 0)
  if f[1] == 'started' or f[1] == 'finished' or f[1] == 'failed' then f[3] = attempt end
  if f[1] == 'finished' or f[1] == 'failed' or f[1] == 'canceled' then f[5] = f[5] + 1 end
  local r = { id }
  for k = 1, 8 do r[k + 1] = f[k] or '' end
  r[10] = redis.call('PTTL', key)
  r[11] = f[9] or ''
  for k, s in ipairs({ 'finished', 'failed', 'canceled' }) do
    r[11 + k] = redis.call('ZSCORE', at .. 'ended:' .. s, id) and 1 or 0
    -- or an entry has it that stands for those that finished in one turn: looked for at its own end only; indexes() looks at all
    local more = k == 1 and f[9] and redis.call('ZRANGE', at .. 'ended:' .. s, f[9], f[9], 'BYSCORE') or {}
    for _, entry in ipairs(more) do
      for one in string.gmatch(entry, ' (%S+)') do r[11 + k] = r[11 + k] + (one == id and 1 or 0) end
    end
  end
  records[i] = r
end
return { places, records }`;

/** What an entry of an index of ended jobs stands for: an id, or "<name> <id> <id>…". */
export const idsOf = (entry: string) => (entry.includes(" ") ? entry.split(" ").slice(1) : [entry]);

const TERMINAL = new Set(["finished", "failed", "canceled"]);
const MAX_ATTEMPTS = 3;
const POISON = 3;

export type Seen = { state: string; rev: string; ended: string; run: string };

/** A record at one moment, "" where it has no such field; state "" = no record. */
export type Look = Record<
  "state" | "token" | "attempt" | "redeliveries" | "rev" | "run" | "asked" | "listed",
  string
> & {
  places: string[];
};

export class Checker {
  samples = 0;
  /** what was broken, with how often; the first few in full */
  readonly broken = new Map<string, string[]>();
  /** ids seen terminal, as they were then */
  readonly ended = new Map<string, Seen>();
  lost = new Set<string>();
  twice = new Set<string>();
  private readonly open = new Set<string>();
  /** ids that somebody asked to erase: their records may be missing */
  private readonly released = new Set<string>();
  private known = 0;

  constructor(
    private readonly redis: Redis,
    private readonly service: string,
    private readonly ledger: Ledger,
    private readonly random: () => number,
  ) {}

  /** Accepted jobs that were not yet seen terminal. */
  get openCount(): number {
    this.learn();
    return this.open.size;
  }

  private learn(): void {
    if (this.ledger.accepted.size === this.known) return;
    let i = 0;
    for (const id of this.ledger.accepted.keys()) {
      if (i++ >= this.known && !this.ended.has(id)) this.open.add(id);
    }
    this.known = this.ledger.accepted.size;
  }

  get brokenCount(): number {
    return [...this.broken.values()].reduce((sum, list) => sum + list.length, 0);
  }

  /** The job that failed last and was not requeued yet. */
  someFailed(): string | undefined {
    return [...this.ended].findLast(([, seen]) => seen.state === "failed" && seen.run === "")?.[0];
  }

  /** A job that finished a while ago, for somebody to erase. */
  someFinished(): string | undefined {
    for (const [id, seen] of this.ended) if (seen.state === "finished" && seen.run === "") return id;
    return undefined;
  }

  /** From here on the record of an ended job may be missing. */
  release(id: string): void {
    this.released.add(id);
    this.ended.delete(id);
  }

  /** Notes what must not be. */
  tell(rule: string, what: string): void {
    const list = this.broken.get(rule) ?? [];
    this.broken.set(rule, list);
    list.push(what);
  }

  /** One look at open jobs and at some that had ended. @throws when Redis is away */
  async sample(): Promise<void> {
    this.learn();
    const ids = [...this.open].slice(0, 3_000);
    const old = [...this.ended.keys()];
    for (let i = 0; i < 200 && old.length > 0; i++) ids.push(old[Math.floor(this.random() * old.length)] as string);
    await this.look(ids);
    this.samples++;
  }

  /** What the jobs that have not ended look like. */
  async leftovers(): Promise<string[]> {
    const rows = await Promise.all(
      [...this.open].slice(0, 5).map((id) => this.redis.hgetall(`lh:{${this.service}}:job:${id}`)),
    );
    return [`${this.open.size} open`, ...rows.map((row) => JSON.stringify(row))];
  }

  /** Every accepted job, in slices. */
  async all(ids: string[]): Promise<void> {
    for (let i = 0; i < ids.length; i += 2_000) await this.look(ids.slice(i, i + 2_000));
  }

  /**
   * Judges the indexes of ended jobs as a whole, while nothing moves: each finished record stands there once, nothing else does,
   * and as many are counted. For when counts were read, and so added up.
   */
  async indexes(): Promise<void> {
    const root = `lh:{${this.service}}:`;
    const seen = new Set<string>();
    for (const state of ["finished", "failed", "canceled"]) {
      const flat = await this.redis.zrange(`${root}ended:${state}`, "0", "-1", "WITHSCORES");
      for (let i = 0; i < flat.length; i += 2) {
        const entry = flat[i] as string;
        const ids = idsOf(entry);
        const heads = await Promise.all(ids.map((id) => this.redis.hget(`${root}job:${id}`, "h")));
        ids.forEach((id, k) => {
          if (seen.has(id)) this.tell("I1 twice in the indexes", `${id} ${entry}`);
          seen.add(id);
          const head = heads[k];
          const [words, , end = ""] = (head ?? "").split("|");
          const is = /^[a-z]/.exec(words as string) ? (words as string).split(" ")[0] : end && "finished";
          // a member of a batch that was given up leaves its entry to the sweep
          if (head ? is !== state || end.split(" ")[0] !== flat[i + 1] : state === "finished") {
            this.tell("I1 in an index, and its record says otherwise", `${id} ${state} ${flat[i + 1]}: ${head}`);
          }
        });
      }
      if (state !== "finished") continue;
      const [finished, struck] = await this.redis.hmget(`${root}counts`, "finished", "struck");
      const counted = Number(finished) - Number(struck);
      if (counted !== seen.size) this.tell("I1 finished", `${counted} are counted, ${seen.size} in the index`);
    }
  }

  /** Forgets a job that was erased, or has expired. */
  forget(id: string): void {
    this.ledger.accepted.delete(id);
    this.ended.delete(id);
    this.open.delete(id);
  }

  /** Judges one moment. @returns what it saw of each id that was asked for, or stood anywhere */
  async look(ids: string[]): Promise<Map<string, Look>> {
    const [flat, records] = (await this.redis.eval(MOMENT, 1, `lh:{${this.service}}:`, ...ids)) as [
      (string | string[])[],
      (string | number)[][],
    ];
    const where = new Map<string, string[]>();
    let leases = new Set<string>();
    for (let i = 0; i < flat.length; i += 2) {
      const name = flat[i] as string;
      const list = flat[i + 1] as string[];
      if (name === "leases") leases = new Set(list);
      else
        for (const id of list) {
          const places = where.get(id);
          if (places) places.push(name);
          else where.set(id, [name]);
        }
    }
    where.delete("");
    for (const record of records) this.judge(record, where.get(record[0] as string) ?? [], leases);
    return new Map(
      records.map((record) => {
        const [id, state, token, attempt, redeliveries, rev, run, asked, listed] = record.map(String) as string[];
        const seen = { state, token, attempt, redeliveries, rev, run, asked, listed } as Look;
        return [id as string, { ...seen, places: where.get(id as string) ?? [] }];
      }),
    );
  }

  private judge(record: (string | number)[], places: string[], leases: Set<string>): void {
    const [id, state, token, attempt, redeliveries, rev, run, , listed] = record.map(String) as string[];
    const pttl = Number(record[9]);
    const ended = String(record[10]);
    const indexes = ["finished", "failed", "canceled"].flatMap((state, i) => Array(Number(record[11 + i])).fill(state));
    const told = `${id} ${state} rev ${rev} token ${token} in [${places.join(", ")}] indexes [${indexes}]`;
    const was = this.ended.get(id as string);
    if (state === "") {
      if (places.length === 0 && this.released.has(id as string)) return;
      if (this.ledger.accepted.has(id as string) || places.length > 0) {
        this.lost.add(id as string);
        this.tell("I1 a record is missing", told);
      }
      return;
    }
    const lists = places.filter((p) => !p.startsWith("held"));
    if (lists.length > 1) this.tell("I7 an id stands twice", told);
    if (TERMINAL.has(state as string)) {
      const may = listed !== "" ? 1 : 0;
      // one that was canceled before its batch was released is struck with the release
      if (places.filter((p) => !p.startsWith("stage ")).length !== may || indexes.length !== 1 || indexes[0] !== state)
        this.tell("I1 terminal, elsewhere too", told);
      if (listed === "" && pttl < 0) this.tell("I6 terminal without TTL", told);
      if (was && was.run === run && (was.rev !== rev || was.ended !== ended || was.state !== state)) {
        this.twice.add(id as string);
        this.tell("I3 changed after its end", `${told}; was ${was.state} rev ${was.rev}`);
      }
      if (!this.released.has(id as string))
        this.ended.set(id as string, { state: state as string, rev: rev as string, ended, run: run as string });
      this.open.delete(id as string);
    } else {
      if (was && was.run === run) {
        this.twice.add(id as string);
        this.tell("I3 runs again after its end", `${told}; was ${was.state} rev ${was.rev}`);
      }
      if (pttl !== -1) this.tell("I6 not terminal, with TTL", told);
      if (indexes.length > 0) this.tell("I1 not terminal, in an index", told);
      const worker = token?.split(".")[1] ?? "";
      if (state === "started") {
        if (places.length !== 1 || places[0] !== `held ${worker}`) this.tell("I1 started, not held", told);
        if (!leases.has(worker)) this.tell("I2 started without a lease", told);
      } else if (state === "scheduled" || state === "deferred") {
        const home = state === "scheduled" ? /^scheduled$|^condemned set .*:scheduled$/ : /^stage /;
        if (places.length !== 1 || !home.test(places[0] as string)) this.tell(`I1 ${state}, elsewhere`, told);
      } else if (places.length !== 1 || lists.length !== 1 || lists[0] === "scheduled") {
        this.tell("I1 queued, in no list", told);
      }
    }
    if (Number(attempt) > MAX_ATTEMPTS) this.tell("I5 too many attempts", `${told} attempt ${attempt}`);
    const most = state === "failed" ? POISON + 1 : POISON;
    if (Number(redeliveries) > most) this.tell("I5 too many redeliveries", `${told} redeliveries ${redeliveries}`);
  }
}

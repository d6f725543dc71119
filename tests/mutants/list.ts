/**
 * Ways to break the queue that a careful reader might miss. Each is a change of text that must still apply, and each
 * must be caught. `check` is the cheapest test that catches it; `chaos` are the faults under which a chaos run does.
 */
export type Mutant = {
  name: string;
  file: string;
  from: string;
  to: string;
  /** arguments of `bun test` */
  check: string[];
  env?: Record<string, string>;
  /** undefined: chaos cannot bring it about */
  chaos?: string;
};

const model = { check: ["tests/model.test.ts"], env: { MODEL_RUNS: "200", MODEL_SEED: "1" } };

const alike = { check: ["tests/store-alike.test.ts"] };

const prefetch = { check: ["tests/prefetch.test.ts"] };

const waiting = { check: ["tests/lane-wait.test.ts"] };

const gathering = { file: "shared/store/gathering.ts", check: ["tests/gathering.test.ts"] };

/** Judged by a file of tests, or by those of its tests whose names match. */
export const by = (file: string, name = "") => ({ check: [`tests/${file}.test.ts`, ...(name ? ["-t", name] : [])] });

export const MUTANTS: Mutant[] = [
  { name: "gathering: however few were answered", from: "answered < LEAST_JOBS || ", to: "", ...gathering },
  {
    name: "gathering: for more than a call carries",
    from: "Math.min(this.mostJobs, waiting + Math.ceil(answered * SHARE))",
    to: "waiting + Math.ceil(answered * SHARE)",
    ...gathering,
  },
  { name: "gathering: for ever", from: "setTimeout(done, this.mostMs)", to: "setTimeout(done, 1e8)", ...gathering },
  {
    name: "gathering: also by a process that rests",
    from: "this.spent.working >= BUSY *",
    to: "this.spent.working >= 0 *",
    ...gathering,
  },
  { name: "gathering: hardly ever at rest", from: "const BUSY = 0.8", to: "const BUSY = 0.1", ...gathering },
  {
    name: "gathering: what was told late counts as work for long",
    from: "Math.min(waited, this.used() - used)",
    to: "this.used() - used",
    ...gathering,
  },
  {
    name: "gathering: nobody tells it who comes",
    file: "shared/store/produce.ts",
    from: "    queue.gathering.came(queue.waiting.length);\n",
    to: "",
    check: gathering.check,
  },
  {
    name: "gathering: also where a call left jobs behind",
    file: "shared/store/produce.ts",
    from: "count < queue.waiting.length ? 0 : count",
    to: "count",
    check: gathering.check,
  },
  { name: "gathering: after one rest never again", from: "this.pause-- > 0", to: "this.pause > 0", ...gathering },
  {
    name: "submit does not tell what it did not take in",
    file: "shared/lua/submit.lua",
    from: "#odd > 0 and odd or 0",
    to: "0",
    ...by("store"),
  },
  {
    name: "prefetch: a call for each job that is held, whatever the slots",
    file: "shared/prefetch.ts",
    from: "    while (this.busy < this.slots) {",
    to: "    for (;;) {",
    ...prefetch,
  },
  {
    name: "prefetch: however long the calls take",
    file: "shared/prefetch.ts",
    from: "!this.allowed || this.meanMs > SHORT_MS",
    to: "!this.allowed",
    ...prefetch,
  },
  {
    name: "prefetch: more beside a job that its last worker may have died of",
    file: "shared/lane.ts",
    from: "    if (job.redeliveries > 0) this.prefetch.forget();\n",
    to: "",
    ...prefetch,
  },
  {
    name: "prefetch: what waits behind long calls stays",
    file: "shared/prefetch.ts",
    from: "now - first.since >= HAND_BACK_MS",
    to: "first.since < 0",
    ...prefetch,
  },
  {
    name: "prefetch: the oldest goes back first, so it is taken last",
    file: "shared/prefetch.ts",
    from: "runs.reverse()",
    to: "runs",
    ...prefetch,
  },
  {
    name: "prefetch: although workers share a limit",
    file: "shared/lane.ts",
    from: "settings.concurrency === 0 && this.eager",
    to: "this.eager",
    ...prefetch,
  },
  {
    name: "prefetch: of operations that a worker's death ends",
    file: "shared/lane.ts",
    from: "settings.concurrency === 0 && this.eager",
    to: "settings.concurrency === 0",
    ...prefetch,
  },
  {
    name: "prefetch: a lane that stops calls what waits in it",
    file: "shared/lane.ts",
    from: "    this.parking.stop();\n    this.hush();\n",
    to: "    this.parking.stop();\n    this.quiet = true;\n    this.bell.ring();\n",
    ...prefetch,
  },
  {
    name: "take behind BLMOVE: reconcile hands back what its answer is about to tell",
    file: "shared/lane.ts",
    from: 'const coming = this.nonce !== "" && token',
    to: 'const coming = this.nonce === "?" && token',
    ...waiting,
  },
  {
    name: "take behind BLMOVE: what it lost with its connection is never handed back",
    file: "shared/lane.ts",
    from: "sights >= (coming ? LATE_SIGHTS : 2)",
    to: "sights >= 1e9",
    ...waiting,
  },
  {
    name: "take behind BLMOVE: a worker that was frozen calls what may be another's",
    file: "shared/lane.ts",
    from: "if (turned && this.nonce === nonce && this.lease.heldSince(sent)) this",
    to: "if (turned && this.nonce === nonce) this",
    ...waiting,
  },
  {
    name: "take behind BLMOVE: a beat does not count",
    file: "shared/lane.ts",
    from: "    this.lease.renewed(sent);\n",
    to: "",
    ...waiting,
  },
  {
    name: "take behind BLMOVE: also of what a worker's death ends",
    file: "shared/lane.ts",
    from: "const ask = this.eager ? {",
    to: "const ask = this ? {",
    ...waiting,
  },
  {
    name: "take behind BLMOVE: an answer counts as on its way for ever",
    file: "shared/lane.ts",
    from: "const LATE_SIGHTS = 5;",
    to: "const LATE_SIGHTS = 500;",
    ...waiting,
  },
  {
    name: "take behind BLMOVE: an answer is believed after its job was handed back",
    file: "shared/lane.ts",
    from: "if (turned && this.nonce === nonce && this.lease",
    to: "if (turned && this.lease",
    ...waiting,
  },
  {
    name: "take behind BLMOVE: a job that came back drops what is being settled, and another's settle with it",
    file: "shared/lane.ts",
    from: "if (earlier && !earlier.over) this",
    to: "if (earlier) this",
    ...waiting,
  },
  {
    name: "take behind BLMOVE: for all slots, although this worker may be dead",
    file: "shared/lane.ts",
    from: "{ slots: this.running.size + 1, ",
    to: "{ slots: this.settings.slots, ",
    ...waiting,
  },
  {
    name: "take behind BLMOVE: a turn that brought nothing is asked again at once",
    file: "shared/lane.ts",
    from: "full ? 5 : 0",
    to: "full ? 0 : 0",
    ...waiting,
  },
  {
    name: "take behind BLMOVE: a lease that was renewed was never over",
    file: "shared/lease.ts",
    from: "if (performance.now() - this.renewedAt >= this.ms) this.heldFrom = performance.now();\n",
    to: "\n",
    ...waiting,
  },
  {
    name: "take behind BLMOVE: never sent",
    file: "shared/store/consume.ts",
    from: "return [ask && this.turn",
    to: "return [undefined && this.turn",
    ...by("worker-life", "behind its BLMOVE"),
  },
  {
    name: "BRPOP instead of BLMOVE",
    file: "shared/store/consume.ts",
    from: 'blocking.blmove(keys.ready, keys.wake(this.worker), "RIGHT", "LEFT", String(BLOCK_MS / 1_000));',
    to: `blocking.brpop(keys.ready, BLOCK_MS / 1_000).then(async (hit) => {
      if (hit) await this.redis.lpush(keys.wake(this.worker), hit[1]);
      return hit && hit[1];
    });`,
    check: ["tests/lease.test.ts"],
    chaos: "kill -9 worker,Redis replies dropped",
  },
  {
    name: "no fence: a settle is not asked for its token",
    file: "shared/lua/lib/others.lua",
    from: "  if string.sub(h.start, -#token) ~= token then\n",
    to: "  if false then\n",
    ...model,
    chaos: "SIGSTOP worker",
  },
  {
    name: "no fence for the common job: its short way does not ask for the token",
    file: "shared/lua/turn.lua",
    from: " and find(was, token, -#token, true) then",
    to: " then",
    check: ["tests/store.test.ts", "-t", "token is not ours"],
  },
  {
    name: "every job is settled as a common one: effects, waiters and cancels are not looked for",
    file: "shared/lua/turn.lua",
    from: "if how.short and byte(was) <= 57 and",
    to: "if how.short and",
    ...model,
  },
  {
    name: "watch does not say that the record has more: a take does not look for who waits",
    file: "shared/lua/watch.lua",
    from: "  h.more = 1\n",
    to: "",
    check: ["tests/follow.test.ts"],
  },
  {
    name: "what was counted stays in the tally, and is counted again",
    file: "shared/lua/lib/fold.lua",
    from: "call('LPOP', K.tally, 2000) or {}",
    to: "call('LRANGE', K.tally, 0, 1999)",
    check: ["tests/metrics.test.ts"],
  },
  {
    name: "no reconcile: a lane does not compare Redis with its memory",
    file: "shared/lane.ts",
    from: "  sweep(): void {\n    this.reconcileDue = true;\n",
    to: "  sweep(): void {\n",
    check: ["tests/lane.test.ts"],
    chaos: "Redis replies dropped",
  },
  {
    name: "submit is not idempotent",
    file: "shared/lua/submit.lua",
    from: "  elseif repeated and call('EXISTS', records[jobs]) == 1 then\n",
    to: "  elseif false then\n",
    check: ["tests/store.test.ts", "-t", "submit sent"],
  },
  {
    name: "one id may stand twice in one call",
    file: "shared/store/produce.ts",
    from: " || ids.add(id).size === count) break;",
    to: ") break;",
    check: ["tests/store.test.ts", "-t", "one id twice"],
  },
  {
    name: "a hundred is numbered like the one before",
    file: "shared/lua/lib/record.lua",
    from: "if n - low ~= hundreds then",
    to: "if not hundreds then",
    check: ["tests/store.test.ts", "-t", "numbered in their order"],
  },
  {
    name: "a live record has a TTL",
    file: "shared/lua/submit.lua",
    from: "    fresh = fresh + 1\n",
    to: "    fresh = fresh + 1\n    call('PEXPIRE', records[jobs], 3600000)\n",
    ...model,
    chaos: "none",
  },
  {
    name: "the reaper does not look at the lease again",
    file: "shared/lua/reap.lua",
    from: "local dead = not beat or math.abs(now - beat) > lease\n",
    to: "local dead = true\n",
    ...model,
    chaos: "kill -9 worker",
  },
  {
    name: "a take counts what it is given instead of slots − held",
    file: "shared/lua/turn.lua",
    from: "room = math.min(slots - call('SCARD', held), 1000)\n",
    to: "room = math.min(slots, 1000)\n",
    ...model,
  },
  {
    name: "a settle that is sent again acts again",
    file: "shared/lua/lib/others.lua",
    from: "  if h.state ~= 'started' then return 'ok' end\n",
    to: "",
    ...model,
    chaos: "Redis replies dropped",
  },
  {
    name: "the Idempotency-Key is not written with the job",
    file: "shared/lua/submit.lua",
    from: "if more.idem then call('SET', K.idem .. more.idem, id .. ' ' .. more.body, 'PX', idemTtl) end",
    to: "",
    ...model,
    chaos: "gateway replies dropped",
  },
  {
    name: "a call of the reaper that outlived an outage still judges",
    file: "shared/lua/reap.lua",
    from: "if math.abs(now - seen) > lease / 2 then return { 0, 0, -2, {} } end\n",
    to: "",
    check: ["tests/lease.test.ts"],
  },
  {
    name: "a lost connection leaves BLMOVE unanswered",
    file: "shared/store/redis.ts",
    from: "    maxRetriesPerRequest: 0,\n    socketTimeout: 2 * BLOCK_MS,\n",
    to: "    maxRetriesPerRequest: null,\n    socketTimeout: 2 * BLOCK_MS,\n",
    check: ["tests/trouble.test.ts", "-t", "an idle lane takes again"],
    chaos: "kill -9 Redis",
  },
  {
    name: "BLMOVE without a lease: a dead worker's wake list is never found",
    file: "shared/store/consume.ts",
    from: "const leased = beatScript(blocking, root(service), { worker: this.worker });",
    to: "const leased = 0;",
    check: ["tests/lease.test.ts"],
  },
  {
    name: "what was told of the first job is said of all that are taken with it",
    file: "shared/lua/turn.lua",
    from: "if text ~= told then told,",
    to: "if not told then told,",
    ...alike,
  },
  {
    name: "whatever is taken after a common job is one like it",
    file: "shared/lua/turn.lua",
    from: "byte(was) <= 57 and find(was, tail, -#tail, true)) then",
    to: "byte(was) <= 57 and tail ~= '|') then",
    ...alike,
  },
  {
    name: "jobs of one submit are all of the first one's kind",
    file: "shared/script.ts",
    from: "if (its !== run) ",
    to: "if (!run) ",
    ...alike,
  },
  {
    name: "what is finished at once lives as long as the first of the call",
    file: "shared/lua/turn.lua",
    from: "  local till = text(now + ttl)",
    to: "  local till = how and how.till or text(now + ttl)",
    ...alike,
  },
  {
    name: "common jobs that were finished are counted as one",
    file: "shared/lua/turn.lua",
    from: "how.n = id, how.n + 1",
    to: "how.n = id, 1",
    ...alike,
  },
  {
    name: "only the first run of a batch's members is staged",
    file: "shared/lua/stage.lua",
    from: "  at = at + 2 * n + 1\n",
    to: "  at = #ARGV + 1\n",
    ...alike,
  },
];

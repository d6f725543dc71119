/** Ways to break what a job is given to, what a key stands for, and what a reader is shown. */
import { by, type Mutant } from "./list.ts";

export const JOB_MUTANTS: Mutant[] = [
  {
    name: "aside: a worker is given what it did not name",
    file: "shared/lua/turn.lua",
    from: "  return at and string.match(limits, '^%d+', at)\n",
    to: "  return at and string.match(limits, '^%d+', at) or 3600000\n",
    ...by("aside"),
  },
  {
    name: "aside: nobody looks there again",
    file: "shared/lua/turn.lua",
    from: "call('EXISTS', K.paused, K.asides) > 0",
    to: "call('EXISTS', K.paused) > 0",
    ...by("aside"),
  },
  {
    name: "aside: a blocked worker does not look there",
    file: "shared/lane.ts",
    from: "(waking > 0 || aside.some((name) => this.operations.includes(name)))",
    to: "waking > 0",
    ...by("lane-wait", "aside"),
  },
  {
    name: "aside: the bulk action ends with the backlog",
    file: "shared/lua/bulk-step.lua",
    from: "if more == 0 and state == 'queued' and walk ~= '' then",
    to: "if false then",
    ...by("aside"),
  },
  {
    name: "aside: an empty leaves it",
    file: "shared/lua/empty.lua",
    from: "  queued = queued + condemn(K.aside .. op, K.condemnedSet, 'ZCARD', op .. ':backlog', 'condemned')\n",
    to: "",
    ...by("aside"),
  },
  {
    name: "key: stands for a job that is gone",
    file: "shared/lua/submit.lua",
    from: "if other and other ~= id and call('EXISTS', record .. other) == 1 then",
    to: "if other and other ~= id then",
    ...by("idempotency"),
  },
  {
    name: "key: of a batch stands for members that are gone",
    file: "shared/store/batches.ts",
    from: '(state === "committed" && !(await this.gone(other)))',
    to: 'state === "committed"',
    ...by("idempotency"),
  },
  {
    name: "key: of a requeue stands for a job that is gone",
    file: "shared/lua/requeue.lua",
    from: " and call('EXISTS', K.job .. id) == 1 then",
    to: " then",
    ...by("idempotency"),
  },
  {
    name: "empty: the dialog leaves scheduled jobs out",
    file: "dashboard/panels/overview.js",
    from: "const emptied = (s) => s.queued + s.scheduled;",
    to: "const emptied = (s) => s.queued;",
    ...by("dashboard-queues"),
  },
  {
    name: "result: a large one is a link in the status",
    file: "shared/accept.ts",
    from: "if (file && !links) return",
    to: "if (false as boolean && file) return",
    ...by("large-results"),
  },
  {
    name: "result: a large one is a link in the record",
    file: "gateway.ts",
    from: "if (file && !c.env?.links) return",
    to: "if (false as boolean && file) return",
    ...by("large-results"),
  },
  {
    name: "result: one whose file is missing reads as finished",
    file: "shared/show.ts",
    from: 'const state = shown?.error ? "failed" : status.state;',
    to: "const state = status.state;",
    ...by("large-results"),
  },
];

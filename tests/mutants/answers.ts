/** Ways to lose an answer after the service gave it, or to leave its files behind. */
import { by, type Mutant } from "./list.ts";

export const ANSWER_MUTANTS: Mutant[] = [
  {
    name: "retries 0: the reaper hands on a job that may be called once",
    file: "shared/lua/reap.lua",
    from: "elseif f[10] then",
    to: "elseif false then",
    ...by("call-once", "a worker died in the call"),
  },
  {
    name: "retries 0: a reset call is made again",
    file: "shared/settle.ts",
    from: " || options.retries === 0;",
    to: ";",
    ...by("call-once", "dies in each call"),
  },
  {
    name: "retries 0: a job is called though its lease is lost",
    file: "shared/lane.ts",
    from: "options.retries === 0 ? await this.barred(run) : undefined",
    to: "undefined",
    ...by("call-once", "between claim and call"),
  },
  {
    name: "retries 0: a hand-back spends the one call",
    file: "shared/lua/lib/others.lua",
    from: "call('HDEL', key, 'one')",
    to: "",
    ...by("call-once", "allow the one call anew"),
  },
  {
    name: "answers: the kept bytes are not stored with the failed job",
    file: "shared/settle.ts",
    from: "this.ended(run, outcome.error, outcome.kept)",
    to: "this.ended(run, outcome.error, undefined)",
    ...by("kept-answers", "an answer in HTML"),
  },
  {
    name: "answers: the bytes of an unreadable 2xx are dropped",
    file: "shared/call.ts",
    from: "...(kept && kept.bytes.byteLength > 0 ? { kept } : {}),",
    to: "",
    ...by("call-odd", "its bytes are kept"),
  },
  {
    name: "result files: those without a job are never removed",
    file: "shared/result-file.ts",
    from: "if (alive.has(id)) continue;",
    to: "continue;",
    ...by("result-files", "files without a job"),
  },
  {
    name: "result files: an erased job's entry goes although it has files",
    file: "shared/lua/lib/erase.lua",
    from: "if may_have_files(h, f[3], f[4], f[5], f[6]) then return 'ok' end",
    to: "if f[3] then return 'ok' end",
    ...by("result-files", "its files go"),
  },
  {
    name: "result files: the sweep removes those of finished jobs only",
    file: "shared/clocks/sweep.ts",
    from: "await Promise.all(gone.map(remove));",
    to: 'if (state === "finished") await Promise.all(gone.map(remove));',
    ...by("result-files", "its files go"),
  },
  {
    name: "result files: a failed write leaves its temporary file",
    file: "shared/result-file.ts",
    from: "    await discardResult(resultsDir, { id, token });\n    throw error;",
    to: "    throw error;",
    ...by("results-dir", "on a full volume"),
  },
  {
    name: "results: a lane takes jobs while an answer cannot be written",
    file: "shared/lane.ts",
    from: " && this.unwritten.size === 0",
    to: "",
    ...by("results-dir", "waits in memory"),
  },
];

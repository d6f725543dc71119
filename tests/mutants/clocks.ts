/** Ways to let a machine's own clock decide. */
import { by, type Mutant } from "./list.ts";

export const CLOCK_MUTANTS: Mutant[] = [
  {
    name: "clocks: a callback is given up by the worker's own clock",
    file: "shared/clocks/outbox.ts",
    from: "effect.now() + delayMs > record.ended",
    to: "Date.now() + delayMs > record.ended",
    ...by("clocks", "clocks under bun a callback"),
  },
  {
    name: "clocks: a callback is signed by the worker's own clock",
    file: "shared/clocks/outbox.ts",
    from: "text, effect.now(), config",
    to: "text, Date.now(), config",
    ...by("clocks", "clocks under bun a callback"),
  },
  {
    name: "clocks: a parked job is given up by the worker's own clock",
    file: "shared/parking.ts",
    from: "if (now - job.created <= this.settings.parkLimitMs) return false;\n    return this.limitPassed().catch(() => false);",
    to: "const { since } = await notePark(this.redis, this.service);\n    return Date.now() - Math.max(job.created, since) > this.settings.parkLimitMs;",
    ...by("clocks", "clocks under bun a refused job"),
  },
  {
    name: "clocks: a delay begins by the gateway's own clock",
    file: "shared/submit.ts",
    from: "delayMs: options.delay || undefined,",
    to: "...(options.delay ? { due: Date.now() + options.delay } : {}),",
    ...by("clocks", "clocks under bun delay=2s"),
  },
  {
    name: "clocks: a snapshot ages by the gateway's own clock",
    file: "shared/snapshot.ts",
    from: "if (this.last && performance.now() - this.readAt <= maxAgeMs) return",
    to: "if (this.last && Date.now() - this.last.at <= maxAgeMs) return",
    ...by("clocks", "clocks under bun steps"),
  },
  {
    name: "signals: a SIGTERM that `bun run` passed on counts as a second one",
    file: "shared/signals.ts",
    from: "if (!isEcho) stop(++signals);",
    to: "stop(++signals);",
    ...by("signals", "one SIGTERM that arrives"),
  },
  {
    name: "signals: a worker under nohup ends with its terminal",
    file: "shared/signals.ts",
    from: "if (!ignoresHangup()) process.on",
    to: "process.on",
    ...by("signals", "under nohup"),
  },
  {
    name: "log: Deno waits for whoever reads its log",
    file: "shared/log.ts",
    from: 'if (fd !== 1 || typeof Deno === "undefined") write',
    to: 'if (fd === 1 || typeof Deno === "undefined") write',
    ...by("log", "Deno: a stalled"),
  },
];

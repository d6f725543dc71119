/**
 * The processes that `up` runs: started, watched, started again when they crash, stopped in order, never left behind.
 *
 * Each child has a process group of its own, so that Ctrl-C in a terminal reaches `up` alone, which then stops the
 * children one after the other: Redis must outlive the worker that hands its jobs back.
 */
import type { Subprocess } from "bun";
import { ECHO_MS } from "../shared/signals.ts";
import { type Say, Trouble } from "./install.ts";
import { lines } from "./processes.ts";
import { ROOT } from "./settings.ts";

export interface Program {
  name: string;
  command: string[];
  env?: Record<string, string>;
  /** Resolves true once it serves; asked again and again while starting. Left out: it counts as ready at once. */
  ready?: () => Promise<boolean>;
  /** How long it may take to start. */
  startMs: number;
  /** From SIGTERM to SIGKILL. */
  stopMs: number;
  /** Its output is shown only when it fails. */
  quiet?: boolean;
}

interface Running {
  program: Program;
  child: Subprocess<"ignore", "pipe", "pipe">;
  /** Last lines of output, for the reason of a crash. */
  tail: string[];
  startedMs: number;
  /** Crashes since it last ran well. */
  crashes: number;
  stopping: boolean;
  gone: Promise<void>;
}

/** Crashes in a row that end everything, and the run after which a crash counts as the first again. */
const CRASH_LIMIT = 5;
const RAN_WELL_MS = 60_000;
/** ms that the guard, which has nothing to do after an orderly end, may take to end itself. */
const GUARD_END_MS = 2_000;
const backoffMs = (crashes: number) => Math.min(500 * 2 ** (crashes - 1), 10_000);

/**
 * Stops what a killed `up` leaves. It reads pids on stdin, in the order in which they are to be stopped, a line each
 * time they change; the last line counts once the pipe closes, and is empty after an orderly end. $1: fifths of a second
 * from SIGTERM to SIGKILL. (dash does not know "kill -KILL --".)
 */
const GUARD = `
PATH=$PATH:/usr/bin:/bin # for sleep
while read -r line; do pids=$line; done
for pid in $pids; do
  kill -TERM "$pid" 2>/dev/null || continue
  n=0
  while kill -0 "$pid" 2>/dev/null && [ $n -lt "$1" ]; do sleep 0.2; n=$((n+1)); done
  kill -s KILL -- "-$pid" 2>/dev/null
done`;

export class Children {
  #running: Running[] = []; // in the order of their start
  #guard: Subprocess<"pipe", "ignore", "ignore">;
  #stopping = false;
  /** Aborted by a second Ctrl-C. */
  #hurry = new AbortController();

  /**
   * @param show  one line of a child's output
   * @param say   what `up` itself has to tell
   * @param fail  called once when a child cannot be kept running
   */
  constructor(
    private readonly show: (name: string, line: string) => void,
    private readonly say: Say,
    private readonly fail: (trouble: Trouble) => void,
    drainMs: number,
  ) {
    const fifths = String(Math.ceil(drainMs / 200) + 50);
    this.#guard = Bun.spawn(["/bin/sh", "-c", GUARD, "guard", fifths], {
      ...{ detached: true, stdin: "pipe", stdout: "ignore", stderr: "ignore" },
    });
    this.#guard.unref();
  }

  get guardPid(): number {
    return this.#guard.pid;
  }

  /**
   * Starts a program and waits until it is ready.
   * @throws Trouble with the end of its output when it dies before, or takes too long
   */
  async start(program: Program): Promise<void> {
    if (this.#stopping) return;
    const running = this.#spawn(program, 0);
    const deadline = performance.now() + program.startMs;
    const dead = () => running.child.exitCode !== null || running.child.signalCode !== null;
    while (program.ready && !(await program.ready())) {
      if (dead()) throw new Trouble(`${program.name} ended while starting: ${this.#reason(running)}`);
      if (this.#stopping) return;
      if (performance.now() > deadline) {
        throw new Trouble(`${program.name} was not ready after ${program.startMs / 1000} s.${tailOf(running)}`);
      }
      await Bun.sleep(50);
    }
    running.child.exited.then(() => this.#crashed(running));
  }

  #spawn(program: Program, crashes: number): Running {
    const child = Bun.spawn(program.command, {
      env: { ...process.env, ...program.env },
      cwd: ROOT,
      ...{ detached: true, stdin: "ignore", stdout: "pipe", stderr: "pipe" },
    });
    const tail: string[] = [];
    const read = async (stream: ReadableStream<Uint8Array>) => {
      for await (const line of lines(stream)) {
        if (tail.push(line) > 12) tail.shift();
        if (!program.quiet) this.show(program.name, line);
      }
    };
    const output = Promise.all([read(child.stdout), read(child.stderr)]);
    // A grandchild may hold the pipes open, so the output is waited for only a moment.
    const gone = child.exited.then(async () => void (await Promise.race([output, Bun.sleep(200)])));
    const running = { program, child, tail, startedMs: performance.now(), crashes, stopping: false, gone };
    const place = this.#running.findIndex((other) => other.program === program);
    if (place < 0) this.#running.push(running);
    else this.#running[place] = running; // keeps its turn in the order of stopping
    this.#tellGuard();
    return running;
  }

  async #crashed(last: Running): Promise<void> {
    await last.gone;
    killGroup(last.child.pid, "SIGKILL");
    if (this.#stopping || last.stopping) return;
    const { program } = last;
    const crashes = performance.now() - last.startedMs > RAN_WELL_MS ? 1 : last.crashes + 1;
    if (crashes > CRASH_LIMIT) {
      return this.fail(new Trouble(`${program.name} keeps crashing (${crashes} times): ${this.#reason(last)}`));
    }
    const waitMs = backoffMs(crashes);
    this.say(`${program.name} ${ending(last)}; starting it again in ${waitMs / 1000} s`);
    await Bun.sleep(waitMs);
    if (this.#stopping) return;
    try {
      const next = this.#spawn(program, crashes);
      next.child.exited.then(() => this.#crashed(next));
    } catch (error) {
      this.fail(new Trouble(`${program.name} cannot be started: ${(error as Error).message}`));
    }
  }

  #reason(running: Running): string {
    return `it ${ending(running)}.${tailOf(running)}`;
  }

  #tellGuard(orderly = false): void {
    const pids = this.#running.toReversed().map(({ child }) => child.pid);
    if (this.#guard.exitCode !== null) return; // somebody killed it; nothing is lost but the safety net
    this.#guard.stdin.write(`${orderly ? "" : pids.join(" ")}\n`);
    this.#guard.stdin.flush();
    if (orderly) this.#guard.stdin.end();
  }

  /** Starts nothing more, because a stop will follow. */
  cease(): void {
    this.#stopping = true;
  }

  /** Stops all, in the reverse order of their start. Never throws. */
  async stop(): Promise<void> {
    this.#stopping = true;
    for (const running of this.#running.toReversed()) await this.#end(running);
    this.#tellGuard(true);
    await Promise.race([this.#guard.exited, Bun.sleep(GUARD_END_MS)]); // it is one of those that must not be left
  }

  /** Makes a stop that is under way, or comes, take seconds: a second SIGTERM tells the worker not to drain. */
  hurry(): void {
    this.#hurry.abort();
  }

  async #end(running: Running): Promise<void> {
    const { child, program } = running;
    running.stopping = true;
    const { signal } = this.#hurry;
    const inTime = async (ms: number) => Promise.race([running.gone.then(() => true), Bun.sleep(ms).then(() => false)]);
    const hurried = new Promise<false>((resolve) => signal.addEventListener("abort", () => resolve(false)));
    child.kill("SIGTERM");
    const patient = signal.aborted ? false : await Promise.race([inTime(program.stopMs), hurried]);
    if (!patient && signal.aborted) {
      await inTime(ECHO_MS + 100); // closer to the first it would count as its echo
      child.kill("SIGTERM");
      await inTime(3_000);
    }
    if (child.exitCode === null && child.signalCode === null) {
      this.say(`${program.name} did not stop; killing it`);
      child.kill("SIGKILL");
      await running.gone;
    }
    killGroup(child.pid, "SIGKILL"); // whatever it started itself
  }
}

/** The last output, indented, on lines of its own. */
function tailOf({ program, tail }: Running): string {
  return tail.length ? `\n${tail.map((line) => `    ${program.name} | ${line}`).join("\n")}` : " It said nothing.";
}

function ending({ child }: Running): string {
  return child.signalCode ? `was killed by ${child.signalCode}` : `ended with code ${child.exitCode}`;
}

function killGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {} // nobody is left, as it should be
}

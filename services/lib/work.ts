/**
 * Heavy work in a process of its own, one a call.
 *
 * A worker thread would also keep /health answering, but not this: SIGKILL ends a WASM loop in the middle, memory that
 * WASM never gives back is freed, and a model that crashes the engine or eats all memory takes down only its own call.
 */
import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { Fault, messageOf } from "./fault.ts";

/** Heavy calls at once in this service (WORK_SLOTS, default: the CPUs); the others wait in line. */
const slots = Math.max(1, Number(process.env.WORK_SLOTS) || availableParallelism());
/** What is kept of a child's stdout and of its stderr, in characters. */
const KEEP_CHARS = 65_536;

export interface Progress {
  /** 0 to 1. */
  progress: number;
  message: string;
}

type FromChild = { progress: Progress } | { answer: unknown } | { fault: { status: number; detail: string } };

export interface Outcome<O> {
  answer: O;
  stdout: string;
  stderr: string;
}

/** A call that failed, with what its process had said until then. */
export class WorkFault extends Fault {
  constructor(
    status: Fault["status"],
    detail: string,
    readonly stdout: string,
    readonly stderr: string,
  ) {
    super(status, detail);
  }
}

/** A process that waits for its one input, or works on it. */
interface Child {
  process: Bun.Subprocess<"ignore", "pipe", "pipe">;
  onProgress: (progress: Progress) => void;
  last: FromChild | undefined;
}

const children = new Set<Child>();
/** Per work file: one idle process that has loaded the engine already, which takes half a second. */
const spares = new Map<string, Child>();
const warm = new Set<string>();
const line: (() => void)[] = [];
let busy = 0;

/** Waits for a free slot. @throws the signal's reason when the caller gave up first; no slot is held then */
async function takeSlot(signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  if (busy < slots) {
    busy++;
    return;
  }
  await new Promise<void>((resolve, reject) => {
    const turn = () => {
      signal.removeEventListener("abort", leave);
      resolve(); // busy stays: the slot is handed over
    };
    const leave = () => {
      line.splice(line.indexOf(turn), 1);
      reject(signal.reason);
    };
    line.push(turn);
    signal.addEventListener("abort", leave, { once: true });
  });
}

function giveSlot(): void {
  const next = line.shift();
  if (next) next();
  else busy--;
}

async function tail(stream: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    if (text.length > 2 * KEEP_CHARS) text = text.slice(-KEEP_CHARS);
  }
  return text.length > KEEP_CHARS ? `…${text.slice(-KEEP_CHARS)}` : text;
}

/**
 * Runs a work file (one that calls `serveWork`) on `input`.
 * @param signal  aborted when the client hangs up: the process is killed at once
 * @throws WorkFault with the child's own status and detail; 500 when the process died; the signal's reason when aborted
 */
export async function run<O>(
  file: string,
  input: unknown,
  signal: AbortSignal,
  onProgress: (progress: Progress) => void = () => {},
): Promise<Outcome<O>> {
  await takeSlot(signal);
  try {
    const child = takeChild(file);
    child.onProgress = onProgress;
    const kill = () => child.process.kill("SIGKILL");
    signal.addEventListener("abort", kill, { once: true });
    child.process.send(input);
    const { stdout: out, stderr: err, exited } = child.process;
    const [stdout, stderr] = await Promise.all([tail(out), tail(err), exited]);
    signal.removeEventListener("abort", kill);
    signal.throwIfAborted();

    const { last } = child;
    if (last && "answer" in last) return { answer: last.answer as O, stdout, stderr };
    if (last && "fault" in last) {
      throw new WorkFault(last.fault.status as Fault["status"], last.fault.detail, stdout, stderr);
    }
    const { signalCode, exitCode } = child.process;
    const how = signalCode ? `was killed by ${signalCode}` : `ended with code ${exitCode}`;
    const hint = signalCode === "SIGKILL" ? "; the machine may have run out of memory" : "";
    throw new WorkFault(500, `The work process ${how}${hint}`, stdout, stderr);
  } finally {
    giveSlot();
    if (warm.has(file)) keepWarm(file);
  }
}

/** Names the service's process to its child: one that asked for its parent itself might already be an orphan. */
const PARENT = "WORK_PARENT";

function startChild(file: string): Child {
  const child: Child = {
    onProgress: () => {},
    last: undefined,
    process: Bun.spawn([process.execPath, file], {
      env: { ...process.env, [PARENT]: String(process.pid) },
      stdio: ["ignore", "pipe", "pipe"],
      ipc(message: FromChild) {
        if ("progress" in message) child.onProgress(message.progress);
        else child.last = message;
      },
    }),
  };
  children.add(child);
  child.process.exited.finally(() => children.delete(child));
  return child;
}

function takeChild(file: string): Child {
  const spare = spares.get(file);
  spares.delete(file);
  // A spare may have been killed meanwhile, by the machine's want of memory for one.
  return spare && children.has(spare) ? spare : startChild(file);
}

/** From now on keeps one idle process ready for `file`; costs its memory (about 100 MB), saves its start. */
export function keepWarm(file: string): void {
  warm.add(file);
  const spare = spares.get(file);
  if (!stopped && !(spare && children.has(spare))) spares.set(file, startChild(file));
}

let stopped = false;

/** Kills what still runs: a service that stops leaves no process behind. */
export function stopAll(): void {
  stopped = true;
  for (const child of children) child.process.kill("SIGKILL");
}

/** Tells the parent how far the work is; cheap, it drops all but ten messages a second. Call it in every long loop. */
export function report(progress: number, message: string): void {
  const now = performance.now();
  if (now - lastReport < 100) return;
  lastReport = now;
  process.send?.({ progress: { progress, message } } satisfies FromChild);
}
let lastReport = -Infinity;

/** The child's side: takes one input from the parent, answers it, ends. Call it only where `import.meta.main`. */
export function serveWork<I>(work: (input: I) => Promise<unknown>): void {
  // A parent that was killed cannot kill us; do not compute for nobody.
  process.on("disconnect", () => process.exit(1));
  new Worker(new URL("./watchdog.ts", import.meta.url), { workerData: Number(process.env[PARENT]) }).unref();
  process.once("message", async (input: I) => {
    let reply: FromChild;
    try {
      reply = { answer: await work(input) };
    } catch (error) {
      if (!(error instanceof Fault)) console.error(error);
      const status = error instanceof Fault ? error.status : 500;
      reply = { fault: { status, detail: messageOf(error) } };
    }
    process.send?.(reply, undefined, undefined, () => process.exit(0));
  });
}

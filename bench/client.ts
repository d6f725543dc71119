/** The client of every contender: a process that stays, so that its own code is warm when it is told what to send. */
import { BODY, CONCURRENCY, endsWithUs, ROOT } from "./machine.ts";

/** ms; a client that runs longer hangs: seen in one of some hundred runs at a pace, spinning without a system call. */
const LATE_MS = 120_000;

/** What peers/load.ts is told, and what it answers. */
export type Order = { jobs: number; first: number } | { rate: number; seconds: number };
export type Sent = [id: string, at: number][];

export class Client {
  private child!: ReturnType<typeof Bun.spawn>;
  private told: (answer: unknown) => void = () => {};

  /** @param url  a gateway's */
  constructor(private readonly url: string) {
    this.start();
  }

  /**
   * Posts jobs over CONCURRENCY connections as fast as they are answered.
   * @returns ms that they took after the `first` of them @throws Error  when the client hangs or ends
   */
  submit(jobs: number, first = 0): Promise<number> {
    return this.ask<number>({ jobs, first });
  }

  /** Posts `rate` jobs a second; asked again, once, of a new process, if this one hangs. @returns which, and when, in ms since 1970 */
  async pace(rate: number, seconds: number): Promise<Sent> {
    try {
      return await this.ask<Sent>({ rate, seconds });
    } catch (error) {
      console.error(`${(error as Error).message}; asked again`);
      this.stop();
      this.start();
      return this.ask<Sent>({ rate, seconds });
    }
  }

  stop(): void {
    this.child.kill("SIGKILL");
  }

  private start(): void {
    this.child = Bun.spawn([process.execPath, "bench/peers/load.ts"], {
      cwd: ROOT,
      env: { PATH: process.env.PATH ?? "", URL: this.url, BODY, CONCURRENCY: String(CONCURRENCY) },
      stdout: "inherit",
      stderr: "inherit",
      ipc: (answer) => this.told(answer),
    });
    endsWithUs(this.child);
  }

  private ask<T>(order: Order): Promise<T> {
    return new Promise((done, failed) => {
      const late = setTimeout(() => failed(new Error(`the client did not end in ${LATE_MS / 1_000} s`)), LATE_MS);
      void this.child.exited.then(() => failed(new Error("the client ended")));
      this.told = (answer) => {
        clearTimeout(late);
        done(answer as T);
      };
      this.child.send(order);
    });
  }
}

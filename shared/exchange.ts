/** What a call's two sides agree on: who waits for an answer, what is wanted of it, and where a connection waits meanwhile. */
import type { Abort } from "./abort.ts";
import type { Connection } from "./http1.ts";
import type { OtherJob } from "./job-name.ts";

export type Head = {
  status: number;
  /** @param name  in lower case @returns null when absent; several joined by ", " */
  header(name: string): string | null;
};
/**
 * What is wanted of the decoded body. `whole`: all of it, or none when it is longer than `cap` bytes, and a cut rejects.
 * Otherwise at most `cap` bytes, and what came before a cut is better than nothing.
 * `raw`: what cannot be decoded is wanted as it came.
 */
export type Wanted = { cap: number; whole: boolean; raw: boolean };
/**
 * `complete`: read to its end; otherwise the connection is no longer of use.
 * `fault`: why the bytes are as they came and not decoded.
 */
export type Body = { bytes: Uint8Array; complete: boolean; fault?: Error | undefined };
/** Who waits for an answer. */
export type Exchange = {
  abort: Abort;
  /** the X-Job-Id that was sent */
  jobId: string | undefined;
  /** what lets the connection serve another call: an answer that names the job, or the operator's word; `never` = nothing */
  reuse: "never" | "named" | "vouched";
  /** called once, when status and headers are in */
  onHead(head: Head): Wanted;
  resolve(body: Body): void;
  /**
   * with an Unreachable where no connection came about; the socket's error; abort's reason; llhttp's error (HPE_…); ECONNRESET;
   * OtherJob.
   * `partial`: the bytes of the body that came before it
   */
  reject(error: unknown): void;
};

/** Where a connection waits between two requests. */
export type Home = {
  keep(connection: Connection): void;
  /** it is closed, wherever it was */
  drop(connection: Connection, byPeer: boolean): void;
  /** whether an answer named its job */
  answered(named: boolean): void;
  /** The origin sent what nobody asked for. */
  distrust(why: string): void;
  /** It sent an answer that is not known to be that of the request. */
  refused(error: OtherJob, jobId: string | undefined): void;
};

export const NOTHING = new Uint8Array(0);

/** @param headers  name, value, name, value, … as they came */
export function headerOf(headers: string[], name: string): string | null {
  let found: string | null = null;
  for (let i = 0; i < headers.length; i += 2) {
    const each = headers[i] as string;
    if (each.length !== name.length || each.toLowerCase() !== name) continue;
    const value = headers[i + 1] as string;
    if (found !== value) found = found === null ? value : `${found}, ${value}`; // the same twice says it once
  }
  return found;
}

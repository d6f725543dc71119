/**
 * One connection to a microservice over HTTP/1.1: a POST goes out, its answer comes in, then the next.
 *
 * The answer is read by llhttp, Node's parser, which Bun and Deno carry too; what is beside it is here.
 *
 *   in use ──▶ idle ──▶ in use …
 *      └─▶ closed: the answer says so, is not wanted whole, brought more than was asked for, or does not name its job
 *
 * An answer has the place of its request only because it comes next. So it has to name the job as well, or its connection serves
 * no second call (pool.ts).
 *
 * Never sends twice: what a closed connection did with its request nobody can know.
 */
import { Buffer } from "node:buffer"; // no global in Deno
import type { Socket } from "node:net";
import { type Decoder, decoderOf, isCut, repairedHead, transferFault, undecodable } from "./decode.ts";
import { type Exchange, type Home, headerOf, NOTHING, type Wanted } from "./exchange.ts";
import { namesJob, OtherJob } from "./job-name.ts";
import { lifeMs } from "./pool.ts";

/**
 * ms of silence before the kernel asks whether the other side still lives, as Bun's fetch has it: a call may be silent for hours,
 * and what stands between forgets a silent connection after some minutes. Under Bun, ten seconds without any answer end it.
 */
const KEEPALIVE_MS = 60_000;
/** of an answer's head: frameworks that put a trace or a report into headers have sent 70 KB */
export const MAX_HEAD_BYTES = 262_144;

type Parser = {
  initialize(type: number, resource: object, maxHeaderBytes: number, lenient: number): void;
  /** @returns the bytes read, or an error whose `code` is HPE_… */
  execute(part: Buffer): number | (Error & { code: string });
  /** the connection has ended, and with it an answer without a length */
  finish(): unknown;
  [callback: number]: (...args: never[]) => unknown;
};
type Callback = "kOnMessageBegin" | "kOnHeaders" | "kOnHeadersComplete" | "kOnBody" | "kOnMessageComplete";
type Lenient = "kLenientChunkedLength" | "kLenientOptionalCRBeforeLF" | "kLenientKeepAlive";
type ParserClass = Record<"RESPONSE" | Callback | Lenient, number> & (new () => Parser);

// A module of Node's own, without a promise for tomorrow: where it is missing, transport.ts goes by fetch.
const common = (await import("node:_http_common" as string).catch(() => undefined)) as
  | { HTTPParser?: ParserClass }
  | undefined;
const HTTPParser = common?.HTTPParser as ParserClass;
/** Whether this runtime has the parser: without it, no Connection can be made. */
export const available = typeof HTTPParser === "function";
/**
 * What fetch takes, and is told apart without guessing: a length beside chunks (the chunks count), bare line feeds, a 100 that says
 * `Connection: close`.
 */
const LENIENT = available
  ? HTTPParser.kLenientChunkedLength | HTTPParser.kLenientOptionalCRBeforeLF | HTTPParser.kLenientKeepAlive
  : 0;

/** Whether repairedHead may cure a head that llhttp refuses, at the part with which it did. */
const isRepairable = (code: string, part: Buffer) =>
  code.endsWith("_CONTENT_LENGTH") || (code.endsWith("_HEADER_TOKEN") && /\n[ \t]/.test(part.toString("latin1")));

export class Connection {
  /** by performance.now(), when it last became idle; long ago where it never was */
  since = Number.NEGATIVE_INFINITY;
  /** likewise, the first time */
  first = Number.NEGATIVE_INFINITY;
  /** by performance.now(): it serves no further call from then on */
  readonly retiredAt = performance.now() + lifeMs();
  /** of its last call */
  jobId: string | undefined;
  /** whether its last answer named that job */
  named = false;
  private readonly parser = new HTTPParser();
  /** the request that is being served; undefined = idle, or closed */
  private exchange: Exchange | undefined;
  /** of the answer, where they come in more than one part */
  private headers: string[] = [];
  /** set with the answer's head */
  private wanted: Wanted | undefined;
  private parts: Uint8Array[] = [];
  private size = 0;
  private interim = false;
  private complete = false;
  private reusable = false;
  /** more came than was asked for */
  private surplus = false;
  /** closed by the other side */
  private theirs = false;
  /** makes the decoder from the body's first bytes: no body at all is no encoded one */
  private decode: ((first: Uint8Array) => Decoder) | undefined;
  private decoder: Decoder | undefined;
  /** what came for the decoder, as it came; undefined = more than is wanted */
  private encoded: Uint8Array[] | undefined;
  private encodedBytes = 0;
  /** why the body is taken as it comes */
  private fault: Error | undefined;
  /** parts of a head that is not whole yet */
  private early: Buffer[] = [];
  /** the head has what llhttp refuses and repairedHead cures, and is read anew when it is whole */
  private rereads = false;

  /**
   * @param socket  connected
   * @param home    where it waits for its next request
   */
  constructor(
    private readonly socket: Socket,
    private readonly home: Home,
  ) {
    const { parser } = this;
    parser.initialize(HTTPParser.RESPONSE, this, MAX_HEAD_BYTES, LENIENT);
    parser[HTTPParser.kOnMessageBegin] = () => {
      if (this.complete) this.surplus = true; // a second answer to one request
    };
    parser[HTTPParser.kOnHeaders] = (headers: string[]) => {
      if (!this.wanted) this.headers.push(...headers); // else they stand after the body, and nobody asks for them
    };
    parser[HTTPParser.kOnHeadersComplete] = this.onHead.bind(this);
    parser[HTTPParser.kOnBody] = this.onBody.bind(this);
    parser[HTTPParser.kOnMessageComplete] = () => {
      if (this.interim) this.interim = false;
      else this.complete = true;
    };
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEPALIVE_MS);
    socket
      .on("data", (part) => this.onData(part as Buffer))
      .on("end", () => this.onEnd())
      .on("error", (error) => this.onError(error))
      .on("close", () => this.onClose());
  }

  /** @param request  head and body, as they are sent */
  send(request: string | Buffer, exchange: Exchange): void {
    this.exchange = exchange;
    this.jobId = exchange.jobId;
    this.named = false;
    this.headers = [];
    this.wanted = undefined;
    this.parts = [];
    this.size = this.encodedBytes = 0;
    this.interim = this.complete = this.reusable = this.rereads = false;
    this.decode = this.fault = undefined;
    if (this.early.length > 0) this.early = [];
    exchange.abort.onabort = () => this.fail(exchange.abort.reason);
    this.socket.write(request);
  }

  /** No request finds it any more. */
  close(): void {
    this.home.drop(this, this.theirs);
    this.socket.destroy();
  }

  /** Whether a request may be sent: between a socket's end and its event it is still where it waited. */
  get alive(): boolean {
    return !this.socket.destroyed && this.socket.readable && this.socket.writable;
  }

  private onData(part: Buffer): void {
    if (!this.exchange) {
      if (!this.socket.destroyed) this.unasked(part);
      this.close();
      return;
    }
    const before = this.parts.length;
    const { rereads } = this;
    try {
      const read = rereads ? this.reread(part) : this.parser.execute(part);
      if (typeof read === "number") {
        if (!this.wanted && !this.rereads) this.early.push(part);
      } else if (this.complete) this.surplus = true;
      else if (this.wanted || rereads) this.unreadable(read);
      else if (isRepairable(read.code, part)) {
        const again = this.reread(part);
        if (typeof again !== "number") this.unreadable(again);
      } else {
        this.early.push(part); // the job keeps what cannot be read
        this.unreadable(read);
      }
    } catch (error) {
      this.fail(error); // of ours: it must not end the process
    }
    // A million chunks of a byte each would be as many objects.
    if (this.parts.length > before + 8) this.parts.push(Buffer.concat(this.parts.splice(before)));
    if (this.surplus) this.unasked(part);
    if (this.complete) this.finish();
  }

  /** Reads a head anew, repaired. @returns as the parser does; 0 = the rest of the head is still to come */
  private reread(part: Buffer): ReturnType<Parser["execute"]> {
    this.rereads = true;
    this.early.push(part);
    const bytes = Buffer.concat(this.early);
    const repaired = repairedHead(bytes);
    if (!repaired && bytes.length <= MAX_HEAD_BYTES) return 0;
    this.rereads = false;
    this.headers = [];
    this.parser.initialize(HTTPParser.RESPONSE, this, MAX_HEAD_BYTES, LENIENT);
    return this.parser.execute(Buffer.from(repaired ?? bytes));
  }

  private unreadable(error: Error): void {
    if (this.first >= 0 && !this.wanted) this.refuse(new OtherJob("unreadable"));
    else this.fail(error);
  }

  private unasked(part: Buffer): void {
    const start = JSON.stringify(part.toString("latin1", 0, 60));
    this.home.distrust(`sent more than was asked for (after the answer of ${this.jobId ?? "a call"}, in ${start})`);
  }

  /** @param line  version, headers, method, url, status, message, upgrade, keepAlive */
  private onHead(
    ...line: [number, number, string[] | undefined, unknown, unknown, number, unknown, unknown, boolean]
  ): 0 {
    const { exchange } = this;
    const [, , headers = this.headers, , , status, , , keepAlive] = line;
    if (!exchange || this.complete) return 0;
    if (status >= 100 && status < 200 && status !== 101) {
      this.interim = true;
      this.headers = [];
      return 0;
    }
    this.reusable = keepAlive && status !== 101;
    const header = (name: string) => headerOf(headers, name);
    if (!this.belongs(header("x-job-id"), exchange)) return 0;
    this.wanted = exchange.onHead({ status, header });
    const { cap, whole, raw } = this.wanted;
    if (this.early.length > 0) this.early = [];
    const coding = header("transfer-encoding");
    const refused = transferFault(coding);
    if (refused) {
      this.end()?.resolve({ bytes: NOTHING, complete: false, fault: refused });
      this.socket.destroy();
      return 0;
    }
    const decode = decoderOf(header("content-encoding"));
    const length = header("content-length");
    if (decode instanceof Error) {
      this.fault = decode;
      if (!raw) this.cut(NOTHING); // a reason that nobody can read
    } else if (decode) this.decode = decode;
    else if (length === null) return 0;
    else if (coding !== null) this.reusable = false;
    else if (whole && Number(length) > cap) this.cut(NOTHING);
    return 0;
  }

  /** Whether the answer may be that of the request; otherwise nothing of it is read. */
  private belongs(header: string | null, { jobId, reuse }: Exchange): boolean {
    this.named = namesJob(header, jobId);
    this.home.answered(this.named);
    const isFirst = this.first < 0;
    if (this.named || jobId === undefined || (header === null && (isFirst || reuse === "vouched"))) return true;
    this.refuse(new OtherJob(header === null ? "unnamed" : "other", header ?? ""));
    return false;
  }

  private refuse(error: OtherJob): void {
    this.home.refused(error, this.jobId);
    this.fail(error);
  }

  private decoding(first: Uint8Array): Decoder | undefined {
    if (this.decoder || !this.decode) return this.decoder;
    const decoder = this.decode(first);
    this.decoder = decoder;
    this.encoded = [];
    return decoder
      .on("data", (part: Buffer) => this.take(part))
      .on("drain", () => this.socket.resume())
      .on("error", (error) => this.decoder === decoder && this.undecodable(error))
      .on("end", () => this.decoder === decoder && this.deliver());
  }

  /** What was encoded wrongly is taken as it came: it may be the only answer of a call of hours. */
  private undecodable(error: Error): void {
    const { decoder, encoded, wanted } = this;
    if (isCut(error) || !encoded || !wanted?.raw) {
      this.fail(error);
      return;
    }
    this.decode = this.decoder = undefined;
    decoder?.destroy();
    this.fault = undecodable(error);
    this.parts = encoded;
    this.size = encoded.reduce((sum, part) => sum + part.byteLength, 0);
    this.socket.resume();
    if (this.complete) this.deliver();
  }

  private onBody(part: Buffer): void {
    if (!this.exchange || this.complete) return;
    const decoder = this.decoding(part);
    if (!decoder) {
      this.take(part);
      return;
    }
    this.encoded?.push(part);
    this.encodedBytes += part.byteLength;
    if (this.encodedBytes > (this.wanted?.cap ?? 0)) this.encoded = undefined;
    if (!decoder.write(part)) this.socket.pause();
  }

  private take(part: Buffer): void {
    if (!this.wanted || !this.exchange) return;
    this.parts.push(part);
    this.size += part.byteLength;
    const { cap, whole } = this.wanted;
    if (this.size > cap) this.cut(whole ? NOTHING : this.bytes().subarray(0, cap));
  }

  /** The message is here; what is encoded still has to be decoded. */
  private finish(): void {
    if (this.decoder) this.decoder.end();
    else this.deliver();
  }

  private deliver(): void {
    const bytes = this.bytes();
    const { fault } = this;
    const exchange = this.end();
    if (!exchange) return;
    // A decoder may end before its message. An answer that came before its request was sent whole leaves the rest of it on the way.
    const { reuse } = exchange;
    const allowed = this.reusable && !this.surplus && (reuse === "vouched" || (reuse === "named" && this.named));
    if (allowed && this.complete && this.socket.writableLength === 0 && !this.socket.destroyed) {
      this.since = performance.now();
      if (this.first < 0) this.first = this.since;
      this.home.keep(this);
    } else this.socket.destroy();
    exchange.resolve({ bytes, complete: true, fault });
  }

  /** More is not wanted. */
  private cut(bytes: Uint8Array): void {
    this.end()?.resolve({ bytes, complete: false });
    this.socket.destroy();
  }

  private onEnd(): void {
    if (this.exchange && !this.complete) {
      this.parser.finish(); // an answer without a length ends here
      if (this.complete) this.finish();
    }
    this.theirs = true;
    this.close();
  }

  private onError(error: Error): void {
    this.theirs = true;
    if (this.exchange && this.complete)
      this.close(); // the answer is here, and is being decoded
    else this.fail(error);
  }

  private onClose(): void {
    this.home.drop(this, this.theirs);
    if (this.exchange && !this.complete)
      this.onError(Object.assign(new Error("the connection was closed"), { code: "ECONNRESET" }));
  }

  private fail(error: unknown): void {
    const { wanted } = this;
    const bytes = wanted ? this.bytes() : Buffer.concat(this.early);
    const exchange = this.end();
    this.socket.destroy();
    if (wanted && !wanted.whole) exchange?.resolve({ bytes, complete: false });
    else if (bytes.length > 0 && error instanceof Error && !exchange?.abort.aborted)
      exchange?.reject(Object.assign(error, { partial: bytes }));
    else exchange?.reject(error);
  }

  private bytes(): Uint8Array {
    return this.parts.length === 1 ? (this.parts[0] as Uint8Array) : Buffer.concat(this.parts);
  }

  /** Takes the exchange off the connection: from here on nothing more reaches it. */
  private end(): Exchange | undefined {
    const { exchange, decoder } = this;
    this.exchange = this.decoder = undefined;
    this.parts = [];
    if (decoder) {
      decoder.destroy();
      this.socket.resume(); // or the next answer would never be read
    }
    if (exchange) exchange.abort.onabort = undefined;
    return exchange;
  }
}

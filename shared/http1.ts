/**
 * One connection to a microservice over HTTP/1.1: a POST goes out, its answer comes in, then the next.
 *
 * The answer is read by llhttp, Node's parser, which Bun and Deno carry too; what is beside it is here.
 *
 *   connecting ──▶ in use ──▶ idle ──▶ in use …
 *                     └─▶ closed: the answer says so, is not wanted whole, or brought more than was asked for
 *
 * Never sends twice: what a closed connection did with its request nobody can know.
 */
import { Buffer } from "node:buffer"; // no global in Deno
import { connect, type Socket } from "node:net";
import { createGunzip, createInflate } from "node:zlib";
import type { Abort } from "./abort.ts";

export type Head = {
  status: number;
  /** @param name  in lower case @returns null when absent; several joined by ", " */
  header(name: string): string | null;
};
/**
 * What is wanted of the decoded body. `whole`: all of it, or none when it is longer than `cap` bytes, and a cut rejects.
 * Otherwise at most `cap` bytes, and what came before a cut is better than nothing.
 */
export type Wanted = { cap: number; whole: boolean };
/** `complete`: read to its end; otherwise the connection is no longer of use. */
export type Body = { bytes: Uint8Array; complete: boolean };
/** Who waits for an answer. */
export type Exchange = {
  abort: Abort;
  /** called once, when status and headers are in */
  onHead(head: Head): Wanted;
  resolve(body: Body): void;
  /** with the socket's error, `unsent` where no connection came about; abort's reason; llhttp's error (HPE_…); ECONNRESET */
  reject(error: unknown): void;
};

/** Where a connection waits between two requests. `drop`: it is closed, wherever it was; `theirs` = by the other side. */
export type Home = { keep(connection: Connection): void; drop(connection: Connection, theirs: boolean): void };

export const NOTHING = new Uint8Array(0);

/**
 * ms of silence before the kernel asks whether the other side still lives, as Bun's fetch has it: a call may be silent for hours,
 * and what stands between forgets a silent connection after some minutes. Under Bun, ten seconds without any answer end it.
 */
const KEEPALIVE_MS = 60_000;
/** of an answer's head */
const MAX_HEAD_BYTES = 65_536;

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

export class Connection {
  /** by performance.now(), when it last became idle; long ago where it never was */
  since = Number.NEGATIVE_INFINITY;
  /** likewise, the first time */
  first = Number.NEGATIVE_INFINITY;
  private readonly socket: Socket;
  private readonly parser = new HTTPParser();
  private connected = false;
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
  /** closed by the other side */
  private theirs = false;
  private decoder: Decoder | undefined;
  /** anything came for the decoder: no body at all is no encoded one */
  private encoded = false;

  /** @param home  where it waits for its next request; undefined = it serves one */
  constructor(
    host: string,
    port: number,
    private readonly home: Home | undefined,
  ) {
    const { parser } = this;
    parser.initialize(HTTPParser.RESPONSE, this, MAX_HEAD_BYTES, LENIENT);
    parser[HTTPParser.kOnMessageBegin] = () => {
      if (this.complete) this.reusable = false; // a second answer to one request
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
    this.socket = connect({ host, port });
    this.socket
      .on("connect", () => {
        this.connected = true;
        this.socket.setNoDelay(true);
        this.socket.setKeepAlive(true, KEEPALIVE_MS);
      })
      .on("data", (part) => this.onData(part as Buffer))
      .on("end", () => this.onEnd())
      .on("error", (error) => this.onError(error))
      .on("close", () => this.onClose());
  }

  /** @param request  head and body, as they are sent */
  send(request: string | Buffer, exchange: Exchange): void {
    this.exchange = exchange;
    this.headers = [];
    this.wanted = undefined;
    this.parts = [];
    this.size = 0;
    this.interim = this.complete = this.reusable = this.encoded = false;
    exchange.abort.onabort = () => this.fail(exchange.abort.reason);
    this.socket.write(request);
  }

  /** No request finds it any more. */
  close(): void {
    this.home?.drop(this, this.theirs);
    this.socket.destroy();
  }

  /** Whether a request may be sent: between a socket's end and its event it is still where it waited. */
  get alive(): boolean {
    return !this.socket.destroyed && this.socket.readable && this.socket.writable;
  }

  private onData(part: Buffer): void {
    if (!this.exchange) {
      this.theirs = true;
      this.close(); // nobody asked
      return;
    }
    const before = this.parts.length;
    try {
      const read = this.parser.execute(part);
      if (typeof read !== "number") {
        this.reusable = false;
        if (!this.complete) this.fail(read);
      }
    } catch (error) {
      this.fail(error); // of ours: it must not end the process
    }
    // A million chunks of a byte each would be as many objects.
    if (this.parts.length > before + 8) this.parts.push(Buffer.concat(this.parts.splice(before)));
    if (this.complete) this.finish();
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
    this.wanted = exchange.onHead({ status, header });
    const { cap, whole } = this.wanted;
    const encoding = header("content-encoding")?.trim().toLowerCase();
    const length = header("content-length");
    if (encoding && encoding !== "identity") this.decode(encoding, whole);
    else if (length === null) return 0;
    else if (header("transfer-encoding") !== null) this.reusable = false;
    else if (whole && Number(length) > cap) this.cut(NOTHING);
    return 0;
  }

  private decode(encoding: string, whole: boolean): void {
    const decoder = DECODERS.get(encoding)?.();
    if (!decoder) {
      const error = new Error(`Content-Encoding ${encoding.slice(0, 50)}, though none was asked for`);
      if (whole) this.fail(Object.assign(error, { code: "ERR_ENCODING" }));
      else this.cut(NOTHING); // a reason that nobody can read
      return;
    }
    this.decoder = decoder;
    decoder
      .on("data", (part: Buffer) => this.take(part))
      .on("drain", () => this.socket.resume())
      .on("error", (error) => this.decoder === decoder && this.fail(error))
      .on("end", () => this.decoder === decoder && this.deliver());
  }

  private onBody(part: Buffer): void {
    if (!this.exchange || this.complete) return;
    if (!this.decoder) {
      this.take(part);
      return;
    }
    this.encoded = true;
    if (!this.decoder.write(part)) this.socket.pause();
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
    if (this.decoder && this.encoded) this.decoder.end();
    else this.deliver();
  }

  private deliver(): void {
    const bytes = this.bytes();
    const exchange = this.end();
    if (!exchange) return;
    // A decoder may end before its message. An answer that came before its request was sent whole leaves the rest of it on the way.
    if (this.home && this.complete && this.reusable && this.socket.writableLength === 0 && !this.socket.destroyed) {
      this.since = performance.now();
      if (this.first < 0) this.first = this.since;
      this.home.keep(this);
    } else this.socket.destroy();
    exchange.resolve({ bytes, complete: true });
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
    else this.fail(this.connected ? error : Object.assign(error, { unsent: true }));
  }

  private onClose(): void {
    this.home?.drop(this, this.theirs);
    if (this.exchange && !this.complete)
      this.onError(Object.assign(new Error("the connection was closed"), { code: "ECONNRESET" }));
  }

  private fail(error: unknown): void {
    const { wanted } = this;
    const half = wanted && !wanted.whole ? { bytes: this.bytes(), complete: false } : undefined;
    const exchange = this.end();
    this.socket.destroy();
    if (half) exchange?.resolve(half);
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

type Decoder = ReturnType<typeof createGunzip>;
/** None is asked for, as the way is short. A service that encodes anyway is understood; Deno's brotli would not notice a cut. */
const DECODERS = new Map<string, () => Decoder>([
  ["gzip", createGunzip],
  ["x-gzip", createGunzip],
  ["deflate", createInflate],
]);

/** @param headers  name, value, name, value, … as they came */
function headerOf(headers: string[], name: string): string | null {
  let found: string | null = null;
  for (let i = 0; i < headers.length; i += 2) {
    const each = headers[i] as string;
    if (each.length !== name.length || each.toLowerCase() !== name) continue;
    found = found === null ? (headers[i + 1] as string) : `${found}, ${headers[i + 1]}`;
  }
  return found;
}

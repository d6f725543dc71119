/**
 * Opens a TCP connection within a time limit of its own. Every failure here means that nothing was sent.
 *
 * A name may have several addresses: the next one is tried when one fails or stays silent for a moment (RFC 8305, "happy
 * eyeballs"). Bun and Deno differ in which addresses they try by themselves, so that it is done here for both.
 */
import { lookup } from "node:dns";
import { connect, isIP, type Socket } from "node:net";

/** No connection came about: the request surely was not delivered. `code` is that of the runtime, where it has one. */
export class Unreachable extends Error {
  readonly unsent = true;
  readonly code: string | undefined;
  constructor(cause: unknown) {
    const { code, message } = cause as { code?: unknown; message?: string };
    super(message ?? String(cause), { cause });
    this.code = typeof code === "string" ? code : undefined;
  }
}

type Address = { address: string; family: number };
export type Lookup = (host: string, done: (error: Error | null, found: Address[]) => void) => void;
const systemLookup: Lookup = (host, done) => lookup(host, { all: true }, done);

/** ms after which the next address is tried beside one that stays silent */
const NEXT_ADDRESS_MS = 250;
/** `localhost` is this machine by either family (RFC 6761), whatever /etc/hosts says */
const LOOPBACK = [
  { address: "127.0.0.1", family: 4 },
  { address: "::1", family: 6 },
];

/** The families by turns, beginning with the one that the system prefers. */
function inOrder(found: Address[]): Address[] {
  const first = found.filter(({ family }) => family === found[0]?.family);
  const second = found.filter(({ family }) => family !== found[0]?.family);
  const order: Address[] = [];
  for (let i = 0; i < found.length; i++) order.push(...[first[i], second[i]].filter((each) => each !== undefined));
  return order;
}

const isLocalhost = (host: string) => /^(?:.+\.)?localhost\.?$/i.test(host);

/**
 * @param limitMs  for all of it: name server, every address, handshake
 * @param done     called once, with a connected socket or an Unreachable; never after the returned function was called
 * @returns gives up
 */
export function dial(
  host: string,
  port: number,
  limitMs: number,
  done: (error: Unreachable | undefined, socket?: Socket) => void,
  resolve: Lookup = systemLookup,
): () => void {
  const trying = new Set<Socket>();
  const left: Address[] = [];
  let failure: unknown;
  let over = false;
  let next: ReturnType<typeof setTimeout> | undefined;
  const stop = () => {
    over = true;
    clearTimeout(limit);
    clearTimeout(next);
    for (const socket of trying) socket.destroy();
  };
  const fail = (error: unknown) => {
    if (over) return;
    stop();
    done(new Unreachable(error));
  };
  const limit = setTimeout(
    () => fail(new Error(`no connection within ${Math.round(limitMs)} ms (CONNECT_TIMEOUT)`)),
    limitMs,
  );
  const tryNext = () => {
    clearTimeout(next);
    const to = left.shift();
    if (over || !to) return;
    if (left.length > 0) next = setTimeout(tryNext, NEXT_ADDRESS_MS);
    const socket = connect({ host: to.address, port });
    const failed = (error: unknown) => {
      if (!trying.delete(socket)) return;
      failure ??= error;
      socket.destroy();
      if (left.length > 0) tryNext();
      else if (trying.size === 0) fail(failure);
    };
    trying.add(socket);
    socket
      .on("error", failed)
      .once("close", () => failed(new Error("the connection was closed")))
      .once("connect", () => {
        if (over) return;
        trying.delete(socket);
        stop();
        socket.removeAllListeners("close").removeListener("error", failed);
        done(undefined, socket);
      });
  };
  const begin = (found: Address[]) => {
    left.push(...found);
    tryNext();
  };
  const family = isIP(host);
  if (family) begin([{ address: host, family }]);
  else
    resolve(host, (error, found) => {
      if (over) return;
      const known = isLocalhost(host) ? LOOPBACK : [];
      const all = [...(error ? [] : found), ...known.filter((own) => !found?.some((f) => f.address === own.address))];
      if (all.length > 0) begin(inOrder(all));
      else fail(error ?? new Error(`${host} has no address`));
    });
  return () => {
    if (!over) stop();
  };
}

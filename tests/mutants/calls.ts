/** Ways to break a call: an answer that reaches the wrong job, a call that never ends, a POST that is sent twice. */
import { by, type Mutant } from "./list.ts";

const sockets = (name: string) => by("call-sockets", name);

const odd = (name: string) => by("call-odd", name);

export const CALL_MUTANTS: Mutant[] = [
  {
    name: "call: a connection on which a second answer began serves another call",
    file: "shared/http1.ts",
    from: "if (this.complete) this.reusable = false; // a second answer to one request",
    to: "",
    ...sockets("more came than was asked for"),
  },
  {
    name: "call: the body of a second answer is added to the first one's",
    file: "shared/http1.ts",
    from: "if (!this.exchange || this.complete) return;",
    to: "if (!this.exchange) return;",
    ...sockets("more came than was asked for"),
  },
  {
    name: "call: what comes on an idle connection is kept for the next call",
    file: "shared/http1.ts",
    from: "      this.close(); // nobody asked\n      return;\n",
    to: "      this.parser.execute(part);\n      return;\n",
    ...sockets("more came than was asked for"),
  },
  {
    name: "call: a connection that was paused for a decoder stays so",
    file: "shared/http1.ts",
    from: "      this.socket.resume(); // or the next answer would never be read\n",
    to: "",
    ...sockets("had to be decoded"),
  },
  {
    name: "call: a connection with half a request on its way serves another call",
    file: "shared/http1.ts",
    from: "this.socket.writableLength === 0 && ",
    to: "",
    ...sockets("refused a long body"),
  },
  {
    name: "call: an idle connection is never closed",
    file: "shared/transport.ts",
    from: "    this.idle.push(connection);\n    lookLater();\n",
    to: "    this.idle.push(connection);\n",
    ...sockets("idle for a second"),
  },
  {
    name: "call: one that was taken back is sent all the same",
    file: "shared/transport.ts",
    from: "    if (letter.abort.aborted) continue;\n",
    to: "",
    ...sockets("taken back"),
  },
  {
    name: "call: fields after the body are taken for headers",
    file: "shared/http1.ts",
    from: "if (!this.wanted) this.headers.push(...headers);",
    to: "this.headers.push(...headers);",
    ...sockets("many headers"),
  },
  {
    name: "call: the kernel does not ask whether a silent service lives",
    file: "shared/http1.ts",
    from: "        this.socket.setKeepAlive(true, KEEPALIVE_MS);\n",
    to: "",
    ...sockets("asked by the kernel"),
  },
  {
    name: "call: a connection that never came about is told as one that broke",
    file: "shared/http1.ts",
    from: "Object.assign(error, { unsent: true })",
    to: "Object.assign(error, { code: 'ECONNRESET' })",
    ...by("call-failures", "a closed port"),
  },
  {
    name: "call: a connection serves another call once its decoder has ended, though its answer has not",
    file: "shared/http1.ts",
    from: "this.home && this.complete && this.reusable",
    to: "this.home && this.reusable",
    ...odd("before its message has ended"),
  },
  {
    name: "call: encodings are looked up among an object's own methods",
    file: "shared/decode.ts",
    from: "return DECODERS.get(name) ??",
    to: "return (Object.fromEntries(DECODERS) as Record<string, () => Decoder>)[name] ??",
    ...odd("one that nobody knows"),
  },
  {
    name: "call: a result in an unknown encoding is kept as it is",
    file: "shared/http1.ts",
    from: "this.fault = decode;",
    to: "",
    ...odd("one that nobody knows"),
  },
  {
    name: "call: an answer is thrown away when its connection breaks while it is decoded",
    file: "shared/http1.ts",
    from: "if (this.exchange && this.complete)",
    to: "if (false)",
    ...odd("whatever becomes of its connection"),
  },
  {
    name: "call: a service that closes after each answer is given connections that are about to close",
    file: "shared/transport.ts",
    from: "if (theirs && now - connection.first < SOON_MS)",
    to: "if (false)",
    ...sockets("hardly used again"),
  },
  {
    name: "call: a message with a length beside chunks leaves its connection to another call",
    file: "shared/http1.ts",
    from: 'else if (header("transfer-encoding") !== null) this.reusable = false;',
    to: "else if (false) this.reusable = false;",
    ...odd("a length beside chunks"),
  },
];

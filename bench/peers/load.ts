/** What client.ts starts, on bare sockets, so that it takes as little as may be of the cores that the contenders need. */
import type { Socket } from "bun";
import type { Order, Sent } from "../client.ts";

const body = process.env.BODY as string;
const url = new URL(process.env.URL as string);
const request = Buffer.from(
  `POST /noop HTTP/1.1\r\nhost: ${url.host}\r\naccept: */*\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
);

/** One kept-alive connection that makes one request at a time. */
class Client {
  /** Whatever is written to it is never answered. */
  closed = false;
  private text = "";
  private done: ((body: string) => void) | undefined;
  private failed: ((error: Error) => void) | undefined;

  private constructor(private readonly socket: Socket<undefined>) {}

  static async open(): Promise<Client> {
    let client: Client | undefined;
    const close = (error = new Error("the gateway closed the connection")) => {
      if (client) client.closed = true;
      client?.failed?.(error);
    };
    const socket = await Bun.connect<undefined>({
      hostname: url.hostname,
      port: Number(url.port),
      socket: {
        data: (_, part) => client?.read(part.toString("latin1")),
        close: (_, error) => close(error ?? undefined),
        error: (_, error) => close(error),
      },
    });
    client = new Client(socket);
    return client;
  }

  /** @returns the body of the 202 */
  post(): Promise<string> {
    return new Promise((done, failed) => {
      this.done = done;
      this.failed = failed;
      // a loopback socket with nothing in it takes a request of some hundred bytes whole
      if (this.socket.write(request) !== request.length) failed(new Error("a request was not written whole"));
    });
  }

  close(): void {
    this.socket.end();
  }

  private read(part: string): void {
    this.text += part;
    const head = this.text.indexOf("\r\n\r\n");
    if (head < 0) return;
    const length = Number(/\r\ncontent-length: *(\d+)/i.exec(this.text.slice(0, head + 2))?.[1] ?? Number.NaN);
    if (Number.isNaN(length)) throw new Error(`an answer without a length:\n${this.text}`);
    if (this.text.length < head + 4 + length) return;
    const answered = this.text.slice(head + 4, head + 4 + length);
    if (!this.text.startsWith("HTTP/1.1 202 ")) throw new Error(`answered ${this.text}`);
    this.text = this.text.slice(head + 4 + length);
    this.done?.(answered);
  }
}

const open = () => Promise.all(Array.from({ length: Number(process.env.CONCURRENCY) }, () => Client.open()));

/** @param first  jobs before the clock starts; connections are made before, too @returns ms of the others */
async function submit(jobs: number, first: number): Promise<number> {
  const clients = await open();
  let [left, done] = [jobs, 0];
  let start = performance.now();
  await Promise.all(
    clients.map(async (client) => {
      while (left-- > 0) {
        await client.post();
        if (++done === first) start = performance.now();
      }
    }),
  );
  const ms = performance.now() - start;
  for (const client of clients) client.close();
  return ms;
}

/** @param rate  posts a second @returns their ids and when they were sent, in ms since 1970 */
async function pace(rate: number, seconds: number): Promise<Sent> {
  const idle = await open();
  const sent: Promise<Sent[number]>[] = [];
  const post = async (): Promise<Sent[number]> => {
    const at = performance.timeOrigin + performance.now();
    // the one that has rested longest: a gateway may close what rests for 10 s
    let client = idle.shift();
    while (client?.closed) client = idle.shift();
    client ??= await Client.open();
    const { job_id } = JSON.parse(await client.post()) as { job_id: string };
    idle.push(client);
    return [job_id, at];
  };
  // New connections first: they are not what is measured.
  await Promise.all(idle.map((client) => client.post()));
  await Bun.sleep(300);
  const start = performance.now();
  for (let i = 0; i < rate * seconds; i++) {
    const wait = start + (i * 1_000) / rate - performance.now();
    if (wait > 0) await Bun.sleep(Math.ceil(wait)); // when a job was sent is told as it was, not as planned
    sent.push(post());
  }
  const all = await Promise.all(sent);
  for (const client of idle) client.close();
  return all;
}

process.on("message", async (order: Order) => {
  process.send?.("jobs" in order ? await submit(order.jobs, order.first) : await pace(order.rate, order.seconds));
});

/** Receives callbacks under chaos: it refuses one of twenty, and keeps a ledger of what it was sent. */
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

export type Callback = { id: string; state: string; run: number };
export type Receiver = {
  url: string;
  secret: string;
  /** callbacks that it took, by the number of the job */
  taken: Map<number, Callback[]>;
  /** those whose signature or body was not as promised */
  faults: string[];
  stop(): void;
};

export async function startReceiver(random: () => number): Promise<Receiver> {
  const secret = `whsec_${Buffer.from("a secret of the chaos run, 32 b.").toString("base64")}`;
  const webhook = new Webhook(secret);
  const taken = new Map<number, Callback[]>();
  const faults: string[] = [];
  const server = createServer(async (request, response) => {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    if (random() < 0.05) return response.writeHead(500).end();
    const n = Number(request.url?.slice(1));
    const headers = Object.fromEntries(
      ["webhook-id", "webhook-timestamp", "webhook-signature"].map((name) => [name, String(request.headers[name])]),
    );
    const text = Buffer.concat(parts).toString();
    try {
      webhook.verify(text, headers);
    } catch (error) {
      // also of a sender whose clock was set: it signs with Redis's time
      faults.push(`callback of ${n}: ${error}`);
    }
    const record = JSON.parse(text) as { job_id: string; status?: string; state?: string; run?: number };
    taken.set(n, [
      ...(taken.get(n) ?? []),
      { id: record.job_id, state: String(record.state ?? record.status), run: record.run ?? 0 },
    ]);
    response.writeHead(204).end();
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return {
    url: `http://127.0.0.1:${(server.address() as { port: number }).port}`,
    secret,
    taken,
    faults,
    stop() {
      server.close();
      server.closeAllConnections();
    },
  };
}

/**
 * A loopback TCP proxy that loses answers. Requests always pass: what is lost is what the other side already did.
 *
 *   drop    the answer is swallowed and the connection closed: the asker does not know whether it happened
 *   cut     half of the answer passes, then the connection is closed
 *   delay   the answer comes late
 *   half    from now on this connection carries no answer and stays open (a host that vanished)
 *   refuse  nobody listens any more, and the connections there were are closed
 */
import { createServer, connect as dial, type Socket } from "node:net";
import { freePort } from "../support/redis.ts";

export type Loss = { kind: "drop" | "cut" | "delay" | "half" | "refuse"; chance: number; delayMs?: number };
export type LossyProxy = {
  port: number;
  /** what happens to answers from now on; undefined = nothing */
  lose(loss: Loss | undefined): void;
  /** answers that were lost or late so far */
  readonly hits: number;
  stop(): void;
};

export async function startLossyProxy(target: number, random: () => number): Promise<LossyProxy> {
  let loss: Loss | undefined;
  let hits = 0;
  const pairs = new Set<{ near: Socket; far: Socket; dead: boolean }>();
  const port = await freePort();
  const server = createServer({ noDelay: true }, (near) => {
    const far = dial({ port: target, host: "127.0.0.1", noDelay: true });
    const pair = { near, far, dead: false };
    pairs.add(pair);
    const close = () => {
      pairs.delete(pair);
      near.destroy();
      far.destroy();
    };
    for (const socket of [near, far]) {
      socket.on("error", close);
      socket.on("close", close);
    }
    near.on("data", (bytes) => far.write(bytes));
    let order = Promise.resolve(); // late answers keep their order
    far.on("data", (bytes: Buffer) => {
      if (pair.dead) return;
      const now = loss && random() < loss.chance ? loss : undefined;
      if (!now) {
        void order.then(() => near.write(bytes));
        return;
      }
      hits++;
      if (now.kind === "delay") {
        order = order.then(() => Bun.sleep(now.delayMs ?? 200)).then(() => void near.write(bytes));
      } else if (now.kind === "half") {
        pair.dead = true;
      } else {
        if (now.kind === "cut") near.write(bytes.subarray(0, bytes.length >> 1));
        near.end();
        setTimeout(close, 5);
      }
    });
  });
  await new Promise<void>((done) => server.listen(port, "127.0.0.1", done));
  return {
    port,
    lose(next) {
      if (loss?.kind === "refuse") server.listen(port, "127.0.0.1");
      loss = next;
      if (next?.kind === "refuse") {
        hits++;
        server.close();
        for (const { near, far } of pairs) {
          near.destroy();
          far.destroy();
        }
      }
    },
    get hits() {
      return hits;
    },
    stop() {
      server.close();
      for (const { near, far } of pairs) {
        near.destroy();
        far.destroy();
      }
    },
  };
}

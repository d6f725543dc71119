/** Effects of ended jobs for elsewhere: leased, delivered at least once, idempotent at the receiver. */
import type { ServiceName } from "../jobs.ts";
import { root } from "../keys.ts";
import { type Connection, script } from "../script.ts";

const leaseScript = script<{ lease: "int"; most: "int" }, (string | number)[]>("outbox-lease", {
  lease: "int",
  most: "int",
});
const settleScript = script<{ entry: "text"; due: "int"; delay: "int" }, "ok" | "lost">("outbox-settle", {
  entry: "text",
  due: "int",
  delay: "int",
});

/** `due` is the fence: only who shows it may change the entry. */
export type Effect = { entry: string; due: number };

export class Outbox {
  constructor(private readonly redis: Connection) {}

  /** Takes what is due; nobody else gets it for `leaseMs`. */
  async lease(service: ServiceName, leaseMs: number, most: number): Promise<Effect[]> {
    const flat = await leaseScript(this.redis, root(service), { lease: leaseMs, most });
    const effects: Effect[] = [];
    for (let i = 0; i < flat.length; i += 2) effects.push({ entry: String(flat[i]), due: Number(flat[i + 1]) });
    return effects;
  }

  done(service: ServiceName, { entry, due }: Effect) {
    return settleScript(this.redis, root(service), { entry, due, delay: -1 });
  }

  again(service: ServiceName, { entry, due }: Effect, delayMs: number) {
    return settleScript(this.redis, root(service), { entry, due, delay: Math.round(delayMs) });
  }
}

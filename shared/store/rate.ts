/** Rate limits, kept in Redis: a caller has one rate, however many gateways it asks. */
import { rateKey } from "../keys.ts";
import { type Connection, script } from "../script.ts";

const rateScript = script<{ interval: "int"; burst: "int" }, number>("rate", { interval: "int", burst: "int" });

/** So many requests in so many ms; as many may come at once. */
export type Rate = { requests: number; perMs: number };

/** Counts a request. @returns ms until one fits; 0 = this one does */
export const take = (redis: Connection, caller: string, { requests, perMs }: Rate): Promise<number> =>
  rateScript(redis, rateKey(caller), {
    interval: Math.max(1, Math.round((perMs * 1_000) / requests)),
    burst: requests,
  });

/**
 * Whether the Redis of REDIS_URL may be used, asked as gateway and worker ask it. A process of its own, as settings.ts: its packages
 * may have been installed a moment ago. Prints why not, and ends with 1.
 */
import process from "node:process";
import { tellAway } from "../shared/away.ts";
import { connect } from "../shared/store/redis.ts";

/** ms that Redis has to answer. */
const WAIT_MS = 3_000;

const url = process.env.REDIS_URL ?? "";
const redis = connect(url, "work", "longhaul-up");
const end = (why?: string) => {
  if (why !== undefined) console.error(why);
  process.exit(why === undefined ? 0 : 1);
};
redis.on("ready", () => end());
redis.on("unfit", (error: Error) => end(`Redis cannot be used: ${error.message}.`));
const warn = (line: string) => end(line.replace(/; waiting for it.*/, "."));
tellAway(redis, url, { warn, info: () => {} }, { firstMs: WAIT_MS });

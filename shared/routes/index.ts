/** The apps that are mounted on the gateway, and the dashboard's own. Each is one concern; none knows another. */
import type { Hono } from "hono";
import type { Env, Gateway } from "../app.ts";
import { alerts } from "./alerts.ts";
import { batches } from "./batches.ts";
import { dashboard } from "./dashboard.ts";
import { deliveries } from "./deliveries.ts";
import { download } from "./download.ts";
import { edge } from "./edge.ts";
import { files, LINK, LIST } from "./files.ts";
import { follow } from "./follow.ts";
import { jobs } from "./jobs.ts";
import { list, QUERY } from "./list.ts";
import { metrics } from "./metrics.ts";
import { openapi } from "./openapi.ts";
import { BULK, operate } from "./operate.ts";
import { PROGRESS, progress } from "./progress.ts";
import { result } from "./result.ts";
import { FROM_URL, KINDS, upload } from "./upload.ts";
import { workers } from "./workers.ts";

/** What the routes check requests with, for the document that tells of them. */
const asked = {
  bulk: BULK,
  fromUrl: FROM_URL,
  jobs: QUERY,
  kinds: Object.keys(KINDS),
  link: LINK,
  list: LIST,
  progress: PROGRESS,
};

export const routes: ((gateway: Gateway) => Hono<Env>)[] = [
  alerts,
  batches,
  deliveries,
  download,
  files,
  follow,
  jobs,
  list,
  metrics,
  (gateway) => openapi(gateway, asked),
  operate,
  progress,
  result,
  upload,
  workers,
];
export { dashboard, edge };

/** The apps that are mounted on the gateway, and the dashboard's own. Each is one concern; none knows another. */
import type { Hono } from "hono";
import type { Env, Gateway } from "../app.ts";
import { batches } from "./batches.ts";
import { dashboard } from "./dashboard.ts";
import { deliveries } from "./deliveries.ts";
import { download } from "./download.ts";
import { edge, sealed } from "./edge.ts";
import { files } from "./files.ts";
import { follow } from "./follow.ts";
import { jobs } from "./jobs.ts";
import { list } from "./list.ts";
import { metrics } from "./metrics.ts";
import { operate } from "./operate.ts";
import { progress } from "./progress.ts";
import { result } from "./result.ts";
import { upload } from "./upload.ts";

export const routes: ((gateway: Gateway) => Hono<Env>)[] = [
  batches,
  deliveries,
  download,
  files,
  follow,
  jobs,
  list,
  metrics,
  operate,
  progress,
  result,
  upload,
];
export { dashboard, edge, sealed };

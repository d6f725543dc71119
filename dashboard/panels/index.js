// Every panel: one module with `title` and `view(state)`. A new one is one file and one line here.
import * as alerts from "./alerts.js";
import * as files from "./files.js";
import * as job from "./job.js";
import * as jobs from "./jobs.js";
import * as overview from "./overview.js";
import * as submit from "./submit.js";
import * as workers from "./workers.js";

export const panels = { overview, jobs, job, workers, files, alerts, submit };

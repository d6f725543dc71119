// Everything that a click can do. Panels call these as state.do.…; each tells how it went in a notice.
import { call, get, post, upload } from "./api.js";
import { to, toJob } from "./route.js";

const TYPES = { ifc: /\.(ifc|ifczip)$/i, ids: /\.ids$/i, bcf: /\.(bcf|bcfzip)$/i, csv: /\.(csv|xlsx|ods)$/i };
const typeOf = (name) => Object.keys(TYPES).find((type) => TYPES[type].test(name)) ?? "other";
const pause = (ms) => new Promise((next) => setTimeout(next, ms));
const path = encodeURIComponent;

export function actions(store, load, signedIn) {
  const { get: state, set } = store;
  let count = 0;

  /** Says something; it goes by itself unless it is a fault. */
  function note(text, kind = "done", href) {
    const id = ++count;
    set({ notices: [...state().notices.slice(-3), { id, text, kind, href }] });
    if (kind !== "fault") setTimeout(() => act.forget(id), 8_000);
  }
  /** Does something and says how it went. @returns its value, or undefined when it failed */
  async function attempt(work, told) {
    try {
      const value = await work();
      const text = typeof told === "function" ? told(value) : told;
      if (text) note(text);
      return value ?? true;
    } catch (error) {
      if (error.status === 401) set({ link: "signed out" });
      note(error.message, "fault");
      return undefined;
    }
  }
  const again = () => {
    const { route } = state();
    if (route.panel === "jobs") load.jobs();
    if (route.panel === "job") load.job(route.id);
  };

  /** Follows an action on many jobs to its end. */
  async function watchBulk(bulk) {
    const put = (one) => set({ bulks: [...state().bulks.filter((b) => b.bulk_id !== one.bulk_id), one] });
    put(bulk);
    let seen = bulk;
    while (seen.status !== "done") {
      await pause(600);
      seen = await get(`api/jobs/bulk/${path(bulk.bulk_id)}`).catch(() => seen);
      put(seen);
    }
    again();
    await pause(10_000);
    act.forgetBulk(bulk.bulk_id);
  }

  const act = {
    note,
    forget: (id) => set({ notices: state().notices.filter((notice) => notice.id !== id) }),
    forgetBulk: (id) => set({ bulks: state().bulks.filter((bulk) => bulk.bulk_id !== id) }),
    go(hash) {
      location.hash = hash;
    },
    /** Sets fields of the address's query; an empty one goes. */
    filter(fields) {
      const { route } = state();
      location.hash = to(route.panel === "job" ? "jobs" : route.panel, { ...route.query, ...fields });
    },
    /** Asks before something that cannot be taken back. @param dialog {title, text, confirm, danger, run} */
    ask: (dialog) => set({ dialog }),
    close: () => set({ dialog: undefined }),
    async signIn(key) {
      try {
        await post("signin", { key });
        signedIn();
      } catch (error) {
        return error.message;
      }
    },
    signOut: () => attempt(() => post("signout")).then(() => location.reload()),
    /** @param sentence  a sentence, or its beginning: "The id is" */
    copy: (text, sentence) => attempt(() => copy(text), sentence.endsWith(".") ? sentence : `${sentence} copied.`),

    range(range) {
      set({ range });
      load.chart();
    },
    chartService(chartService) {
      set({ chartService });
      load.chart();
    },

    pick(id, on) {
      const picked = new Set(state().picked);
      if (on) picked.add(id);
      else picked.delete(id);
      set({ picked });
    },
    pickAll: (ids) => set({ picked: new Set(ids) }),
    more: () => load.more(),
    again,

    requeue: (id) => attempt(() => post(`api/jobs/${path(id)}/requeue`), "Queued again.").then(again),
    cancel: (id) =>
      attempt(
        () => post(`api/jobs/${path(id)}/cancel`),
        (r) => (r.status === "canceling" ? "Its call is being closed." : "Canceled; it will not run."),
      ).then(again),
    remove: (id) =>
      attempt(() => call("DELETE", `api/jobs/${path(id)}`), "Deleted.").then((ok) => ok && act.go(to("jobs"))),
    /** Counts what a bulk action would hit. @returns the count, or undefined */
    async countBulk(filter, action) {
      let seen = await attempt(() => post("api/jobs/bulk", { filter, action, dry_run: true }));
      while (seen && seen.status !== "done") {
        await pause(300);
        const id = seen.bulk_id;
        seen = await attempt(() => get(`api/jobs/bulk/${path(id)}`));
      }
      return seen?.matched;
    },
    async bulk(filter, action) {
      const started = await attempt(() => post("api/jobs/bulk", { filter, action }));
      if (!started) return;
      set({ picked: new Set() });
      watchBulk(started);
    },

    pauseQueue: (service) =>
      attempt(
        () => post(`api/queues/${path(service)}/pause`),
        (r) => `${service} is paused; ${r.queued} wait.`,
      ),
    resumeQueue: (service) =>
      attempt(
        () => post(`api/queues/${path(service)}/resume`),
        (r) => `${service} goes on; ${r.queued} wait.`,
      ),
    emptyQueue: (service) =>
      attempt(
        () => post(`api/queues/${path(service)}/empty`),
        (r) => `${service} is emptied: ${r.emptied} canceled.`,
      ),
    orderWorker: (id, order) =>
      attempt(
        () => post(`api/workers/${path(id)}/${order}`),
        order === "quiet" ? `Worker ${id} takes nothing more.` : `Worker ${id} ends when its calls have ended.`,
      ),

    draft: (draft) => set({ draft }),
    /** Opens the form with a job's operation and payload. */
    editJob(record) {
      const options = { priority: record.priority === 5 ? "" : record.priority, tags: record.tags.join(",") };
      set({ draft: { operation: record.operation, value: record.payload, of: record.job_id, options } });
      act.go(to("submit", { op: record.operation, of: record.job_id }));
    },
    /** @param body text of {operation, payload, of, options}. @returns faults by field, or undefined when accepted */
    async submit(body) {
      try {
        const { job_id } = await post("submit", body);
        set({ draft: undefined });
        note("Accepted.", "done", toJob(job_id));
        act.go(toJob(job_id));
        return undefined;
      } catch (error) {
        return { text: error.message, errors: error.errors ?? [] };
      }
    },

    async upload(files) {
      for (const file of files) {
        const id = ++count;
        const put = (fields) =>
          set({
            uploads: [
              ...state().uploads.filter((u) => u.id !== id),
              { id, name: file.name, size: file.size, ...fields },
            ],
          });
        put({ share: 0 });
        try {
          const { file_path } = await upload(`api/upload/${typeOf(file.name)}`, file, (share) => put({ share }));
          put({ share: 1, path: file_path });
          load.files();
        } catch (error) {
          put({ fault: error.message });
        }
      }
    },
    forgetUpload: (id) => set({ uploads: state().uploads.filter((one) => one.id !== id) }),
    async download(file) {
      const made = await attempt(() => post("api/create_download_link", { file_path: file }));
      if (made) location.assign(`api/download/${path(made.download_token ?? made.token)}`);
    },
  };
  return act;
}

/** Without https or localhost a browser has no clipboard; the old way still works there. */
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("This browser does not let a page copy.");
}

// What a panel needs is loaded when it is entered, and again while it is looked at.
import { get, query, Refused } from "./api.js";
import { ageFilter } from "./route.js";

/** The list's answer, whatever the page asked for. */
const PAGE = 50;

export function loader(store, note) {
  const { get: state, set } = store;

  /** Runs a load; its failure stands where its result would. Only the newest answer of a name counts. */
  const turns = {};
  async function into(name, work) {
    turns[name] = (turns[name] ?? 0) + 1;
    const turn = turns[name];
    try {
      const value = await work();
      if (turns[name] === turn) set({ [name]: value });
    } catch (error) {
      if (turns[name] !== turn) return;
      if (error instanceof Refused && error.status === 401) return set({ link: "signed out" });
      const before = state()[name];
      // what was there stays, with the fault beside it
      set({ [name]: { ...(before ?? {}), fault: { text: error.message, status: error.status } } });
    }
  }

  const filterOf = ({ service, state: status, tag, q, older }) => ({
    service,
    state: status,
    tag,
    q,
    ...ageFilter(older),
  });
  const load = {
    chart() {
      const { range, chartService, charts } = state();
      const name = `${range} ${chartService}`;
      return get(`history.json${query({ range, service: chartService })}`).then(
        (chart) => set({ charts: { ...charts, [name]: chart } }),
        () => {}, // the figures stand beside it; the link says what is wrong
      );
    },
    /** The first page of the filter in the address; `quiet` keeps the pages that were added. */
    jobs(quiet = false) {
      const { route, list } = state();
      if (quiet && list?.pages > 1) return;
      const fields = filterOf(route.query);
      const key = JSON.stringify(fields);
      if (list?.key !== key) set({ list: { key, jobs: undefined }, picked: new Set() });
      return into("list", async () => {
        const page = await get(`api/jobs${query({ ...fields, limit: PAGE })}`);
        return { key, ...pageOf(page), pages: 1 };
      });
    },
    more() {
      const { list, route } = state();
      if (!list?.cursor) return;
      set({ list: { ...list, adding: true } });
      return into("list", async () => {
        const page = pageOf(
          await get(`api/jobs${query({ ...filterOf(route.query), limit: PAGE, cursor: list.cursor })}`),
        );
        const known = new Set(list.jobs.map((job) => job.job_id));
        const jobs = [...list.jobs, ...page.jobs.filter((job) => !known.has(job.job_id))]; // a job may have moved on
        return { ...page, key: list.key, jobs, scanned: list.scanned + page.scanned, pages: list.pages + 1 };
      });
    },
    job(id) {
      if (state().job?.id !== id) set({ job: { id }, batch: undefined });
      return into("job", async () => {
        const record = await get(`api/jobs/${encodeURIComponent(id)}`);
        if (record.batch_id && state().batch?.batch_id !== record.batch_id) load.batch(record.batch_id);
        const { job } = state();
        if (record.options.callback_url) load.deliveries(id);
        return { id, record, deliveries: job?.id === id ? job.deliveries : undefined };
      });
    },
    /** The tries of a job's callback; without them the job is still worth showing. */
    async deliveries(id) {
      const deliveries = await get(`api/jobs/${encodeURIComponent(id)}/deliveries`).catch(() => undefined);
      const { job } = state();
      if (deliveries && job?.id === id) set({ job: { ...job, deliveries } });
    },
    /** How far a running job is; its whole record again when its state has changed. */
    async progress(id) {
      const seen = await get(`api/jobs/${encodeURIComponent(id)}/status`).catch(() => undefined);
      const { job } = state();
      if (!seen || job?.id !== id || !job.record) return;
      if (seen.status !== job.record.status) return load.job(id);
      const { progress, message, eta_s, position } = seen;
      set({ job: { ...job, record: { ...job.record, progress, message, eta_s, position } } });
    },
    batch: (id) => into("batch", () => get(`api/batches/${encodeURIComponent(id)}?ids`)),
    files: () => into("files", () => get("api/list_directories")),
    alerts: () => into("alerts", () => get("api/alerts")),
    audit: () => into("audit", () => get("api/audit?limit=100")),
    operations: () => (state().operations?.operations ? undefined : into("operations", () => get("operations.json"))),
  };

  /** One answer of GET /jobs as the list shows it. */
  function pageOf(page) {
    const { jobs, next, scanned, reached } = page;
    return { jobs, cursor: next, scanned, reached, fault: undefined };
  }

  const running = (job) => job?.record && !["finished", "failed", "canceled"].includes(job.record.status);
  /** What a panel needs at first. */
  function enter(route) {
    if (route.panel === "overview") load.chart();
    if (route.panel === "jobs") load.jobs();
    if (route.panel === "job") load.job(route.id);
    if (route.panel === "files" || route.panel === "submit") load.files();
    if (route.panel === "submit" || route.panel === "job") load.operations();
    if (route.panel === "alerts") {
      load.alerts();
      if (state().you?.scope === "admin") load.audit();
    }
  }

  /** Called every second while the page is seen; `n` counts. */
  function refresh(n) {
    const { route, job, range, link } = state();
    if (link === "signed out") return;
    if (route.panel === "overview" && n % (range === "1h" ? 6 : 30) === 0) load.chart();
    if (route.panel === "jobs" && n % 4 === 0) load.jobs(true);
    // No stream of its own: a browser has six connections, and a stream would hold one in each window.
    if (route.panel === "job" && running(job)) n % 15 === 0 ? load.job(route.id) : load.progress(route.id);
    if (route.panel === "alerts" && n % 5 === 0) load.alerts();
  }

  return { load, enter, refresh, note };
}

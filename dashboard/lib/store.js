// The page's one state. Panels read it and call state.do; only lib/ writes it.

export function makeStore(initial, onChange) {
  let state = initial;
  let due = false;
  return {
    get: () => state,
    /** Lays `patch` over the state; the page is drawn once for all changes of one turn. */
    set(patch) {
      state = { ...state, ...patch };
      if (due) return;
      due = true;
      queueMicrotask(() => {
        due = false;
        onChange(state);
      });
    },
  };
}

export const initial = () => ({
  /** "connecting" | "live" | "polling" | "redis" | "lost" | "hidden" | "signed out" */
  link: "connecting",
  /** performance.now() of the last news */
  heardAt: 0,
  /** ms by Redis's clock: ages are told from it */
  now: 0,
  /** what is added to performance.now() for it */
  skew: 0,
  live: undefined,
  you: undefined,
  route: { panel: "overview", id: undefined, query: {} },
  /** charts by "range service" */
  charts: {},
  range: "1h",
  chartService: "",
  list: undefined,
  picked: new Set(),
  job: undefined,
  batch: undefined,
  files: undefined,
  uploads: [],
  alerts: undefined,
  audit: undefined,
  operations: undefined,
  draft: undefined,
  bulks: [],
  notices: [],
  dialog: undefined,
});

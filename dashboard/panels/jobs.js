// Jobs: filtered, searched, paged by a cursor; actions on those chosen and on all that match.
import { absolute, jobs as jobsText, ms, num } from "../lib/format.js";
import { html } from "../lib/html.js";
import { ageFilter, toJob } from "../lib/route.js";
import { Act, Empty, Fault, Loading, STATE_WORDS } from "../parts/bits.js";
import { JobRows } from "../parts/joblist.js";

export const title = "Jobs";

const STATES = ["queued", "started", "failed", "finished", "canceled", "scheduled"];
const AGES = {
  "": "any age",
  "10m": "older than 10 min",
  "1h": "older than 1 h",
  "6h": "older than 6 h",
  "1d": "older than 1 d",
  "3d": "older than 3 d",
  "-1h": "last 1 h",
  "-1d": "last 1 d",
};
const ACTIONS = {
  requeue: ["failed", "canceled"],
  cancel: ["queued", "started", "scheduled"],
  delete: ["finished", "failed", "canceled"],
};
const VERB = { requeue: "Queue again", cancel: "Cancel", delete: "Delete" };
/** What an id looks like: a search for one leads to the job itself. */
const ID = /^[a-z0-9-]{1,64}_(?:[0-9A-Za-z]{22}|cron-[a-z0-9-]+-\d+)$/;

function States({ state }) {
  const { state: status } = state.route.query;
  const one = (name, text) => html`<button key=${name} type="button" aria-pressed=${(status ?? "") === name}
    onClick=${() => state.do.filter({ state: name })}>${text}</button>`;
  return html`<div class="segments" role="group" aria-label="State">
    ${one("", "all")}${STATES.map((name) => one(name, STATE_WORDS[name]))}
  </div>`;
}

function Filters({ state }) {
  const { service, state: status, tag, q, older } = state.route.query;
  const set = state.do.filter;
  const search = (event) => {
    event.preventDefault();
    const fields = new FormData(event.target);
    const text = String(fields.get("q")).trim();
    if (ID.test(text)) return state.do.go(toJob(text));
    set({ q: text, tag: String(fields.get("tag")).trim() });
  };
  return html`<form class="filters" role="search" onSubmit=${search} key=${`${q} ${tag}`}>
    <label class="hidden" for="q">Id, payload or error</label>
    <input id="q" name="q" type="search" class="grow" placeholder="id, or text in payload or error" defaultValue=${q ?? ""} />
    <label class="hidden" for="service">Service</label>
    <select id="service" value=${service ?? ""} onChange=${(e) => set({ service: e.target.value })}>
      <option value="">all services</option>
      ${state.live.services.map((s) => html`<option key=${s.service} value=${s.service}>${s.service}</option>`)}
    </select>
    <label class="hidden" for="older">Age</label>
    <select id="older" value=${older ?? ""} onChange=${(e) => set({ older: e.target.value })}>
      ${Object.entries(AGES).map(([value, text]) => html`<option key=${value} value=${value}>${text}</option>`)}
    </select>
    <label class="hidden" for="tag">Tag</label>
    <input id="tag" name="tag" type="search" placeholder="tag" size="10" defaultValue=${tag ?? ""} />
    <button id="search">Search</button>
    ${(service || status || tag || q || older) && html`<a href="#/jobs">Clear</a>`}
  </form>`;
}

/** The filter of a bulk action on all that match. */
const bulkFilter = ({ service, state, tag, older }) => ({
  ...(service ? { service } : {}),
  ...(state ? { state } : {}),
  ...(tag ? { tag } : {}),
  ...ageFilter(older),
});
const inWords = ({ service, state, tag, older }) =>
  [
    state ? `state ${STATE_WORDS[state]}` : "",
    service ? `service ${service}` : "all services",
    tag ? `tag ${tag}` : "",
    older ? AGES[older] : "",
  ]
    .filter(Boolean)
    .join(", ");

const LOSS = {
  requeue: "They run again from the start, with the same ids.",
  cancel: "Those that wait never run; the calls of those that run are closed.",
  delete: "Their records and results are gone for good.",
};

/** Asks for the count first, then for a yes. */
async function onMatch(state, action) {
  const { query } = state.route;
  const filter = bulkFilter(query);
  const n = await state.do.countBulk(filter, action);
  if (n === undefined) return;
  if (n === 0) return state.do.note("No job matches now.");
  state.do.ask({
    title: `${VERB[action]}: ${jobsText(n)}?`,
    text: [`All that match now (${inWords(query)}): ${jobsText(n)}, counted a moment ago. ${LOSS[action]}`],
    confirm: `${VERB[action]} ${jobsText(n)}`,
    danger: action !== "requeue",
    run: () => state.do.bulk(filter, action),
  });
}

async function onPicked(state, action) {
  const ids = [...state.picked];
  const n = await state.do.countBulk({ ids }, action);
  if (n === undefined) return;
  if (n === 0)
    return state.do.note(
      `None of the ${num(ids.length)} chosen can be ${action === "requeue" ? "queued again" : `${action}ed`} as they stand.`,
    );
  state.do.ask({
    title: `${VERB[action]}: ${jobsText(n)}?`,
    text: [`${num(n)} of the ${num(ids.length)} chosen fit. ${LOSS[action]}`],
    confirm: `${VERB[action]} ${jobsText(n)}`,
    danger: action !== "requeue",
    run: () => state.do.bulk({ ids }, action),
  });
}

function Bulk({ state }) {
  const { picked, route } = state;
  const { state: status, q } = route.query;
  const chosen = picked.size > 0;
  const fits = Object.keys(ACTIONS).filter((action) => chosen || ACTIONS[action].includes(status));
  const why = q
    ? "A text search looks at a bounded number of jobs, so act on those chosen."
    : "Choose jobs below, or one state above to act on all that match.";
  const can = chosen || (status && !q);
  return html`<div class="bulk" role="group" aria-label="Actions on many jobs">
    <p>${chosen ? `${num(picked.size)} chosen` : can ? "All that match:" : html`<span class="dim">${why}</span>`}</p>
    ${
      can &&
      fits.map(
        (
          action,
        ) => html`<${Act} key=${action} you=${state.you} needs="admin" kind=${action === "delete" ? "danger" : ""}
          onClick=${() => (chosen ? onPicked(state, action) : onMatch(state, action))}>${VERB[action]} …</${Act}>`,
      )
    }
    ${chosen && html`<button type="button" class="plain" onClick=${() => state.do.pickAll([])}>Choose none</button>`}
  </div>`;
}

/** How far a filter looked. */
function Looked({ list, query }) {
  if (!(query.q || query.tag || query.older)) return null;
  const far = list.reached ? `, back to ${absolute(ms(list.reached))}` : "";
  return html`<p class="dim">${
    list.cursor
      ? `Looked at ${jobsText(list.scanned)}${far}. There are older ones.`
      : `Looked at all ${jobsText(list.scanned)}.`
  }</p>`;
}

export function view(state) {
  const { list, picked, route } = state;
  const pick = {
    picked,
    toggle: state.do.pick,
    all: (on) => state.do.pickAll(on ? list.jobs.map((job) => job.job_id) : []),
  };
  return html`
    <${Filters} state=${state} />
    <div class="tabs"><${States} state=${state} /><${Bulk} state=${state} /></div>
    <${Fault} fault=${list?.fault} again=${state.do.again} />
    ${!list?.jobs && !list?.fault && html`<${Loading} what="jobs" />`}
    ${
      list?.jobs &&
      (list.jobs.length > 0
        ? html`<div class="card"><${JobRows} jobs=${list.jobs} now=${state.now} caption="Jobs, newest first" pick=${pick} /></div>`
        : html`<${Empty} title="No job matches.">${
            list.cursor
              ? "None in what was looked at; go on with older ones."
              : "Try another state, or clear the filters."
          }</${Empty}>`)
    }
    ${
      list?.jobs &&
      html`<div class="more">
        <${Looked} list=${list} query=${route.query} />
        ${list.cursor && html`<button type="button" disabled=${list.adding} onClick=${state.do.more}>${list.adding ? "Loading …" : "Older jobs"}</button>`}
      </div>`
    }`;
}

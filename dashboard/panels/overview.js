// Is it healthy? What needs attention stands first, in words; then the figures.
import { about, bytes, compact, jobs, num, span } from "../lib/format.js";
import { html } from "../lib/html.js";
import { to } from "../lib/route.js";
import { Act, Bar, Empty, Loading, Since, Word } from "../parts/bits.js";
import { Chart } from "../parts/chart.js";
import { JobRows } from "../parts/joblist.js";
import { Spark } from "../parts/spark.js";

export const title = "Overview";
const RANGES = { "1h": "1 h", "24h": "24 h", "7d": "7 d" };

/** How a service stands, as its card says it. */
function standing({ standing, started, queued }) {
  if (standing.word === "blocked" || standing.word === "parked" || standing.word === "paused") return standing.word;
  if (started > 0) return "running";
  return queued > 0 ? "waiting" : "idle";
}

function Attention({ state }) {
  const { attention } = state.live;
  if (attention.length === 0) {
    return html`<section class="attention is-good" aria-label="Attention">
      <p>All is well: nothing waits for long, nothing fails in numbers.</p>
    </section>`;
  }
  // what is said of failures is said of the last hour
  const href = ({ service, worker, jobs }) =>
    worker
      ? to("workers")
      : service
        ? to("jobs", { service, state: jobs, older: jobs === "failed" ? "-1h" : "" })
        : undefined;
  const name = ({ worker, jobs }) => (worker ? "Workers" : jobs === "failed" ? "Failed jobs" : "Waiting jobs");
  const of = ({ service }) => state.live.services.find((s) => s.service === service);
  return html`<section class="attention" aria-label="Attention">
    <ul>
      ${attention.map(
        (item) => html`<li key=${item.text} class=${item.rank === 2 ? "is-bad" : "is-warn"}>
          <span>${item.text}</span>
          <span class="buttons">
            ${item.paused && html`<${Act} you=${state.you} needs="admin" onClick=${() => confirmResume(state, of(item))}>Resume ${item.service}</${Act}>`}
            ${href(item) && html`<a href=${href(item)}>${name(item)}</a>`}
          </span>
        </li>`,
      )}
    </ul>
  </section>`;
}

/** What an empty cancels: all that waits for a worker, and all that waits for its time. */
const emptied = (s) => s.queued + s.scheduled;
function confirmEmpty(state, s) {
  const all = emptied(s);
  const scheduled = s.scheduled > 0 ? `, ${num(s.scheduled)} of them scheduled: delayed, or between two attempts` : "";
  state.do.ask({
    title: `Empty ${s.service}?`,
    text: [
      `This cancels the ${jobs(all)} that ${all === 1 ? "waits" : "wait"} now${scheduled}. What runs goes on.`,
      "Canceled jobs can be queued again one by one or in bulk until they expire.",
    ],
    confirm: `Cancel ${jobs(all)}`,
    danger: true,
    run: () => state.do.emptyQueue(s.service),
  });
}
function confirmPause(state, s) {
  state.do.ask({
    title: `Pause ${s.service}?`,
    text: `Workers take nothing more from this queue: ${jobs(s.queued)} ${s.queued === 1 ? "waits" : "wait"}. The ${num(s.started)} that run go on, and new jobs are accepted.`,
    confirm: "Pause",
    run: () => state.do.pauseQueue(s.service),
  });
}
function confirmResume(state, s) {
  state.do.ask({
    title: `Resume ${s.service}?`,
    text: `Workers may take the ${jobs(s.queued)} that ${s.queued === 1 ? "waits" : "wait"}.`,
    confirm: "Resume",
    run: () => state.do.resumeQueue(s.service),
  });
}

const pair = (of) => (of ? html`${span(of.p50)} <span class="dim">/ ${span(of.p95)}</span>` : "–");

function Card({ state, s }) {
  const word = standing(s);
  const { hour } = s;
  const link = (fields) => to("jobs", { service: s.service, ...fields });
  return html`<article class=${`card service is-${word}`} aria-labelledby=${`service-${s.service}`}>
    <div class="card-head">
      <h3 id=${`service-${s.service}`}><a href=${link({})}>${s.service}</a></h3>
      <${Word} word=${word} title=${s.standing.text} />
    </div>
    <dl class="counts">
      <div><dt>waiting</dt><dd><a href=${link({ state: "queued" })}>${compact(s.queued)}</a></dd></div>
      <div><dt>running</dt><dd><a href=${link({ state: "started" })}>${compact(s.started)}</a></dd></div>
      <div class=${hour?.failed ? "is-bad" : ""}><dt>failed, 1 h</dt>
        <dd><a href=${link({ state: "failed", older: "-1h" })}>${compact(hour?.failed ?? 0)}</a></dd></div>
      <div><dt>oldest wait</dt><dd>${s.oldest ? html`<${Since} at=${s.oldest} now=${state.now} />` : "–"}</dd></div>
    </dl>
    ${hour && html`<${Spark} ends=${hour.ends} label=${s.service} />`}
    <dl class="rows">
      <div><dt>last hour</dt><dd>${num(hour?.submitted ?? 0)} queued, ${num(hour?.started ?? 0)} started</dd></div>
      <div title="half of the jobs / 95 of 100 took at most this long; within 20 % or so"><dt>run p50 / p95</dt><dd>${pair(hour?.run)}</dd></div>
      <div title="half of the jobs / 95 of 100 waited at most this long"><dt>wait p50 / p95</dt><dd>${pair(hour?.wait)}</dd></div>
      <div><dt>slots busy</dt><dd class="slots">
        <${Bar} value=${s.busy} max=${s.slots} label=${`${s.busy} of ${s.slots} slots busy`} />
        ${s.busy} of ${s.slots}</dd></div>
    </dl>
    <div class="buttons">
      ${
        s.paused
          ? html`<${Act} you=${state.you} needs="admin" onClick=${() => confirmResume(state, s)}>Resume</${Act}>`
          : html`<${Act} you=${state.you} needs="admin" onClick=${() => confirmPause(state, s)}>Pause</${Act}>`
      }
      <${Act} you=${state.you} needs="admin" disabled=${emptied(s) === 0} onClick=${() => confirmEmpty(state, s)}>Empty</${Act}>
    </div>
  </article>`;
}

function Throughput({ state }) {
  const { range, chartService, charts, live } = state;
  const chart = charts[`${range} ${chartService}`];
  return html`<section class="card" aria-labelledby="throughput">
    <div class="card-head">
      <h2 id="throughput">Throughput</h2>
      <div class="buttons">
        <label class="hidden" for="chart-service">Service of the chart</label>
        <select id="chart-service" value=${chartService} onChange=${(e) => state.do.chartService(e.target.value)}>
          <option value="">all services</option>
          ${live.services.map(({ service }) => html`<option key=${service} value=${service}>${service}</option>`)}
        </select>
        <div class="segments" role="group" aria-label="Time shown">
          ${Object.entries(RANGES).map(
            ([name, text]) => html`<button key=${name} type="button" aria-pressed=${name === range}
              onClick=${() => state.do.range(name)}>${text}</button>`,
          )}
        </div>
      </div>
    </div>
    ${
      chart
        ? html`<${Chart} key=${range} chart=${chart} label=${`${chartService || "All services"}, last ${RANGES[range]}`} />`
        : html`<${Loading} what="the chart" />`
    }
  </section>`;
}

function Redis({ state }) {
  const { redis, at } = state.live;
  if (!redis)
    return html`<section class="card"><h2>Redis</h2><p class="dim">It does not tell (INFO is barred).</p></section>`;
  const { used, limit, appendOnly, writesWell, savesWell, savedAt, version } = redis;
  return html`<section class="card redis" aria-labelledby="redis">
    <div class="card-head"><h2 id="redis">Redis <span class="dim">${version}</span></h2></div>
    <dl class="rows">
      <div><dt>memory</dt><dd>${bytes(used)}${limit ? ` of ${bytes(limit)}` : ", no limit set"}</dd></div>
      ${limit > 0 && html`<div class="wide"><dt class="hidden">share</dt><dd><${Bar} value=${used} max=${limit} kind=${used > 0.8 * limit ? "is-bad" : ""} label=${`${Math.round((100 * used) / limit)} % of the memory is used`} /></dd></div>`}
      ${
        appendOnly !== undefined &&
        html`<div><dt>append-only file</dt><dd>${appendOnly ? (writesWell ? "on, written well" : html`<${Word} word="cannot be written" kind="failed" />`) : html`<${Word} word="off" kind="failed" />`}</dd></div>
        <div><dt>last snapshot</dt><dd>${savesWell ? (savedAt ? `${about(at - savedAt)} ago` : "none") : html`<${Word} word="failed" />`}</dd></div>`
      }
    </dl>
  </section>`;
}

export function view(state) {
  const { services, newest } = state.live;
  const here = services.filter((s) => s.standing.word !== "not deployed");
  const not = services.filter((s) => s.standing.word === "not deployed");
  return html`
    <${Attention} state=${state} />
    <section aria-label="Services">
      <h2 class="hidden">Services</h2>
      <div class="cards">${here.map((s) => html`<${Card} key=${s.service} state=${state} s=${s} />`)}</div>
      ${here.length === 0 && html`<${Empty} title="No service has an address.">Set one, for example IFCCONVERT_URL, or SERVICES=services.json, and start the gateway again.</${Empty}>`}
      ${not.length > 0 && html`<p class="dim not-deployed">Not deployed: ${not.map((s) => s.service).join(", ")}.</p>`}
    </section>
    <div class="beside"><${Throughput} state=${state} /><${Redis} state=${state} /></div>
    <section class="card" aria-labelledby="newest">
      <div class="card-head"><h2 id="newest">Newest</h2><a href=${to("jobs")}>All jobs</a></div>
      ${
        newest.length === 0
          ? html`<${Empty} title="No jobs yet.">Send one with curl, or <a href=${to("submit")}>by hand</a>.</${Empty}>`
          : html`<${JobRows} jobs=${mixed(newest).map(line)} now=${state.now} caption="Newest jobs" />`
      }
    </section>`;
}

/** The newest, but not so many of one state that the others do not show. */
function mixed(lines) {
  const seen = {};
  return lines
    .filter(({ state }) => {
      seen[state] = (seen[state] ?? 0) + 1;
      return seen[state] <= (state === "queued" || state === "scheduled" ? 3 : 5);
    })
    .slice(0, 14);
}

/** A line of the state as the list's rows want it. */
const line = (j) => ({
  ...j,
  job_id: j.id,
  status: j.state,
  created_at: j.created,
  started_at: j.started,
  ended_at: j.ended,
});

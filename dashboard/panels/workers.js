// Workers: who they are, what they do at this moment and for how long, and how to send one home.
import { about, bytes, num, shortId } from "../lib/format.js";
import { html } from "../lib/html.js";
import { Act, Bar, Empty, JobLink, Since, Time, Word } from "../parts/bits.js";

export const title = "Workers";
const KINDS = { running: "finished", quiet: "paused", draining: "paused" };

function ask(state, w, order) {
  const busy = Object.values(w.lanes).reduce((sum, lane) => sum + lane.busy, 0);
  const calls = busy === 1 ? "its 1 call" : `its ${num(busy)} calls`;
  state.do.ask(
    order === "quiet"
      ? {
          title: `Quiet worker ${w.id}?`,
          text: `It finishes ${calls} and takes nothing more. It stays up and cannot be made loud again: start another one for that.`,
          confirm: "Make it quiet",
          run: () => state.do.orderWorker(w.id, "quiet"),
        }
      : {
          title: `Stop worker ${w.id}?`,
          text: `It takes nothing more, lets ${calls} end within its drain time, hands back the rest, and ends. Whoever supervises it may start a new one.`,
          confirm: "Stop it",
          danger: true,
          run: () => state.do.orderWorker(w.id, "stop"),
        },
  );
}

function Lane({ name, lane, state }) {
  const runs = lane.runs ?? [];
  return html`<section class="lane" aria-label=${name}>
    <div class="lane-head">
      <h3>${name}</h3>
      <${Bar} value=${lane.busy} max=${lane.slots} label=${`${lane.busy} of ${lane.slots} slots busy`} />
      <span class="dim">${num(lane.busy)} of ${num(lane.slots)}</span>
    </div>
    ${lane.parked && html`<p class="fault">parked: ${lane.parked}, for ${about(state.now - (lane.since ?? state.now))}</p>`}
    ${
      runs.length > 0 &&
      html`<ul class="runs">
        ${runs.map(
          (run) => html`<li key=${run.id}>
            <${JobLink} id=${run.id}>${run.op} <span class="dim">${shortId(run.id)}</span></${JobLink}>
            <span class="right"><${Since} at=${run.since} now=${state.now} /></span>
          </li>`,
        )}
        ${lane.busy > runs.length && html`<li class="dim">and ${num(lane.busy - runs.length)} more</li>`}
      </ul>`
    }
  </section>`;
}

function Worker({ w, state, versions }) {
  const lanes = Object.entries(w.lanes).sort(([, a], [, b]) => b.busy - a.busy);
  const going = w.state !== "running";
  return html`<article class="card worker" aria-labelledby=${`worker-${w.id}`}>
    <div class="card-head">
      <h2 id=${`worker-${w.id}`}><span class="mono">${w.id}</span></h2>
      <${Word} word=${w.state} kind=${KINDS[w.state] ?? "paused"} />
    </div>
    <dl class="rows">
      <div><dt>host</dt><dd>${w.host}, pid ${w.pid}</dd></div>
      <div><dt>version</dt><dd>${versions > 1 ? html`<strong>${w.version}</strong>` : w.version}, ${w.runtime}</dd></div>
      <div><dt>up</dt><dd><${Since} at=${w.startedAt} now=${state.now} /></dd></div>
      <div><dt>last beat</dt><dd><${Time} at=${w.beatAt} now=${state.now} /></dd></div>
      <div><dt>memory</dt><dd>${bytes(w.rssBytes)}</dd></div>
    </dl>
    ${lanes.map(([name, lane]) => html`<${Lane} key=${name} name=${name} lane=${lane} state=${state} />`)}
    <div class="buttons">
      <${Act} you=${state.you} needs="admin" disabled=${going} onClick=${() => ask(state, w, "quiet")}>Quiet</${Act}>
      <${Act} you=${state.you} needs="admin" kind="danger" disabled=${w.state === "draining"} onClick=${() => ask(state, w, "stop")}>Stop</${Act}>
    </div>
  </article>`;
}

export function view(state) {
  const { workers } = state.live;
  if (workers.length === 0) {
    return html`<${Empty} title="No worker beats.">Jobs wait until one does. Start one: <code>bun run worker.ts</code></${Empty}>`;
  }
  const versions = new Set(workers.map((w) => w.version)).size;
  const sum = (name) => workers.reduce((n, w) => n + Object.values(w.lanes).reduce((m, lane) => m + lane[name], 0), 0);
  return html`
    <p class="lead">${num(workers.length)} ${workers.length === 1 ? "worker" : "workers"}, ${num(sum("busy"))} of ${num(sum("slots"))} slots busy.${versions > 1 ? ` ${versions} versions run side by side.` : ""}</p>
    <div class="cards wide">
      ${[...workers].sort((a, b) => a.startedAt - b.startedAt).map((w) => html`<${Worker} key=${w.id} w=${w} state=${state} versions=${versions} />`)}
    </div>`;
}

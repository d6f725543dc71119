// One job: what happened when, what went in, what came out, and what can be done about it.
import { about, bytes, ms, num, shortId, span } from "../lib/format.js";
import { html } from "../lib/html.js";
import { to } from "../lib/route.js";
import { Act, Bar, Empty, Fault, JobLink, Loading, State, Time, Word } from "../parts/bits.js";
import { Timeline } from "../parts/timeline.js";
import { Json } from "../parts/tree.js";

export const title = ({ route }) => `Job ${shortId(route.id)}`;

/** Text above this is not parsed into a tree but offered as a file. */
const LARGE = 512 * 1024;
const over = ({ status }) => ["finished", "failed", "canceled"].includes(status);

const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
/** The job as a command for a shell. Hidden values stay hidden. */
function curl(record, operations) {
  const op = operations?.operations?.find((one) => one.name === record.operation);
  const url = `${operations?.gateway ?? "http://localhost:8000"}${op?.route ?? `/${record.operation}`}`;
  const query = new URLSearchParams({
    ...(record.priority !== 5 ? { priority: record.priority } : {}),
    ...(record.tags.length ? { tags: record.tags.join(",") } : {}),
    ...Object.fromEntries(
      Object.entries(record.options).filter(([, value]) => ["string", "number"].includes(typeof value)),
    ),
  });
  const full = query.size ? `${url}?${query}` : url;
  return [
    `curl -X POST ${quote(full)}`,
    "-H 'Content-Type: application/json'",
    `-H "X-API-Key: $API_KEY"`,
    `-d ${quote(JSON.stringify(record.payload))}`,
  ].join(" \\\n  ");
}

/** What stands in a payload where a value is hidden (REDACT_KEYS). */
const HIDDEN = "•••";
function copyCurl(state, record) {
  const isWhole = !JSON.stringify(record.payload).includes(`"${HIDDEN}"`);
  const missing = `The command is copied, but it lacks hidden values: write the real ones in place of ${HIDDEN}.`;
  state.do.copy(curl(record, state.operations), isWhole ? "The command is" : missing);
}

function Actions({ state, record }) {
  const { you } = state;
  const id = record.job_id;
  const ask = (dialog) => state.do.ask(dialog);
  const cancel = () =>
    ask({
      title: "Cancel this job?",
      text:
        record.status === "started"
          ? "Its call to the microservice is closed; what that has done so far stays."
          : "It will not run.",
      confirm: "Cancel the job",
      danger: true,
      run: () => state.do.cancel(id),
    });
  const remove = () =>
    ask({
      title: "Delete this job?",
      text: "Its record and its result are gone for good.",
      confirm: "Delete",
      danger: true,
      run: () => state.do.remove(id),
    });
  const failed = record.status === "failed" || record.status === "canceled";
  return html`<div class="buttons">
    ${failed && html`<${Act} you=${you} kind="main" onClick=${() => state.do.requeue(id)}>Queue again</${Act}>`}
    ${!over(record) && html`<${Act} you=${you} kind="danger" disabled=${Boolean(record.cancel_requested_at)} onClick=${cancel}>${record.cancel_requested_at ? "Canceling …" : "Cancel"}</${Act}>`}
    <${Act} you=${you} onClick=${() => state.do.editJob(record)}>Edit and run again</${Act}>
    <button type="button" onClick=${() => copyCurl(state, record)}>Copy as curl</button>
    ${over(record) && html`<${Act} you=${you} kind="danger" onClick=${remove}>Delete</${Act}>`}
  </div>`;
}

/** How far it is: told by the service, or by the clock against what such jobs took. */
function Run({ state, record }) {
  const started = ms(record.started_at);
  const deadline = ms(record.deadline_at);
  const elapsed = state.now - started;
  const p95 = state.live.services.find((s) => s.service === record.service)?.hour?.run?.p95;
  return html`<section class="card run" aria-labelledby="run">
    <div class="card-head"><h2 id="run">Running for ${about(elapsed)}</h2>
      ${record.eta_s > 1 && html`<p class="dim">done in about ${about(record.eta_s * 1_000)}</p>`}</div>
    ${
      record.progress !== null &&
      html`<${Bar} value=${record.progress} max=${1} label=${`${Math.round(record.progress * 100)} % done`} />
      <p>${Math.round(record.progress * 100)} %${record.message ? `: ${record.message}` : ""}</p>`
    }
    ${record.progress === null && record.message && html`<p>${record.message}</p>`}
    <dl class="rows">
      <div><dt>against p95 of ${record.service}, last hour</dt><dd>${p95 ? html`<${Bar} value=${Math.min(elapsed, p95)} max=${p95} kind=${elapsed > p95 ? "is-warn" : ""} label=${`elapsed against p95 of ${record.service}`} /> ${elapsed > p95 ? `${(elapsed / p95).toFixed(1)} × ` : "of "}${span(p95)}` : "not enough jobs to tell"}</dd></div>
      ${deadline && html`<div><dt>until the deadline</dt><dd><${Bar} value=${elapsed} max=${deadline - started} kind=${elapsed > 0.8 * (deadline - started) ? "is-bad" : ""} label="elapsed against the deadline" /> ${about(Math.max(0, deadline - state.now))} left</dd></div>`}
    </dl>
  </section>`;
}

function Neighbours({ state, record }) {
  const { batch } = state;
  if (!record.batch_id) return null;
  const ids = batch?.job_ids ?? [];
  const at = ids.indexOf(record.job_id);
  const link = (id, text) =>
    id ? html`<a href=${`#/jobs/${encodeURIComponent(id)}`}>${text}</a>` : html`<span class="dim">${text}</span>`;
  return html`<section class="card" aria-labelledby="batch">
    <div class="card-head"><h2 id="batch">Batch</h2>
      ${at >= 0 && html`<p>${link(ids[at - 1], "← before")} <span class="dim">${num(at + 1)} of ${num(ids.length)}</span> ${link(ids[at + 1], "after →")}</p>`}</div>
    <p class="mono">${record.batch_id}</p>
    ${
      batch?.counts &&
      html`<p class="dim">${Object.entries(batch.counts)
        .filter(([, n]) => n > 0)
        .map(([name, n]) => `${num(n)} ${name}`)
        .join(", ")}</p>`
    }
    ${batch?.failed_ids?.length > 0 && html`<p>Failed: ${batch.failed_ids.slice(0, 10).map((id) => html`<${JobLink} key=${id} id=${id}>${shortId(id)}</${JobLink}> `)}</p>`}
    ${batch?.fault && html`<p class="dim">${batch.fault.text}</p>`}
  </section>`;
}

/** Whether the end was told to whoever asked for it. */
function Callback({ state, record }) {
  const { deliveries } = state.job;
  if (!record.options.callback_url) return null;
  const { delivered, next_at, deliveries: tries = [] } = deliveries ?? {};
  return html`<section class="card" aria-labelledby="callback">
    <div class="card-head"><h2 id="callback">Callback</h2>
      ${deliveries && html`<${Word} word=${delivered ? "delivered" : next_at ? "to be sent" : "not sent"} kind=${delivered ? "finished" : "queued"} />`}</div>
    <p class="mono">${record.options.callback_url}</p>
    ${next_at && html`<p class="dim">next try <${Time} at=${next_at} now=${state.now} /></p>`}
    <ul class="lines">
      ${tries.map(
        (
          t,
          i,
        ) => html`<li key=${i}><${Word} word=${t.ok ? `HTTP ${t.status}` : t.status ? `HTTP ${t.status}` : "failed"} kind=${t.ok ? "finished" : "failed"} />
          <${Time} at=${t.at} now=${state.now} /> <span class="dim">${t.error ?? ""}</span></li>`,
      )}
    </ul>
  </section>`;
}

function Facts({ state, record }) {
  const { options } = record;
  const rows = [
    ["state", html`<${State} state=${record.status} cancelAsked=${record.cancel_requested_at} />`],
    ["operation", html`<a href=${to("jobs", { service: record.service })}>${record.operation}</a>`],
    ["submitted", html`<${Time} at=${record.created_at} now=${state.now} />`],
    record.position !== null && [
      "place in the queue",
      `about ${num(record.position)}${record.eta_s ? `, done in about ${about(record.eta_s * 1_000)}` : ""}`,
    ],
    record.due_at && ["due", html`<${Time} at=${record.due_at} now=${state.now} />`],
    record.ended_at && ["ended", html`<${Time} at=${record.ended_at} now=${state.now} />`],
    ["priority", num(record.priority)],
    record.tags.length > 0 && [
      "tags",
      record.tags.map((tag) => html`<a key=${tag} class="tag" href=${to("jobs", { tag })}>${tag}</a>`),
    ],
    record.run > 0 && ["queued again", `${num(record.run)} ×`],
    record.redeliveries > 0 && ["redeliveries", num(record.redeliveries)],
    options.timeout !== undefined && ["time limit", span(options.timeout * 1_000)],
    record.traceparent && ["trace", html`<span class="mono">${record.traceparent}</span>`],
  ].filter(Boolean);
  return html`<section class="card" aria-label="Facts">
    <dl class="rows">${rows.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
  </section>`;
}

function Result({ state, record }) {
  const { result } = record;
  const href = `api/jobs/${encodeURIComponent(record.job_id)}/result`;
  const isStub = result && typeof result === "object" && result.href?.endsWith(`/jobs/${record.job_id}/result`);
  const text = isStub ? "" : JSON.stringify(result, null, 2);
  const download = html`<a class="button" href=${href} download=${`${record.job_id}.result`}>Download</a>`;
  if (isStub || text.length > LARGE) {
    return html`<section class="card" aria-label="Result">
      <div class="card-head"><h2>Result</h2><div class="buttons">${download}</div></div>
      <p>${isStub ? `${result.content_type}, ${bytes(result.size)}` : bytes(text.length)}. Too large, or not JSON, to show here.</p>
    </section>`;
  }
  return html`<${Json} title="Result" value=${result} sizeBytes=${text.length}
    tools=${[html`<button key="copy" type="button" onClick=${() => state.do.copy(text, "The result is")}>Copy</button>`, download]} />`;
}

/** Why a job did not finish. A cancel is what somebody asked for, and no fault. */
function Failure({ state, record }) {
  const { error } = record;
  const href = `api/jobs/${encodeURIComponent(record.job_id)}/result`;
  const answer =
    record.links.unverified_result &&
    html`<a class="button" href=${href} download=${`${record.job_id}.answer`}>Download the answer</a>`;
  const isCanceled = record.status === "canceled";
  return html`<section class=${isCanceled ? "card" : "card is-bad"} aria-labelledby="error">
    <div class="card-head"><h2 id="error">${isCanceled ? "Canceled" : "Error"} <span class="dim">${error.code}${error.http_status ? `, HTTP ${error.http_status}` : ""}</span></h2>
      <div class="buttons">${answer}<button type="button" onClick=${() => state.do.copy(error.message, "The error is")}>Copy</button></div></div>
    <pre class="error-text" tabindex="0" role="region" aria-label="The error's text">${error.message}</pre>
  </section>`;
}

export function view(state) {
  const { job } = state;
  const record = job?.record;
  if (!record) {
    if (!job?.fault) return html`<${Loading} what="the job" />`;
    if (job.fault.status === 404)
      return html`<${Empty} title="There is no such job.">It may have expired: finished jobs are kept for a day, failed ones for a week. <a href="#/jobs">All jobs</a></${Empty}>`;
    return html`<${Fault} fault=${job.fault} again=${state.do.again} />`;
  }
  const payload = JSON.stringify(record.payload, null, 2);
  return html`
    <div class="job-head"><p class="mono">${record.job_id} <button type="button" class="plain" onClick=${() => state.do.copy(record.job_id, "The id is")}>Copy</button></p>
      <${Actions} state=${state} record=${record} /></div>
    <${Fault} fault=${job.fault} again=${state.do.again} />
    ${record.error && html`<${Failure} state=${state} record=${record} />`}
    ${record.status === "started" && html`<${Run} state=${state} record=${record} />`}
    <${Timeline} record=${record} now=${state.now} />
    <div class="beside">
      <div class="stack">
        ${record.status === "finished" && html`<${Result} state=${state} record=${record} />`}
        <${Json} title="Payload" value=${record.payload} sizeBytes=${payload.length}
          tools=${html`<button type="button" onClick=${() => state.do.copy(payload, "The payload is")}>Copy</button>`} />
      </div>
      <div class="stack"><${Facts} state=${state} record=${record} /><${Neighbours} state=${state} record=${record} /><${Callback} state=${state} record=${record} /></div>
    </div>`;
}

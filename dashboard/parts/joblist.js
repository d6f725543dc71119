// Jobs as rows: what, how it stands, since when, and what it said.
import { ms, shortId, span } from "../lib/format.js";
import { html } from "../lib/html.js";
import { JobLink, State, Time } from "./bits.js";

/** What a job said: its error, its progress, or the beginning of its result. */
function said(job) {
  if (job.text) return job.text;
  if (job.error) return typeof job.error === "string" ? job.error : job.error.message;
  if (job.message) return job.message;
  return "";
}

function took(job, now) {
  const started = ms(job.started_at);
  if (started === undefined || started === null || job.status === "queued" || job.status === "scheduled") return "–";
  return span((ms(job.ended_at) ?? now) - started);
}

const Tags = ({ tags }) =>
  tags?.length
    ? html`<span class="tags">${tags.map((tag) => html`<span key=${tag} class="tag">${tag}</span>`)}</span>`
    : null;

/** @param pick {picked, toggle, all} when rows can be chosen */
export function JobRows({ jobs, now, caption, pick }) {
  const every = pick && jobs.length > 0 && jobs.every((job) => pick.picked.has(job.job_id));
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}>
    <table class=${pick ? "jobs has-ticks" : "jobs"}>
      <caption class="hidden">${caption}</caption>
      <thead>
        <tr>
          ${pick && html`<th scope="col" class="tick"><input type="checkbox" aria-label="Choose all that are shown" checked=${every} onChange=${(e) => pick.all(e.target.checked)} /></th>`}
          <th scope="col">State</th>
          <th scope="col">Job</th>
          <th scope="col">Submitted</th>
          <th scope="col" class="right">Took</th>
          <th scope="col" class="grow">Said</th>
        </tr>
      </thead>
      <tbody>
        ${jobs.map(
          (job) => html`<tr key=${job.job_id} class=${pick?.picked.has(job.job_id) ? "picked" : ""}>
            ${pick && html`<td class="tick"><input type="checkbox" aria-label=${`Choose ${job.job_id}`} checked=${pick.picked.has(job.job_id)} onChange=${(e) => pick.toggle(job.job_id, e.target.checked)} /></td>`}
            <td class="state"><${State} state=${job.status} cancelAsked=${job.cancel_requested_at} /></td>
            <td class="what"><${JobLink} id=${job.job_id}>${job.operation} <span class="dim">${shortId(job.job_id)}</span></${JobLink}><${Tags} tags=${job.tags} /></td>
            <td class="when"><${Time} at=${job.created_at} now=${now} /></td>
            <td class="took right">${took(job, now)}</td>
            <td class="said">
              ${
                job.status === "started" && job.progress !== null && job.progress !== undefined
                  ? html`<progress value=${job.progress} max="1" aria-label="progress"></progress> `
                  : null
              }<span class=${job.status === "failed" ? "fault" : "dim"}>${said(job).slice(0, 200)}</span>
            </td>
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

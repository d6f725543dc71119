// Alerts: the rules with their state, what was delivered, and who did what.
import { num } from "../lib/format.js";
import { html } from "../lib/html.js";
import { Fault, JobLink, Loading, Time, Word } from "../parts/bits.js";

export const title = "Alerts";

/** What is wrong at this moment, whether or not anybody was told. */
function Now({ state }) {
  const { attention } = state.live;
  return html`<section class="card" aria-labelledby="now">
    <div class="card-head"><h2 id="now">Now</h2></div>
    ${
      attention.length === 0
        ? html`<p class="dim">Nothing needs attention.</p>`
        : html`<ul class="lines">${attention.map(
            (item) =>
              html`<li key=${item.text}><${Word} word=${item.rank === 2 ? "urgent" : "soon"} kind=${item.rank === 2 ? "failed" : "paused"} /> <span>${item.text}</span></li>`,
          )}</ul>`
    }
  </section>`;
}

function Rules({ state }) {
  const { alerts, now } = state;
  if (alerts?.fault && !alerts.rules) return html`<${Fault} fault=${alerts.fault} />`;
  if (!alerts) return html`<${Loading} what="the alerts" />`;
  return html`
    <section class="card" aria-labelledby="rules">
      <div class="card-head"><h2 id="rules">Rules</h2></div>
      ${!alerts.sends && html`<p class="dim">Nobody is told: ALERT_WEBHOOK is not set.</p>`}
      <div class="scroll" tabindex="0" role="region" aria-label="Rules"><table class="rules">
        <thead><tr><th scope="col">State</th><th scope="col">Rule</th><th scope="col">Service</th><th scope="col">Since</th><th scope="col" class="grow">Now</th></tr></thead>
        <tbody>${alerts.rules.map(
          (rule, i) => html`<tr key=${i}>
            <td><${Word} word=${rule.firing ? "firing" : "quiet"} kind=${rule.firing ? "failed" : "finished"} /></td>
            <td>${rule.rule}</td><td>${rule.service ?? "all"}</td>
            <td class="when"><${Time} at=${rule.since} now=${now} /></td><td>${rule.text}</td>
          </tr>`,
        )}</tbody>
      </table></div>
    </section>
    <section class="card" aria-labelledby="deliveries">
      <div class="card-head"><h2 id="deliveries">Last deliveries</h2></div>
      ${
        alerts.deliveries?.length > 0
          ? html`<ul class="lines">${alerts.deliveries.map((d, i) => html`<li key=${i}><${Time} at=${d.at} now=${now} /> <${Word} word=${d.ok ? "sent" : "failed"} kind=${d.ok ? "finished" : "failed"} /> <span>${d.text}</span></li>`)}</ul>`
          : html`<p class="dim">None yet.</p>`
      }
    </section>`;
}

function Audit({ state }) {
  const { audit, you, now } = state;
  if (you?.scope !== "admin")
    return html`<section class="card"><h2>What operators did</h2><p class="dim">Shown to keys of the scope admin.</p></section>`;
  return html`<section class="card" aria-labelledby="audit">
    <div class="card-head"><h2 id="audit">What operators did</h2></div>
    <${Fault} fault=${audit?.fault} />
    ${audit?.entries?.length === 0 && html`<p class="dim">Nothing yet.</p>`}
    ${
      audit?.entries?.length > 0 &&
      html`<div class="scroll" tabindex="0" role="region" aria-label="What operators did"><table class="audit">
        <thead><tr><th scope="col">When</th><th scope="col">Who</th><th scope="col">What</th><th scope="col" class="grow">On</th><th scope="col" class="right">Jobs</th></tr></thead>
        <tbody>${audit.entries.map(
          (e, i) => html`<tr key=${i}><td class="when"><${Time} at=${e.at} now=${now} /></td>
            <td><span class="mono" title=${`from ${e.ip}`}>${e.who}</span></td><td>${e.action}</td>
            <td class="grow">${/_\w{22}$/.test(e.target) ? html`<${JobLink} id=${e.target} />` : e.target}${filterText(e) && html` <span class="dim">${filterText(e)}</span>`}</td>
            <td class="right">${e.jobs === undefined ? "" : num(e.jobs)}${e.status === "running" ? " so far" : ""}</td></tr>`,
        )}</tbody>
      </table></div>`
    }
  </section>`;
}

/** The jobs that a bulk action was for. */
function filterText({ filter }) {
  if (!filter) return "";
  const words = { state: "state", tag: "tag", older_than: "older than", newer_than: "newer than" };
  const parts = Object.entries(words).flatMap(([name, word]) =>
    filter[name] === undefined ? [] : `${word} ${filter[name]}`,
  );
  return [...parts, ...(filter.ids === undefined ? [] : [`${num(filter.ids)} chosen`])].join(", ");
}

export const view = (state) => html`<${Now} state=${state} /><${Rules} state=${state} /><${Audit} state=${state} />`;

// Small parts that every panel uses.
import { about, absolute, ago, ms as asMs } from "../lib/format.js";
import { html } from "../lib/html.js";
import { toJob } from "../lib/route.js";

/** A time as its age; the absolute one, in the reader's zone, on hover and to a screen reader. */
export function Time({ at, now, plain = "–" }) {
  const ms = asMs(at);
  if (ms === undefined || ms === null || Number.isNaN(ms)) return plain;
  return html`<time datetime=${new Date(ms).toISOString()} title=${absolute(ms)}>${ago(ms, now)}</time>`;
}

/** How long something has lasted so far. */
export const Since = ({ at, now }) =>
  html`<time datetime=${new Date(asMs(at)).toISOString()} title=${`since ${absolute(asMs(at))}`}>${about(now - asMs(at))}</time>`;

/** A state as a dot and a word: never by colour alone. */
export const Word = ({ word, kind = word, title }) =>
  html`<span class=${`word is-${String(kind).replaceAll(" ", "-")}`} title=${title}>${word}</span>`;

/** What a state is called on the page. */
export const STATE_WORDS = {
  queued: "waiting",
  scheduled: "scheduled",
  deferred: "deferred",
  started: "running",
  finished: "finished",
  failed: "failed",
  canceled: "canceled",
};
export const State = ({ state, cancelAsked }) =>
  cancelAsked && state === "started"
    ? html`<${Word} word="canceling" kind="started" />`
    : html`<${Word} word=${STATE_WORDS[state] ?? state} kind=${state} />`;

export const JobLink = ({ id, children }) => html`<a class="mono" href=${toJob(id)} title=${id}>${children ?? id}</a>`;

/** What stands where nothing is, with what to do about it. */
export const Empty = ({ title, children }) =>
  html`<div class="empty"><p class="empty-title">${title}</p>${children && html`<p>${children}</p>`}</div>`;

export const Loading = ({ what }) => html`<div class="empty" aria-busy="true"><p>Loading ${what} …</p></div>`;

/** A load that failed, or nothing. */
export const Fault = ({ fault, again }) =>
  fault &&
  html`<div class="banner is-bad" role="alert">
    <p>${fault.text}</p>
    ${again && html`<button type="button" onClick=${again}>Try again</button>`}
  </div>`;

/** A figure with its name below it. */
export const Figure = ({ name, kind, title, href, children }) =>
  html`<div class=${`figure ${kind ?? ""}`} title=${title}>
    <dt>${href ? html`<a href=${href}>${name}</a>` : name}</dt>
    <dd>${children}</dd>
  </div>`;

/** A share of something, as a bar with a word for it. */
export const Bar = ({ value, max, label, kind = "" }) =>
  html`<progress class=${kind} value=${max > 0 ? value : 0} max=${max > 0 ? max : 1} aria-label=${label} title=${label}></progress>`;

export const may = (you, scope) => {
  const rank = { read: 0, submit: 1, admin: 2 };
  return rank[you?.scope ?? "read"] >= rank[scope];
};

/** A button that is there for those who may, and says why to those who may not. */
export function Act({ you, needs = "submit", kind = "", onClick, disabled, title, children }) {
  const allowed = may(you, needs);
  return html`<button
    type="button"
    class=${kind}
    disabled=${disabled || !allowed}
    title=${allowed ? title : `Your key has the scope ${you?.scope ?? "read"}; this needs ${needs}.`}
    onClick=${onClick}
  >${children}</button>`;
}

// The frame around a panel: navigation, how fresh the state is, notices, questions, sign-in.
import { num, timeOfDay } from "../lib/format.js";
import { html, useErrorBoundary } from "../lib/html.js";
import { to } from "../lib/route.js";
import { panels } from "../panels/index.js";
import { may } from "./bits.js";
import { Dialog } from "./dialog.js";
import { SignIn } from "./signin.js";

const NAV = ["overview", "jobs", "workers", "files", "alerts"];
const LINKS = {
  connecting: ["wait", "Connecting …"],
  live: ["good", "Live"],
  polling: ["good", "Live, by polling"],
  redis: ["bad", "Redis does not answer"],
  lost: ["bad", "Disconnected; trying again"],
  hidden: ["wait", "Resting"],
  "signed out": ["wait", "Signed out"],
};
const STALE_MS = 8_000;

/** Whether what is shown is true now. */
function Link({ state }) {
  const { link, heardAt, live, skew } = state;
  const silent = heardAt ? performance.now() - heardAt : 0;
  const stale = live && silent > STALE_MS && link !== "hidden";
  const [kind, text] = stale && link === "live" ? ["bad", "Stale"] : (LINKS[link] ?? LINKS.lost);
  const since = live && kind === "bad" ? `; as of ${timeOfDay(heardAt + skew)}` : "";
  return html`<p id="link" class=${`link is-${kind}`} role="status">${text}${since}</p>`;
}

function count(name, live) {
  if (!live) return null;
  if (name === "overview") {
    const n = live.attention.length;
    return n > 0 ? html`<span class="count is-bad" title=${`${n} need attention`}>${n}</span>` : null;
  }
  if (name === "jobs") {
    const n = live.services.reduce((sum, s) => sum + s.queued + s.started, 0);
    return n > 0 ? html`<span class="count" title="waiting and running">${num(n)}</span>` : null;
  }
  if (name === "workers") return html`<span class="count" title="workers that beat">${live.workers.length}</span>`;
  return null;
}

function Nav({ state }) {
  const at = state.route.panel === "job" ? "jobs" : state.route.panel;
  return html`<nav aria-label="Panels">
    <ul>
      ${NAV.map(
        (name) => html`<li key=${name}>
          <a href=${name === "overview" ? "#/" : to(name)} aria-current=${at === name ? "page" : undefined}>
            ${panels[name].title}${count(name, state.live)}
          </a>
        </li>`,
      )}
      ${
        may(state.you, "submit") &&
        html`<li class="new"><a href=${to("submit")} aria-current=${at === "submit" ? "page" : undefined}>New job</a></li>`
      }
    </ul>
  </nav>`;
}

const SCOPES = { read: "may look", submit: "may look and submit", admin: "may do everything" };
function You({ state }) {
  const { you, live } = state;
  if (!you) return null;
  return html`<div class="you">
    <p title=${you.open ? "No API key is configured: whoever is on this machine may do everything." : `key ${you.key}`}>
      ${you.open ? "No key set" : `Your key ${SCOPES[you.scope]}`}
    </p>
    ${!you.open && html`<button type="button" class="plain" onClick=${state.do.signOut}>Sign out</button>`}
    <p class="dim">Longhaul ${live?.version}</p>
  </div>`;
}

const Notices = ({ state }) =>
  html`<div class="notices" role="status" aria-live="polite">
    ${state.notices.map(
      ({ id, text, kind, href }) => html`<div key=${id} class=${`notice is-${kind}`}>
        <p>${text} ${href && html`<a href=${href}>Show</a>`}</p>
        <button type="button" class="plain" aria-label="Dismiss" onClick=${() => state.do.forget(id)}>×</button>
      </div>`,
    )}
    ${state.bulks.map((bulk) => html`<${Bulk} key=${bulk.bulk_id} bulk=${bulk} state=${state} />`)}
  </div>`;

const DONE = { requeue: "queued again", cancel: "canceled", delete: "deleted" };
function Bulk({ bulk, state }) {
  const over = bulk.status === "done";
  const text = over
    ? `${num(bulk.done)} of ${num(bulk.matched)} ${DONE[bulk.action]}.`
    : `${num(bulk.done)} ${DONE[bulk.action]}; ${num(bulk.looked)} of ${num(bulk.total)} looked at …`;
  return html`<div class="notice is-bulk">
    <div>
      <p>${text}</p>
      <progress value=${bulk.progress} max="1" aria-label="Progress of the bulk action"></progress>
    </div>
    <button type="button" class="plain" aria-label="Dismiss" onClick=${() => state.do.forgetBulk(bulk.bulk_id)}>×</button>
  </div>`;
}

const NOWHERE = {
  title: "Nothing here",
  view: () => html`<p class="empty">There is no such panel. <a href="#/">To the overview</a></p>`,
};

export function Shell({ state }) {
  if (state.link === "signed out") return html`<${SignIn} state=${state} />`;
  const name = state.route.panel;
  const panel = Object.hasOwn(panels, name) ? panels[name] : NOWHERE;
  const title = typeof panel.title === "function" ? panel.title(state) : panel.title;
  document.title = `${title} · Longhaul`;
  return html`<div class="shell">
    <a class="skip" href="#main" onClick=${toMain}>Skip to the content</a>
    <header>
      <p class="brand"><a href="#/">Longhaul</a></p>
      <${Link} state=${state} />
      <${Nav} state=${state} />
      <${You} state=${state} />
    </header>
    <main id="main" tabindex="-1" class=${`panel-${name}`}>
      <h1 id="title" tabindex="-1">${title}</h1>
      ${state.live ? html`<${Panel} key=${`${name} ${state.route.id}`} panel=${panel} state=${state} />` : html`<p class="empty" aria-busy="true">${waiting(state.link)}</p>`}
    </main>
    <${Notices} state=${state} />
    ${state.dialog && html`<${Dialog} dialog=${state.dialog} close=${state.do.close} />`}
  </div>`;
}

/** A panel that breaks says so, and leaves the others alone. */
function Panel({ panel, state }) {
  const [error, reset] = useErrorBoundary((e) => console.error(e));
  if (!error) return html`${panel.view(state)}`;
  return html`<div class="banner is-bad" role="alert">
    <p>This panel broke: ${error.message}</p><button type="button" onClick=${reset}>Try again</button>
  </div>`;
}

const waiting = (link) =>
  ({
    redis: "Redis does not answer. The gateway tries again every second; what is queued lies safe in Redis.",
    lost: "The gateway does not answer. Trying again …",
  })[link] ?? "Loading …";

function toMain(event) {
  event.preventDefault(); // the address after # is the panel's
  document.getElementById("main").focus();
}

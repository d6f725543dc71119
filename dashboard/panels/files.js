// Files in the volumes that gateway and microservices share: look, fetch, bring by drop.
import { bytes, num } from "../lib/format.js";
import { html, useLayoutEffect, useRef, useState } from "../lib/html.js";
import { to } from "../lib/route.js";
import { Bar, Empty, Fault, Loading, may } from "../parts/bits.js";

export const title = "Files";
const SHOWN = 300;
const VOLUMES = { "/uploads/": "Uploads", "/output/": "Output", "/examples/": "Examples" };

function Drop({ state }) {
  const [over, setOver] = useState(false);
  const drag = (on) => (event) => {
    event.preventDefault();
    setOver(on);
  };
  const drop = (event) => {
    event.preventDefault();
    setOver(false);
    state.do.upload([...event.dataTransfer.files]);
  };
  if (!may(state.you, "submit")) return html`<p class="dim">Your key may look and fetch, not upload.</p>`;
  return html`<label class=${`drop ${over ? "is-over" : ""}`} onDragOver=${drag(true)} onDragEnter=${drag(true)} onDragLeave=${drag(false)} onDrop=${drop}>
    <input type="file" multiple class="hidden" onChange=${(event) => {
      state.do.upload([...event.target.files]);
      event.target.value = "";
    }} />
    <span><strong>Drop files here</strong>, or choose them. They go to /uploads.</span>
  </label>`;
}

const Uploads = ({ state }) =>
  state.uploads.length > 0 &&
  html`<ul class="uploads" aria-label="Uploads" aria-live="polite">
    ${state.uploads.map(
      (u) => html`<li key=${u.id}>
        <span class="name">${u.name} <span class="dim">${bytes(u.size)}</span></span>
        ${
          u.fault
            ? html`<span class="fault">${u.fault}</span>`
            : u.path
              ? html`<span class="word is-finished">${u.path}</span>`
              : html`<span><${Bar} value=${u.share} max=${1} label=${`${u.name}: ${Math.round(u.share * 100)} %`} /> ${Math.round(u.share * 100)} %</span>`
        }
        ${(u.fault || u.path) && html`<button type="button" class="plain" aria-label=${`Forget ${u.name}`} onClick=${() => state.do.forgetUpload(u.id)}>×</button>`}
      </li>`,
    )}
  </ul>`;

function Volume({ state, prefix, files }) {
  return html`<section class="card" aria-labelledby=${`volume${prefix.replaceAll("/", "-")}`}>
    <div class="card-head"><h2 id=${`volume${prefix.replaceAll("/", "-")}`}>${VOLUMES[prefix] ?? prefix} <span class="dim">${num(files.length)}</span></h2></div>
    ${
      files.length === 0
        ? html`<p class="dim">Empty.</p>`
        : html`<ul class="files">
            ${files.slice(0, SHOWN).map(
              (file) => html`<li key=${file}>
                <span class="name mono">${file.slice(prefix.length)}</span>
                <span class="buttons">
                  ${/\.ifc(zip)?$/i.test(file) && may(state.you, "submit") && html`<a href=${to("submit", { file })}>Use</a>`}
                  <button type="button" class="plain" aria-label=${`Download ${file}`} onClick=${() => state.do.download(file)}>Download</button>
                </span>
              </li>`,
            )}
          </ul>
          ${files.length > SHOWN && html`<p class="dim">and ${num(files.length - SHOWN)} more; narrow the names down.</p>`}`
    }
  </section>`;
}

/** The text is the reader's while they type: a state that arrives meanwhile must not set it back. */
function Name({ name, filter }) {
  const field = useRef(null);
  useLayoutEffect(() => {
    field.current.value = name;
  }, [name]);
  return html`<div class="filters"><label class="hidden" for="name">Name</label>
    <input id="name" ref=${field} type="search" class="grow" placeholder="part of a name" onChange=${(e) => filter({ name: e.target.value })} /></div>`;
}

export function view(state) {
  const { files, route } = state;
  const wanted = (route.query.name ?? "").toLowerCase();
  const all = files?.files ?? [];
  const named = wanted === "" ? all : all.filter((file) => file.toLowerCase().includes(wanted));
  return html`
    <${Drop} state=${state} />
    <${Uploads} state=${state} />
    <${Fault} fault=${files?.fault} />
    ${!files && html`<${Loading} what="the list of files" />`}
    ${
      files?.files &&
      html`<${Name} name=${route.query.name ?? ""} filter=${state.do.filter} />
      ${files.truncated && html`<p class="dim">Only the first ${num(files.limit)} files are listed.</p>`}
      ${all.length === 0 ? html`<${Empty} title="No files yet.">Drop one above, or run <code>bun services/make-house.ts</code> for an example.</${Empty}>` : null}
      <div class="stack">${Object.keys(VOLUMES).map((prefix) => html`<${Volume} key=${prefix} prefix=${prefix} state=${state} files=${named.filter((file) => file.startsWith(prefix))} />`)}</div>`
    }`;
}

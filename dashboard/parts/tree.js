// JSON as a tree of text nodes. Long texts, long lists and deep branches are cut, and say so.
import { isRaw } from "../lib/api.js";
import { bytes, num } from "../lib/format.js";
import { html, useState } from "../lib/html.js";

const LONG_TEXT = 600;
const PAGE = 100;
/** Levels that are open from the start. */
const OPEN = 2;

function Text({ text }) {
  const [all, setAll] = useState(text.length <= LONG_TEXT * 1.2);
  if (all) return html`<span class="json-text">"${text}"</span>`;
  return html`<span class="json-text">"${text.slice(0, LONG_TEXT)}…" </span
    ><button type="button" class="plain" onClick=${() => setAll(true)}>all ${num(text.length)} characters</button>`;
}

function Value({ value, depth }) {
  if (value === null) return html`<span class="json-word">null</span>`;
  if (isRaw(value)) return html`<span class="json-number">${JSON.stringify(value)}</span>`;
  if (typeof value === "string") return html`<${Text} text=${value} />`;
  if (typeof value === "number") return html`<span class="json-number">${String(value)}</span>`;
  if (typeof value === "boolean") return html`<span class="json-word">${String(value)}</span>`;
  return html`<${Branch} value=${value} depth=${depth} />`;
}

function Branch({ value, depth }) {
  const [shown, setShown] = useState(PAGE);
  const [open, setOpen] = useState(depth < OPEN);
  const isList = Array.isArray(value);
  const entries = isList ? value.map((item, i) => [i, item]) : Object.entries(value);
  if (entries.length === 0) return html`<span class="json-word">${isList ? "[ ]" : "{ }"}</span>`;
  const what = isList ? `${num(entries.length)} ${entries.length === 1 ? "item" : "items"}` : keys(entries);
  return html`<details open=${open} onToggle=${(event) => event.currentTarget === event.target && setOpen(event.target.open)}>
    <summary>${isList ? "[…]" : "{…}"} <span class="dim">${what}</span></summary>
    ${
      open &&
      html`<ul>
        ${entries.slice(0, shown).map(
          ([key, item]) => html`<li key=${key}>
            <span class="json-key">${isList ? key : key}</span>: <${Value} value=${item} depth=${depth + 1} />
          </li>`,
        )}
        ${
          entries.length > shown &&
          html`<li><button type="button" class="plain" onClick=${() => setShown(shown + PAGE * 5)}>
            ${num(entries.length - shown)} more
          </button></li>`
        }
      </ul>`
    }
  </details>`;
}

const keys = (entries) => {
  const names = entries.slice(0, 4).map(([key]) => key);
  return `${names.join(", ").slice(0, 60)}${entries.length > 4 ? ", …" : ""}`;
};

/** @param name  for a reader of a screen; @param tools  buttons beside the title */
export function Json({ title, value, sizeBytes, tools }) {
  return html`<section class="card json" aria-label=${title}>
    <div class="card-head">
      <h2>${title}${sizeBytes ? html` <span class="dim">${bytes(sizeBytes)}</span>` : null}</h2>
      <div class="buttons">${tools}</div>
    </div>
    <div class="json-body"><${Value} value=${value} depth=${0} /></div>
  </section>`;
}

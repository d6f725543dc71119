// A job by hand: a form from the operation's schema, with the files of the volumes at hand; or its JSON as it is.
import { span } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { Fault, Loading, may } from "../parts/bits.js";
import { blank, Fields } from "../parts/form.js";

export const title = ({ route }) => (route.query.of ? "Edit and run again" : "New job");
const FILES = "files-in-volumes";
const OPTIONS = {
  priority: { label: "priority", type: "number", hint: "0 to 9, 9 first; 5 if left out", min: 0, max: 9 },
  delay: { label: "delay", type: "text", hint: "30s, 5m, 2h" },
  tags: { label: "tags", type: "text", hint: "separated by commas" },
  timeout: { label: "time limit", type: "text", hint: "at most the operation's own" },
};

/** What the form holds at first: a job that is edited, a file that was chosen, or defaults. */
function beginning(op, { draft, route }) {
  if (draft?.operation === op.name) return draft;
  const value = blank(op.schema);
  const first = op.files.find((path) => !path.includes(".") && !path.startsWith("output"));
  if (route.query.file && first) value[first] = route.query.file;
  return { operation: op.name, value, options: {} };
}

function Form({ state, op }) {
  const [draft, setDraft] = useState(() => beginning(op, state));
  // without fields there is nothing that a form could show
  const [asText, setAsText] = useState(Object.keys(op.schema.properties ?? {}).length === 0);
  const [text, setText] = useState(() => JSON.stringify(draft.value, null, 2));
  const [fault, setFault] = useState();
  const [busy, setBusy] = useState(false);
  const errors = fault?.errors ?? [];

  const toText = () => {
    setText(JSON.stringify(draft.value, null, 2));
    setAsText(true);
  };
  const toForm = () => {
    try {
      setDraft({ ...draft, value: JSON.parse(text) });
      setAsText(false);
      setFault(undefined);
    } catch (error) {
      setFault({ text: `That is not JSON: ${error.message}`, errors: [] });
    }
  };
  const submit = async (event) => {
    event.preventDefault();
    const payload = asText ? text : JSON.stringify(draft.value);
    const options = Object.fromEntries(Object.entries(draft.options).filter(([, v]) => v !== "" && v !== undefined));
    const rest = JSON.stringify({ operation: op.name, options, ...(draft.of ? { of: draft.of } : {}) });
    setBusy(true);
    // the text goes in as it was written: parsing it here would lose digits
    setFault(await state.do.submit(`${rest.slice(0, -1)},"payload":${payload.trim() || "null"}}`));
    setBusy(false);
  };
  const elsewhere = errors.filter((e) => e.path === "" || OPTIONS[e.path]);
  return html`<form class="submit" onSubmit=${submit}>
    <p class="dim">${op.summary}. Runs on ${op.service}, for ${span(op.timeout * 1_000)} at most.</p>
    ${!op.deployed && html`<p class="fault">${op.name} is not deployed here: it has no address (${op.service.toUpperCase().replaceAll("-", "_")}_URL, or url in SERVICES), so the job would be refused.</p>`}
    ${draft.of && html`<p class="dim">A new job from ${draft.of}. Values shown as ••• are taken from it unless you write others.</p>`}
    ${fault && html`<div class="banner is-bad" role="alert"><p>${fault.text}</p>${elsewhere.length > 1 && html`<ul>${elsewhere.map((e) => html`<li key=${e.path}>${e.path} ${e.message}</li>`)}</ul>`}</div>`}
    <div class="segments" role="group" aria-label="How to write the payload">
      <button type="button" aria-pressed=${!asText} onClick=${() => asText && toForm()}>Form</button>
      <button type="button" aria-pressed=${asText} onClick=${() => !asText && toText()}>JSON</button>
    </div>
    ${
      asText
        ? html`<div class="field"><label for="payload-text">Payload</label>
            <textarea id="payload-text" class="mono" rows="16" spellcheck="false" value=${text} onInput=${(e) => setText(e.target.value)} /></div>`
        : html`<${Fields} schema=${op.schema} value=${draft.value} files=${op.files} errors=${errors} fileList=${FILES}
            set=${(value) => setDraft({ ...draft, value })} />`
    }
    <details class="rest"><summary>Options</summary><div class="fields">
      ${Object.entries(OPTIONS).map(
        ([name, { label, type, hint, min, max }]) => html`<div class="field" key=${name}>
          <label for=${`option-${name}`}>${label}</label>
          <input id=${`option-${name}`} type=${type} min=${min} max=${max} aria-describedby=${`option-${name}-about`} value=${draft.options[name] ?? ""}
            onInput=${(e) => setDraft({ ...draft, options: { ...draft.options, [name]: e.target.value } })} />
          <p class="dim" id=${`option-${name}-about`}>${hint}</p></div>`,
      )}
    </div></details>
    <div class="buttons"><button class="main" disabled=${busy}>${busy ? "Sending …" : "Send the job"}</button></div>
  </form>`;
}

export function view(state) {
  const { operations, files, route, you } = state;
  if (!may(you, "submit")) return html`<p class="banner">Your key may read, not submit.</p>`;
  if (!operations?.operations)
    return operations?.fault
      ? html`<${Fault} fault=${operations.fault} />`
      : html`<${Loading} what="the operations" />`;
  const list = [...operations.operations].sort((a, b) => Number(b.deployed) - Number(a.deployed));
  const op = list.find(({ name }) => name === route.query.op) ?? list[0];
  return html`<div class="card">
    <div class="field"><label for="operation">Operation</label>
      <select id="operation" value=${op.name} onChange=${(e) => state.do.filter({ op: e.target.value, of: "" })}>
        ${list.map((one) => html`<option key=${one.name} value=${one.name}>${one.name}${one.deployed ? "" : " (not deployed)"}</option>`)}
      </select></div>
    <datalist id=${FILES}>${(files?.files ?? []).slice(0, 1_000).map((file) => html`<option key=${file} value=${file} />`)}</datalist>
    <${Form} key=${`${op.name} ${route.query.of ?? ""} ${route.query.file ?? ""}`} state=${state} op=${op} />
  </div>`;
}

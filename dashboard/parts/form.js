// A form made from an operation's JSON Schema. What it cannot show as a field it shows as JSON.
import { isRaw } from "../lib/api.js";
import { html, useId } from "../lib/html.js";

const typeOf = (schema) => (Array.isArray(schema.type) ? schema.type.find((t) => t !== "null") : schema.type);
/** anyOf [X, null] is X that may be left empty. */
export function plain(schema) {
  const some = schema.anyOf?.filter((one) => one.type !== "null");
  if (some?.length === 1 && schema.anyOf.length === 2) return { ...schema, ...some[0], nullable: true };
  return schema;
}

/** The paths in `files` below one key: "clash_sets.*.a.*.file" below clash_sets is "*.a.*.file". */
const below = (files, key) =>
  files.flatMap((path) => {
    const [head, ...rest] = path.split(".");
    return head === key || head === "*" ? [rest.join(".")] : [];
  });

/** A value to begin with: defaults, and one empty item where one is needed. */
export function blank(schema) {
  const s = plain(schema);
  if (s.default !== undefined) return s.default;
  if (s.nullable) return null;
  const type = typeOf(s);
  if (type === "object") {
    const needed = s.required ?? [];
    return Object.fromEntries(
      Object.entries(s.properties ?? {}).flatMap(([key, of]) =>
        needed.includes(key) || of.default !== undefined ? [[key, blank(of)]] : [],
      ),
    );
  }
  if (type === "array") return typeOf(plain(s.items ?? {})) === "object" ? [blank(s.items)] : [];
  if (type === "boolean") return false;
  if (type === "number" || type === "integer") return 0;
  return "";
}

const Faults = ({ id, errors, path }) => {
  const own = errors.filter((e) => e.path === path || e.path === `payload.${path}`);
  return own.length > 0 && html`<p class="fault" id=${`${id}-fault`}>${own.map((e) => e.message).join("; ")}</p>`;
};
const faulty = (errors, path) => errors.some((e) => e.path === path || e.path === `payload.${path}`);

/** @param value, set: the value and what changes it */
export function Field({ name, schema, value, set, path, files, errors, required, fileList }) {
  const id = useId();
  const s = plain(schema);
  const type = typeOf(s);
  const isFile = files.includes("");
  const about = { "aria-invalid": faulty(errors, path), "aria-describedby": `${id}-about ${id}-fault` };
  const label = html`<label for=${id}>${name}${required ? html` <span class="needed">needed</span>` : ""}</label>`;
  const hint = s.description ? html`<p class="dim" id=${`${id}-about`}>${s.description}</p>` : null;
  const fault = html`<${Faults} id=${id} errors=${errors} path=${path} />`;
  const field = (input) => html`<div class="field">${label}${input}${hint}${fault}</div>`;

  if (s.enum) {
    return field(html`<select id=${id} ...${about} value=${value ?? ""} onChange=${(e) => set(e.target.value)}>
      ${s.enum.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
    </select>`);
  }
  if (type === "boolean") {
    return html`<div class="field check"><input id=${id} type="checkbox" checked=${value === true} ...${about}
      onChange=${(e) => set(e.target.checked)} />${label}${hint}${fault}</div>`;
  }
  if (type === "number" || type === "integer") {
    return field(html`<input id=${id} type="number" step=${type === "integer" ? 1 : "any"} min=${s.minimum} max=${s.maximum} ...${about}
      value=${isRaw(value) ? JSON.stringify(value) : (value ?? "")} onInput=${(e) => set(e.target.value === "" ? null : Number(e.target.value))} />`);
  }
  if (type === "string") {
    const empty = s.nullable ? null : "";
    return field(html`<input id=${id} type="text" ...${about} list=${isFile ? fileList : undefined} spellcheck="false" autocomplete="off"
      required=${required} value=${value ?? ""} onInput=${(e) => set(e.target.value === "" ? empty : e.target.value)} />`);
  }
  if (type === "array" && typeOf(plain(s.items ?? {})) === "string") {
    const lines = (value ?? []).join("\n");
    return field(html`<textarea id=${id} rows="3" spellcheck="false" placeholder="one a line" ...${about} defaultValue=${lines}
      onInput=${(e) => {
        const list = e.target.value
          .split("\n")
          .map((line) => line.trim())
          .filter(Boolean);
        set(list.length === 0 && s.nullable ? null : list);
      }} />`);
  }
  if (type === "array" && typeOf(plain(s.items ?? {})) === "object") {
    const list = value ?? [];
    const put = (i, item) => set(list.map((old, at) => (at === i ? item : old)));
    return html`<fieldset class="group"><legend>${name}${required ? html` <span class="needed">needed</span>` : ""}</legend>${hint}${fault}
      ${list.map(
        (item, i) => html`<div class="item" key=${i}>
          <${Fields} schema=${s.items} value=${item} set=${(v) => put(i, v)} path=${`${path}.${i}`} files=${below(files, "*")} errors=${errors} fileList=${fileList} />
          <button type="button" class="plain" onClick=${() => set(list.filter((_, at) => at !== i))}>Remove ${name} ${i + 1}</button>
        </div>`,
      )}
      <button type="button" onClick=${() => set([...list, blank(s.items)])}>Add to ${name}</button>
    </fieldset>`;
  }
  if (type === "object" && s.properties) {
    return html`<fieldset class="group"><legend>${name}</legend>
      <${Fields} schema=${s} value=${value ?? {}} set=${set} path=${path} files=${files} errors=${errors} fileList=${fileList} /></fieldset>`;
  }
  return field(html`<textarea id=${id} rows="3" spellcheck="false" class="mono" ...${about} defaultValue=${value === undefined ? "" : JSON.stringify(value, null, 2)}
    onChange=${(e) => {
      try {
        set(e.target.value.trim() === "" ? undefined : JSON.parse(e.target.value));
        e.target.setCustomValidity("");
      } catch (error) {
        e.target.setCustomValidity(`Not JSON: ${error.message}`);
        e.target.reportValidity();
      }
    }} />`);
}

/** All fields of an object; those that are needed first, the rest folded away. */
export function Fields({ schema, value, set, path = "", files, errors, fileList }) {
  const s = plain(schema);
  const needed = (s.required ?? []).filter((key) => s.properties?.[key]?.default === undefined);
  const all = Object.entries(s.properties ?? {});
  const first = all.filter(([key]) => needed.includes(key));
  const rest = all.filter(([key]) => !needed.includes(key));
  const at = (key) => (path === "" ? key : `${path}.${key}`);
  const one = ([
    key,
    of,
  ]) => html`<${Field} key=${key} name=${key} schema=${of} value=${value?.[key]} path=${at(key)} required=${needed.includes(key)}
    files=${below(files, key)} errors=${errors} fileList=${fileList} set=${(v) => set({ ...value, [key]: v })} />`;
  const wrong = rest.some(([key]) => errors.some((e) => e.path.replace(/^payload\./, "").startsWith(at(key))));
  return html`<div class="fields">${first.map(one)}
    ${rest.length > 0 && html`<details class="rest" open=${wrong || first.length === 0}><summary>${rest.length} more with defaults</summary><div class="fields">${rest.map(one)}</div></details>`}
  </div>`;
}

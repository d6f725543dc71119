// Shows /openapi.json as a page. All that it says is put in as text nodes; nothing is asked of another host.

const METHODS = ["get", "post", "put", "delete"];

/** An element with attributes and children; texts become text nodes. */
function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.flat().filter((child) => child !== undefined && child !== null));
  return node;
}

const code = (text) => el("code", {}, text);
const schemaId = (name) => `schema-${name}`;
const json = (value) => JSON.stringify(value);
const nameOf = (ref) => ref.replace("#/components/schemas/", "");

/** A schema's type in a few words, with links to the named ones. */
function typeOf(schema) {
  if (schema.$ref) {
    const name = nameOf(schema.$ref);
    return [el("a", { href: `#${schemaId(name)}` }, name)];
  }
  if (schema.const !== undefined) return [code(json(schema.const))];
  if (schema.enum) return joined(schema.enum.map((value) => [code(json(value))]));
  const several = schema.anyOf ?? schema.oneOf;
  if (several && !schema.type) return joined(several.map(typeOf));
  if (schema.type === "array") return ["array of ", ...typeOf(schema.items ?? {})];
  const words = [schema.type ?? "anything"].flat().join(" | ");
  return [schema.format ? `${words} (${schema.format})` : words];
}

const joined = (parts) => parts.flatMap((part, i) => (i === 0 ? part : [" | ", ...part]));

/** What else a schema says: default, bounds. */
function notesOf(schema) {
  const notes = [];
  if (schema.default !== undefined) notes.push(`default ${json(schema.default)}`);
  for (const [key, word] of [
    ["minimum", "at least"],
    ["maximum", "at most"],
    ["minItems", "items, at least"],
    ["maxItems", "items, at most"],
    ["maxLength", "characters, at most"],
  ]) {
    if (schema[key] !== undefined) notes.push(`${word} ${schema[key]}`);
  }
  if (schema.pattern) notes.push(`like ${schema.pattern}`);
  return notes.join(" · ");
}

/** Rows of an object's fields, those of nested objects by their path. */
function fieldsOf(schema, prefix = "") {
  const rows = [];
  for (const [name, field] of Object.entries(schema.properties ?? {})) {
    const path = `${prefix}${name}`;
    rows.push({ path, field, required: (schema.required ?? []).includes(name) });
    const inner = field.type === "array" ? (field.items ?? {}) : field;
    if (inner.properties) rows.push(...fieldsOf(inner, `${path}${field.type === "array" ? "[]" : ""}.`));
  }
  return rows;
}

function table(heads, rows) {
  const head = el("tr", {}, ...heads.map((text) => el("th", { scope: "col" }, text)));
  const body = rows.map((cells) => el("tr", {}, ...cells.map((cell) => el("td", {}, ...[cell].flat()))));
  return el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...body)));
}

function schemaTable(schema) {
  const rows = fieldsOf(schema);
  const parts = [];
  if (rows.length === 0) parts.push(el("p", {}, ...typeOf(schema)));
  else {
    parts.push(
      table(
        ["field", "type", "", "about"],
        rows.map(({ path, field, required }) => [
          code(path),
          typeOf(field),
          required ? "required" : "",
          [field.description, notesOf(field)].filter(Boolean).join(" · "),
        ]),
      ),
    );
  }
  const loose = schema.additionalProperties !== undefined && schema.additionalProperties !== false;
  if (loose && rows.length > 0) parts.push(el("p", { class: "dim" }, "Further fields are passed on as they are."));
  return parts;
}

/** A value that fits: required fields only. */
function exampleOf(schema, all, depth = 0) {
  if (schema.$ref) return exampleOf(all[nameOf(schema.$ref)] ?? {}, all, depth + 1);
  if (schema.examples) return schema.examples[0];
  if (schema.default !== undefined && schema.default !== null) return schema.default;
  if (schema.const !== undefined) return schema.const;
  if (schema.enum) return schema.enum[0];
  if (depth > 6) return {};
  const first = (schema.anyOf ?? schema.oneOf)?.[0];
  if (schema.properties || schema.type === "object") {
    const from = first ? { ...schema.properties, ...first.properties } : (schema.properties ?? {});
    return Object.fromEntries(
      (schema.required ?? []).map((name) => [name, exampleOf(from[name] ?? {}, all, depth + 1)]),
    );
  }
  if (first) return exampleOf(first, all, depth + 1);
  if (schema.type === "array") return [exampleOf(schema.items ?? {}, all, depth + 1)];
  return { string: "…", number: 1, integer: 1, boolean: true }[[schema.type].flat()[0]] ?? {};
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curlOf(method, path, operation, all) {
  const base = new URL(".", location.href).href.replace(/\/$/, "");
  const needed = (operation.parameters ?? []).filter((one) => one.in === "query" && one.required);
  const query = needed.map(({ name }) => `${name}=…`).join("&");
  const parts = [
    `curl ${method === "get" ? "" : `-X ${method.toUpperCase()} `}${quoted(`${base}${path}${query && `?${query}`}`)}`,
  ];
  if (!operation.security) parts.push('-H "X-API-Key: $KEY"');
  const content = operation.requestBody?.content ?? {};
  if (content["application/json"]) {
    parts.push("-H 'Content-Type: application/json'");
    parts.push(`-d ${quoted(JSON.stringify(exampleOf(content["application/json"].schema, all)))}`);
  }
  if (content["multipart/form-data"]) parts.push("-F file=@model.ifc");
  return parts.join(" \\\n  ");
}

function routeSection(method, path, operation, all) {
  const heading = el(
    "h3",
    {},
    el("a", { href: `#${operation.operationId}` }, el("span", { class: "method" }, method.toUpperCase()), ` ${path}`),
  );
  const access = operation.security ? "Open, no key needed." : `Key with scope ${operation["x-scope"]} or above.`;
  const section = el(
    "section",
    { class: "route", id: operation.operationId },
    heading,
    el("p", {}, operation.summary),
    el("p", { class: "dim" }, access),
  );
  for (const [type, { schema }] of Object.entries(operation.requestBody?.content ?? {})) {
    const target = schema.$ref ? all[nameOf(schema.$ref)] : schema;
    section.append(el("h4", {}, `Body, ${type}`), ...schemaTable(target));
  }
  section.append(el("h4", {}, "Example"), el("pre", {}, code(curlOf(method, path, operation, all))));
  if (operation.parameters?.length) {
    const rows = operation.parameters.map((one) => [
      code(one.name),
      one.in,
      typeOf(one.schema),
      one.required ? "required" : "",
      [one.description, notesOf(one.schema)].filter(Boolean).join(" · "),
    ]);
    section.append(el("h4", {}, "Parameters"), table(["name", "in", "type", "", "about"], rows));
  }
  const rows = Object.entries(operation.responses).map(([status, answer]) => {
    const [type, content] = Object.entries(answer.content ?? {})[0] ?? [];
    const what = content ? [...typeOf(content.schema), type === "application/json" ? "" : ` as ${type}`] : "";
    return [code(status), answer.description, what, Object.keys(answer.headers ?? {}).join(", ")];
  });
  section.append(el("h4", {}, "Answers"), table(["status", "meaning", "body", "headers"], rows));
  return section;
}

function show(doc) {
  const all = doc.components.schemas;
  const nav = document.getElementById("nav");
  const main = document.getElementById("main");
  const find = el("input", { type: "search", placeholder: "Find a route", "aria-label": "Find a route" });
  const links = [];
  const link = (id, text) => {
    const node = el("a", { href: `#${id}` }, text);
    links.push(node);
    return node;
  };
  const toc = [find];
  const parts = [
    el("h1", {}, doc.info.title, " ", el("span", { class: "dim" }, doc.info.version)),
    el("p", {}, doc.info.description),
    el("p", {}, "Keys go into X-API-Key or Authorization: Bearer. ", el("a", { href: "openapi.json" }, "openapi.json")),
  ];
  const routes = Object.entries(doc.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({ method, path, operation: item[method] })),
  );
  for (const { name, description } of doc.tags) {
    toc.push(el("h2", {}, name));
    parts.push(el("h2", { id: `tag-${name}` }, description));
    for (const { method, path, operation } of routes.filter((route) => route.operation.tags[0] === name)) {
      toc.push(link(operation.operationId, `${method.toUpperCase()} ${path}`));
      parts.push(routeSection(method, path, operation, all));
    }
  }
  toc.push(el("h2", {}, "schemas"));
  parts.push(el("h2", {}, "Schemas"));
  for (const [name, schema] of Object.entries(all)) {
    const id = schemaId(name);
    toc.push(link(id, name));
    const heading = el("h3", {}, el("a", { href: `#${id}` }, name));
    const about = schema.description ? el("p", {}, schema.description) : undefined;
    parts.push(el("section", { class: "schema", id }, heading, about, ...schemaTable(schema)));
  }
  find.addEventListener("input", () => {
    const wanted = find.value.trim().toLowerCase();
    for (const node of links) node.hidden = !node.textContent.toLowerCase().includes(wanted);
  });
  nav.replaceChildren(...toc);
  main.replaceChildren(...parts);
  // the browser looked for the anchor before there was one
  const anchor = decodeURIComponent(location.hash.slice(1));
  if (anchor) document.getElementById(anchor)?.scrollIntoView();
}

try {
  const answer = await fetch("openapi.json");
  if (!answer.ok) throw new Error(`openapi.json: ${answer.status}`);
  show(await answer.json());
} catch (error) {
  document
    .getElementById("main")
    .replaceChildren(el("p", { role: "alert" }, `The document cannot be shown: ${error.message}`));
}

// The plain first page: reads /state.json every two seconds and writes text nodes, never markup.
const main = document.getElementById("main");
const live = document.getElementById("live");

/** An element with attributes and children; texts become text nodes, so nothing a job says can be markup. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.map((child) => (child instanceof Node ? child : String(child ?? ""))));
  return node;
}
const table = (caption, heads, rows, empty) =>
  el(
    "section",
    {},
    el("h2", {}, caption),
    rows.length === 0
      ? el("p", { class: "empty" }, empty)
      : el(
          "div",
          { class: "scroll" },
          el(
            "table",
            {},
            el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
            el("tbody", {}, ...rows.map((cells) => el("tr", {}, ...cells.map((cell) => el("td", {}, cell))))),
          ),
        ),
  );
const time = (ms) =>
  ms
    ? el(
        "time",
        { datetime: new Date(ms).toISOString(), title: new Date(ms).toISOString() },
        new Date(ms).toLocaleTimeString(),
      )
    : "";
const word = (text, kind) => el("span", { class: `word ${kind}` }, text);

function show(state) {
  main.replaceChildren(
    table(
      "Queues",
      ["service", "stands", "queued", "scheduled", "started", "finished", "failed", "canceled", "slots"],
      state.services.map((s) => [
        s.service,
        word(s.standing.text, s.standing.word),
        s.queued,
        s.scheduled,
        s.started,
        s.finished,
        s.failed,
        s.canceled,
        `${s.busy}/${s.slots}`,
      ]),
      "No services.",
    ),
    table(
      "Workers",
      ["worker", "host", "state", "runs", "memory", "last beat"],
      state.workers.map((w) => [
        w.id,
        w.host,
        w.state,
        Object.entries(w.lanes)
          .map(([name, lane]) => `${name} ${lane.busy}/${lane.slots}`)
          .join(", "),
        `${Math.round(w.rssBytes / 1e6)} MB`,
        time(w.beatAt),
      ]),
      "No worker has reported in the last half minute: jobs wait. Start one with bun run worker.ts.",
    ),
    table(
      "Newest jobs",
      ["job", "operation", "state", "submitted", "ended", "error or result"],
      state.newest.map((j) => [
        j.id,
        j.operation,
        word(j.state, j.state),
        time(j.created),
        time(j.ended),
        el("code", {}, j.text),
      ]),
      "No jobs yet.",
    ),
  );
}

function signIn() {
  const input = el("input", { type: "password", name: "key", autocomplete: "current-password", required: "" });
  const told = el("p", { role: "alert" });
  const form = el("form", {}, el("label", {}, "API key ", input), el("button", {}, "Sign in"), told);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const answer = await fetch("/signin", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ key: input.value }),
    });
    if (answer.ok) return void tick();
    told.textContent = (await answer.json()).detail;
  });
  main.replaceChildren(form);
  live.textContent = "signed out";
}

async function tick() {
  try {
    const answer = await fetch("/state.json");
    if (answer.status === 401) return signIn();
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.detail);
    show(body);
    live.textContent = `live, ${new Date(body.at).toLocaleTimeString()}`;
  } catch (error) {
    live.textContent = `stale: ${error.message}`;
  }
  setTimeout(tick, document.hidden ? 10_000 : 2_000);
}
tick();

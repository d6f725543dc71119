// A job's life as a line: how long it waited, each attempt, the pauses between, and what is left until the deadline.
import { absolute, ms, span } from "../lib/format.js";
import { html } from "../lib/html.js";

const W = 1_000;
const GOOD = new Set(["finished"]);

/** The stretches of a job's life, in order: {kind, from, to, name}. `to` is undefined while it lasts. */
export function stretches(record, now) {
  const created = ms(record.created_at);
  const ended = ms(record.ended_at);
  const list = [];
  let at = created;
  const attempts = record.attempts.map((a) => ({ ...a, from: ms(a.started_at), to: ms(a.ended_at) }));
  if (record.status === "started")
    attempts.push({
      attempt: record.attempt,
      from: ms(record.started_at),
      to: undefined,
      outcome: "running",
      worker: record.worker,
    });
  for (const a of attempts) {
    if (a.from === undefined || Number.isNaN(a.from)) continue;
    if (a.from > at)
      list.push({ kind: "wait", from: at, to: a.from, name: list.length === 0 ? "waited" : "waited again" });
    list.push({
      kind: GOOD.has(a.outcome) ? "good" : a.outcome === "running" ? "run" : "bad",
      from: a.from,
      to: a.to,
      name: `attempt ${a.attempt}: ${a.outcome}`,
      ...a,
    });
    at = a.to ?? now;
  }
  const last = ended ?? now;
  const over = ["finished", "failed", "canceled"].includes(record.status);
  if (record.status !== "started" && last - at > 50 && (!over || list.length === 0)) {
    list.push({
      kind: "wait",
      from: at,
      to: over ? ended : undefined,
      name: record.status === "scheduled" ? "scheduled" : "waits",
    });
  }
  return list;
}

function marks(record) {
  const list = [["submitted", ms(record.created_at)]];
  if (record.due_at) list.push(["due", ms(record.due_at)]);
  const started = ms(record.started_at);
  if (started) list.push(["taken by a worker", started]);
  const { timing } = record;
  const last = record.attempts.at(-1);
  const from = last ? ms(last.started_at) : started;
  if (timing && from && record.status === "finished") {
    list.push(
      ["first byte of the answer", from + timing.first_byte_ms],
      ["answer complete", from + timing.last_byte_ms],
    );
  }
  if (record.cancel_requested_at) list.push(["cancel asked for", ms(record.cancel_requested_at)]);
  if (record.ended_at) list.push([`settled: ${record.status}`, ms(record.ended_at)]);
  return list.filter(([, at]) => at).sort((a, b) => a[1] - b[1]);
}

export function Timeline({ record, now }) {
  const list = stretches(record, now);
  const from = ms(record.created_at);
  const to = Math.max(from + 1, ms(record.ended_at) ?? now);
  const x = (at) => (W * (Math.min(at, to) - from)) / (to - from);
  const bars = list.map((s, i) => {
    const left = x(s.from);
    const width = Math.max(4, x(s.to ?? now) - left);
    return html`<rect key=${i} class=${`is-${s.kind}`} x=${Math.min(left, W - 4)} y="4" width=${width} height="16" rx="2">
      <title>${s.name}, ${span((s.to ?? now) - s.from)}</title>
    </rect>`;
  });
  return html`<section class="card timeline" aria-labelledby="timeline">
    <div class="card-head"><h2 id="timeline">Timeline</h2><p class="dim">${span(to - from)} ${record.ended_at ? "in all" : "so far"}</p></div>
    <svg viewBox=${`0 0 ${W} 24`} preserveAspectRatio="none" role="img"
      aria-label=${list.map((s) => `${s.name} ${span((s.to ?? now) - s.from)}`).join(", ")}>${bars}</svg>
    <div class="two">
      <ol class="marks" aria-label="Moments">
        ${marks(record).map(
          ([name, at], i, all) => html`<li key=${i}>
            <time datetime=${new Date(at).toISOString()} title=${absolute(at)}>${i === 0 ? absolute(at) : `+ ${span(at - all[0][1])}`}</time>
            <span>${name}</span>
          </li>`,
        )}
      </ol>
      <${Attempts} record=${record} now=${now} />
    </div>
  </section>`;
}

/** What an attempt came to, unless the job's error says the same just above. */
const message = (attempt, { error }) => {
  const whole = error?.message?.replace(/\s+/g, " ") ?? "";
  const own = attempt.message?.replace(/\s+/g, " ").trim();
  return own && !whole.startsWith(own) ? own : undefined;
};

function Attempts({ record, now }) {
  const list = stretches(record, now).filter((s) => s.kind !== "wait");
  if (list.length === 0) return html`<p class="dim">No worker has taken it yet.</p>`;
  return html`<ol class="attempts" aria-label="Attempts">
    ${list.map(
      (a, i) => html`<li key=${i}>
        <span class=${`word is-${a.outcome === "running" ? "started" : a.kind === "good" ? "finished" : "failed"}`}>attempt ${a.attempt}: ${a.outcome}${a.http_status ? `, HTTP ${a.http_status}` : ""}</span>
        <span class="dim"> ${span((a.to ?? now) - a.from)}${a.worker ? ` on worker ${a.worker}` : ""}</span>
        ${message(a, record) && html`<p class="said">${message(a, record)}</p>`}
      </li>`,
    )}
  </ol>`;
}

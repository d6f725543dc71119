// A service's last hour, a bar a minute: what finished, and what failed on top of it.
import { num } from "../lib/format.js";
import { html } from "../lib/html.js";

const W = 180;
const H = 36;

export function Spark({ ends, label }) {
  const [finished, failed] = ends;
  const most = Math.max(1, ...finished.map((n, i) => n + failed[i]));
  const step = W / finished.length;
  const height = (n) => (n === 0 ? 0 : Math.max(1.5, (n / most) * (H - 2)));
  const bar = (n, below, i, kind) => {
    if (n === 0) return null;
    const h = height(n);
    return html`<rect key=${`${kind}${i}`} class=${kind} x=${i * step} y=${H - 1 - below - h} width=${step - 0.7} height=${h} />`;
  };
  const all = finished.reduce((a, b) => a + b, 0);
  const bad = failed.reduce((a, b) => a + b, 0);
  return html`<svg class="spark" viewBox=${`0 0 ${W} ${H}`} preserveAspectRatio="none" role="img"
    aria-label=${`${label}: ${num(all)} finished, ${num(bad)} failed in the last hour, a bar a minute`}>
    <line x1="0" x2=${W} y1=${H - 0.5} y2=${H - 0.5} />
    ${finished.map((n, i) => bar(n, 0, i, "ok"))}
    ${failed.map((n, i) => bar(n, finished[i] > 0 ? height(finished[i]) : 0, i, "bad"))}
  </svg>`;
}

// Throughput and failures over time, by uPlot. Colours come from the style sheet, so they follow the system's scheme.
import uPlot from "uplot";
import { absolute, num } from "../lib/format.js";
import { html, useEffect, useRef } from "../lib/html.js";

const HEIGHT = 190;
/** A colour of the style sheet as a canvas understands it: light-dark() resolved. */
function colour(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}
const hours = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const days = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric" });
/** Ticks of the time axis in the reader's own form; a day's name where a day begins. */
const ticks = (_, list, _axis, _space, incr) =>
  list.map((s) => {
    const at = new Date(s * 1_000);
    return incr >= 86_400 || (at.getHours() === 0 && at.getMinutes() === 0) ? days.format(at) : hours.format(at);
  });

const sum = (list) => list.reduce((a, b) => a + b, 0);

function options(width, stepMs) {
  const [line, dim, accent, bad, fill] = ["--line", "--dim", "--accent", "--bad", "--accent-soft"].map(colour);
  const axis = {
    stroke: dim,
    grid: { stroke: line, width: 1 },
    ticks: { stroke: line, width: 1, size: 4 },
    font: "12px system-ui, sans-serif",
  };
  const bars = (share) => uPlot.paths.bars({ size: [share, 24], gap: 1 });
  const whole = (_, v) => (v === null || v === undefined ? "–" : num(v));
  return {
    width,
    height: HEIGHT,
    padding: [10, 8, 0, 0],
    cursor: { points: { size: 6 }, drag: { x: false, y: false } },
    scales: { x: { time: true }, y: { range: (_u, _min, most) => [0, Math.max(4, most * 1.1)] } },
    axes: [
      { ...axis, grid: { show: false }, space: 70, size: 30, values: ticks },
      { ...axis, size: 46, values: (_, ticks) => ticks.map((v) => (Number.isInteger(v) ? num(v) : "")) },
    ],
    series: [
      { label: stepMs < 120_000 ? "minute" : "from", value: (_, v) => (v ? absolute(v * 1_000) : "–") },
      {
        label: "finished",
        stroke: accent,
        fill,
        width: 1.5,
        paths: uPlot.paths.stepped({ align: 1 }),
        points: { show: false },
        value: whole,
      },
      { label: "failed", stroke: bad, fill: bad, width: 0, paths: bars(0.9), points: { show: false }, value: whole },
      { label: "submitted", stroke: dim, width: 1, dash: [3, 3], points: { show: false }, value: whole },
    ],
    legend: { live: true },
  };
}

/** @param chart {from, stepMs, series} of /history.json */
export function Chart({ chart, label }) {
  const box = useRef();
  const plot = useRef();
  const { from, stepMs, series } = chart;
  const data = [
    series.finished.map((_, i) => (from + i * stepMs) / 1_000),
    series.finished,
    series.failed,
    series.submitted,
  ];
  const latest = useRef(data);
  latest.current = data;

  useEffect(() => {
    const draw = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(box.current.clientWidth, stepMs), latest.current, box.current);
    };
    draw();
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", draw);
    const sized = new ResizeObserver(() => {
      const width = box.current?.clientWidth;
      if (width && width !== plot.current?.width) plot.current.setSize({ width, height: HEIGHT });
    });
    sized.observe(box.current);
    return () => {
      scheme.removeEventListener("change", draw);
      sized.disconnect();
      plot.current?.destroy();
      plot.current = undefined;
    };
  }, [stepMs]);
  useEffect(() => plot.current?.setData(latest.current), [chart]);

  const words = `${label}: ${num(sum(series.submitted))} submitted, ${num(sum(series.finished))} finished, ${num(sum(series.failed))} failed`;
  return html`<figure class="chart">
    <div ref=${box} role="img" aria-label=${words}></div>
    <figcaption>${words}.</figcaption>
  </figure>`;
}

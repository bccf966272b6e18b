// Draws each <div class="chart" data-src="..."> from JSON:
// {"kind": "lines" | "bars", "x": [...], "labels": [...]?, "unit": "", "series": [{"label", "tone", "values"}]}
// x is in epoch seconds; with `labels` it is a place in that list. Bars of several series are stacked.
"use strict";

const HEIGHT = 220;
const REFRESH_MS = 10000;
const charts = new Map();

function colour(element, name) {
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  element.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

const TIMES = [["h", 3600000], ["min", 60000], ["s", 1000], ["ms", 1]];
// Round in the unit that they are shown in.
const TIME_STEPS = TIMES.flatMap(([unit, size]) => {
  const steps = unit === "h" || unit === "ms" ? [1, 2, 5, 10, 20, 50, 100, 200, 500] : [1, 2, 5, 10, 20, 30];
  return steps.map((n) => n * size);
}).sort((a, b) => a - b);
const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const exact = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

// A value in words; times in the greatest unit that `most` has one of.
function worded(value, unit, format, most = value) {
  if (unit !== "ms") return format.format(value);
  const [name, size] = TIMES.find(([, size]) => most >= size) ?? ["ms", 1];
  return `${format.format(value / size)} ${name}`;
}

function moment(at, step) {
  const date = new Date(at * 1000);
  return step >= 86400 ? day.format(date) : clock.format(date);
}

function whole(_chart, at) {
  return at == null ? "–" : `${day.format(at * 1000)}, ${clock.format(at * 1000)}`;
}

function axes(element, data) {
  const common = {
    stroke: colour(element, "ink-soft"),
    font: `12px ${getComputedStyle(document.body).fontFamily}`,
    grid: { stroke: colour(element, "line"), width: 1 },
    ticks: { show: false },
  };
  const x = { ...common, grid: { show: false }, size: 34 };
  if (data.labels) {
    const room = (element.clientWidth - 80) / data.labels.length;
    const longest = Math.max(...data.labels.map((label) => label.length));
    x.splits = () => data.x;
    x.values = (_chart, splits) => splits.map((at) => data.labels[at] ?? "");
    if (longest * 7.5 > room) Object.assign(x, { rotate: -40, size: 58 });
  } else {
    x.values = (_chart, splits, _axis, _space, step) => splits.map((at) => moment(at, step));
    x.space = 64;
  }
  const y = {
    ...common,
    size: 58,
    values: (_chart, splits) => splits.map((v) => worded(v, data.unit, short, splits.at(-1))),
  };
  if (data.unit === "ms") y.incrs = TIME_STEPS;
  return [x, y];
}

// A line needs two neighbours: those that have none are points.
function alone(chart, at) {
  const has = (i) => chart.data[at][i] != null;
  return chart.data[0].map((_x, i) => i).filter((i) => has(i) && !has(i - 1) && !has(i + 1));
}

function series(element, data, spec) {
  const stroke = colour(element, spec.tone);
  const bars = data.kind === "bars";
  const each = {
    label: spec.label,
    stroke,
    width: bars ? 0 : 1.75,
    fill: bars ? stroke : undefined,
    points: { show: false, size: 6, fill: stroke, filter: bars ? undefined : alone },
    spanGaps: false,
    value: (_chart, _v, _i, at) => {
      const own = at == null ? null : spec.values[at];
      return own == null ? "–" : worded(own, data.unit, exact);
    },
  };
  if (bars) each.paths = uPlot.paths.bars({ size: [0.62, 56], align: 0 });
  return each;
}

function options(element, data) {
  const labelled = data.labels ? { time: false, range: [-0.6, data.x.length - 0.4] } : { time: true };
  const when = data.labels
    ? (_chart, at) => (at == null ? "–" : data.labels[at])
    : whole;
  return {
    width: element.clientWidth - 8,
    height: HEIGHT,
    scales: { x: labelled, y: { range: (_c, _low, high) => [0, Math.max(high * 1.12, 5)] } },
    axes: axes(element, data),
    series: [{ label: data.labels ? "At" : "Time", value: when }].concat(
      data.series.map((spec) => series(element, data, spec)),
    ),
    cursor: { drag: { x: !data.labels, y: false } },
    legend: { show: true },
  };
}

// What is drawn later covers what was drawn before: each bar holds itself and those after it.
function stacked(all) {
  const sums = all.map((one) => [...one.values]);
  for (let i = sums.length - 2; i >= 0; i--) sums[i] = sums[i].map((v, at) => v + sums[i + 1][at]);
  return sums;
}

function columns(data) {
  const drawn = data.kind === "bars" ? stacked(data.series) : data.series.map((one) => one.values);
  return [data.x, ...drawn];
}

function draw(element, data) {
  charts.get(element)?.chart.destroy();
  charts.set(element, { data, chart: new uPlot(options(element, data), columns(data), element) });
}

function shape(data) {
  return JSON.stringify([data.kind, data.labels, data.series.map((one) => one.label)]);
}

async function load(element) {
  const answer = await fetch(element.dataset.src, { headers: { "X-Live": "yes" } });
  if (!answer.ok || answer.redirected) return;
  const data = await answer.json();
  const known = charts.get(element);
  if (known && shape(known.data) === shape(data)) {
    data.series.forEach((one, i) => Object.assign(known.data.series[i], one));
    known.data.x = data.x;
    known.chart.setData(columns(data));
  } else {
    draw(element, data);
  }
  element.dataset.drawn = "yes";
}

const all = () => [...document.querySelectorAll(".chart[data-src]")];

function refresh() {
  if (document.hidden || state.paused) return;
  for (const element of all()) load(element).catch(() => showLive("lost", "No answer, trying again"));
}

function redraw() {
  for (const [element, { data }] of charts) draw(element, data);
}

document.addEventListener("theme", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("resize", () => {
  for (const [element, { chart }] of charts) {
    chart.setSize({ width: element.clientWidth - 8, height: HEIGHT });
  }
});
document.addEventListener("DOMContentLoaded", () => {
  refresh();
  setInterval(refresh, REFRESH_MS);
});

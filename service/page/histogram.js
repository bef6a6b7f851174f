// The distribution of losses: bars, with the mean, median and 99th percentile over them.

import { choice, h, numbersOf, range, readable, responsive, s } from "./dom.js";
import { axis, count, num, percent, ticks } from "./format.js";

const HEIGHT = 240;
const ROOM = { left: 52, right: 16, top: 26, bottom: 40 };
const EDGE_LABELS = 6;
const MARKS = [["median", "median", "median"], ["mean", "mean", "mean"], ["p99", "99 %", "99 % are below"]];

const valueOf = (statistic) => (statistic && typeof statistic === "object" ? statistic.value : statistic);

/** The place of `value` on an axis where all bins are equally wide, as a fraction of bins. */
function placeOf(edges, value) {
  const bin = edges.findIndex((edge, at) => at + 1 < edges.length && value >= edge && value <= edges[at + 1]);
  if (bin < 0) return null;
  const [low, high] = [edges[bin], edges[bin + 1]];
  const even = low > 0 ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
  return bin + (Number.isFinite(even) ? even : 0);
}

/** Where the marks' names are written; those too close to another have none, and the key alone. */
function named(marks, width) {
  let free = -Infinity;
  return [...marks].sort((one, other) => one.x - other.x).map((mark) => {
    const half = 4 * mark.text.length;
    const x = Math.min(width - half, Math.max(0, mark.x));
    if (x - half < free) return { ...mark, text: "" };
    free = x + half + 8;
    return { ...mark, at: x };
  });
}

function drawn({ edges, counts }, statistics, logCounts, width, readout) {
  const inner = { width: width - ROOM.left - ROOM.right, height: HEIGHT - ROOM.top - ROOM.bottom };
  const most = Math.max(1, ...counts);
  const total = counts.reduce((sum, each) => sum + each, 0);
  const scale = (n) => (logCounts ? Math.log10(1 + n) / Math.log10(1 + most) : n / most);
  const y = (n) => ROOM.top + inner.height * (1 - scale(n));
  const step = inner.width / counts.length;
  const x = (bin) => ROOM.left + bin * step;
  const heights = logCounts ? range(Math.floor(Math.log10(most)) + 1, (power) => 10 ** power) : ticks(most);
  const every = Math.ceil(counts.length / Math.min(EDGE_LABELS, Math.floor(inner.width / 64)));
  const bars = counts.map((n, bin) => s("rect", {
    class: "bar", x: x(bin) + 0.5, width: Math.max(1, step - 1), y: y(n), height: ROOM.top + inner.height - y(n),
  }));
  const marks = MARKS.map(([name, text]) => ({ name, text, place: placeOf(edges, valueOf(statistics[name])) }))
    .filter(({ place }) => place !== null).map((mark) => ({ ...mark, x: x(mark.place) - ROOM.left }));
  const chart = s("svg", { width, height: HEIGHT, tabindex: "0", role: "group", "aria-roledescription": "chart",
    "aria-label": `Histogram of ${count(total)} losses; the arrow keys read its bars` },
    heights.map((n) => [
      s("line", { class: "grid", x1: ROOM.left, x2: width - ROOM.right, y1: y(n), y2: y(n) }),
      s("text", { class: "tick", x: ROOM.left - 8, y: y(n) + 4, "text-anchor": "end" }, axis(n)),
    ]),
    bars,
    range(Math.floor(counts.length / every) + 1, (at) => at * every).map((edge) =>
      s("text", { class: "tick", x: x(edge), y: HEIGHT - 22, "text-anchor": "middle" }, num(edges[edge], 2))),
    s("line", { class: "axis", x1: ROOM.left, x2: width - ROOM.right, y1: HEIGHT - ROOM.bottom, y2: HEIGHT - ROOM.bottom }),
    s("text", { class: "tick", x: ROOM.left + inner.width / 2, y: HEIGHT - 5, "text-anchor": "middle" }, "loss"),
    named(marks, inner.width).map((mark) => s("g", { class: `mark ${mark.name}` },
      s("line", { x1: ROOM.left + mark.x, x2: ROOM.left + mark.x, y1: ROOM.top - 6, y2: HEIGHT - ROOM.bottom }),
      mark.text && s("text", { x: ROOM.left + mark.at, y: ROOM.top - 12, "text-anchor": "middle" }, mark.text))));
  readable(chart, readout, {
    count: counts.length,
    at: (event) => Math.floor((event.clientX - chart.getBoundingClientRect().left - ROOM.left) / step),
    describe: (bin) => `${count(counts[bin])} of ${count(total)} losses (${percent(counts[bin] / total)}) from ${num(edges[bin])} to ${num(edges[bin + 1])}`,
    mark: (bin) => bars.forEach((bar, at) => bar.classList.toggle("on", at === bin)),
  });
  return chart;
}

/** The distribution's section. */
export function histogram(report) {
  const statistics = report.histogram;
  const readout = h("output", { class: "readout" }, "Point at a bar, or focus the chart and use the arrow keys.");
  const box = h("div", { class: "chart" });
  const shown = { kind: "linear", log: true };
  let width = 0;
  const again = () => width && box.replaceChildren(drawn(statistics[shown.kind], statistics, shown.log, width, readout));
  responsive(box, (now) => {
    width = now;
    return drawn(statistics[shown.kind], statistics, shown.log, width, readout);
  });
  return [
    h("div", { class: "switches" },
      choice("Losses", [["linear", "even bins"], ["log", "logarithmic bins"]], shown.kind, (kind) => { shown.kind = kind; again(); }),
      choice("Counts", [[true, "log counts"], [false, "even counts"]], shown.log, (log) => { shown.log = log; again(); })),
    box,
    h("ul", { class: "key" }, MARKS.map(([name, , text]) => h("li", { class: `k-${name}` }, `${text} ${num(valueOf(statistics[name]))}`))),
    readout,
    numbersOf("Losses in even bins", ["from", "to", "positions"],
      statistics.linear.counts.map((n, bin) => [num(statistics.linear.edges[bin]), num(statistics.linear.edges[bin + 1]), count(n)])),
  ];
}

// Calibration: accuracy against confidence, and the temperature that would bring them together.

import { h, numbersOf, range, readable, responsive, s } from "./dom.js";
import { axis, count, num, percent } from "./format.js";

const HEIGHT = 320;
const COUNTS = 56; // pixels of the strip of counts under the diagram
const KEY = [
  ["bar", "accuracy"], ["over", "gap: confidence above accuracy"], ["under", "gap: accuracy above confidence"],
  ["dot", "accuracy at the mean confidence"], ["diagonal", "where both are equal"], ["count", "predictions"],
];
const STRIPE = 4; // pixels from one stripe to the next
const ROOM = { left: 52, right: 16, top: 12, bottom: 40 };
const SLIDER = { low: -3, high: 3, step: 0.05 }; // powers of two: an eighth to eight

/** Which side of the diagonal a bin lies on; null where both are equal, or nothing was predicted. */
const sideOf = ({ count: n, accuracy, confidence }) =>
  (!n || accuracy === confidence ? null : accuracy < confidence ? "over" : "under");

/** The gap of a bin from its accuracy to its confidence: above the bar a tint, within it stripes. */
function gapOf(bin, place, y) {
  const side = sideOf(bin);
  if (!side) return null;
  const [top, bottom] = [y(Math.max(bin.accuracy, bin.confidence)), y(Math.min(bin.accuracy, bin.confidence))];
  const stripes = range(Math.floor((bottom - top) / STRIPE), (at) => `M${place.x} ${top + (at + 0.5) * STRIPE}h${place.width}`);
  return s("g", { class: `gap ${side}` },
    s("rect", { ...place, y: top, height: Math.max(2, bottom - top) }),
    side === "under" && s("path", { d: stripes.join("") }));
}

function drawn(bins, before, width, readout) {
  const height = HEIGHT - ROOM.top - ROOM.bottom - COUNTS - 12;
  const inner = width - ROOM.left - ROOM.right;
  const x = (share) => ROOM.left + inner * share;
  const y = (share) => ROOM.top + height * (1 - share);
  const base = HEIGHT - ROOM.bottom;
  const most = Math.max(1, ...bins.map((bin) => bin.count));
  const parts = bins.map((bin) => {
    const place = { x: x(bin.low) + 1, width: Math.max(1, x(bin.high) - x(bin.low) - 2) };
    const tall = COUNTS * (bin.count / most);
    return s("g", { class: "bin" },
      s("rect", { class: "count", ...place, y: base - tall, height: tall }),
      bin.count > 0 && s("rect", { class: "bar", ...place, y: y(bin.accuracy), height: y(0) - y(bin.accuracy) }),
      gapOf(bin, place, y));
  });
  const line = (points, name) => s("polyline", { class: name, points: points.map(([at, up]) => `${x(at)},${y(up)}`).join(" ") });
  const filled = (some) => some.filter((bin) => bin.count).map((bin) => [bin.confidence, bin.accuracy]);
  const chart = s("svg", { width, height: HEIGHT, tabindex: "0", role: "group", "aria-roledescription": "chart",
    "aria-label": `Reliability diagram of ${bins.length} bins; the arrow keys read its bins` },
    [0, 0.25, 0.5, 0.75, 1].map((share) => [
      s("line", { class: "grid", x1: x(0), x2: x(1), y1: y(share), y2: y(share) }),
      s("text", { class: "tick", x: ROOM.left - 8, y: y(share) + 4, "text-anchor": "end" }, `${100 * share} %`),
      s("text", { class: "tick", x: x(share), y: base + 18, "text-anchor": share === 1 ? "end" : "middle" }, `${100 * share} %`),
    ]),
    parts,
    line([[0, 0], [1, 1]], "diagonal"),
    before && line(filled(before), "before"),
    line(filled(bins), "after"),
    filled(bins).map(([at, up]) => s("circle", { class: "dot", cx: x(at), cy: y(up), r: 3.5 })),
    s("text", { class: "tick", x: ROOM.left - 8, y: base - COUNTS + 10, "text-anchor": "end" }, axis(most)),
    s("line", { class: "axis", x1: x(0), x2: x(1), y1: base, y2: base }),
    s("text", { class: "tick", x: ROOM.left + inner / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "confidence"));
  readable(chart, readout, {
    count: bins.length,
    at: (event) => {
      const share = (event.clientX - chart.getBoundingClientRect().left - ROOM.left) / inner;
      return bins.findIndex((bin) => share >= bin.low && share <= bin.high);
    },
    describe: (at) => {
      const { low, high, count: n, accuracy, confidence } = bins[at];
      const from = `Confidence ${percent(low)} to ${percent(high)}`;
      if (!n) return `${from}: no prediction.`;
      const side = sideOf(bins[at]);
      const gap = side ? `${side}confident by ${(100 * Math.abs(accuracy - confidence)).toFixed(1)} points` : "no gap";
      return `${from}: ${count(n)} predictions, ${percent(accuracy)} right at a mean confidence of ${percent(confidence)}: ${gap}.`;
    },
    mark: (at) => parts.forEach((part, each) => part.classList.toggle("on", each === at)),
  });
  return chart;
}

const verdict = ({ bins, ece }) => {
  const total = bins.reduce((sum, bin) => sum + bin.count, 0);
  const gap = bins.reduce((sum, bin) => sum + (bin.count ? bin.count * (bin.confidence - bin.accuracy) : 0), 0) / total;
  if (!(ece > 0.02)) return "Confidence and accuracy are close: within two points on average.";
  if (Math.abs(gap) < ece / 2) return "The model claims too much in some bins and too little in others.";
  return gap > 0 ? "The model is overconfident: it claims more than it gets right."
    : "The model is underconfident: it gets more right than it claims.";
};

/** The slider, which has the service compute the report anew at another temperature. */
function slider(report, retemper, shown) {
  const { current, best, loss, best_loss: bestLoss, sample } = report.calibration.temperature;
  const value = h("output", { class: "value", for: "temperature" }, num(current, 2));
  const state = h("output", { class: "readout", "aria-live": "polite" });
  const input = h("input", { id: "temperature", type: "range", min: SLIDER.low, max: SLIDER.high, step: SLIDER.step,
    value: Math.log2(current), "aria-valuetext": num(current, 2) });
  const at = () => Number((2 ** Number(input.value)).toPrecision(3));
  const asked = async (temperature) => {
    input.value = Math.log2(temperature);
    value.textContent = num(temperature, 2);
    input.setAttribute("aria-valuetext", value.textContent);
    state.textContent = "Computing …";
    state.textContent = await retemper(temperature, (other) => {
      shown(other);
      return `At temperature ${num(temperature, 2)}: loss ${num(other.loss)}, ECE ${percent(other.calibration.ece)}, `
        + `against ${num(report.loss)} and ${percent(report.calibration.ece)} at ${num(current, 2)}.`;
    });
  };
  input.addEventListener("input", () => {
    value.textContent = num(at(), 2);
    input.setAttribute("aria-valuetext", value.textContent);
  });
  input.addEventListener("change", () => asked(at()));
  return h("div", { class: "temperature" },
    h("p", {}, "Best temperature: ", h("strong", { class: "best-temperature" }, num(best, 3)), `. Loss now ${num(loss)} → `,
      h("strong", {}, num(bestLoss)), ` at the best, ${num(loss - bestLoss)} less, on a sample of ${count(sample)}.`),
    retemper && h("div", { class: "slide" },
      h("label", { for: "temperature" }, "Temperature"), input, value,
      h("button", { type: "button", class: "quiet", onclick: () => asked(best) }, "Use the best"),
      h("button", { type: "button", class: "quiet", onclick: () => asked(current) }, "Back")),
    retemper && state);
}

/** The calibration's section. `retemper(temperature, shown)` is missing in a saved report. */
export function calibration(report, retemper) {
  const own = report.calibration;
  const box = h("div", { class: "chart" });
  const readout = h("output", { class: "readout" }, "Point at a bin, or focus the chart and use the arrow keys.");
  const tiles = h("dl", { class: "tiles small" });
  const verdictText = h("p", { class: "verdict" });
  const numbers = h("div");
  const earlier = h("li", { class: "k-before", hidden: true }, `accuracy at temperature ${num(own.temperature.current, 2)}`);
  let current = own;
  let width = 0;
  const draw = () => drawn(current.bins, current === own ? null : own.bins, width, readout);
  const show = (other) => {
    current = other.calibration;
    earlier.hidden = current === own;
    verdictText.textContent = verdict(current);
    tiles.replaceChildren(...[["ECE", percent(current.ece)], ["Largest gap", percent(current.mce)], ["Brier score", num(current.brier)]]
      .map(([name, text]) => h("div", {}, h("dt", {}, name), h("dd", {}, text))));
    numbers.replaceChildren(numbersOf("Calibration bins", ["confidence", "predictions", "accuracy", "mean confidence"],
      current.bins.map((bin) => [`${percent(bin.low)} to ${percent(bin.high)}`, count(bin.count), percent(bin.accuracy), percent(bin.confidence)])));
    if (width) box.replaceChildren(draw());
  };
  show(report);
  responsive(box, (now) => {
    width = now;
    return draw();
  });
  return [
    verdictText, tiles, box,
    h("ul", { class: "key" }, KEY.map(([name, text]) => h("li", { class: `k-${name}` }, text)), earlier),
    readout, slider(report, retemper, show), numbers,
  ];
}

// Calibration: accuracy against confidence, and the temperature that would bring them together.

import { h, numbersOf, readable, responsive, s } from "./dom.js";
import { axis, count, num, percent } from "./format.js";

const HEIGHT = 320;
const COUNTS = 56; // pixels of the strip of counts under the diagram
const ROOM = { left: 52, right: 16, top: 12, bottom: 40 };
const SLIDER = { low: -3, high: 3, step: 0.05 }; // powers of two: an eighth to eight

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
    const gap = bin.count && [bin.accuracy, bin.confidence];
    return s("g", { class: "bin" },
      s("rect", { class: "count", ...place, y: base - tall, height: tall }),
      gap && s("rect", { class: "bar", ...place, y: y(bin.accuracy), height: y(0) - y(bin.accuracy) }),
      gap && s("rect", { class: bin.accuracy > bin.confidence ? "gap under" : "gap", ...place, y: y(Math.max(...gap)), height: Math.max(1, Math.abs(y(gap[0]) - y(gap[1]))) }));
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
      return n ? `${from}: ${count(n)} predictions, ${percent(accuracy)} right at a mean confidence of ${percent(confidence)}.`
        : `${from}: no prediction.`;
    },
    mark: (at) => parts.forEach((part, each) => part.classList.toggle("on", each === at)),
  });
  return chart;
}

const verdict = ({ bins, ece }) => {
  const gap = bins.reduce((sum, bin) => sum + (bin.count ? bin.count * (bin.confidence - bin.accuracy) : 0), 0);
  if (!(ece > 0.02)) return "Confidence and accuracy are close: within two points on average.";
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
    h("p", {}, "Best temperature: ", h("strong", { class: "best-temperature" }, num(best, 3)),
      ` (loss ${num(bestLoss)} instead of ${num(loss)}, on a sample of ${count(sample)}).`),
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
  let current = own;
  let width = 0;
  const draw = () => drawn(current.bins, current === own ? null : own.bins, width, readout);
  const show = (other) => {
    current = other.calibration;
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
    h("ul", { class: "key" },
      h("li", { class: "k-bar" }, "accuracy"), h("li", { class: "k-gap" }, "gap to the confidence"),
      h("li", { class: "k-diagonal" }, "where both are equal"), h("li", { class: "k-count" }, "predictions")),
    readout, slider(report, retemper, show), numbers,
  ];
}

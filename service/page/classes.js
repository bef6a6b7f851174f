// Classes and their confusion: sorted bars, which are a table; a matrix, or the most confused pairs.

import { h, scrolling, table } from "./dom.js";
import { count, num, percent } from "./format.js";
import { paint } from "./heat.js";
import { grid } from "./grid.js";

const FIRST = 15; // rows before "show all"
const IN_TABLE = 16; // classes of a matrix that is a table; a larger one is a picture
const PAIRS = 12;
const COLUMNS = [["class", "class"], ["loss", "mean loss"], ["accuracy", "accuracy"], ["count", "labels"], ["predicted", "predictions"]];

const meter = (share, text) => {
  const fill = h("span", { class: "fill" });
  fill.style.width = `${100 * Math.min(1, Math.max(0, share || 0))}%`;
  return h("span", { class: "meter" }, h("span", { class: "track", "aria-hidden": "true" }, fill), h("span", {}, text));
};

/** The classes' section: a table that a click on a column's name sorts. */
export function classes(report) {
  const rows = report.classes;
  const most = Math.max(0, ...rows.map((row) => Number(row.loss) || 0).filter(Number.isFinite));
  const order = { by: "loss", down: true, all: false };
  const body = h("tbody");
  const heads = COLUMNS.map(([key, text]) => h("th", { scope: "col" },
    h("button", { type: "button", class: "sort", onclick: () => {
      order.down = order.by === key ? !order.down : key !== "class";
      order.by = key;
      show();
    } }, text)));
  const more = h("button", { type: "button", class: "quiet", hidden: rows.length <= FIRST, onclick: () => {
    order.all = !order.all;
    show();
  } });
  const show = () => {
    const missing = order.down ? -Infinity : Infinity;
    const value = (row) => (row[order.by] === null ? missing : Number(row[order.by]));
    const sorted = [...rows].sort((one, other) => (order.down ? value(other) - value(one) : value(one) - value(other)) || one.class - other.class);
    body.replaceChildren(...sorted.slice(0, order.all ? undefined : FIRST).map((row) => h("tr", {},
      h("th", { scope: "row" }, row.class),
      h("td", {}, meter(Number(row.loss) / most, num(row.loss))),
      h("td", {}, meter(row.accuracy, percent(row.accuracy))),
      h("td", {}, count(row.count)), h("td", {}, count(row.predicted)))));
    for (const [at, [key]] of COLUMNS.entries()) {
      heads[at].setAttribute("aria-sort", key !== order.by ? "none" : order.down ? "descending" : "ascending");
    }
    more.textContent = order.all ? "Show fewer" : `Show all ${count(rows.length)}`;
  };
  show();
  const left = report.classes_total - rows.length;
  return [
    scrolling("Loss and accuracy of each class", h("table", { class: "numbers bars" },
      h("caption", { class: "unseen" }, "Loss and accuracy of each class"),
      h("thead", {}, h("tr", {}, heads)), body)),
    more,
    left > 0 && h("p", { class: "note" }, `${count(left)} more classes have less loss, or no label.`),
  ];
}

function pairsOf({ matrix, pairs }) {
  if (pairs) return pairs;
  return matrix.flatMap((row, label) => row.map((n, prediction) => ({ label, prediction, count: n })))
    .filter((pair) => pair.label !== pair.prediction && pair.count > 0)
    .sort((one, other) => other.count - one.count);
}

const sums = (matrix) => matrix.map((row) => row.reduce((sum, n) => sum + n, 0));

const described = (n, total, label, prediction) =>
  `Label ${label}, predicted ${prediction}: ${count(n)} of ${count(total)} (${percent(total ? n / total : null)}).`;

function asTable(matrix) {
  const totals = sums(matrix);
  return scrolling("Confusion matrix, a table", h("table", { class: "matrix" },
    h("caption", { class: "unseen" }, "Confusion matrix: labels down, predictions across"),
    h("thead", {}, h("tr", {}, h("td"), matrix.map((_, at) => h("th", { scope: "col" }, at)))),
    h("tbody", {}, matrix.map((row, label) => h("tr", {}, h("th", { scope: "row" }, label), row.map((n, prediction) =>
      paint(h("td", { title: described(n, totals[label], label, prediction) }, n ? count(n) : "·"), "share", totals[label] ? n / totals[label] : 0)))))));
}

function asPicture(matrix) {
  const totals = sums(matrix);
  const size = matrix.length;
  const readout = h("output", { class: "readout" }, "Point at a cell, or focus the picture and use the arrow keys.");
  const picture = grid(`Confusion matrix of ${size} classes`, readout);
  picture.show({
    rows: size, columns: size, ramp: "share",
    share: (at) => totals[Math.floor(at / size)] && matrix[Math.floor(at / size)][at % size] / totals[Math.floor(at / size)],
    describe: (at) => described(matrix[Math.floor(at / size)][at % size], totals[Math.floor(at / size)], Math.floor(at / size), at % size),
  });
  return [picture.element, readout];
}

/** The confusion's section. */
export function confusion(report) {
  const { matrix } = report.confusion;
  const found = pairsOf(report.confusion).slice(0, PAIRS);
  return [
    matrix && (matrix.length <= IN_TABLE ? asTable(matrix) : asPicture(matrix)),
    h("h3", {}, "Most confused"),
    found.length === 0 ? h("p", {}, "No label was taken for another.")
      : scrolling("Most confused pairs", table("Most confused pairs", ["label", "predicted", "times"],
        found.map((pair) => [pair.label, pair.prediction, count(pair.count)]))),
  ];
}

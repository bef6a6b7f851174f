// A report as a page of sections: of an upload, or of a file that `lossd score --report` wrote.

import { calibration } from "./calibration.js";
import { classes, confusion } from "./classes.js";
import { h, numbersOf, scrolling, table } from "./dom.js";
import { count, num, percent } from "./format.js";
import { histogram } from "./histogram.js";
import { images, sequences } from "./maps.js";

/** A section with a title and a sentence on how to read it. */
const section = (name, title, lede, parts) =>
  h("section", { class: "card", id: `report-${name}`, "aria-labelledby": `title-${name}` },
    h("h2", { id: `title-${name}` }, title), h("p", { class: "lede" }, lede), parts);

const tile = (name, value, note) => h("div", {}, h("dt", {}, name), h("dd", {}, value), note && h("dd", { class: "note" }, note));

function summary(report) {
  return h("dl", { class: "tiles" },
    tile("Loss", num(report.loss), "mean, in nats"),
    tile("Perplexity", num(report.perplexity, 2), "exp of the loss"),
    tile("Accuracy", percent(report.accuracy), `${count(report.correct)} right`),
    report.classes_total > 5 && tile("Top-5", percent(report.top5_accuracy), `${count(report.top5_correct)} in the first five`),
    tile("Positions", count(report.count), report.count === report.positions ? `${count(report.classes_total)} classes` : `of ${count(report.positions)}; others are ignored`));
}

const placed = (index, layout) => {
  if (layout === "image") return `image ${index[0]}, row ${index[1]}, column ${index[2]}`;
  if (layout === "sequence") return `sequence ${index.slice(0, -1).join(", ")}, token ${index.at(-1)}`;
  return index.length === 0 ? "the only position" : `position ${index.join(", ")}`;
};

const SEQUENCES = 200; // rows of a table
const ENOUGH = 10; // labels of a class from which its accuracy is worth a sentence

/** The findings: sentences, each with a link to the section that shows it. */
function findings(report) {
  const found = [];
  const [worst] = report.worst;
  const { current, best, loss, best_loss: bestLoss, sample } = report.calibration.temperature;
  const link = (name, text) => h("a", { href: `#report-${name}`, onclick: (event) => {
    event.preventDefault(); // the fragment holds the page's state
    document.getElementById(`report-${name}`).scrollIntoView();
  } }, text);
  if (worst) {
    found.push([link("worst", "Worst position"), ": ", h("strong", {}, placed(worst.index, report.layout)),
      ` has a loss of ${num(worst.loss, 2)}: label ${worst.label}, predicted ${worst.prediction} with ${percent(worst.confidence)} confidence.`]);
  }
  if (Number.isFinite(Number(best)) && loss - bestLoss > 0.005 * Math.abs(loss)) {
    found.push([link("calibration", "Calibration"), ": ", h("strong", {}, `temperature ${num(best, 2)}`),
      ` instead of ${num(current, 2)} lowers the loss from ${num(loss)} to ${num(bestLoss)}, on a sample of ${count(sample)}.`]);
  }
  const seen = report.classes.filter((row) => row.count >= ENOUGH && row.accuracy !== null);
  const weakest = seen.reduce((least, row) => (least && least.accuracy <= row.accuracy ? least : row), null);
  if (weakest && seen.length > 1 && weakest.accuracy < 0.9 * report.accuracy) {
    found.push([link("classes", "Weakest class"), ": ", h("strong", {}, `class ${weakest.class}`),
      ` is right in ${percent(weakest.accuracy)} of ${count(weakest.count)} positions.`]);
  }
  return found.length === 0 ? null : h("section", { class: "findings", "aria-labelledby": "title-findings" },
    h("h2", { id: "title-findings" }, "What stands out"), h("ul", {}, found.map((parts) => h("li", {}, parts))));
}

function worstTable(report, find) {
  const where = (row) => (find
    ? h("button", { type: "button", class: "link", onclick: () => find(row.index) }, row.index.join(", "))
    : row.index.join(", "));
  return scrolling("Worst positions", table("Worst positions",
    ["index", "label", "predicted", "loss", "confidence", "margin"],
    report.worst.map((row) => [where(row), row.label, row.prediction, num(row.loss, 3), percent(row.confidence), num(row.margin, 2)])));
}

function perSequence(report) {
  const rows = [...report.sequences].sort((one, other) => Number(other.loss) - Number(one.loss)).slice(0, SEQUENCES);
  const name = rows.length < report.sequences.length ? `The ${SEQUENCES} sequences of most loss` : "Perplexity of each sequence";
  return numbersOf(name, ["sequence", "tokens", "loss", "perplexity"],
    rows.map((row) => [row.index, count(row.count), num(row.loss), num(row.perplexity, 2)]));
}

/**
 * The sections of `report`; `arrays` (loss_map, prediction_map, confidence_map) draw its maps, if
 * they are there. `retemper` asks the service again, and is missing in a saved report.
 */
export function drawReport(report, arrays, retemper) {
  if (report.count === 0) {
    return h("div", { class: "report" }, summary(report), h("p", { class: "card" }, "No position counts: each label is the ignore index."));
  }
  const has = (layout) => report.layout === layout && arrays?.loss_map;
  const map = has("image") ? images(report, arrays) : has("sequence") ? sequences(report, arrays) : null;
  return h("div", { class: "report" },
    summary(report),
    findings(report),
    map && section("map", report.layout === "image" ? "Where the loss is" : "Loss of each token",
      map.lede, [map.parts, report.layout === "sequence" && report.sequences && perSequence(report)]),
    h("div", { class: "columns" },
      h("div", { class: "column" },
        section("histogram", "Distribution of losses", "A long tail to the right is a few positions that cost the most.", histogram(report)),
        section("worst", "Worst positions", map ? "Choose one to see it in the picture." : "The largest losses: often wrong labels.", worstTable(report, map?.find)),
        section("classes", "Classes", "Sorted by mean loss; a column's name sorts by it.", classes(report))),
      h("div", { class: "column" },
        section("calibration", "Calibration", "A bar below the diagonal: the model is right less often than it claims. Above it: more often.", calibration(report, retemper)),
        section("confusion", "Confusion", "Labels down, predictions across; coloured by the share of each row.", confusion(report)))));
}

// Loss where it lies: maps of images, strips of tokens.

import { choice, h, range } from "./dom.js";
import { count, num, percent } from "./format.js";
import { classColour, COLOURED, paint } from "./heat.js";
import { grid } from "./grid.js";

const STRIP = { wide: 48, narrow: 16 }; // tokens a row
const NARROW = "(max-width: 36rem)";
const product = (sizes) => sizes.reduce((all, size) => all * size, 1);

/** The largest loss that has a colour of its own: the 99th percentile where few are far above. */
function topOf(report) {
  const { max, p99, linear } = report.histogram;
  const high = Number(p99.high);
  const clipped = high > 0 && Number.isFinite(high) && Number(max) > 2 * high;
  const top = clipped ? high : Number(linear.edges.at(-1)) || 1;
  return { top, text: clipped ? `${num(top, 2)} and more` : num(top, 2) };
}

/** Colours and their values. */
function scaleKey(ramp, low, high) {
  const swatches = range(24, (at) => paint(h("span", { class: "swatch" }), ramp, at / 23));
  return h("div", { class: "scale" }, h("span", {}, low), h("span", { class: "swatches", "aria-hidden": "true" }, swatches), h("span", {}, high));
}

/** The index of a position in its labels' shape, as a place in the flat arrays. */
export const flatOf = (index, shape) => index.reduce((at, each, axis) => at * shape[axis] + each, 0);

const counts = (arrays, at) => arrays.counted_map.data[at] !== 0;

const saying = (arrays, at) => [`label ${arrays.label_map.data[at]}`, counts(arrays, at) ? `loss ${num(arrays.loss_map.data[at])}` : "ignored, so it does not count",
  `predicted ${arrays.prediction_map.data[at]}`, `confidence ${percent(arrays.confidence_map.data[at])}`].join(", ");

/** The place, among `size` positions from `base`, of the largest loss that counts, NaN before all; or null. */
function worstOf(arrays, base, size) {
  const loss = (at) => arrays.loss_map.data[base + at];
  let worst = null;
  for (let at = 0; at < size; at += 1) {
    if (!counts(arrays, base + at)) continue;
    if (Number.isNaN(loss(at))) return at;
    if (worst === null || loss(at) > loss(worst)) worst = at;
  }
  return worst;
}

/** What is shown of an image: each with its sentence, its ramp, its share, and the ends of its scale. */
const layers = (arrays, { top, text }) => ({
  loss: { text: "loss", lede: "Each pixel by its loss, on one scale for all images.", ramp: "loss",
    share: (at) => arrays.loss_map.data[at] / top, ends: ["loss 0", text] },
  confidence: { text: "confidence", lede: "Each pixel by the model's confidence: the probability of the class that it predicts there.", ramp: "share",
    share: (at) => arrays.confidence_map.data[at], ends: ["confidence 0 %", "100 %"] },
});

/** What the checks are, where there are any; and the colours of the classes that lie over the ramp. */
function legend(arrays, classes) {
  const swatch = (index) => {
    const mark = h("span", { class: "swatch" });
    mark.style.backgroundColor = `rgb(${classColour(index)})`;
    return h("li", { class: "of-class" }, mark, index < COLOURED ? `class ${index}` : "later classes begin again");
  };
  const items = [arrays.counted_map.data.includes(0) && h("li", { class: "k-ignored" }, "ignored: does not count"),
    range(Math.min(classes, COLOURED + 1), swatch)].flat().filter(Boolean);
  return items.length > 0 && h("ul", { class: "key" }, items);
}

/** Back, forward, and which of `many` it is; `go(index)` is called with each. */
function pager(what, many, go) {
  let now = 0;
  const text = h("output", {});
  const show = (next) => {
    now = Math.min(many - 1, Math.max(0, next));
    text.textContent = `${what} ${count(now + 1)} of ${count(many)} (index ${now})`;
    back.disabled = now === 0;
    on.disabled = now === many - 1;
    go(now);
  };
  const back = h("button", { type: "button", class: "quiet", "aria-label": `previous ${what}`, onclick: () => show(now - 1) }, "‹");
  const on = h("button", { type: "button", class: "quiet", "aria-label": `next ${what}`, onclick: () => show(now + 1) }, "›");
  return { element: h("div", { class: "pager" }, back, text, on), show };
}

/** The section of images; its `find(index)` shows the position of that index. */
export function images(report, arrays) {
  const { count: many, height, width } = report.images;
  const size = height * width;
  const readout = h("output", { class: "readout" }, "Point at a pixel, or focus the picture and use the arrow keys. The ring marks the largest loss of this image.");
  const picture = grid("Loss map", readout);
  const shown = { image: 0, layer: "loss", opacity: 0 };
  const all = layers(arrays, topOf(report));
  const [lede, key] = [h("span"), h("div")];
  const draw = () => {
    const { image, opacity } = shown;
    const layer = all[shown.layer];
    const base = image * size;
    lede.textContent = layer.lede;
    key.replaceChildren(...[scaleKey(layer.ramp, ...layer.ends), legend(arrays, opacity ? report.classes_total : 0)].filter(Boolean));
    picture.show({
      rows: height, columns: width, ramp: layer.ramp, opacity,
      share: (at) => layer.share(base + at),
      ignored: (at) => !counts(arrays, base + at),
      classOf: (at) => Number(arrays.prediction_map.data[base + at]),
      describe: (at) => `Image ${image}, row ${Math.floor(at / width)}, column ${at % width}: ${saying(arrays, base + at)}`,
      ring: worstOf(arrays, base, size),
    });
  };
  const pages = pager("image", many, (image) => { shown.image = image; draw(); });
  const overlay = h("input", { type: "range", id: "overlay", min: 0, max: 1, step: 0.1, value: 0,
    oninput: (event) => { shown.opacity = Number(event.target.value); draw(); } });
  pages.show(report.worst[0]?.index[0] ?? 0);
  return {
    lede,
    parts: [
      h("div", { class: "switches" }, many > 1 && pages.element,
        choice("Colours", Object.entries(all).map(([name, { text }]) => [name, text]), "loss", (layer) => { shown.layer = layer; draw(); }),
        h("div", { class: "slide" }, h("label", { for: "overlay" }, "Predicted classes over it"), overlay)),
      picture.element, key, readout,
    ],
    find(index) {
      pages.show(index[0]);
      picture.select(flatOf(index, report.shape) - index[0] * size);
      picture.element.scrollIntoView({ block: "center" });
    },
  };
}

/** The section of sequences: a strip of tokens, and each sequence's perplexity. */
export function sequences(report, arrays) {
  const length = report.shape.at(-1);
  const many = product(report.shape) / Math.max(1, length);
  const readout = h("output", { class: "readout" }, "Point at a token, or focus the strip and use the arrow keys. The ring marks the largest loss of this sequence.");
  const strip = grid("Token losses", readout);
  const { top, text } = topOf(report);
  const numbers = h("p", { class: "note" });
  const columns = Math.min(length, matchMedia(NARROW).matches ? STRIP.narrow : STRIP.wide);
  const show = (sequence) => {
    const base = sequence * length;
    const own = report.sequences?.find(({ index }) => index === sequence);
    numbers.textContent = own ? `Perplexity ${num(own.perplexity, 2)}, mean loss ${num(own.loss)} over ${count(own.count)} tokens.` : "";
    strip.show({
      rows: Math.ceil(length / columns), columns, count: length, ratio: 1.6, ramp: "loss",
      share: (at) => arrays.loss_map.data[base + at] / top,
      ignored: (at) => !counts(arrays, base + at),
      describe: (at) => `Sequence ${sequence}, token ${at}: ${saying(arrays, base + at)}`,
      ring: worstOf(arrays, base, length),
    });
  };
  const pages = pager("sequence", many, show);
  pages.show(report.worst[0] ? flatOf(report.worst[0].index.slice(0, -1), report.shape) : 0);
  return {
    lede: "Tokens in reading order, on one scale for all sequences.",
    parts: [many > 1 && h("div", { class: "switches" }, pages.element), numbers, strip.element,
      scaleKey("loss", "loss 0", text), legend(arrays, 0), readout],
    find(index) {
      pages.show(flatOf(index.slice(0, -1), report.shape));
      strip.select(index.at(-1));
      strip.element.scrollIntoView({ block: "center" });
    },
  };
}

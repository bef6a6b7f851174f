// A grid of values as a picture: a loss map, a strip of tokens, a large confusion matrix.

import { h, readable, responsive } from "./dom.js";
import { classColour, colours, ignoredColours, onTheme } from "./heat.js";

const TALLEST = 520; // pixels
const LEAST = { ring: 18, cursor: 10 }; // pixels: what marks a smaller cell is wider than it
const GAP_FROM = 8; // pixels of a cell from which cells stand apart

/** One pixel a value: its colour on the ramp, or the checks of an ignored one, with that of its class over it. */
function pixels({ rows, columns, count, ramp, share, ignored, classOf, opacity }) {
  const [table, checks] = [colours(ramp), ignoredColours()];
  const image = new ImageData(columns, rows);
  for (let at = 0; at < count; at += 1) {
    const place = share(at);
    const under = ignored(at) ? checks[((at % columns) + Math.floor(at / columns)) % 2]
      : table[Math.round(255 * Math.min(1, Math.max(0, Number.isFinite(place) ? place : 1)))];
    const over = opacity ? classColour(classOf(at)) : under;
    for (let channel = 0; channel < 3; channel += 1) {
      image.data[4 * at + channel] = under[channel] + opacity * (over[channel] - under[channel]);
    }
    image.data[4 * at + 3] = 255;
  }
  const canvas = h("canvas");
  canvas.width = columns;
  canvas.height = rows;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/**
 * A picture called `label`, whose values are said in `readout`: its `element`; `show(values)`;
 * `select(at)`, which puts the cursor on a value.
 *
 * `values` are `rows` by `columns`, `count` of them: `share(at)` is the place on `ramp`,
 * `describe(at)` the text, `ring` the value that is marked, `ignored(at)` whether it has no place on
 * the ramp, `classOf(at)` its class, laid over with `opacity`. A cell is at most `cell` pixels wide, and `ratio` times as tall.
 */
export function grid(label, readout) {
  const canvas = h("canvas", { tabindex: "0", role: "group", "aria-roledescription": "picture",
    "aria-label": `${label}; the arrow keys read its values` });
  const cursor = h("div", { class: "cursor", hidden: true });
  const ring = h("div", { class: "ring", hidden: true });
  const frame = h("div", { class: "grid-frame" }, canvas, ring, cursor);
  let shown = null;
  let cell = { width: 0, height: 0 };
  let width = 0;

  /** Put the centre of `element`, of at least `least` pixels, on that of a value. */
  const put = (element, at, least) => {
    element.hidden = at === null || at === undefined || at < 0 || at >= shown.count;
    if (element.hidden) return;
    const [wide, tall] = [Math.max(least, cell.width), Math.max(least, cell.height)];
    element.style.left = `${((at % shown.columns) + 0.5) * cell.width - wide / 2}px`;
    element.style.top = `${(Math.floor(at / shown.columns) + 0.5) * cell.height - tall / 2}px`;
    element.style.width = `${wide}px`;
    element.style.height = `${tall}px`;
  };
  const draw = () => {
    if (!shown || !width) return;
    const dense = window.devicePixelRatio || 1;
    const most = Math.min(shown.cell, width / shown.columns, TALLEST / (shown.rows * shown.ratio));
    // Cells that stand apart are whole pixels of the screen, as the lines between them are.
    const whole = (size) => (most >= GAP_FROM ? Math.floor(size * dense) / dense : size);
    cell = { width: whole(most), height: whole(most * shown.ratio) };
    const size = { width: Math.max(1, shown.columns * cell.width), height: Math.max(1, shown.rows * cell.height) };
    canvas.width = Math.round(size.width * dense);
    canvas.height = Math.round(size.height * dense);
    for (const element of [canvas, frame]) {
      element.style.width = `${size.width}px`;
      element.style.height = `${size.height}px`;
    }
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(pixels(shown), 0, 0, canvas.width, canvas.height);
    if (cell.width >= GAP_FROM) {
      context.fillStyle = getComputedStyle(canvas).backgroundColor;
      for (let x = 1; x < shown.columns; x += 1) context.fillRect(Math.round(x * cell.width * dense), 0, 1, canvas.height);
      for (let y = 1; y < shown.rows; y += 1) context.fillRect(0, Math.round(y * cell.height * dense), canvas.width, 1);
    }
    put(ring, shown.ring, LEAST.ring);
    ring.classList.toggle("large", Math.min(cell.width, cell.height) >= LEAST.ring);
    cursor.hidden = true;
    reading.again(); // the value that was read, of what is shown now
  };
  const source = {
    count: 0,
    at: (event) => {
      const box = canvas.getBoundingClientRect();
      const column = Math.floor((event.clientX - box.left) / cell.width);
      return column < 0 || column >= shown.columns ? -1
        : Math.floor((event.clientY - box.top) / cell.height) * shown.columns + column;
    },
    describe: (at) => shown.describe(at),
    mark: (at) => put(cursor, at, LEAST.cursor),
    step: (from, key) => from + ({ ArrowRight: 1, ArrowLeft: -1, ArrowDown: shown.columns, ArrowUp: -shown.columns })[key],
  };
  const reading = readable(canvas, readout, source);
  onTheme(canvas, draw);
  const element = h("div", { class: "grid-box" }, frame);
  responsive(element, (now) => {
    width = now;
    draw();
    return frame;
  });
  return {
    element,
    select: reading.select,
    show(values) {
      shown = { cell: 24, ratio: 1, count: values.rows * values.columns, opacity: 0, ignored: () => false, ...values };
      source.count = shown.count;
      draw();
    },
  };
}

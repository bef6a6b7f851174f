// Elements, without markup in texts: nothing that is shown is ever parsed as HTML.

const SVG = "http://www.w3.org/2000/svg";
const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "textContent", "tabIndex"]);

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (PROPERTIES.has(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An HTML element: attributes, `on...` listeners, then children or texts. */
export const h = (tag, attributes, ...children) =>
  filled(document.createElement(tag), attributes, children);

/** An SVG element. */
export const s = (tag, attributes, ...children) =>
  filled(document.createElementNS(SVG, tag), attributes, children);

/** `count` items of `make(index)`. */
export const range = (count, make = (index) => index) => Array.from({ length: count }, (_, i) => make(i));

/** Have `draw(width)` fill `box` now, and again whenever its width changes. */
export function responsive(box, draw) {
  let last = 0;
  new ResizeObserver(([entry]) => {
    const width = Math.floor(entry.contentRect.width);
    if (width === 0 || width === last) return;
    last = width;
    box.replaceChildren(draw(width));
  }).observe(box);
  return box;
}

/** A table with a caption; `head` and each of `rows` are texts, numbers or elements. */
export function table(caption, head, rows, { hiddenCaption = true, headed = true } = {}) {
  return h("table", { class: "numbers" },
    h("caption", { class: hiddenCaption ? "unseen" : null }, caption),
    h("thead", {}, h("tr", {}, head.map((text) => h("th", { scope: "col" }, text)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell, at) =>
      headed && at === 0 ? h("th", { scope: "row" }, cell) : h("td", {}, cell))))));
}

/** A table that is shown on demand, beside the chart that has the same numbers. */
export const numbersOf = (caption, head, rows) =>
  h("details", {}, h("summary", {}, "Show as a table"), scrolling(`${caption}, a table`, table(caption, head, rows)));

/** `content` in a box that scrolls sideways where it is too wide, by keyboard too. */
export const scrolling = (name, ...content) =>
  h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": name }, content);

/** Buttons of which one is pressed; `chosen(value)` is called with its value. */
export function choice(label, options, value, chosen) {
  const buttons = options.map(([key, text]) => h("button", {
    type: "button",
    "aria-pressed": String(key === value),
    onclick: () => {
      for (const [at, [other]] of options.entries()) buttons[at].setAttribute("aria-pressed", String(other === key));
      chosen(key);
    },
  }, text));
  return h("div", { class: "choice", role: "group", "aria-label": label }, buttons);
}

/**
 * Make `chart` readable: a pointer at, or the arrow keys over, one of the `count` parts of `source`
 * have `describe(part)` said in `readout`, and `mark(part)` called. Returns what selects a part,
 * `select(part)`, or says `again()` the one that is selected.
 */
export function readable(chart, readout, source) {
  let part = -1;
  const select = (next) => {
    if (!(next >= 0 && next < source.count)) return;
    part = next;
    readout.textContent = source.describe(part);
    source.mark(part);
  };
  const step = source.step
    ?? ((from, key) => from + ({ ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 })[key]);
  chart.addEventListener("pointermove", (event) => select(source.at(event)));
  chart.addEventListener("pointerdown", (event) => select(source.at(event)));
  chart.addEventListener("keydown", (event) => {
    if (!event.key.startsWith("Arrow")) return;
    event.preventDefault();
    select(part < 0 ? 0 : step(part, event.key));
  });
  return { select, again: () => select(part) };
}

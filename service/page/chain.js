// The chain: logits, softmax, log-softmax, the picked value, the loss; every number is the service's.

import { ask, clearProblem, showProblem } from "./api.js";
import { cells, edited } from "./cells.js";
import { code } from "./code.js";
import { choice, h, range, scrolling } from "./dom.js";
import { num } from "./format.js";
import { captions, formulas, routesOf } from "./formulas.js";
import { paint } from "./heat.js";
import { example, requestOf, resized, transposed } from "./state.js";

const PATH = "v1/explain";
const PAUSE = 120; // milliseconds without an edit before the service is asked
const HINT = "Point at a cell, or focus it, to see its formula.";

const problemSlot = (field) => h("p", { class: "problem", "data-problem": field, role: "alert", hidden: true });

/** The planes of a tensor in which classes are axis 1: one of rows by classes, or one a class. */
function planesOf(state, image) {
  const [rows, classes, height, width] = state.shape;
  if (state.name === "table") {
    return [{ caption: null, rows, columns: classes, at: (row, column) => row * classes + column, rowName: (row) => `row ${row}`, columnName: String }];
  }
  return range(classes, (c) => ({
    caption: `class ${c}`, rows: height, columns: width, at: (row, column) => ((image * classes + c) * height + row) * width + column,
  }));
}

/** A section of the chain: its element, and `tell(lede)`, since options change what is true of it. */
function step(number, title, first, ...parts) {
  const lede = h("p", { class: "lede" }, first);
  return {
    element: h("section", { class: "card step", "aria-labelledby": `step-${number}` },
      h("h2", { id: `step-${number}` }, h("span", { class: "number", "aria-hidden": "true" }, number), title), lede, parts),
    tell: (text) => { lede.textContent = text; },
  };
}

/** A step of computed planes; `fill(lede, text, share, formula, marked)`, the last four by flat index. */
function computed(number, title, planes, ramp) {
  const readout = h("output", { class: "readout" }, HINT);
  let formula = null;
  let pointed = null; // the cell whose formula is shown, which each answer writes anew
  const say = (at) => {
    pointed = at;
    if (formula && pointed !== null) readout.textContent = formula(pointed);
  };
  const tables = planes.map((plane) => cells({ ...plane, caption: plane.caption ?? title, hidden: !plane.caption, ramp,
    pointed: (row, column) => say(plane.at(row, column)) }));
  const { element, tell } = step(number, title, "", scrolling(`${title}, values`, h("div", { class: "planes" }, tables.map((table) => table.element))), readout);
  return {
    element,
    fill(lede, text, share, told, marked) {
      const by = (value, at) => (row, column) => value(at(row, column));
      for (const [index, { at }] of planes.entries()) tables[index].fill(by(text, at), by(share, at), marked && by(marked, at));
      formula = told;
      tell(lede);
      say(pointed);
    },
  };
}

/** The fields of the logits, labels and weights; `changed()` after each edit of `state`. */
function inputs(state, planes, image, changed) {
  const edit = (list, at) => (text) => { list[at] = text; changed(); };
  const isTable = state.name === "table";
  const indexOf = (flat) => state.shape.reduceRight(([left, found], size) => [Math.floor(left / size), [left % size, ...found]], [flat, []])[1];
  const logit = (flat) => {
    const index = indexOf(flat);
    const name = isTable ? `logit of row ${index[0]}, class ${index[1]}` : `logit of class ${index[1]}, row ${index[2]}, column ${index[3]}`;
    return h("td", { "data-flat": flat }, edited("logits", index, name, state.logits[flat], edit(state.logits, flat)));
  };
  const label = (flat, index) => h("td", { class: "label" }, edited("labels", index,
    isTable ? `label of row ${index[0]}` : `label of row ${index[1]}, column ${index[2]}`, state.labels[flat], edit(state.labels, flat)));
  const tables = planes.map(({ caption, rows, columns, at, rowName, columnName }) => h("table", { class: "cells edited" },
    h("caption", { class: caption ? null : "unseen" }, caption ?? "Logits, and the label of each row"),
    columnName && h("thead", {}, h("tr", {}, h("td"), range(columns, (c) => h("th", { scope: "col" }, columnName(c))), h("th", { scope: "col" }, "label"))),
    h("tbody", {},
      range(rows, (row) => h("tr", {}, rowName && h("th", { scope: "row" }, rowName(row)), range(columns, (column) => logit(at(row, column))), isTable && label(row, [row]))),
      state.weight && isTable && h("tr", {}, h("th", { scope: "row" }, "weight"), state.weight.map((weight, c) =>
        h("td", {}, edited("weight", [c], `weight of class ${c}`, weight, edit(state.weight, c)))), h("td")))));
  if (!isTable) {
    const [, classes, height, width] = state.shape;
    tables.push(h("table", { class: "cells edited" }, h("caption", {}, "Labels"), h("tbody", {}, range(height, (row) => h("tr", {}, range(width, (column) =>
      label((image * height + row) * width + column, [image, row, column])))))));
    if (state.weight) {
      tables.push(h("table", { class: "cells edited" }, h("caption", {}, "Class weights"), h("tbody", {}, range(classes, (c) => h("tr", {},
        h("th", { scope: "row" }, `class ${c}`), h("td", {}, edited("weight", [c], `weight of class ${c}`, state.weight[c], edit(state.weight, c))))))));
    }
  }
  return tables;
}

/** The section of the three routes to the loss. */
function routes() {
  const formula = h("p", { class: "readout loss-formula" });
  const loss = h("output", { class: "loss-value" });
  const list = h("dl", { class: "routes" });
  const { element, tell } = step(5, "Loss", "", h("div", { class: "loss" }, h("div", {}, loss, formula), list));
  return {
    element,
    fill(lede, names, answer, told) {
      const { cross_entropy: cross, largest_difference: apart } = answer.routes;
      tell(lede);
      loss.textContent = num(cross, 4);
      formula.textContent = told;
      const agree = !(Number(apart) > 1e-5 * Math.abs(Number(cross)));
      list.replaceChildren(...Object.entries(names)
        .map(([route, name]) => h("div", {}, h("dt", {}, h("code", {}, name)), h("dd", {}, num(answer.routes[route], 7)))),
      h("div", { class: agree ? "right" : "wrong" }, h("dt", {}, agree ? "✓ They agree" : "✗ They differ"), h("dd", {}, `largest difference ${num(apart, 7)}`)));
    },
  };
}

/** The section of the wrong transposition: the label that each pixel gets by it, and what it costs. */
function transposition(state, image) {
  const [images, classes, height, width] = state.shape;
  const side = (call) => {
    const value = h("strong", {});
    const verdict = h("p", {});
    const grid = range(height, () => range(width, () => h("td")));
    return {
      element: h("div", { class: "side" }, h("h3", {}, h("code", {}, call)),
        h("table", { class: "cells" }, h("caption", {}, "Label of each pixel"), h("tbody", {}, grid.map((row) => h("tr", {}, row)))),
        h("p", {}, "loss ", value), verdict),
      fill(labels, given, loss, right, text) {
        value.textContent = num(loss, 4);
        verdict.textContent = text;
        verdict.className = right ? "right" : "wrong";
        for (const [at, cell] of grid.flat().entries()) {
          const place = image * height * width + at;
          cell.textContent = labels[place];
          cell.classList.toggle("differs", labels[place] !== given[place]);
          paint(cell, "share", Number(labels[place]) / classes);
        }
      },
    };
  };
  const [right, wrong] = [side("moveaxis(−1, 1)"), side("swapaxes(1, 3)")];
  return {
    element: step(6, "The wrong transposition",
      `One-hot labels come as (N, H, W, C), and the formula needs (N, C, H, W). Height and width are equal here, so both calls give the shape (${images}, ${classes}, ${height}, ${width}): nothing fails, and one loss is wrong.`,
      h("div", { class: "sides" }, right.element, wrong.element)).element,
    fill(asked, answer, other, swapped) {
      right.fill(asked.labels, asked.labels, answer.routes.cross_entropy, true, "✓ The classes move, and the pixels stay.");
      const apart = other.routes.cross_entropy - answer.routes.cross_entropy;
      wrong.fill(swapped.labels, asked.labels, other.routes.cross_entropy, false,
        `✗ Rows and columns change places, too: the loss is off by ${num(apart, 4)}.`);
    },
  };
}

/** The labelled controls of the options, of which two are sliders as well. */
function controls(state, changed, rebuilt) {
  const field = (name, text, slider) => {
    const set = (value) => { state.options[name] = value; changed(); };
    const input = h("input", { id: `option-${name}`, type: "text", autocomplete: "off", size: 6, "data-field": name, value: state.options[name],
      "aria-describedby": `problem-${name}`, oninput: (event) => { set(event.target.value.trim()); if (track) track.value = slider.from(event.target.value); } });
    const track = slider && h("input", { type: "range", "aria-label": `${text}, slider`, min: slider.low, max: slider.high, step: slider.step,
      value: slider.from(state.options[name]), oninput: (event) => { input.value = slider.to(Number(event.target.value)); set(input.value); } });
    return h("div", { class: "field" }, h("label", { for: `option-${name}` }, text), h("div", { class: "pair" }, track, input),
      h("p", { id: `problem-${name}`, class: "problem", "data-problem": name, role: "alert", hidden: true }));
  };
  return h("div", { class: "controls" },
    field("temperature", "Temperature", { low: -3, high: 3, step: 0.1, from: (text) => Math.log2(Number(text)) || 0, to: (power) => String(Number((2 ** power).toPrecision(3))) }),
    field("label_smoothing", "Label smoothing", { low: 0, high: 0.5, step: 0.01, from: (text) => Number(text) || 0, to: String }),
    field("ignore_index", "Ignore index"),
    h("div", { class: "field" }, h("span", { class: "name" }, "Reduction"),
      choice("Reduction", [["mean", "mean"], ["sum", "sum"]], state.options.reduction, (value) => { state.options.reduction = value; changed(); })),
    h("div", { class: "field" }, h("span", { class: "name" }, "Class weights"),
      choice("Class weights", [[false, "all 1"], [true, "edit"]], state.weight !== null, (on) => rebuilt({ ...state, weight: on ? range(state.shape[1], () => "1") : null })),
      problemSlot("weight")));
}

/** The view of the chain in `root`; `kept(state)` is told each state, for the address. */
export function chain(root, first, kept) {
  let image = 0;
  let asked = new AbortController();
  let timer = 0; // of the last edit, which a rebuilt view forgets

  /** Put `parts` in the place of all others, and the focus on the control that had it. */
  function replaced(...parts) {
    const named = (element) => element.id || (element.getAttribute("aria-label") ?? element.textContent);
    const held = root.contains(document.activeElement) ? named(document.activeElement) : null;
    root.replaceChildren(...parts);
    if (held) [...root.querySelectorAll("button, input")].find((element) => named(element) === held)?.focus({ preventScroll: true });
  }

  function build(state) {
    asked.abort();
    clearTimeout(timer);
    const planes = planesOf(state, image);
    const isTable = state.name === "table";
    const changed = () => {
      kept(state);
      clearTimeout(timer);
      timer = setTimeout(update, PAUSE);
    };
    const resize = (axis, by, text) => h("button", { type: "button", class: "quiet", onclick: () => build(resized(state, axis, by)) }, text);
    const fields = inputs(state, planes, image, changed);
    const softmax = computed(2, "Softmax", planes, "share");
    const logSoftmax = computed(3, "Log-softmax", planes, "loss");
    const labelPlanes = isTable
      ? [{ caption: null, rows: state.shape[0], columns: 1, at: (row) => row, rowName: (row) => `row ${row}`, columnName: () => "loss" }]
      : [{ caption: `image ${image}`, rows: state.shape[2], columns: state.shape[3], at: (row, column) => (image * state.shape[2] + row) * state.shape[3] + column }];
    const picked = computed(4, "Picked value", labelPlanes, "loss");
    const last = routes();
    const swap = isTable ? null : transposition(state, image);
    const snippet = code(PATH);
    const body = h("div", { class: "steps" },
      step(1, "Logits and labels", isTable ? "Edit any number: all that follows is computed anew." : "A plane of logits for each class, and the label of each pixel. Edit any number.",
        scrolling("Logits and labels, fields", h("div", { class: "planes" }, fields)),
        isTable && h("div", { class: "switches" }, resize(0, 1, "Add a row"), resize(0, -1, "Remove a row"), resize(1, 1, "Add a class"), resize(1, -1, "Remove a class")),
        problemSlot("logits"), problemSlot("labels")).element,
      softmax.element, logSoftmax.element, picked.element, last.element, swap?.element,
      h("section", { class: "card code-card", "aria-labelledby": "step-code" }, h("h2", { id: "step-code" }, "The same request as code"), snippet.element));
    const head = h("div", { class: "card controls-card" },
      h("div", { class: "switches" },
        choice("Example", [["table", "4 × 5 table"], ["images", "two images, 4-D"]], state.name, (name) => { image = 0; build(example(name)); }),
        !isTable && choice("Image", range(state.shape[0], (each) => [each, `image ${each}`]), image, (each) => { image = each; build(state); }),
        h("button", { type: "button", class: "quiet", onclick: () => { image = 0; build(example(state.name)); } }, "Reset")),
      controls(state, changed, build), problemSlot(""));
    root.dataset.example = state.name;
    replaced(head, body);

    // `asked` is what the answer is of: `state` may have been edited since.
    function fill(asked, answer) {
      const flat = { ...answer, softmax: answer.softmax.flat(3), log_softmax: answer.log_softmax.flat(3), per_element: [answer.per_element].flat(3) };
      const told = formulas(asked, flat);
      const words = captions(asked);
      const most = (values) => Math.max(1e-9, ...values.map(Number).filter(Number.isFinite).map(Math.abs));
      const [logits, logs, losses] = [most(asked.logits), most(flat.log_softmax), most(flat.per_element)];
      for (const cell of body.querySelectorAll("[data-flat]")) paint(cell, "signed", 0.5 + Number(asked.logits[cell.dataset.flat]) / (2 * logits));
      softmax.fill(words.softmax, (at) => num(flat.softmax[at]), (at) => flat.softmax[at], told.softmax, told.picked);
      logSoftmax.fill(words.logSoftmax, (at) => num(flat.log_softmax[at]), (at) => -flat.log_softmax[at] / logs, told.logSoftmax, told.picked);
      picked.fill(words.perElement, (at) => (told.ignored(at) ? "ignored" : num(flat.per_element[at])), (at) => flat.per_element[at] / losses, told.perElement);
      last.fill(words.loss, routesOf(asked), answer, told.loss());
    }

    async function update() {
      asked.abort();
      asked = new AbortController();
      const { signal } = asked;
      const sent = structuredClone(state);
      const request = requestOf(sent);
      snippet.show(request);
      try {
        const answer = await ask(PATH, request, signal);
        clearProblem(root);
        fill(sent, answer);
        if (swap) {
          const swapped = transposed(sent);
          swap.fill(sent, answer, await ask(PATH, requestOf(swapped), signal), swapped);
        }
        root.classList.remove("stale");
        root.dataset.state = "done";
      } catch (error) {
        if (error.name === "AbortError") return;
        if (!error.problem) throw error;
        showProblem(root, error.problem);
        root.classList.add("stale");
        root.dataset.state = "refused";
      }
    }
    kept(state);
    root.dataset.state = "asking";
    update();
    refresh = update;
  }

  let refresh = () => {};
  document.addEventListener("token", () => refresh());
  build(first);
  return { show: (state) => { image = 0; build(state); } };
}

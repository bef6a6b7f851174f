// What a cell of the chain says of itself: its formula, with the numbers in it; what a step says of its cells.

import { range } from "./dom.js";
import { num, short } from "./format.js";

const LISTED = 8; // terms that a formula writes out

const isIgnored = (label, { ignore_index: ignored }) => Number(label) === Number(ignored);

/** The options of `state` as numbers, and whether they are in use. */
function settings({ options, weight }) {
  const [temperature, smoothing] = [Number(options.temperature), Number(options.label_smoothing)];
  return { smoothing, rest: short(1 - smoothing), even: short(smoothing), weighted: weight !== null, sum: options.reduction === "sum",
    divided: temperature === 1 ? "" : `/${short(options.temperature)}` };
}

/** The sentences that the steps have for these options. */
export function captions(state) {
  const { smoothing, rest, even, weighted, sum, divided } = settings(state);
  const isTable = state.name === "table";
  const power = divided ? `e^(logit${divided})` : "e^logit";
  const own = weighted ? "weight × −log-softmax" : "−log-softmax";
  const mean = weighted ? "The sum of these losses, divided by the sum of the labels' weights" : "The mean of these losses";
  return {
    softmax: isTable ? `Each row as probabilities: ${power}, divided by the row's sum.` : `Each pixel as probabilities: ${power}, divided by the sum over classes.`,
    logSoftmax: "Their logarithms. The outlined values are those at the labels.",
    perElement: smoothing ? `${rest} × (${own} at the label) + ${even} × (the mean of ${own} over all classes): the loss of each position.`
      : weighted ? "Minus the log-softmax at the label, times the weight of its class: the loss of each position."
        : "Minus the log-softmax at the label: the loss of each position.",
    loss: `${sum ? "The sum of these losses" : mean}, by three routes that must agree.`,
  };
}

/** The three routes by which the service computes the loss, as code. */
export function routesOf(state) {
  const { smoothing, rest, even, weighted, sum, divided } = settings(state);
  const { options, shape } = state;
  const given = [weighted && "weight", options.ignore_index !== "-100" && `ignore_index=${options.ignore_index}`, sum && "reduction=\"sum\""];
  const call = (name, logits, more) => `${name}(${[logits, "labels", ...given, more].filter(Boolean).join(", ")})`;
  const label = smoothing ? `(${rest} × one_hot + ${even} ÷ ${shape[1]})` : "one_hot";
  const nll = call("nll_loss", `log_softmax(logits${divided})`);
  return {
    formula: `−Σ ${weighted ? "weight × " : ""}${label} × log_softmax${sum ? "" : weighted ? " ÷ Σ weight × one_hot" : " ÷ n"}`,
    nll_loss: smoothing ? `${rest} × ${nll} + ${even} × mean over all classes` : nll,
    cross_entropy: call("cross_entropy", `logits${divided}`, smoothing && `label_smoothing=${even}`),
  };
}

/** The texts of formulas for the inputs `state` and the service's `answer`, all flat. */
export function formulas(state, answer) {
  const { shape, options } = state;
  const classes = shape[1];
  const width = shape[3] ?? 1;
  const inner = shape.slice(2).reduce((all, size) => all * size, 1);
  const { smoothing, rest, even, weighted, divided } = settings(state);
  const exponent = (at) => `${short(state.logits[at])}${divided}`;
  const power = (at) => (divided ? `e^(${exponent(at)})` : `e^${exponent(at)}`);
  const positionOf = (at) => Math.floor(at / (classes * inner)) * inner + (at % inner);
  const classOf = (at) => Math.floor(at / inner) % classes;
  /** The place in the logits of class `c` of a position. */
  const placeOf = (position, c) => (Math.floor(position / inner) * classes + c) * inner + (position % inner);
  const nameOf = (position) => (state.name === "table" ? `Row ${position}`
    : `Image ${Math.floor(position / inner)}, row ${Math.floor((position % inner) / width)}, column ${position % width}`);
  const named = (at) => `${nameOf(positionOf(at))}, class ${classOf(at)}`;
  const sumOf = (at) => (classes > LISTED ? `Σ e^${divided ? `(x${divided})` : "x"}` : range(classes, (c) => power(placeOf(positionOf(at), c))).join(" + "));
  const ignored = (position) => isIgnored(state.labels[position], options);
  const weightOf = (label) => (weighted ? Number(state.weight[label]) : 1);
  /** The loss of class `c` at a position, as a term. */
  const term = (position, c) => `${weighted ? `${short(weightOf(c))} × ` : ""}${num(-answer.log_softmax[placeOf(position, c)])}`;
  const overClasses = (position) => (classes > LISTED ? `Σ ${weighted ? "weight × " : ""}−log-softmax` : range(classes, (c) => term(position, c)).join(" + "));
  return {
    ignored,
    picked: (at) => Number(state.labels[positionOf(at)]) === classOf(at) && !ignored(positionOf(at)),
    softmax: (at) => `${named(at)}: ${power(at)} ÷ (${sumOf(at)}) = ${num(answer.softmax[at])}`,
    logSoftmax: (at) => `${named(at)}: ${exponent(at)} − log(${sumOf(at)}) = ${num(answer.log_softmax[at])}`,
    perElement(position) {
      const label = Number(state.labels[position]);
      const name = nameOf(position);
      if (ignored(position)) return `${name}: the label ${label} is the ignore index, so this position does not count.`;
      const result = num(answer.per_element[position]);
      if (smoothing) return `${name}, label ${label}: ${rest} × ${term(position, label)} + ${even} × (${overClasses(position)}) ÷ ${classes} = ${result}`;
      const own = `${name}: ${weighted ? `${short(weightOf(label))} × ` : ""}−(log-softmax at label ${label}) = ${term(position, label)}`;
      return weighted ? `${own} = ${result}` : own;
    },
    loss() {
      const counted = state.labels.map((_, position) => position).filter((position) => !ignored(position));
      const terms = counted.length > LISTED ? `sum of ${counted.length} losses` : counted.map((position) => num(answer.per_element[position])).join(" + ") || "0";
      const result = num(answer.routes.cross_entropy);
      if (options.reduction === "sum") return `${terms} = ${result}`;
      const count = short(counted.map((position) => weightOf(Number(state.labels[position]))).reduce((sum, weight) => sum + weight, 0));
      return `(${terms}) ÷ ${count}${weighted ? " (the labels' weights)" : ""} = ${result}`;
    },
  };
}

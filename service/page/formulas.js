// What a cell of the chain says of itself: its formula, with the numbers in it.

import { num, short } from "./format.js";

const LISTED = 8; // terms that a formula writes out

/** The texts of formulas for the inputs `state` and the service's `answer`, all flat. */
export function formulas(state, answer) {
  const { shape, options } = state;
  const classes = shape[1];
  const inner = shape.slice(2).reduce((all, size) => all * size, 1);
  const smoothing = Number(options.label_smoothing);
  const exponent = (at) => (options.temperature === "1" ? short(state.logits[at]) : `${short(state.logits[at])}/${short(options.temperature)}`);
  /** The place of class `c` in the logits, for the position that a place lies in. */
  const along = (at, c) => {
    const position = Math.floor(at / (classes * inner)) * inner + (at % inner);
    return Math.floor(position / inner) * classes * inner + c * inner + (position % inner);
  };
  const sumOf = (at) => (classes > LISTED ? "Σ e^x" : Array.from({ length: classes }, (_, c) => `e^${exponent(along(at, c))}`).join(" + "));
  const positionOf = (at) => Math.floor(at / (classes * inner)) * inner + (at % inner);
  const classOf = (at) => Math.floor(at / inner) % classes;
  const labelAt = (position) => along(Math.floor(position / inner) * classes * inner + (position % inner), Number(state.labels[position]));
  const ignored = (position) => state.labels[position] === options.ignore_index;
  const weightOf = (label) => (state.weight ? Number(state.weight[label]) : 1);
  return {
    positionOf, classOf, labelAt, ignored,
    picked: (at) => Number(state.labels[positionOf(at)]) === classOf(at) && !ignored(positionOf(at)),
    softmax: (at) => `e^${exponent(at)} ÷ (${sumOf(at)}) = ${num(answer.softmax[at])}`,
    logSoftmax: (at) => `${exponent(at)} − log(${sumOf(at)}) = ${num(answer.log_softmax[at])}`,
    perElement(position) {
      const label = Number(state.labels[position]);
      if (ignored(position)) return `The label ${state.labels[position]} is the ignore index: this position does not count.`;
      const own = num(-answer.log_softmax[labelAt(position)]);
      const weight = state.weight ? `${short(weightOf(label))} × ` : "";
      const result = `= ${num(answer.per_element[position])}`;
      if (!smoothing) return `${weight}−(log-softmax at label ${label}) = ${weight}${own} ${weight ? result : ""}`.trim();
      const mean = state.weight ? "weighted mean" : "mean";
      return `${short(1 - smoothing)} × ${weight}${own} + ${short(smoothing)} × (${mean} of −log-softmax over the classes) ${result}`;
    },
    loss() {
      const counted = state.labels.map((_, position) => position).filter((position) => !ignored(position));
      const terms = counted.length > LISTED ? `sum of ${counted.length} losses` : counted.map((position) => num(answer.per_element[position])).join(" + ") || "0";
      if (options.reduction === "sum") return `${terms} = ${num(answer.routes.cross_entropy)}`;
      const weights = counted.map((position) => weightOf(Number(state.labels[position])));
      const count = short(weights.reduce((sum, weight) => sum + weight, 0));
      return `(${terms}) ÷ ${count}${state.weight ? " (weights of the labels)" : ""} = ${num(answer.routes.cross_entropy)}`;
    },
  };
}

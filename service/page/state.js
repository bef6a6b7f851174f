// The chain's inputs: two examples, their place in the address, and the request they make.
// All are texts as they were typed: what is no number is for the service to refuse.

const TABLE = {
  name: "table",
  shape: [4, 5],
  logits: "0,0,0,0,0,0,0,1,1,0,1,3,2,3,0,0,0,0,0,0".split(","),
  labels: "1,4,3,2".split(","),
};
// Two images of 4 x 4 pixels and three classes. The likeliest class is mostly the label's.
const IMAGES = {
  name: "images",
  shape: [2, 3, 4, 4],
  logits: ("2.1,1.8,0.3,-0.4,1.9,1.2,0.1,-0.8,0.4,0.2,-0.5,-1.1,-0.3,-0.9,-1.2,-1.6,"
    + "0.2,0.7,1.6,1.9,0.1,0.9,1.8,2.2,1.1,1.5,0.8,0.6,0.3,0.4,0.2,-0.1,"
    + "-1.2,-0.6,-0.2,0.1,-0.7,-0.1,0.3,0.4,0.2,0.5,1.7,1.9,1.6,2.1,2.4,2.6,"
    + "-0.8,0.1,0.4,1.3,-0.2,0.6,1.4,1.9,0.5,1.2,1.8,2.3,1.1,1.6,2.2,2.5,"
    + "1.7,1.4,0.9,0.2,1.5,1.1,0.4,-0.3,1.2,0.6,-0.1,-0.7,0.3,-0.2,-0.8,-1.3,"
    + "0.6,0.3,-0.4,-0.9,0.2,-0.1,-0.6,-1.2,-0.3,-0.5,-1.1,-1.4,-0.6,-0.9,-1.5,-1.8").split(","),
  labels: "0,0,1,1,0,0,1,1,1,1,2,2,2,2,2,2,1,1,1,0,1,1,0,0,1,0,0,0,0,0,0,0".split(","),
};
const OPTIONS = { temperature: "1", label_smoothing: "0", ignore_index: "-100", reduction: "mean" };
const MOST = 400; // logits of a chain that is still read by a person

export const product = (sizes) => sizes.reduce((all, size) => all * size, 1);

/** The inputs of an example by its name. */
export const example = (name) => structuredClone({ ...(name === "images" ? IMAGES : TABLE), weight: null, options: OPTIONS });

/** Inputs from the part of an address after `?`; what does not fit together is left as it is by default. */
export function fromAddress(text) {
  const given = new URLSearchParams(text);
  const state = example(given.get("example"));
  const shape = given.get("shape")?.split("x").map(Number) ?? state.shape;
  const usable = shape.length === state.shape.length && shape.every((size) => Number.isInteger(size) && size > 0)
    && product(shape) <= MOST;
  if (usable) {
    const list = (name, count) => {
      const found = given.get(name)?.split(",");
      return found?.length === count ? found : null;
    };
    const logits = list("logits", product(shape));
    const labels = list("labels", product(shape) / shape[1]);
    if (logits && labels) Object.assign(state, { shape, logits, labels });
    state.weight = list("weight", state.shape[1]);
  }
  for (const name of Object.keys(OPTIONS)) state.options[name] = given.get(name) ?? OPTIONS[name];
  return state;
}

/** The part of an address that `fromAddress` makes these inputs of. */
export function toAddress(state) {
  const usual = example(state.name);
  const given = new URLSearchParams();
  if (state.name !== "table") given.set("example", state.name);
  const changed = (name) => String(state[name]) !== String(usual[name]);
  if (["shape", "logits", "labels"].some(changed)) {
    given.set("shape", state.shape.join("x"));
    given.set("logits", state.logits.join(","));
    given.set("labels", state.labels.join(","));
  }
  if (state.weight) given.set("weight", state.weight.join(","));
  for (const [name, value] of Object.entries(state.options)) if (value !== OPTIONS[name]) given.set(name, value);
  return given.toString().replaceAll("%2C", ",");
}

const parsed = (text) => (text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text);

function nested(flat, [size, ...rest]) {
  if (rest.length === 0) return flat;
  const part = flat.length / size;
  return Array.from({ length: size }, (_, at) => nested(flat.slice(at * part, (at + 1) * part), rest));
}

/** The JSON of the request that the inputs make. */
export function requestOf(state) {
  const { shape } = state;
  const body = {
    logits: nested(state.logits.map(parsed), shape),
    labels: nested(state.labels.map(parsed), shape.filter((_, axis) => axis !== 1)),
  };
  if (state.weight) body.weight = state.weight.map(parsed);
  for (const [name, value] of Object.entries(state.options)) {
    if (value !== OPTIONS[name]) body[name] = name === "reduction" ? value : parsed(value);
  }
  return body;
}

/** The same labels with the two axes of each image exchanged. */
export function transposed(state) {
  const [images, , height, width] = state.shape;
  const labels = state.labels.map((_, at) => {
    const [image, row, column] = [Math.floor(at / (height * width)), Math.floor(at / width) % height, at % width];
    return state.labels[(image * height + column) * width + row];
  });
  return { ...state, labels, shape: [images, state.shape[1], height, width] };
}

/** `state` with one row or class more (`by` 1) or fewer (-1) along `axis` of a 4 x 5 table. */
export function resized(state, axis, by) {
  const [rows, classes] = state.shape;
  const shape = axis === 0 ? [rows + by, classes] : [rows, classes + by];
  if (Math.min(...shape) < 1 || product(shape) > MOST) return state;
  const logits = Array.from({ length: product(shape) }, (_, at) => {
    const [row, column] = [Math.floor(at / shape[1]), at % shape[1]];
    return row < rows && column < classes ? state.logits[row * classes + column] : "0";
  });
  const labels = Array.from({ length: shape[0] }, (_, row) => {
    const label = state.labels[row] ?? "0";
    return Number(label) >= shape[1] ? String(shape[1] - 1) : label;
  });
  const weight = state.weight && Array.from({ length: shape[1] }, (_, at) => state.weight[at] ?? "1");
  return { ...state, shape, logits, labels, weight };
}

// Files to try the page with, made here and sent as any other: random, and always the same.

import { written } from "./safetensors.js";

/** Mulberry32: a small generator of numbers from 0 to 1 that a seed fixes. */
function random(seed) {
  let state = seed;
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return { uniform, normal };
}

const file = (name, arrays, options = {}) => new File(written(arrays, { note: "an example, with random values", ...options }), name);

/** 4,000 samples of ten classes, by a model that is right less often than it claims. */
function classifier() {
  const { uniform, normal } = random(7);
  const [rows, classes] = [4000, 10];
  const logits = new Float32Array(rows * classes);
  const labels = new Int32Array(rows);
  for (let row = 0; row < rows; row += 1) {
    const label = Math.floor(classes * uniform());
    labels[row] = label;
    for (let c = 0; c < classes; c += 1) {
      const near = c === (label + 1) % classes ? 1.1 : 0;
      // Three times too large: a temperature of about 3 makes them honest.
      logits[row * classes + c] = 3 * (normal() + (c === label ? 2.4 - 0.12 * label : near));
    }
  }
  return file("classifier.safetensors", {
    labels: { dtype: "I32", shape: [rows], data: labels }, logits: { dtype: "F32", shape: [rows, classes], data: logits },
  });
}

/** Two images of 96 x 128 pixels and four classes, with a patch that is taken for another class. */
function segmentation() {
  const { normal } = random(11);
  const [images, classes, height, width] = [2, 4, 96, 128];
  const size = height * width;
  const logits = new Float32Array(images * classes * size);
  const labels = new Int32Array(images * size);
  for (let image = 0; image < images; image += 1) {
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        const at = y * width + x;
        const disc = Math.hypot(x - 40 - 30 * image, y - 50) < 26;
        const hill = y > 66 + 9 * Math.sin(x / 14 + image);
        const label = disc ? 2 : hill ? 1 : x > 92 + 6 * Math.sin(y / 9) ? 3 : 0;
        labels[image * size + at] = label;
        const edge = Math.abs(Math.hypot(x - 40 - 30 * image, y - 50) - 26) < 2.5;
        const fooled = image === 1 && Math.hypot(x - 104, y - 24) < 7;
        const seen = fooled ? 0 : label;
        for (let c = 0; c < classes; c += 1) {
          logits[(image * classes + c) * size + at] = 0.8 * normal() + (c === seen ? (edge ? 1 : 4) : 0);
        }
      }
    }
  }
  logits[(classes + 3) * size + 70 * width + 20] = 18; // one pixel of image 1 that is surely wrong
  return file("segmentation.safetensors", {
    labels: { dtype: "I32", shape: [images, height, width], data: labels },
    logits: { dtype: "F32", shape: [images, classes, height, width], data: logits },
  });
}

/** Three sequences of 144 tokens over 50 tokens, some of which come as a surprise. */
function language() {
  const { uniform, normal } = random(5);
  const [sequences, length, tokens] = [3, 144, 50];
  const logits = new Float32Array(sequences * length * tokens);
  const labels = new Int32Array(sequences * length);
  for (let at = 0; at < labels.length; at += 1) {
    labels[at] = Math.floor(tokens * uniform() ** 2);
    const known = uniform() < 0.85 ? 4 + 2 * uniform() : -1;
    for (let token = 0; token < tokens; token += 1) {
      logits[at * tokens + token] = normal() + (token === labels[at] ? known : 0);
    }
  }
  return file("language.safetensors", {
    labels: { dtype: "I32", shape: [sequences, length], data: labels },
    logits: { dtype: "F32", shape: [sequences, length, tokens], data: logits },
  }, { class_axis: "-1" });
}

export const EXAMPLES = [["A classifier", classifier], ["Images", segmentation], ["Text", language]];

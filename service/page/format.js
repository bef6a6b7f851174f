// Numbers as people read them. Those that JSON cannot write come as strings, and stay what they are.

const WORDS = { NaN: "NaN", Infinity: "∞", "-Infinity": "−∞" };

/** A number with `digits` after the point; very large and very small ones with an exponent. */
export function num(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  const number = Number(value);
  if (!Number.isFinite(number)) return WORDS[String(number)];
  const size = Math.abs(number);
  const text = size !== 0 && (size >= 1e6 || size < 0.5 * 10 ** -digits)
    ? number.toExponential(2) : number.toFixed(digits);
  return text.replace(/^-/, "−").replace("e-", "e−").replace("e+", "e");
}

/** A number that was typed, or that stands in a formula: as short as it is exact to five digits. */
export function short(value) {
  const number = Number(value);
  return Number.isFinite(number) ? String(Number(number.toPrecision(5))).replace(/^-/, "−") : num(number);
}

/** A count, in groups of three digits. */
export const count = (value) => Number(value).toLocaleString("en-US");

/** A share as a percentage. */
export const percent = (value) =>
  value === null || !Number.isFinite(Number(value)) ? "–" : `${(100 * value).toFixed(1)}\u00a0%`;

/** Bytes in the largest binary unit that leaves at least 1. */
export function bytes(value) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, value)) / 10));
  const amount = value / 2 ** (10 * power);
  return `${power && amount < 100 ? amount.toFixed(1).replace(/\.0$/, "") : Math.round(amount)} ${units[power]}`;
}

/** Round numbers from 0 to `most`, about `wanted` of them. */
export function ticks(most, wanted = 4) {
  if (!(most > 0)) return [0];
  const rough = most / wanted;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= rough);
  const found = [];
  for (let tick = 0; tick <= most * (1 + 1e-9); tick += step) found.push(Number(tick.toPrecision(6)));
  return found;
}

/** A count on an axis: 1200 as 1.2k. */
export const axis = (value) =>
  new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 3 }).format(value);

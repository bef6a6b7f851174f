// Colours of values. Ramps run evenly in lightness, so they can be told apart without hues.

const RAMPS = {
  light: {
    loss: ["#fffaf2", "#fde0b8", "#fdb366", "#e2701c", "#9c3600", "#561b00"],
    share: ["#ffffff", "#d9e8f6", "#9cc4e6", "#4f94cd", "#1d5c9e", "#0a2f5c"],
    signed: ["#9c3600", "#e58a3c", "#fbdcb8", "#fbfbf9", "#c4dcf0", "#5b9bd1", "#174d87"],
  },
  dark: {
    loss: ["#1d1a18", "#4a2a14", "#8f4410", "#d97b24", "#ffb965", "#fff0d8"],
    share: ["#1a1e22", "#16324f", "#1d5c9e", "#4f94cd", "#9cc4e6", "#e9f3fc"],
    signed: ["#ffc27a", "#c56d1c", "#5c3413", "#1f2327", "#17395c", "#3d7fbd", "#a9d2f6"],
  },
};

// Okabe and Ito's colours, whose hues are told apart with any kind of sight, and lighter ones.
const CLASSES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#6a6a6a",
  "#003f66", "#8c6000", "#005c43", "#7d3f62"];

const channels = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
const theme = () => (document.documentElement.dataset.theme === "dark" ? "dark" : "light");

/** The colour of `share` (0 to 1) on a ramp of today's theme, as [red, green, blue]. */
function colour(ramp, share) {
  const stops = RAMPS[theme()][ramp];
  const place = Math.min(1, Math.max(0, Number.isFinite(share) ? share : 1)) * (stops.length - 1);
  const at = Math.min(stops.length - 2, Math.floor(place));
  const [from, to] = [channels(stops[at]), channels(stops[at + 1])];
  return from.map((value, channel) => Math.round(value + (place - at) * (to[channel] - value)));
}

/** A table of 256 colours of `ramp`, for canvases. */
export const colours = (ramp) => Array.from({ length: 256 }, (_, at) => colour(ramp, at / 255));

/** The two colours of the checks of what is ignored: greys, which no ramp has. */
export function ignoredColours() {
  const style = getComputedStyle(document.documentElement);
  return ["--ignored", "--ignored-too"].map((name) => channels(style.getPropertyValue(name).trim()));
}

const PALETTE = CLASSES.map(channels);

/** How many classes have a colour of their own. */
export const COLOURED = CLASSES.length;

/** The colour of a class, as [red, green, blue]: after the palette's end it begins again. */
export const classColour = (index) => PALETTE[index % PALETTE.length];

function luminance(rgb) {
  const [red, green, blue] = rgb.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function apply(element) {
  const rgb = colour(element.dataset.ramp, Number(element.dataset.heat));
  element.style.backgroundColor = `rgb(${rgb})`;
  // Of black and white, one has a contrast of at least 4.58 to any colour.
  element.style.color = luminance(rgb) > 0.179 ? "#000" : "#fff";
}

/** Colour `element` by `share` of `ramp`, in this theme and after each switch. */
export function paint(element, ramp, share) {
  element.dataset.ramp = ramp;
  element.dataset.heat = String(share);
  apply(element);
  return element;
}

document.addEventListener("theme", () => document.querySelectorAll("[data-heat]").forEach(apply));

/** Have `apply` called at each switch of the theme, as long as `element` is on the page. */
export function onTheme(element, apply) {
  const listener = () => (element.isConnected ? apply() : document.removeEventListener("theme", listener));
  document.addEventListener("theme", listener);
}

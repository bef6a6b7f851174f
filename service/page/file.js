// The view of a file: it is sent as it is, and the service's report of it is drawn.

import { clearProblem, send, showProblem } from "./api.js";
import { h } from "./dom.js";
import { EXAMPLES } from "./examples.js";
import { bytes } from "./format.js";
import { drawReport } from "./report.js";
import { read } from "./safetensors.js";

const PATH = "v1/report";
const SAFETENSORS = "application/x-safetensors";
const TYPES = { npz: "application/x-npz", safetensors: SAFETENSORS };
const OPTIONS = [
  ["class_axis", "Class axis", "1; -1 for classes last"], ["temperature", "Temperature", "1"], ["label_smoothing", "Label smoothing", "0"],
  ["ignore_index", "Ignore index", "-100"], ["bins", "Calibration bins", "15"], ["worst", "Worst positions", "20"],
];
const LAYOUTS = [["", "by the shape"], ["image", "images"], ["sequence", "sequences"], ["flat", "neither"]];

/** The media type that a file's name says, or a sentence that names those that are read. */
function typeOf({ name }) {
  const ending = name.toLowerCase().split(".").at(-1);
  return TYPES[ending] ?? null;
}

function saved(name, parts, type) {
  const link = h("a", { href: URL.createObjectURL(new Blob(parts, { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** Read the service's answer: the report, and the arrays that its maps are drawn from. */
function opened(buffer) {
  const { report, ...arrays } = read(buffer);
  return { report: JSON.parse(new TextDecoder().decode(report.data)), arrays };
}

/** The view in `root`; `server` has the limits. Returns `take(file)`. */
export function fileView(root, server) {
  let running = null;
  let file = null;
  const input = h("input", { type: "file", id: "file-input", class: "unseen", accept: ".npz,.safetensors", onchange: () => {
    if (input.files[0]) take(input.files[0]);
    input.value = "";
  } });
  const limit = h("span", {});
  const zone = h("div", { class: "zone" },
    h("p", { class: "zone-title" }, "Drop a file of logits and labels"),
    h("p", {}, h("label", { for: "file-input", class: "button" }, "Choose a file"), input),
    h("p", { class: "note" }, "An .npz or .safetensors file with the arrays ", h("code", {}, "logits"), " and ", h("code", {}, "labels"),
      " (class indices). ", limit, " It goes to this server and is kept nowhere."),
    h("p", { class: "examples" }, h("span", {}, "No file at hand? Try "), EXAMPLES.map(([name, make]) =>
      h("button", { type: "button", class: "quiet", onclick: () => take(make()) }, name))));
  const fields = OPTIONS.map(([name, text, usual]) => h("div", { class: "field" }, h("label", { for: `file-${name}` }, text),
    h("input", { id: `file-${name}`, type: "text", autocomplete: "off", size: 8, placeholder: usual, "data-field": name }),
    h("p", { class: "problem", "data-problem": name, role: "alert", hidden: true })));
  const layout = h("select", { id: "file-layout", "data-field": "layout" }, LAYOUTS.map(([value, text]) => h("option", { value }, text)));
  const again = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => take(file) }, "Compute again");
  const options = h("details", { class: "options" }, h("summary", {}, "Options"),
    h("div", { class: "controls" }, fields, h("div", { class: "field" }, h("label", { for: "file-layout" }, "Layout"), layout), again));
  const bar = h("progress", { max: 1, value: 0, "aria-label": "Sent so far" });
  const state = h("output", { class: "state", "aria-live": "polite" });
  const cancel = h("button", { type: "button", class: "quiet", onclick: () => running?.abort() }, "Cancel");
  const busy = h("div", { class: "busy", hidden: true }, bar, state, cancel);
  const problem = h("p", { class: "problem", "data-problem": "", role: "alert", hidden: true });
  const name = h("h2", { class: "file-name" });
  const downloads = h("div", { class: "switches" });
  const result = h("div", { class: "result", hidden: true }, h("div", { class: "result-head" }, name, downloads), h("div"));
  root.replaceChildren(h("div", { class: "card drop" }, zone, options, busy, problem), result);

  const refuse = (detail) => {
    showProblem(root, { detail });
    root.dataset.state = "refused";
  };
  const query = (more = {}) => {
    const given = new URLSearchParams();
    for (const field of [...root.querySelectorAll("[data-field]")]) {
      const value = field.value.trim();
      if (value) given.set(field.dataset.field, value);
    }
    for (const [key, value] of Object.entries(more)) given.set(key, value);
    return given.size ? `?${given}` : "";
  };
  const ask = (signal, progress, more) => send(PATH + query(more), file, { type: typeOf(file), accept: SAFETENSORS, signal, progress });

  /** The report at another temperature, given to `shown`; what it returns, or what went wrong. */
  async function retemper(temperature, shown) {
    running?.abort();
    running = new AbortController();
    try {
      return shown(opened(await ask(running.signal, () => {}, { temperature })).report);
    } catch (error) {
      if (error.problem) return error.problem.detail;
      if (error.name === "AbortError") return "";
      throw error;
    }
  }

  function show(buffer) {
    const { report, arrays } = opened(buffer);
    name.textContent = file.name;
    const stem = file.name.replace(/\.\w+$/, "");
    downloads.replaceChildren(
      h("button", { type: "button", class: "quiet", onclick: () => saved(`${stem}.report.json`, [JSON.stringify(report, null, 1)], "application/json") }, "Download the report"),
      h("button", { type: "button", class: "quiet", onclick: () => saved(`${stem}.maps.safetensors`, [buffer], SAFETENSORS) }, "Download the maps"));
    result.lastChild.replaceWith(drawReport(report, arrays, retemper));
    result.hidden = false;
    again.hidden = false;
    zone.classList.add("small");
    result.scrollIntoView({ block: "start" });
  }

  async function take(next) {
    file = next;
    running?.abort();
    clearProblem(root);
    result.hidden = true;
    const most = server.limits?.body_bytes;
    if (!typeOf(file)) return refuse(`${file.name} is neither .npz nor .safetensors: save the arrays logits and labels with numpy.savez, or with safetensors.`);
    if (most && file.size > most) {
      return refuse(`${file.name} has ${bytes(file.size)}, and this server takes at most ${bytes(most)} (LOSSD_MAX_BODY_BYTES). Send fewer rows at a time, or use \`lossd score\` where the file is.`);
    }
    running = new AbortController();
    const { signal } = running;
    busy.hidden = false;
    root.dataset.state = "sending";
    const progress = (sent, total) => {
      bar.value = total ? sent / total : 0;
      const done = sent >= total;
      if (done) bar.removeAttribute("value");
      state.textContent = done ? `${file.name}: computing …` : `${file.name}: ${bytes(sent)} of ${bytes(total)} sent`;
    };
    progress(0, file.size || 1);
    try {
      show(await ask(signal, progress));
      root.dataset.state = "done";
    } catch (error) {
      if (error.name === "AbortError") {
        if (signal === running.signal) refuse(`${file.name} was cancelled.`);
      } else if (error.problem) {
        showProblem(root, error.problem);
        if (root.querySelector(".options .problem:not([hidden])")) options.open = true;
        root.dataset.state = "refused";
      } else throw error;
    } finally {
      if (signal === running.signal) busy.hidden = true;
    }
    return undefined;
  }

  document.addEventListener("token", () => { if (file && root.dataset.state === "refused") take(file); });
  return {
    take,
    limits(known) {
      server = known;
      limit.textContent = known.limits ? `Up to ${bytes(known.limits.body_bytes)}.` : "";
    },
  };
}

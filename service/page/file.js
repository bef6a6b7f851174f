// The view of a file: it is sent as it is, and the service's report of it is drawn.

import { clearProblem, send, showProblem } from "./api.js";
import { h } from "./dom.js";
import { EXAMPLES } from "./examples.js";
import { bytes, count } from "./format.js";
import { drawReport } from "./report.js";
import { read } from "./safetensors.js";

const PATH = "v1/report";
const SAFETENSORS = "application/x-safetensors";
const TYPES = { npz: "application/x-npz", safetensors: SAFETENSORS };
const OPTIONS = [
  ["class_axis", "Class axis", "1; -1 for classes last"], ["temperature", "Temperature", "1"], ["label_smoothing", "Label smoothing", "0"],
  ["ignore_index", "Ignore index", "-100"], ["bins", "Calibration bins", "15"], ["worst", "Worst positions", "20"],
];
const NEEDS = "A file needs the arrays logits and labels (class indices), and may have weight and sample_weight.";
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

/** What is wrong with `file` before it is sent, or nothing. */
function unfit(file, most) {
  if (!typeOf(file)) return "this is neither .npz nor .safetensors: save the arrays with numpy.savez, or with safetensors.";
  return most && file.size > most
    && `this server takes at most ${bytes(most)} (LOSSD_MAX_BODY_BYTES), and the file has ${count(file.size)} bytes. Send fewer rows at a time, or use \`lossd score\` where the file is.`;
}

/** A refusal of a file's arrays in words that are of a report: the service lists the tensors of all its routes. */
const reworded = (problem) => ({ ...problem, detail: problem.detail.replace(/: the tensors here are [^;]*/, ""),
  advice: problem.status === 400 || problem.detail.includes(" is missing: ") ? NEEDS : problem.status === 422 ? null : problem.advice });

/** The view in `root`; `server` has the limits. Returns `take(file)`. */
export function fileView(root, server) {
  let running = null; // the upload on its way
  let tempering = null; // the question for another temperature
  let file = null; // the one that was last taken
  let reported = null; // that of the report on the page, and the options it was computed with
  const input = h("input", { type: "file", id: "file-input", class: "unseen", accept: ".npz,.safetensors", onchange: () => {
    if (input.files[0]) take(input.files[0]);
    input.value = "";
  } });
  const limit = h("span", {});
  const zone = h("div", { class: "zone" },
    h("p", { class: "zone-title" }, "Drop a file of logits and labels"),
    h("p", {}, h("label", { for: "file-input", class: "button" }, "Choose a file"), input),
    h("p", { class: "note needs" }, "An .npz or .safetensors file with the arrays ", h("code", {}, "logits"), " and ", h("code", {}, "labels"),
      " (class indices). ", limit, " It goes to this server and is kept nowhere."),
    h("p", { class: "examples" }, h("span", {}, "No file at hand? Try "), EXAMPLES.map(([name, make]) =>
      h("button", { type: "button", class: "quiet", onclick: () => take(make()) }, name))));
  const fields = OPTIONS.map(([name, text, usual]) => h("div", { class: "field" }, h("label", { for: `file-${name}` }, text),
    h("input", { id: `file-${name}`, type: "text", autocomplete: "off", size: 8, placeholder: usual, "data-field": name, "aria-describedby": `file-${name}-problem` }),
    h("p", { id: `file-${name}-problem`, class: "problem", "data-problem": name, role: "alert", hidden: true })));
  const layout = h("select", { id: "file-layout", "data-field": "layout" }, LAYOUTS.map(([value, text]) => h("option", { value }, text)));
  const again = h("button", { type: "submit", class: "quiet", hidden: true }, "Compute again");
  // A form: Enter in a field computes the report again.
  const options = h("details", { class: "options" }, h("summary", {}, "Options"),
    h("form", { class: "controls", onsubmit: (event) => {
      event.preventDefault();
      if (file) take(file);
    } }, fields, h("div", { class: "field" }, h("label", { for: "file-layout" }, "Layout"), layout), again));
  const bar = h("progress", { max: 1, value: 0, "aria-label": "Sent so far" });
  const state = h("output", { class: "state", "aria-live": "polite" });
  const cancel = h("button", { type: "button", class: "quiet", onclick: () => running?.abort() }, "Cancel");
  const busy = h("div", { class: "busy", hidden: true }, bar, state, cancel);
  const problem = h("p", { class: "problem", "data-problem": "", role: "alert", hidden: true });
  const kept = h("p", { class: "note", hidden: true });
  const name = h("h2", { class: "file-name", tabindex: "-1" });
  const downloads = h("div", { class: "switches" });
  const result = h("div", { class: "result", hidden: true }, h("div", { class: "result-head" }, name, downloads), h("div"));
  root.replaceChildren(h("div", { class: "card drop" }, zone, options, busy, problem, kept), result);

  const refuse = (said) => {
    showProblem(root, said, file.name);
    if (root.querySelector(".options .problem:not([hidden])") || /(ignore_index|class_axis)=/.test(said.detail)) options.open = true;
    zone.classList.remove("small"); // it says what a file needs
    kept.hidden = reported === null;
    kept.textContent = reported && `Below is still the report of ${reported.file.name}.`;
    root.dataset.state = "refused";
  };
  const chosen = () => Object.fromEntries([...options.querySelectorAll("[data-field]")]
    .map((field) => [field.dataset.field, field.value.trim()]).filter(([, value]) => value));
  const ask = (what, given, signal, progress) => send(Object.keys(given).length ? `${PATH}?${new URLSearchParams(given)}` : PATH, what,
    { type: typeOf(what), accept: SAFETENSORS, signal, progress });

  /** The report at another temperature, given to `shown`; what it returns, or what went wrong. */
  async function retemper(temperature, shown) {
    tempering?.abort();
    tempering = new AbortController();
    try {
      return shown(opened(await ask(reported.file, { ...reported.given, temperature }, tempering.signal, () => {})).report);
    } catch (error) {
      if (error.problem) return error.problem.detail;
      if (error.name === "AbortError") return "";
      throw error;
    }
  }

  function show(buffer, given) {
    const { report, arrays } = opened(buffer);
    reported = { file, given };
    name.textContent = file.name;
    const stem = file.name.replace(/\.\w+$/, "");
    downloads.replaceChildren(
      h("button", { type: "button", class: "quiet", onclick: () => saved(`${stem}.report.json`, [JSON.stringify(report, null, 1)], "application/json") }, "Download the report"),
      h("button", { type: "button", class: "quiet", onclick: () => saved(`${stem}.maps.safetensors`, [buffer], SAFETENSORS) }, "Download the maps"));
    result.lastChild.replaceWith(drawReport(report, arrays, retemper));
    result.hidden = false;
    zone.classList.add("small");
    name.focus({ preventScroll: true });
    result.scrollIntoView({ block: "start" });
  }

  async function take(next) {
    file = next;
    running?.abort();
    tempering?.abort();
    const own = new AbortController();
    running = own;
    clearProblem(root);
    kept.hidden = true;
    busy.hidden = true;
    again.hidden = false;
    const detail = unfit(file, server.limits?.body_bytes);
    if (detail) return refuse({ detail });
    const given = chosen();
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
      const answer = await ask(file, given, own.signal, progress);
      busy.hidden = true; // before the report is scrolled to, which stands below it
      show(answer, given);
      root.dataset.state = "done";
    } catch (error) {
      if (own !== running) return undefined; // another file was taken meanwhile
      busy.hidden = true;
      if (error.name === "AbortError") refuse({ detail: "cancelled." });
      else if (error.problem) refuse(reworded(error.problem));
      else throw error;
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

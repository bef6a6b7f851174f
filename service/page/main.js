// The page: two views, the token, and files dropped anywhere.

import { index, showProblem, clearProblem, token } from "./api.js";
import { chain } from "./chain.js";
import { fileView } from "./file.js";
import { fromAddress, toAddress } from "./state.js";

const byId = (id) => document.getElementById(id);
const tabs = [byId("tab-chain"), byId("tab-file")];
const panels = Object.fromEntries(tabs.map((tab) => [tab.id, byId(tab.getAttribute("aria-controls"))]));

/** The view that the address names and its inputs; null where it names a place on the page. */
function place() {
  const [, view, query] = /^#(chain|file)(?:\?(.*))?$/.exec(location.hash) ?? [];
  return view ? { view: `tab-${view}`, query: query ?? "" } : null;
}

const start = place() ?? { view: "tab-chain", query: "" };
let chosen = start.view;
let address = ""; // of the chain, while the other view is shown
function choose(id, { focus = false } = {}) {
  chosen = id;
  for (const tab of tabs) {
    const on = tab.id === id;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    panels[tab.id].hidden = !on;
    if (on && focus) tab.focus();
  }
  history.replaceState(null, "", id === "tab-file" ? "#file" : `#chain${address}`);
}

const view = fileView(panels["tab-file"], {});
const steps = chain(panels["tab-chain"], fromAddress(start.query), (state) => {
  const text = toAddress(state);
  address = text ? `?${text}` : "";
  if (chosen === "tab-chain") history.replaceState(null, "", `#chain${address}`);
});
choose(chosen);
addEventListener("hashchange", () => {
  const next = place();
  if (next?.view === "tab-chain") steps.show(fromAddress(next.query));
  if (next) choose(next.view);
});
for (const [at, tab] of tabs.entries()) {
  tab.addEventListener("click", () => choose(tab.id));
  tab.addEventListener("keydown", (event) => {
    if (["ArrowLeft", "ArrowRight"].includes(event.key)) choose(tabs[1 - at].id, { focus: true });
  });
}

for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.toggle("dragging", name === "dragenter" || name === "dragover");
    const [file] = name === "drop" ? event.dataTransfer.files : [];
    if (!file) return;
    choose("tab-file");
    view.take(file);
  });
}

const form = byId("token");
const field = byId("token-field");
field.value = token.get();
form.addEventListener("submit", (event) => {
  event.preventDefault();
  token.set(field.value.trim());
  clearProblem(form);
  form.classList.toggle("set", token.get() !== "");
  document.dispatchEvent(new Event("token"));
});
document.addEventListener("unauthorized", ({ detail }) => {
  form.hidden = false;
  if (token.get()) showProblem(form, { ...detail, field: "authorization" });
});

index().then((server) => {
  byId("version").textContent = server.version;
  form.hidden = !server.token;
  view.limits(server);
}, () => showProblem(panels["tab-chain"], { detail: "The server cannot be reached. Is it still running?" }));

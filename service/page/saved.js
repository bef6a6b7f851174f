// The entry of a saved report, whose numbers stand in the file itself.

import { drawReport } from "./report.js";
import { read } from "./safetensors.js";

const held = (id) => document.getElementById(id).textContent.trim();

function arrays() {
  const text = held("arrays");
  return text ? read(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer) : null;
}

document.getElementById("drawn").append(drawReport(JSON.parse(held("report")), arrays(), null));

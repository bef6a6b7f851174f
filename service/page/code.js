// The chain's request as code that can be pasted: the same bytes, from three languages.

import { address, token } from "./api.js";
import { choice, h } from "./dom.js";

const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const indent = (text) => text.replaceAll("\n", "\n    ");

// One row of numbers a line.
const written = (body) => JSON.stringify(body, null, 1).replace(/\[\s+([^[\]{}]*?)\s+\]/g, (_, inner) => `[${inner.replace(/\s+/g, " ")}]`);

const LANGUAGES = {
  curl: (url, body, secured) => `curl -s ${url} \\\n  -H 'Content-Type: application/json' \\\n`
    + `${secured ? "  -H \"Authorization: Bearer $LOSSD_TOKEN\" \\\n" : ""}  -d ${shell(written(body))}`,
  Python: (url, body, secured) => `import json, urllib.request\n${secured ? "import os\n" : ""}\nbody = json.loads(r'''${written(body)}''')\n`
    + `headers = {"Content-Type": "application/json"}\n${secured ? "headers[\"Authorization\"] = f\"Bearer {os.environ['LOSSD_TOKEN']}\"\n" : ""}`
    + `request = urllib.request.Request("${url}", json.dumps(body).encode(), headers)\n`
    + "print(json.load(urllib.request.urlopen(request)))",
  JavaScript: (url, body, secured) => `const answer = await fetch("${url}", {\n    method: "POST",\n`
    + `    headers: { "Content-Type": "application/json"${secured ? ", Authorization: `Bearer ${token}`" : ""} },\n`
    + `    body: JSON.stringify(${indent(written(body))}),\n});\nconsole.log(await answer.json());`,
};

async function copied(text, block) {
  try {
    await navigator.clipboard.writeText(text); // only where the page came by HTTPS or from this machine
  } catch {
    getSelection().selectAllChildren(block);
    document.execCommand("copy");
  }
}

/** The code of a request to `path`: its element, and `show(body)`. */
export function code(path) {
  let language = "curl";
  let body = {};
  const block = h("pre", { tabindex: "0", role: "group", "aria-label": "Code of this request" });
  const said = h("output", { class: "said" });
  const draw = () => {
    block.textContent = LANGUAGES[language](address(path), body, token.get() !== "");
    said.textContent = "";
  };
  return {
    element: h("div", { class: "code" },
      h("div", { class: "switches" },
        choice("Language", Object.keys(LANGUAGES).map((name) => [name, name]), language, (name) => { language = name; draw(); }),
        h("button", { type: "button", class: "quiet copy", onclick: async () => {
          await copied(block.textContent, block);
          said.textContent = "Copied.";
        } }, "Copy"), said),
      block),
    show(next) {
      body = next;
      draw();
    },
  };
}

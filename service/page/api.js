// The service, as the page asks it: addresses relative to the page, a token, problems.

const TOKEN = "lossd.token"; // in sessionStorage: gone with the tab

/** The service's refusal: `problem` has its `detail`, and often a `field` and a `position`. */
export class Refused extends Error {
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (text) => (text ? sessionStorage.setItem(TOKEN, text) : sessionStorage.removeItem(TOKEN)),
};

/** The service's address of `path`, below whatever prefix the page is at. */
export const address = (path) => new URL(path, document.baseURI).href;

/** The index: name, version, limits, whether a token is needed. */
export async function index() {
  const answer = await fetch(address("."), { headers: { Accept: "application/json" }, cache: "no-store" });
  return answer.json();
}

/** Headers with the token, if there is one. */
function headers(given) {
  const held = token.get();
  return held ? { ...given, Authorization: `Bearer ${held}` } : given;
}

function refusal(status, text) {
  let problem = { status, detail: `The server answered ${status}, and said no more.` };
  try {
    problem = { ...problem, ...JSON.parse(text) };
  } catch {
    // Not one of ours: a proxy's page, of which the status is all that is worth showing.
    if (status === 413) problem.detail = "A proxy in front of the server refused the body as too large (413).";
  }
  if (status === 401) document.dispatchEvent(new CustomEvent("unauthorized", { detail: problem }));
  return new Refused(problem);
}

const UNREACHABLE = { status: 0, detail: "The server cannot be reached. Is it still running?" };

/** Post `value` as JSON, and return the JSON of the answer; raises `Refused`. */
export async function ask(path, value, signal) {
  let answer;
  try {
    answer = await fetch(address(path), {
      method: "POST",
      headers: headers({ "Content-Type": "application/json", Accept: "application/json" }),
      body: JSON.stringify(value),
      signal,
    });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Refused(UNREACHABLE);
  }
  const text = await answer.text();
  if (!answer.ok) throw refusal(answer.status, text);
  return JSON.parse(text);
}

/**
 * Post `body` (a file) as it is, and return the answer's bytes; raises `Refused`, and an
 * `AbortError` once `signal` ends it. `progress(sent, total)`: fetch cannot tell that.
 */
export function send(path, body, { type, accept, signal, progress }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address(path));
    request.responseType = "arraybuffer";
    for (const [name, value] of Object.entries(headers({ "Content-Type": type, Accept: accept }))) {
      request.setRequestHeader(name, value);
    }
    request.upload.onprogress = (event) => progress(event.loaded, event.total);
    request.upload.onload = () => progress(body.size, body.size);
    request.onload = () => (request.status === 200
      ? resolve(request.response)
      : reject(refusal(request.status, new TextDecoder().decode(request.response))));
    request.onerror = () => reject(new Refused(UNREACHABLE));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}

/** The field that `problem` blames and the element of it: both may stand in `where`, as `logits[1][3]`. */
function blamed({ field, position, where }) {
  const [, named, indices] = /^(\w+)((?:\[\d+\])*)$/.exec(where ?? "") ?? [];
  const at = position ?? indices?.match(/\d+/g);
  return { field: field ?? named, at: at?.join(",") };
}

/** Show `problem` at the field of `root` that it names, or in the slot for all others, as one `of` a file. */
export function showProblem(root, problem, of) {
  clearProblem(root);
  const { field, at } = blamed(problem);
  const named = field && root.querySelector(`[data-problem="${CSS.escape(field)}"]`);
  const slot = named || root.querySelector('[data-problem=""]');
  const rest = [of && `${of}: `, problem.detail, problem.advice && `${/[.?!]$/.test(problem.detail) ? "" : "."} ${problem.advice}`];
  slot.textContent = named ? problem.detail : rest.filter(Boolean).join("");
  slot.hidden = false;
  if (!field) return;
  const inputs = root.querySelectorAll(`[data-field="${CSS.escape(field)}"]`);
  for (const input of inputs) {
    if (inputs.length === 1 || input.dataset.at === at) input.setAttribute("aria-invalid", "true");
  }
}

/** Take back what `showProblem` showed. */
export function clearProblem(root) {
  for (const slot of root.querySelectorAll("[data-problem]")) {
    slot.textContent = "";
    slot.hidden = true;
  }
  for (const input of root.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
}

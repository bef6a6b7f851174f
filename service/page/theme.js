// Light or dark, before anything is painted: the system's choice unless the visitor made one.
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const store = (() => {
    try {
      return window.localStorage;
    } catch {
      return null; // storage may be switched off, and then a choice lasts as long as the page
    }
  })();
  let chosen = store?.getItem("lossd.theme");
  const apply = () => {
    root.dataset.theme = chosen ?? (system.matches ? "dark" : "light");
    root.classList.toggle("dark-mode", root.dataset.theme === "dark"); // as Swagger UI has it
    for (const button of document.querySelectorAll("button.theme")) {
      button.textContent = root.dataset.theme === "dark" ? "Light" : "Dark";
      button.setAttribute("aria-label", `Switch to ${button.textContent.toLowerCase()} colours`);
    }
    document.dispatchEvent(new Event("theme"));
  };
  apply();
  system.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", apply);
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("button.theme")) return;
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    store?.setItem("lossd.theme", chosen);
    apply();
  });
})();

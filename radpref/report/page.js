"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  // Light and dark: the reader's choice, kept where the browser allows it (not for every file:// page).
  const keep = (value) => { try { localStorage.setItem("radpref-theme", value); } catch { /* not kept */ } };
  const kept = () => { try { return localStorage.getItem("radpref-theme"); } catch { return null; } };
  const wanted = new URLSearchParams(location.search).get("theme") || kept();
  if (wanted === "dark" || wanted === "light") root.dataset.theme = wanted;
  document.querySelector("[data-theme-toggle]").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    keep(root.dataset.theme);
  });

  // Browsers of studies and pairs: a kind, a word, a page.
  for (const browser of document.querySelectorAll("[data-browser]")) {
    const size = Number(browser.dataset.browser);
    const items = [...browser.querySelectorAll("article")];
    const texts = items.map((item) => item.textContent.toLowerCase());
    const filters = [...browser.querySelectorAll("[data-filter]")];
    const turns = [...browser.querySelectorAll("[data-turn]")];
    const search = browser.querySelector("[data-search]");
    let kind = "", page = 0;
    const show = () => {
      const word = search.value.trim().toLowerCase();
      const fit = items.filter((item, i) => (!kind || item.dataset.kind === kind) && (!word || texts[i].includes(word)));
      const pages = Math.max(1, Math.ceil(fit.length / size));
      page = Math.min(Math.max(page, 0), pages - 1);
      const shown = new Set(fit.slice(page * size, (page + 1) * size));
      for (const item of items) item.hidden = !shown.has(item);
      for (const button of filters) button.setAttribute("aria-pressed", String(button.dataset.filter === kind));
      for (const button of turns) {
        const next = page + Number(button.dataset.turn);
        button.disabled = next < 0 || next >= pages;
      }
      const first = page * size + 1;
      browser.querySelector("[data-place]").textContent =
        fit.length ? `${first}–${Math.min(first + size - 1, fit.length)} of ${fit.length}` : "0 of 0";
      browser.querySelector(".nothing").hidden = fit.length > 0;
    };
    for (const button of filters) button.addEventListener("click", () => { kind = button.dataset.filter; page = 0; show(); });
    for (const button of turns) button.addEventListener("click", () => { page += Number(button.dataset.turn); show(); });
    search.addEventListener("input", () => { page = 0; show(); });
    for (const button of browser.querySelectorAll("[data-mark]")) {
      button.addEventListener("click", () => {
        const on = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(on));
        browser.classList.toggle(`hide-${button.dataset.mark}`, !on);
      });
    }
    show();
  }
})();

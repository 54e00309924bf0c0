"use strict";
// Without this script the page is one long text that says everything. With it, one page is shown at a time, by the part of
// the address after the hash; tables sort and filter; and the theme can be chosen. It writes no markup, and asks for nothing.
(() => {
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  root.classList.add("scripted");

  // --- the theme: what the system says, unless the reader chose otherwise -------------------------------------------

  const dark = matchMedia("(prefers-color-scheme: dark)");
  // A browser may keep no memory for files or for strangers; then a choice lasts as long as the page.
  const memory = (() => { try { return window.localStorage; } catch { return null; } })();
  const isDark = () => (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";

  function themes() {
    const button = byId("theme");
    const say = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      memory?.setItem("tessera-theme", root.dataset.theme);
      say();
    });
    dark.addEventListener("change", say);
    say();
  }

  const remembered = memory?.getItem("tessera-theme");
  if (remembered === "dark" || remembered === "light") root.dataset.theme = remembered;

  // --- one page at a time -------------------------------------------------------------------------------------------

  const title = document.title;
  let before = "";  // The view that was open until now: back in its list, the reader goes on from there.

  function show(focus) {
    const id = location.hash.slice(1);
    if (id === "main") { byId("main").focus(); return; }
    const pages = [...document.querySelectorAll(".page")];
    const place = byId(id);
    const page = place?.closest(".page") ?? pages[0];
    const view = place?.closest(".view") ?? null;
    const everything = id === "all";
    root.classList.toggle("everything", everything);
    root.classList.toggle("at-front", everything || page.id === "front");
    for (const each of pages) each.classList.toggle("shown", each === page);
    const full = place?.classList.contains("views") ?? false;
    page.classList.toggle("viewing", full || view !== null);
    page.classList.toggle("full", full);
    for (const each of page.querySelectorAll(".view.shown")) each.classList.remove("shown");
    view?.classList.add("shown");
    if (view) steps(page, view);
    for (let around = place?.closest("details"); around; around = around.parentElement.closest("details")) around.open = true;
    const here = everything ? "all" : page.dataset.under ?? page.id;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.getAttribute("href") === `#${here}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    const heading = (view ?? page).querySelector("h2, h3");
    document.title = everything || page.id === "front" ? title : `${heading.textContent} \u2013 Tessera`;
    const left = document.querySelector(`.page.shown .listing th a[href="#${CSS.escape(before)}"]`);
    before = view?.id ?? "";
    const start = view || !place || place === page || full ? heading : place;
    if (focus && left && !view) {
      left.focus();
    } else if (focus) {
      start.focus({ preventScroll: true });
      if (start === heading) scrollTo(0, 0); else start.scrollIntoView();
    } else if (place && start !== heading) start.scrollIntoView();
  }

  // --- tables that sort and filter ----------------------------------------------------------------------------------

  const MINUS = "\u2212";

  /** What a cell is sorted by: the number that it begins with, or its words. */
  function worth(cell) {
    const text = (cell?.firstChild?.textContent ?? "").trim() || (cell?.textContent ?? "").trim();
    const number = parseFloat(text.replaceAll(",", "").replace(MINUS, "-"));
    return Number.isNaN(number) ? text.toLowerCase() : number;
  }

  function compare(a, b) {
    if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b);
    return typeof a === "number" ? -1 : 1;  // What is no number stands last.
  }

  function sort(table, place, down) {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [worth(row.cells[place]), row]);
    const empty = (key) => key === "" || key === "\u2013not in this run";
    rows.sort(([a], [b]) => empty(a) - empty(b) || (typeof a !== typeof b ? compare(a, b) : compare(a, b) * (down ? -1 : 1)));
    body.append(...rows.map(([, row]) => row));
  }

  function sorting(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => {
      if (head.classList.contains("chart")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const numbers = head.classList.contains("number");
        const before = head.getAttribute("aria-sort");
        const down = before ? before === "ascending" : numbers;
        for (const each of heads) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(table, place, down);
      });
    });
  }

  const linkOf = (row) => row.querySelector("th a");

  /** A row is found by its own words and by those of the view that it leads to. */
  const words = new WeakMap();
  function wordsOf(row) {
    if (!words.has(row)) {
      const view = byId(linkOf(row).hash.slice(1));
      words.set(row, `${row.textContent} ${view?.textContent ?? ""}`.toLowerCase());
    }
    return words.get(row);
  }

  function filtering(filters) {
    const table = byId(filters.dataset.for);
    const rows = [...table.tBodies[0].rows];
    const search = filters.querySelector("[data-find]");
    const choices = [...filters.querySelectorAll("[data-key]")];
    const told = filters.querySelector("output");
    const wanted = (choice) => (choice.type === "checkbox" && !choice.checked ? "" : choice.value);
    const apply = () => {
      const find = search.value.trim().toLowerCase();
      let shown = 0;
      for (const row of rows) {
        const fits = choices.every((choice) => !wanted(choice) || row.dataset[choice.dataset.key] === wanted(choice));
        row.hidden = !(fits && (!find || wordsOf(row).includes(find)));
        shown += !row.hidden;
      }
      told.textContent = `${shown} of ${rows.length} ${table.dataset.what}`;
    };
    filters.addEventListener("input", apply);
    apply();
  }

  // --- the explorer: from one view to the next, in the order of its list --------------------------------------------

  const listed = (page, view) => {
    const table = page.querySelector(view.classList.contains("why") ? "[data-what=examples]" : "[data-what=features]");
    return [...table.tBodies[0].rows].filter((row) => !row.hidden).map(linkOf);
  };

  function steps(page, view) {
    const links = listed(page, view);
    const place = links.findIndex((link) => link.hash === `#${view.id}`);
    if (place < 0 || links.length < 2) return;
    const [before, after] = [".before", ".after"].map((name) => view.querySelector(name));
    const set = (step, link) => {
      step.href = link.hash;
      step.textContent = `${step.textContent.split(":")[0]}: ${link.textContent}`;
    };
    set(before, links.at(place - 1));
    set(after, links[(place + 1) % links.length]);
  }

  function keys(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const from = event.target;
    if (from.matches("input, select, summary, .scroll")) return;
    const view = document.querySelector(".page.shown .view.shown");
    if (view) {
      const step = { ArrowLeft: ".before", ArrowRight: ".after" }[event.key];
      if (step) location.hash = view.querySelector(step).hash;
      if (event.key === "Escape") {
        location.hash = view.querySelector(".steps a").hash;
      }
      return;
    }
    const row = from.matches("tbody th a") ? from.closest("tr") : null;
    if (!row) return;
    const links = [...row.parentElement.rows].filter((each) => !each.hidden).map(linkOf);
    const place = links.indexOf(from);
    const next = { ArrowDown: links[place + 1], ArrowUp: links[place - 1], Home: links[0], End: links.at(-1) }[event.key];
    if (next) { event.preventDefault(); next.focus(); }
  }

  document.addEventListener("DOMContentLoaded", () => {
    themes();
    document.querySelectorAll("table.sorts").forEach(sorting);
    document.querySelectorAll(".filters").forEach(filtering);
    for (const box of document.querySelectorAll("[data-values]")) {
      box.addEventListener("input", () => box.closest(".views").classList.toggle("written", box.checked));
    }
    addEventListener("hashchange", () => show(true));
    document.addEventListener("keydown", keys);
    show(false);
  });
})();

"use strict";
(() => {
  const one = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;
  const numbers = JSON.parse(one("#numbers").textContent);
  const say = (text) => { one("#said").textContent = text; };
  const TIER = 0, MEAN = 1, BEST = 2;

  root.classList.add("scripted");
  for (const element of [one("#controls"), one("#theme"), ...all(".copy, .pick")]) element.hidden = false;

  // --- light and dark ---
  const themes = ["auto", "light", "dark"];
  const kept = () => { try { return localStorage.getItem("vae-zoo-theme"); } catch { return null; } };
  const setTheme = (name) => {
    if (name === "auto") delete root.dataset.theme; else root.dataset.theme = name;
    one("#theme").textContent = `Theme: ${name}`;
    try { localStorage.setItem("vae-zoo-theme", name); } catch { /* a page from disk may have no storage */ }
  };
  setTheme(themes.includes(kept()) ? kept() : "auto");
  one("#theme").addEventListener("click", () => {
    setTheme(themes[(themes.indexOf(root.dataset.theme || "auto") + 1) % themes.length]);
  });

  // --- sorting ---
  const setting = (name) => one(`#controls [name="${name}"]:checked, #controls select[name="${name}"]`).value;
  const value = (cell) => setting("seeds") === "best" && cell[BEST] != null ? cell[BEST] : cell[MEAN];
  const sorted = new Map();

  function sort(table) {
    const order = sorted.get(table);
    if (!order) return;
    const { rows, columns } = numbers[table.dataset.table];
    const body = table.tBodies[0];
    const sign = order.direction === "ascending" ? 1 : -1;
    const compare = (a, b) => {
      if (order.column < 0) return sign * (a.dataset.row < b.dataset.row ? -1 : 1);
      const [x, y] = [a, b].map((row) => rows[row.dataset.row][order.column]);
      // What is not ranked with the others, and what has no number, comes after them whichever way one sorts.
      return x[TIER] - y[TIER] || (x[TIER] === 2 ? 0 : sign * (value(x) - value(y)));
    };
    body.append(...[...body.rows].sort(compare));
    for (const head of all("thead th", table)) head.removeAttribute("aria-sort");
    order.head.setAttribute("aria-sort", order.direction);
    say(`Sorted by ${order.column < 0 ? "name" : columns[order.column].title}, ${order.direction}.`);
  }

  for (const table of all("table.main")) {
    table.dataset.columns = "main";
    for (const head of all("thead th", table)) {
      if (head.classList.contains("seeds")) continue;
      const column = "column" in head.dataset ? Number(head.dataset.column) : -1;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...one(".head", head).childNodes);
      if (head.dataset.tip) button.setAttribute("aria-describedby", head.dataset.tip);
      one(".head", head).append(button);
      button.addEventListener("click", () => {
        const before = sorted.get(table);
        const better = column < 0 ? null : numbers[table.dataset.table].columns[column].better;
        let direction = better === "higher" ? "descending" : "ascending";
        if (before && before.column === column) {
          direction = before.direction === "ascending" ? "descending" : "ascending";
        }
        sorted.set(table, { column, direction, head });
        sort(table);
      });
    }
  }

  // --- what the tables show ---
  function show() {
    const [dataset, family, seeds, columns] = ["dataset", "family", "seeds", "columns"].map(setting);
    root.dataset.seeds = seeds;
    for (const cell of all("table.main .best")) {
      cell.hidden = seeds !== "best";
      cell.previousElementSibling.hidden = seeds === "best";
    }
    let count = 0;
    for (const board of all(".board")) {
      board.hidden = Boolean(dataset) && board.dataset.dataset !== dataset;
      const rows = all("table.main tbody tr", board);
      for (const row of rows) {
        row.hidden = Boolean(family) && row.dataset.family !== family;
        count += !row.hidden && !board.hidden;
        for (const other of all(`.picture[data-row="${row.dataset.row}"]`, one(".gallery", board) || row)) {
          other.hidden = row.hidden;
        }
        for (const point of all(`.point[data-row="${row.dataset.row}"]`, board)) {
          point.classList.toggle("dim", row.hidden);
        }
      }
      one(".none", board).hidden = rows.some((row) => !row.hidden);
    }
    for (const table of all("table.main")) {
      table.dataset.columns = columns;
      sort(table);
    }
    say(`${count} rows shown, ${seeds} of the seeds${seeds === "best" ? ", not ranked" : ""}.`);
  }
  one("#controls").addEventListener("change", show);
  one("#controls").addEventListener("submit", (event) => event.preventDefault());
  show();

  // --- plots and pictures on demand ---
  for (const select of all("select[data-plots]")) {
    select.addEventListener("change", () => {
      for (const plot of all(`[data-plot="${select.dataset.plots}"]`)) plot.hidden = plot.id !== select.value;
    });
  }
  for (const link of all("[data-copy]")) {
    const source = one(`#${CSS.escape(link.dataset.copy)} img`);
    if (source) link.replaceWith(source.cloneNode());
  }
  for (const select of all("select[data-gallery]")) {
    const gallery = document.getElementById(`${select.dataset.gallery}-gallery`);
    const shown = all(".picture", gallery).map((figure) => [figure, one("img", figure).cloneNode()]);
    select.addEventListener("change", () => {
      for (const [figure, samples] of shown) {
        const { row, seed } = figure.dataset;
        const other = one(`.body .picture[data-row="${row}"][data-seed="${seed}"][data-name="${CSS.escape(select.value)}"] img`);
        const image = select.value === figure.dataset.name ? samples : other;
        const place = one("img, .absent", figure);
        if (image) place.replaceWith(image.cloneNode());
        else {
          const absent = document.createElement("p");
          absent.className = "absent muted";
          absent.textContent = "not drawn";
          place.replaceWith(absent);
        }
      }
    });
  }

  // --- one variant ---
  const dialog = one("#dialog");
  let open = null;
  const home = () => { if (open) { open.append(one("#dialog-body > .body")); open = null; } };
  function details(id, note = true) {
    const article = document.getElementById(id);
    if (!article || !article.classList.contains("variant")) return false;
    home();
    open = article;
    one("#dialog-h").replaceChildren(...[...one("summary", article).childNodes].map((node) => node.cloneNode(true)));
    one("#dialog-body").append(one(".body", article));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    one("#dialog-h").focus();
    if (note) try { history.replaceState(null, "", `#${id}`); } catch { /* not everywhere from disk */ }
    return true;
  }
  function turn(step) {
    const board = open.closest(".board");
    const ids = all("table.main tbody tr:not([hidden])", board).map((row) => row.dataset.row);
    const at = ids.indexOf(open.id);
    details(ids[(at + step + ids.length) % ids.length] || open.id);
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      if (details(decodeURIComponent(link.getAttribute("href").slice(1)))) event.preventDefault();
    }
    const copy = event.target.closest(".copy");
    if (copy) {
      const text = one("code", copy.parentElement).textContent;
      const done = () => { copy.textContent = "Copied"; setTimeout(() => { copy.textContent = "Copy"; }, 1500); };
      if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, () => {});
    }
    if (event.target === dialog) dialog.close();
  });
  one("#close").addEventListener("click", () => dialog.close());
  one("#previous").addEventListener("click", () => turn(-1));
  one("#next").addEventListener("click", () => turn(1));
  dialog.addEventListener("close", () => {
    home();
    try { history.replaceState(null, "", location.pathname + location.search); } catch { /* as above */ }
  });
  if (location.hash) details(decodeURIComponent(location.hash.slice(1)), false);

  // --- what a column measures ---
  const tip = one("#tip");
  function tell(event) {
    const head = event.target.closest && event.target.closest("th[data-tip]");
    if (!head) { tip.hidden = true; return; }
    tip.textContent = document.getElementById(head.dataset.tip).textContent;
    tip.hidden = false;
    const place = head.getBoundingClientRect();
    const size = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(place.left, innerWidth - size.width - 8))}px`;
    tip.style.top = `${place.top > size.height + 14 ? place.top - size.height - 6 : place.bottom + 6}px`;
  }
  document.addEventListener("mouseover", tell);
  document.addEventListener("focusin", tell);
  document.addEventListener("focusout", () => { tip.hidden = true; });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
  document.addEventListener("scroll", () => { tip.hidden = true; }, true);
})();

"use strict";
// What every page shares: charts, light and dark, choosers.
const page = (() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const root = document.documentElement;
  const all = (selector, inside = document) => Array.from(inside.querySelectorAll(selector));
  const byId = (id) => document.getElementById(id);

  // Charts ------------------------------------------------------------------
  const themed = (figure, width) => {
    const css = getComputedStyle(root);
    const ink = css.getPropertyValue("--ink").trim(), line = css.getPropertyValue("--line").trim();
    const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true };
    const layout = JSON.parse(JSON.stringify(figure.layout));
    for (const name of ["xaxis", "yaxis"]) {
      layout[name] = Object.assign({}, axis, layout[name]);
      if (layout[name].title) layout[name].title.standoff = 10;
    }
    return Object.assign({
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: false, hovermode: "closest",
      font: { color: ink, family: "system-ui, sans-serif", size: width < 500 ? 11.5 : 12.5 },
      margin: { l: 52, r: 12, t: 10, b: 50 }, autosize: true,
      // At the foot of the figure: below the plot in its own units, margins and legend would chase each other.
      legend: { orientation: "h", x: 0, xanchor: "left", yref: "container", y: 0, yanchor: "bottom" },
      hoverlabel: { namelength: -1 },
    }, layout);
  };
  const draw = (element) => {
    const figure = figures[element.dataset.figure];
    if (!figure || !window.Plotly) return;
    window.Plotly.react(element, figure.data, themed(figure, element.clientWidth), {
      responsive: true, displaylogo: false, modeBarButtons: [["toImage"]],
    });
    element.dataset.drawn = "yes";
  };
  const drawAll = () => all(".plot").forEach((element) => { if (element.offsetParent) draw(element); });
  // Drawn when scrolled near: a long report opens at once.
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting && !entry.target.dataset.drawn) draw(entry.target);
  }, { rootMargin: "800px" });
  all(".plot").forEach((element) => watcher.observe(element));

  const numbers = (card) => {
    const { columns, rows } = figures[card.querySelector(".plot").dataset.figure].table;
    const table = document.createElement("table"), head = table.createTHead().insertRow(), body = table.createTBody();
    for (const name of columns) {
      const cell = document.createElement("th");
      cell.scope = "col"; cell.textContent = name; head.append(cell);
    }
    for (const values of rows) {
      const row = body.insertRow();
      for (const value of values) row.insertCell().textContent = value;
    }
    card.querySelector(".numbers .scroll").replaceChildren(table);
  };
  all(".numbers").forEach((details) => details.addEventListener("toggle", () => {
    if (details.open) numbers(details.closest(".chart"));
  }));

  const show = (id, key) => {
    const card = byId(id), figure = figures[key];
    if (!card) return;
    card.hidden = !figure;
    if (!figure) return;
    const plot = card.querySelector(".plot");
    card.querySelector(".chart-title").textContent = figure.title;
    card.querySelector(".chart-note").textContent = figure.note;
    plot.dataset.figure = key;
    plot.setAttribute("aria-label", figure.alt);
    draw(plot);
    if (card.querySelector(".numbers[open]")) numbers(card);
  };

  // Light and dark ----------------------------------------------------------
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const setTheme = (theme) => {
    root.dataset.theme = theme;
    byId("theme").setAttribute("aria-pressed", String(theme === "dark"));
    all('.plot[data-drawn="yes"]').forEach(draw);
  };
  let chosen = false;
  setTheme(system.matches ? "dark" : "light");
  system.addEventListener("change", () => { if (!chosen) setTheme(system.matches ? "dark" : "light"); });
  byId("theme").addEventListener("click", () => {
    chosen = true;
    setTheme(root.dataset.theme === "dark" ? "light" : "dark");
  });
  window.addEventListener("beforeprint", () => { setTheme("light"); drawAll(); });

  // Choosers ----------------------------------------------------------------
  const on = (id, act) => {
    const chooser = byId(id);
    if (chooser) chooser.addEventListener("change", () => act(chooser.value));
    return chooser;
  };
  const made = (tag, className, text = "") => Object.assign(document.createElement(tag), { className, textContent: text });
  return { figures, root, all, byId, show, on, made };
})();

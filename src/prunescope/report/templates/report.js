"use strict";
(() => {
  const data = JSON.parse(document.getElementById("figures").textContent);
  const bumps = JSON.parse(document.getElementById("bumps").textContent);
  const figures = Object.assign({}, data, bumps);
  const root = document.documentElement;

  const themed = (figure) => {
    const css = getComputedStyle(root);
    const ink = css.getPropertyValue("--ink").trim(), line = css.getPropertyValue("--line").trim();
    const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true };
    const layout = JSON.parse(JSON.stringify(figure.layout));
    layout.xaxis = Object.assign({}, axis, layout.xaxis);
    layout.yaxis = Object.assign({}, axis, layout.yaxis);
    layout.title = Object.assign({ x: 0.02, xanchor: "left", font: { size: 15 } }, layout.title);
    return Object.assign({
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: ink, family: "system-ui, sans-serif", size: 12.5 },
      margin: { l: 60, r: 16, t: 48, b: 56 }, hovermode: "closest", autosize: true,
      legend: { orientation: "h", y: -0.24, x: 0 },
    }, layout);
  };

  const draw = (element) => {
    const figure = figures[element.dataset.figure];
    if (!figure || !window.Plotly) return;
    window.Plotly.react(element, figure.data, themed(figure), {
      responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    });
    element.dataset.drawn = "yes";
  };
  // Drawn when scrolled near: a long report opens at once.
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting && !entry.target.dataset.drawn) draw(entry.target);
  }, { rootMargin: "600px" });
  document.querySelectorAll(".figure").forEach((element) => watcher.observe(element));

  const setTheme = (theme) => {
    root.dataset.theme = theme;
    const button = document.getElementById("theme");
    button.setAttribute("aria-pressed", String(theme === "dark"));
    document.querySelectorAll('.figure[data-drawn="yes"]').forEach(draw);
  };
  setTheme(window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.getElementById("theme").addEventListener("click", () => setTheme(root.dataset.theme === "dark" ? "light" : "dark"));

  const chooser = document.getElementById("measure");
  const show = (name) => {
    const element = document.getElementById("measure-figure");
    element.dataset.figure = name;
    draw(element);
  };
  if (chooser) {
    chooser.addEventListener("change", () => show(chooser.value));
    document.querySelectorAll("[data-show]").forEach((button) => button.addEventListener("click", () => {
      chooser.value = button.dataset.show;
      show(button.dataset.show);
      document.getElementById("drift").scrollIntoView();
    }));
  }

  const subset = document.getElementById("subset");
  if (subset) {
    const apply = () => document.querySelectorAll("#verdicts tbody tr").forEach((row) => {
      row.hidden = subset.value !== "every" && row.dataset.subset !== subset.value && row.dataset.only !== "yes";
    });
    subset.addEventListener("change", apply);
    apply();
  }

  const which = document.getElementById("gallery-which"), how = document.getElementById("gallery-how");
  if (which) {
    const apply = () => document.querySelectorAll(".gallery").forEach((table) => {
      table.hidden = table.dataset.gallery !== which.value || table.dataset.how !== how.value;
    });
    which.addEventListener("change", apply);
    how.addEventListener("change", apply);
    apply();
    const heat = document.getElementById("heat");
    heat.addEventListener("input", () => root.style.setProperty("--heat", heat.value));
  }

  const classes = document.getElementById("bump-class");
  if (classes) {
    const element = document.getElementById("bump-figure");
    classes.addEventListener("change", () => { element.dataset.figure = classes.value; draw(element); });
  }
})();

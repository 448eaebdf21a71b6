"use strict";
(() => {
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
    if (card.querySelector(".numbers").open) numbers(card);
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
  on("metric", (key) => show("metric-chart", key));
  const showMeasure = (key) => { show("drift-chart", `drift/${key}`); show("equal-chart", `accuracy/${key}`); };
  const measure = on("measure", showMeasure);
  all("[data-show]").forEach((button) => button.addEventListener("click", () => {
    const key = button.dataset.show.replace(/^drift\//, "");
    measure.value = key;
    showMeasure(key);
    byId("drift").scrollIntoView();
    measure.focus({ preventScroll: true });
  }));

  const pickSubset = (subset) => all(".verdicts tbody tr").forEach((row) => {
    row.hidden = subset !== "every" && row.dataset.subset !== subset && row.dataset.only !== "yes";
  });
  const subset = on("subset", pickSubset);
  if (subset) pickSubset(subset.value);

  const which = byId("gallery-which"), how = byId("gallery-how");
  const pickPictures = () => all(".gallery").forEach((part) => {
    part.hidden = part.dataset.gallery !== which.value || part.dataset.how !== how.value;
  });
  if (which) {
    which.addEventListener("change", pickPictures);
    how.addEventListener("change", pickPictures);
    pickPictures();
    byId("heat").addEventListener("input", (event) => root.style.setProperty("--heat", event.target.value));
  }

  // Layers of one network ---------------------------------------------------
  const layers = JSON.parse(byId("layers").textContent), layerRows = byId("layer-rows");
  const percent = (share) => {
    const digits = share >= 0.001 || share === 0 ? 1 : 3;
    return `${(100 * share).toFixed(digits).replace(/\.0$/, "")}\u00a0%`;
  };
  const outOf = (part, whole) => whole ? `${part.toLocaleString("en")} of ${whole.toLocaleString("en")}` : "–";
  const made = (tag, className, text = "") => Object.assign(document.createElement(tag), { className, textContent: text });
  // Per layer: what each column shows, and what it is sorted by.
  const described = (place, [name, total, outputs, inputs], [kept, alive, deadOut, deadIn]) => {
    const density = total ? kept / total : 1, live = alive < 0 ? NaN : alive / total;
    const bar = made("span", "bar");
    for (const [part, share] of alive < 0 ? [["kept", density]] : [["live", live], ["dead", density - live]]) {
      if (share) bar.append(Object.assign(made("i", part), { style: `width:max(2px,${100 * share}%)` }));
    }
    const ended = kept === 0 ? "empty" : alive === 0 ? "cut off" : "";
    return [
      { text: name, by: place }, { node: ended ? made("span", "beyond badge", ended) : bar, by: density },
      { text: percent(density), by: density }, { text: alive < 0 ? "–" : percent(live), by: alive < 0 ? -1 : live },
      { text: outOf(kept, total), by: kept }, { text: outOf(deadOut, outputs), by: deadOut / (outputs || 1) },
      { text: outOf(deadIn, inputs), by: deadIn / (inputs || 1) },
    ];
  };
  const order = { column: 0, falling: false };
  const fillLayers = (key) => {
    const [recipe, counts] = layers.networks[key];
    const rows = counts.map((own, i) => described(i, layers.shapes[recipe][i], own));
    const known = counts.every(([, alive]) => alive >= 0);
    all("[data-known]").forEach((key) => { key.hidden = (key.dataset.known === "yes") !== known; });
    const turn = order.falling ? -1 : 1;
    rows.sort((a, b) => turn * (a[order.column].by - b[order.column].by) || a[0].by - b[0].by);
    layerRows.tBodies[0].replaceChildren(...rows.map((cells) => {
      const row = document.createElement("tr");
      cells.forEach((cell, i) => {
        const box = made(i ? "td" : "th", i > 1 ? "num" : "");
        if (!i) box.scope = "row";
        box.append(cell.node || cell.text);
        row.append(box);
      });
      return row;
    }));
    all("th[scope=col]", layerRows).forEach((head, i) => {
      if (i === order.column) head.setAttribute("aria-sort", order.falling ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  };
  on("size", (key) => show("size-chart", key));
  const chosenNetwork = on("network", fillLayers);
  if (chosenNetwork) {
    all("thead button", layerRows).forEach((button, i) => button.addEventListener("click", () => {
      Object.assign(order, { column: i, falling: i === order.column ? !order.falling : i > 3 });
      fillLayers(chosenNetwork.value);
    }));
    fillLayers(chosenNetwork.value);
  }

  const network = byId("concept-which"), classOf = byId("bump-class");
  const pickConcepts = () => {
    all(".concepts").forEach((part) => { part.hidden = part.dataset.concepts !== network.value; });
    show("bump-chart", `bump/${network.value}/${classOf.value}`);
  };
  if (network) {
    network.addEventListener("change", pickConcepts);
    classOf.addEventListener("change", pickConcepts);
    pickConcepts();
  }
})();

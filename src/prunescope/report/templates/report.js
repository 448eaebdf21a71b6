"use strict";
(() => {
  const { root, all, byId, show, on, made } = page;
  on("metric", (key) => show("metric-chart", key));
  on("readable-chart-of", (key) => show("readable-chart", key));
  on("selectivity-chart-of", (key) => show("selectivity-chart", key));
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

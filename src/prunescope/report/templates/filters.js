(() => {
  const { figures, root, all, byId, show, on, made } = page;
  all(".script").forEach((part) => { part.hidden = false; });
  const CHUNK = 100;
  const classes = JSON.parse(byId("class-names").textContent);
  const kept = new Map();
  const layerAt = (place) => {
    if (!kept.has(place)) {
      const [numbers, pictures] = ["numbers", "pictures"].map((name) => JSON.parse(byId(`${name}-${place}`).textContent));
      kept.set(place, { ...numbers, ...pictures });
    }
    return kept.get(place);
  };

  // How numbers are written -------------------------------------------------
  const none = (value) => value === null || value === undefined;
  const fixed = (value, digits = 2) => none(value) ? "–" : value.toFixed(digits).replace("-", "−");
  const signed = (value) => {
    if (none(value)) return "–";
    const text = value.toFixed(3);
    return Number(text) === 0 ? "0.000" : (value > 0 ? "+" : "") + text.replace("-", "−");
  };
  const chance = (p) => none(p) ? "–" : p < 0.001 ? "< 0.001" : p.toFixed(3);
  const classCar = ([name, value]) => none(value) ? "–" : value === 0 ? "0.000" : `${classes[name]} ${signed(value)}`;
  const lines = (...texts) => {
    const box = document.createDocumentFragment();
    texts.forEach((text, i) => { if (text) box.append(i ? made("small", "", text) : text); });
    return box;
  };
  const image = (className, alt, kind, data) => Object.assign(made("img", className), {
    loading: "lazy", decoding: "async", alt, src: `data:image/${kind};base64,${data}`,
  });

  const pixels = (place) => byId(`layer-${place}`).querySelector(".pixels") !== null;

  // The table of units ------------------------------------------------------
  const marked = (layer, i) => {
    const box = lines(signed(layer.car[i]), `${signed(layer.low[i])} to ${signed(layer.high[i])}`);
    const kind = layer.kind[i];
    if (kind !== "unsure") {
      const mark = made("b", kind, kind === "helps" ? "▲ " : "▼ ");
      mark.title = kind === "helps" ? "matters for sure" : "harms for sure";
      box.prepend(mark);
    }
    return box;
  };
  const sees = (layer, i) => {
    const box = document.createDocumentFragment(), { kernels, maximised, patches } = layer;
    if (kernels[i]) box.append(image("kernel", "weights", "png", kernels[i]));
    if (maximised[i]) box.append(image("made", `made to excite channel ${layer.channel[i]}`, "webp", maximised[i]));
    if (patches[i]) box.append(image("strip", `best patches of channel ${layer.channel[i]}`, "webp", patches[i]));
    else if (layer.live[i] === 0) box.append(made("span", "soft", "no image excites it"));
    return box;
  };
  const index = (name) => (layer, i) => fixed(layer[name][i]) + (layer[`${name}_selective`][i] ? " ●" : "");
  // The class that loses most, its interval below it, and the class that loses second most.
  const harmed = (layer, i) => {
    const [worst, second] = layer.harmed[i].map(classCar);
    if (!worst) return "–";
    if (none(layer.worst_low[i])) return lines(worst, second);
    const box = lines(worst, `${signed(layer.worst_low[i])} to ${signed(layer.worst_high[i])}`, second);
    const title = `p = ${chance(layer.worst_p[i])} for this class alone, uncorrected`;
    Object.assign(box.querySelector("small"), { className: "interval", title });
    return box;
  };
  const top = (layer, i) => layer.top_class[i] && layer.top_images[i] > 1 ? `${layer.top_images[i]} × ${layer.top_class[i]}` : "";
  const looked = byId("size") !== null;
  // Name, class, what is shown, and what it is sorted by (nothing: not at all); words for who cannot guess it.
  const columns = [
    ["channel", "", (l, i) => String(l.channel[i]), (l, i) => l.channel[i]],
    looked && ["sees", "sees", sees, null, "best patches, the best first; in front of them first-layer weights, and a picture made to excite the unit"],
    ["CAR", "num", marked, (l, i) => l.car[i], "accuracy lost without the unit, and its 95 % interval"],
    ["p (Holm)", "num", (l, i) => chance(l.p_holm[i]), (l, i) => l.p_holm[i]],
    ["mean drop", "num", (l, i) => fixed(l.mean_drop[i], 3), (l, i) => l.mean_drop[i], "of the true class's log-probability, in nats"],
    ["most harmed", "class", harmed, (l, i) => l.harmed[i].length ? l.harmed[i][0][1] : 0],
    ["least harmed", "class", (l, i) => classCar(l.spared[i]), (l, i) => l.spared[i][1]],
    looked && ["colour", "num", index("colour"), (l, i) => l.colour[i], "colour index; ● selective"],
    looked && ["shape", "num", index("shape"), (l, i) => l.shape[i], "shape index; ● selective"],
    looked && ["kernel chroma", "num chroma", (l, i) => fixed(l.chroma[i]), (l, i) => l.chroma[i],
      "share of the first-layer weights' energy that is colour"],
    looked && ["class selectivity", "num", (l, i) => fixed(l.class_selectivity_means[i]), (l, i) => l.class_selectivity_means[i],
      "after Morcos, over all images: 0 to 1"],
    looked && ["class selectivity of best images", "class", (l, i) => lines(fixed(l.class_selectivity[i]), top(l, i)),
      (l, i) => l.class_selectivity[i],
      "after Rafegas: about 0.5 where each is of another class, to 1; below it the class most frequent among them"],
    looked && ["redundancy", "num", (l, i) => lines(fixed(l.redundancy[i]), none(l.partner[i]) ? "" : `with ${l.partner[i]}`),
      (l, i) => l.redundancy[i], "largest correlation with another unit of the layer"],
    ["place", "num", (l, i) => String(l.place[i] + 1), (l, i) => l.place[i], "in the order of all units, the least important first"],
  ].filter(Boolean);
  const tests = {
    all: () => true, helps: (l, i) => l.kind[i] === "helps", below: (l, i) => l.car[i] < 0,
    colour: (l, i) => l.colour_selective[i] === 1, shape: (l, i) => l.shape_selective[i] === 1,
    dead: (l, i) => l.live[i] === 0,
  };
  const at = (wanted) => columns.findIndex(([name]) => name === wanted);
  const state = { place: 0, column: at("CAR"), falling: true, shown: CHUNK };
  const table = byId("unit-rows"), picker = byId("layer"), only = byId("only"), more = byId("more");

  const rowOf = (layer, i) => {
    const row = made("tr", "");
    row.dataset.channel = layer.channel[i];
    columns.forEach(([, className, cell], column) => {
      const box = made(column ? "td" : "th", className);
      if (!column) box.scope = "row";
      box.append(cell(layer, i));
      row.append(box);
    });
    return row;
  };
  // What has no number comes last, whichever way it is sorted.
  const sorted = (layer) => {
    const by = columns[state.column][3], turn = state.falling ? -1 : 1;
    const chosen = layer.channel.map((_, i) => i).filter((i) => tests[only.value](layer, i));
    return chosen.sort((a, b) => {
      const [x, y] = [by(layer, a), by(layer, b)];
      if (none(x) || none(y)) return none(x) - none(y) || a - b;
      return turn * (x - y) || turn * (layer.place[a] - layer.place[b]);
    });
  };
  const fill = () => {
    const layer = layerAt(state.place), rows = sorted(layer), shown = rows.slice(0, state.shown);
    table.tBodies[0].replaceChildren(...shown.map((i) => rowOf(layer, i)));
    const units = layer.channel.length;
    byId("count").textContent = rows.length === units ? `${units} units` : `${rows.length} of ${units} units`;
    more.hidden = shown.length === rows.length;
    more.textContent = `Show ${Math.min(CHUNK, rows.length - shown.length)} more of ${rows.length}`;
    all("th[scope=col]", table).forEach((head, i) => {
      if (i === state.column) head.setAttribute("aria-sort", state.falling ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  };
  const open = (place) => {
    Object.assign(state, { place, shown: CHUNK });
    picker.value = String(place);
    byId("rates").innerHTML = byId(`layer-${place}`).querySelector(".rates").innerHTML;
    table.classList.toggle("pixels", pixels(place));
    const colourless = layerAt(place).chroma.every(none);
    table.classList.toggle("colourless", colourless);
    if (colourless && state.column === at("kernel chroma")) Object.assign(state, { column: at("CAR"), falling: true });
    show("car-chart", `car/${place}`);
    show("plane-chart", `plane/${place}`);
    fill();
  };

  // Falling first where large is of interest.
  columns.forEach(([name, className, , by, words], i) => {
    const head = made("th", className.startsWith("num") ? className : ""), button = made("button", "linkish", name);
    head.scope = "col";
    if (words) head.title = words;
    if (by) {
      button.type = "button";
      button.addEventListener("click", () => {
        const rising = ["channel", "p (Holm)", "least harmed", "place"].includes(name);
        Object.assign(state, { column: i, falling: i === state.column ? !state.falling : !rising });
        fill();
      });
      head.append(button);
    } else head.append(name);
    table.tHead.rows[0].append(head);
  });
  on("layer", (place) => open(Number(place)));
  on("only", () => { state.shown = CHUNK; fill(); });
  more.addEventListener("click", () => { state.shown += CHUNK; fill(); });
  if (looked) byId("size").addEventListener("input", (event) => root.style.setProperty("--patch", `${event.target.value}px`));

  // From a unit anywhere on the page to its row -----------------------------
  const find = (place, channel) => {
    only.value = "all";
    open(place);
    const layer = layerAt(place), rank = sorted(layer).findIndex((i) => layer.channel[i] === channel);
    if (rank >= state.shown) { state.shown = rank + 1; fill(); }
    const row = table.tBodies[0].rows[rank];
    row.classList.add("found");
    row.tabIndex = -1;
    row.scrollIntoView({ block: "center" });
    row.focus({ preventScroll: true });
  };
  all("a.unit").forEach((link) => link.addEventListener("click", (event) => {
    event.preventDefault();
    find(Number(link.dataset.place), Number(link.dataset.channel));
  }));

  // Pictures of units elsewhere on the page: the best patch, or the first nine as a square ------------------------
  const square = (patches, count) => {
    const box = made("span", "square");
    for (let part = 0; part < 3; part += 1) {
      const strip = image("", "", "webp", patches);
      strip.style.objectPosition = `${(300 * part) / Math.max(1, count - 3)}% 0`;
      box.append(strip);
    }
    return box;
  };
  all(".star").forEach((star) => {
    const { place, channel } = star.querySelector("a").dataset, layer = layerAt(Number(place));
    const i = layer.channel.indexOf(Number(channel)), count = Number(getComputedStyle(root).getPropertyValue("--k"));
    if (!layer.patches[i]) return;
    star.classList.toggle("pixels", pixels(place));
    star.prepend(count >= 9 ? square(layer.patches[i], count) : image("strip", "", "webp", layer.patches[i]));
  });

  // Removal -----------------------------------------------------------------
  const pictureOrders = (part) => all(".gone:has(a)", part).forEach((box) => {
    const { place, channel } = box.querySelector("a").dataset, layer = layerAt(Number(place));
    const i = layer.channel.indexOf(Number(channel)), frame = made("span", "first");
    if (box.querySelector(".first") || !(layer.patches[i] || layer.kernels[i])) return;
    frame.append(layer.kernels[i] ? image("", "", "png", layer.kernels[i]) : image("", "", "webp", layer.patches[i]));
    box.classList.toggle("pixels", Boolean(layer.kernels[i]) || pixels(place));
    box.prepend(frame);
  });
  const openRemoval = (place) => all(".removal").forEach((part) => {
    part.hidden = part.dataset.place !== place;
    if (!part.hidden) pictureOrders(part);
  });
  const removal = on("removal-layer", openRemoval);
  if (removal) openRemoval(removal.value);
  open(0);
})();

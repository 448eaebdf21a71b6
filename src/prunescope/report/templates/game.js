"use strict";
// The two-alternative game: which of two images belongs to those that drive a unit up?
(() => {
  const { byId, made } = page;
  const { networks, tasks, pictures } = JSON.parse(byId("game-data").textContent);
  const box = byId("game"), queries = [byId("game-first"), byId("game-second")], next = byId("game-next");
  const network = byId("game-network"), which = byId("game-which"), length = byId("game-length"), told = byId("game-told");
  const state = { queue: [], at: 0, answers: [], open: false, upFirst: true };

  const shuffled = (items) => {
    const found = items.slice();
    for (let i = found.length - 1; i > 0; i--) {
      const j = Math.floor(Math.random() * (i + 1));
      [found[i], found[j]] = [found[j], found[i]];
    }
    return found;
  };
  const picture = (place) => Object.assign(new Image(), { src: pictures[place], alt: "" });
  const number = (value) => value.toFixed(1).replace(/\.0$/, "");
  const hits = (answers, who) => answers.reduce((sum, answer) => sum + answer[who], 0);

  const fill = (id, places) => {
    const grid = byId(id);
    grid.style.setProperty("--side", Math.ceil(Math.sqrt(places.length)));
    grid.replaceChildren(...places.map(picture));
  };
  const score = () => {
    const answers = state.answers, total = answers.length;
    const put = (id, value) => byId(id).replaceChildren(made("b", "", number(value)), ` of ${total}`);
    put("game-you", hits(answers, "you"));
    put("game-machine", hits(answers, "machine"));
    put("game-chance", total / 2);
    for (const who of ["you", "machine"]) {
      byId(`game-marks-${who}`).replaceChildren(...answers.map((answer) =>
        made("i", answer[who] === 1 ? "hit" : answer[who] === 0 ? "miss" : "half")));
    }
    const left = state.queue.length - total;
    byId("game-left").textContent = left ? `${left} to go` : "";
  };
  const ask = () => {
    const task = state.queue[state.at];
    state.upFirst = Math.random() < 0.5;
    state.open = true;
    fill("game-up", task.up.slice(1));
    fill("game-down", task.down.slice(1));
    const shown = state.upFirst ? [task.up[0], task.down[0]] : [task.down[0], task.up[0]];
    queries.forEach((button, i) => {
      button.className = "query";
      button.disabled = false;
      button.querySelector("img").src = pictures[shown[i]];
    });
    told.textContent = "";
    next.hidden = true;
  };
  const said = (hit) => hit === 1 ? "right" : hit === 0 ? "wrong" : "undecided";
  const answer = (place) => {
    if (!state.open) return;
    const task = state.queue[state.at], right = (place === 0) === state.upFirst;
    state.open = false;
    state.answers.push({ task, you: right ? 1 : 0, machine: task.machine });
    queries.forEach((button, i) => {
      button.disabled = true;
      button.classList.add((i === 0) === state.upFirst ? "is-up" : "is-down");
      button.classList.toggle("chosen", i === place);
    });
    const judges = task.second === undefined ? "" : ` (a second judge ${said(task.second)})`;
    told.replaceChildren(
      made("b", right ? "within" : "beyond", right ? "✓ Right" : "✗ Wrong"),
      ` The machine was ${said(task.machine)}${judges}, with a chance of ${Math.round(100 * task.sure)} % for the right one. `
      + `This was the ${task.which} unit of ${task.layer} (unit ${task.unit}, MIS ${task.mis.toFixed(2)}), network: ${networks[task.network]}.`,
    );
    score();
    const last = state.at + 1 === state.queue.length;
    next.hidden = last;
    if (last) finish(); else next.focus({ preventScroll: true });
  };
  const finish = () => {
    const rows = [["all", () => true]];
    networks.forEach((name, i) => rows.push([name, (task) => task.network === i]));
    for (const name of ["best", "median", "worst"]) rows.push([`${name} units`, (task) => task.which === name]);
    const body = byId("game-end").querySelector("tbody");
    body.replaceChildren();
    for (const [name, chosen] of rows) {
      const own = state.answers.filter((answered) => chosen(answered.task));
      if (!own.length) continue;
      const row = body.insertRow();
      row.append(Object.assign(made("th", "", name), { scope: "row" }));
      for (const text of [number(hits(own, "you")), number(hits(own, "machine")), own.length]) row.append(made("td", "num", text));
    }
    byId("game-end").hidden = false;
    byId("game-again").focus({ preventScroll: true });
  };
  const start = () => {
    const fits = (task) => (!network.value || String(task.network) === network.value) && (!which.value || task.which === which.value);
    const drawn = shuffled(tasks.filter(fits));
    Object.assign(state, { queue: drawn.slice(0, Number(length.value) || drawn.length), at: 0, answers: [] });
    byId("game-end").hidden = true;
    score();
    ask();
  };
  const advance = () => {
    if (state.open || next.hidden) return;
    state.at += 1;
    ask();
    queries[0].focus({ preventScroll: true });
  };

  queries.forEach((button, i) => button.addEventListener("click", () => answer(i)));
  next.addEventListener("click", advance);
  byId("game-again").addEventListener("click", () => { start(); queries[0].focus({ preventScroll: true }); });
  [network, which, length].forEach((chooser) => chooser.addEventListener("change", start));
  box.addEventListener("keydown", (event) => {
    if (event.target.tagName === "SELECT" || event.ctrlKey || event.metaKey || event.altKey) return;
    const place = { 1: 0, 2: 1, ArrowLeft: 0, ArrowRight: 1 }[event.key];
    if (place === undefined || !state.open) return;
    event.preventDefault();
    answer(place);
  });
  box.hidden = false;
  start();
})();

"use strict";
// The script of a report: it draws the charts, lays out the pictures and answers clicks. Text of any origin goes into
// the page as text only (textContent), never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const find = (id) => document.getElementById(id);
  const views = new Map();

  function make(tag, attributes, ...children) {
    const found = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "text") found.textContent = value;
      else if (name === "on") for (const [event, act] of Object.entries(value)) found.addEventListener(event, act);
      else if (value !== null && value !== undefined && value !== false) found.setAttribute(name, value);
    }
    found.append(...children.filter((child) => child !== null));
    return found;
  }

  // Numbers as the tables write them; what is not known is n/a.
  const known = (value) => value !== null && value !== undefined;
  const bare = (text) => text.replace(/^(-?)0\./, "$1.");
  const plain = (value) => (known(value) ? bare(value.toFixed(3)) : "n/a");
  const signed = (value) => (known(value) ? (value < 0 ? "−" : "+") + bare(Math.abs(value).toFixed(3)) : "n/a");
  const percent = (value) => (known(value) ? `${value.toFixed(0)}%` : "n/a");
  const within = (low, high, form) => (known(low) && known(high) ? ` [${form(low)}, ${form(high)}]` : "");

  // Theme: that of the system until a button is pressed.
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  const theme = () => chosen || (system.matches ? "dark" : "light");
  const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();

  function applyTheme(redraw) {
    root.dataset.theme = theme();
    find("theme").textContent = theme() === "dark" ? "Light" : "Dark";
    if (redraw) drawAll();
  }

  // Charts.
  function coloured(part) {
    if (typeof part === "string") return part.startsWith("@") && colour(part.slice(1)) ? colour(part.slice(1)) : part;
    if (Array.isArray(part)) return part.map(coloured);
    if (part && typeof part === "object") return Object.fromEntries(Object.entries(part).map(([k, v]) => [k, coloured(v)]));
    return part;
  }

  const font = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";
  const config = () => ({
    font,
    view: { stroke: null },
    axis: {
      labelColor: colour("ink"), titleColor: colour("quiet"), gridColor: colour("faint"), domainColor: colour("quiet"),
      tickColor: colour("quiet"), labelFontSize: 13, titleFontSize: 12.5, titleFontWeight: "normal", labelFont: font,
    },
    axisY: { grid: false, labelPadding: 8 },
    legend: { labelColor: colour("ink"), labelFontSize: 13 },
    text: { fontSize: 13 },
  });

  function rowsOf(key) {
    const rows = data.figures[key].rows;
    if (key !== "prompts") return rows;
    const model = find("prompts-model").value, condition = find("prompts-condition").value;
    return rows.filter((row) => row.model === model && row.condition === condition);
  }

  // A chart without the lines between two ends of which no row knows one: Vega would complain that they have no extent.
  function withLinesThatAreKnown(spec, rows) {
    const unknown = (end) => end && rows.length && end.field in rows[0] && !rows.some((row) => known(row[end.field]));
    if (!spec.layer) return spec;
    return { ...spec, layer: spec.layer.filter(({ encoding }) => !unknown(encoding.x2) && !unknown(encoding.y2)) };
  }

  // Names beside a narrow chart are cut, and a legend goes over as many lines as it needs.
  function fitting(part, width) {
    if (Array.isArray(part)) return part.map((each) => fitting(each, width));
    if (!part || typeof part !== "object") return part;
    const limit = Math.round(0.42 * width);
    return Object.fromEntries(Object.entries(part).map(([name, value]) => [
      name, name === "labelLimit" ? Math.min(value, limit) : fitting(value, width),
    ]));
  }

  function legendColumns(rows, width) {
    const longest = Math.max(...rows.map((row) => String(row.series ?? row.kind ?? "").length), 0);
    return Math.max(1, Math.floor(Math.min(width, 640) / (50 + 7.5 * longest))); // 640: as wide as a sheet of paper
  }

  async function draw(place) {
    const key = place.dataset.chart;
    const rows = rowsOf(key);
    const before = views.get(key);
    if (before) before.finalize();
    const width = place.clientWidth;
    const drawn = fitting(withLinesThatAreKnown(data.figures[key].spec, rows), width);
    const settings = config();
    settings.legend.columns = legendColumns(rows, width);
    const spec = { ...coloured(drawn), datasets: { rows }, config: settings };
    const options = { actions: false, ast: true, renderer: "svg", tooltip: { disableDefaultStyle: true } };
    const result = await vegaEmbed(place.querySelector(".plot"), spec, options);
    views.set(key, result);
    // Its place has a name, and what it shows stands in tables and CSV: a reader of screens needs no word on every mark.
    place.querySelector(".plot svg").setAttribute("aria-hidden", "true");
    if (key === "prompts") {
      result.view.addEventListener("click", (event, item) => {
        if (item && item.datum && known(item.datum.prompt)) showPair(item.datum.prompt);
      });
    }
  }

  async function drawAll() {
    for (const place of document.querySelectorAll("[data-chart]")) await draw(place);
    root.dataset.drawn = theme();
  }

  function download(address, name) {
    const link = make("a", { href: address, download: name });
    document.body.append(link);
    link.click();
    link.remove();
  }

  function csvOf(rows) {
    const columns = Object.keys(rows[0] || {});
    const cell = (value) => {
      const text = known(value) ? String(value) : "";
      return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    return [columns, ...rows.map((row) => columns.map((column) => row[column]))].map((row) => row.map(cell).join(",")).join("\n") + "\n";
  }

  async function save(key, kind) {
    const name = `${data.name}-${key}.${kind}`;
    if (kind === "csv") {
      const address = URL.createObjectURL(new Blob([csvOf(rowsOf(key))], { type: "text/csv" }));
      download(address, name);
      setTimeout(() => URL.revokeObjectURL(address), 1000);
      return;
    }
    const view = views.get(key).view;
    view.background(colour("raised"));
    download(await view.toImageURL(kind, kind === "png" ? 2 : 1), name);
  }

  // Pictures.
  function marksOf(row, place) {
    const picture = row.pictures[place];
    const among = (pair) => pair !== null && (pair[0] === place || pair[1] === place);
    return {
      near: row.nearest !== null && row.farthest !== null && among(row.nearest),
      far: row.nearest !== null && row.farthest !== null && among(row.farthest),
      twin: picture.twin !== null,
      wrong: picture.right === false,
    };
  }

  function pictureButton(row, place, brief) {
    const picture = row.pictures[place];
    const marks = { ...marksOf(row, place), ...(brief ? { near: false, far: false } : {}) };
    const said = [
      `sample ${picture.sample} of ${row.prompt}, ${row.condition}, ${row.model}`,
      marks.twin ? "a duplicate" : "", marks.near ? "of the nearest pair" : "", marks.far ? "of the farthest pair" : "",
      marks.wrong ? "judged wrong" : "",
    ].filter(Boolean).join("; ");
    const image = make("img", { loading: "lazy", decoding: "async", src: data.images[picture.image], alt: said });
    image.addEventListener("load", () => { if (image.naturalWidth <= 64) button.classList.add("small"); });
    const classes = ["pic", ...["near", "far", "twin"].filter((name) => marks[name])].join(" ");
    const button = make(
      "button", { type: "button", class: classes, on: { click: () => openPicture(row, place) } }, image,
      marks.near ? make("span", { class: "mark n", text: "≈", "aria-hidden": "true" }) : null,
      marks.far ? make("span", { class: "mark f", text: "↔", "aria-hidden": "true" }) : null,
      marks.wrong ? make("span", { class: "mark w", text: "×", "aria-hidden": "true" }) : null,
    );
    return button;
  }

  function rowLabel(row, brief) {
    const figures = row.figures;
    const lines = [make("span", { class: "name" }, make("bdi", { text: row.condition }))];
    const name = brief || row.done === row.condition || row.done === "none" ? null : row.done;
    if (name) lines.push(make("span", { class: "beside done" }, make("bdi", { text: name })));
    if (known(figures.diversity)) {
      const ends = brief ? "" : within(figures.low, figures.high, plain);
      lines.push(make("span", { class: "beside", text: `LPIPS ${plain(figures.diversity)}${ends}` }));
    }
    if (known(figures.fidelity)) {
      const open = known(figures.openness) ? `, open ${percent(figures.openness)}` : "";
      lines.push(make("span", { class: "beside", text: `right ${percent(figures.fidelity)}${open}` }));
    }
    if (!brief && row.distinct < row.pictures.length) {
      lines.push(make("span", { class: "beside", text: `${row.distinct} of ${row.pictures.length} distinct` }));
    }
    return make("th", { scope: "row" }, ...lines);
  }

  function grid(rows, brief, most) {
    const numbers = [...new Set(rows.flatMap((row) => row.pictures.map((picture) => picture.sample)))].sort((a, b) => a - b);
    const columns = most ? numbers.slice(0, most) : numbers;
    const head = make("tr", {}, make("td"), ...columns.map((number) => make("th", { scope: "col", text: number })));
    const body = rows.map((row) => make(
      "tr", {}, rowLabel(row, brief),
      ...columns.map((number) => {
        const place = row.pictures.findIndex((picture) => picture.sample === number);
        return make("td", {}, place < 0 ? null : pictureButton(row, place, brief));
      }),
    ));
    const table = make("table", { class: "grid" }, make("thead", {}, brief ? null : head), make("tbody", {}, ...body));
    const room = Math.min(1112, root.clientWidth - 28) - (root.clientWidth > 760 ? 200 : 116);
    if (!brief) table.style.setProperty("--cell", `${Math.min(112, Math.max(62, Math.floor(room / columns.length) - 3))}px`);
    return make("div", { class: "scroll" }, table);
  }

  const models = [...new Set(data.rows.map((row) => row.model))];
  const prompts = [...new Set(data.rows.map((row) => row.prompt))];

  function showGallery() {
    const model = find("filter-model").value, prompt = find("filter-prompt").value;
    const checked = [...document.querySelectorAll("#filters [name=condition]")];
    const conditions = checked.filter((box) => box.checked).map((box) => data.conditions[Number(box.value)]);
    const blocks = [];
    for (const text of prompt === "" ? prompts : [prompts[Number(prompt)]]) {
      for (const name of model === "" ? models : [models[Number(model)]]) {
        const rows = data.rows.filter((row) => row.prompt === text && row.model === name && conditions.includes(row.condition));
        if (!rows.length) continue;
        const title = make("h3", {}, make("bdi", { text }), make("code", {}, make("bdi", { text: name })));
        blocks.push(make("div", { class: "block" }, title, grid(rows, false)));
      }
    }
    const none = make("p", { class: "quiet", text: "No condition is chosen." });
    find("blocks").replaceChildren(...(blocks.length ? blocks : [none]));
  }

  function stepPrompt(step) {
    const select = find("filter-prompt");
    const at = select.value === "" ? (step > 0 ? -1 : 0) : Number(select.value);
    select.value = String((at + step + prompts.length) % prompts.length);
    showGallery();
  }

  // The record of one picture.
  const shownNow = { row: null, place: 0 };

  function openPicture(row, place) {
    Object.assign(shownNow, { row, place });
    const picture = row.pictures[place];
    const marks = marksOf(row, place);
    const apart = (pair) => `sample ${row.pictures[pair[0] === place ? pair[1] : pair[0]].sample}, LPIPS ${plain(pair[2])}`;
    const twins = row.pictures.filter((other) => other.tokens === picture.tokens && other.sample !== picture.sample);
    const facts = [
      ["model", row.model], ["condition", row.done === "none" ? row.condition : `${row.condition}: ${row.done}`],
      ["prompt", `${row.prompt} (number ${row.place})`], ["wording", picture.wording],
      ["sample", String(picture.sample)], ["seed", picture.seed],
      ["noise", `path ${picture.path}, execution ${picture.execution}`],
      ["tokens", picture.tokens], ["cell", picture.cell],
      ["judge reads", picture.judged], ["as asked", known(picture.right) ? (picture.right ? "yes" : "no") : ""],
      ["same tokens as", twins.map((other) => `sample ${other.sample}`).join(", ")],
      ["nearest", marks.near ? apart(row.nearest) : ""], ["farthest", marks.far ? apart(row.farthest) : ""],
    ].filter(([, value]) => value !== "");
    find("picture-title").textContent = `Sample ${picture.sample}, ${row.condition}`;
    find("picture-image").src = data.images[picture.image];
    find("picture-image").alt = `sample ${picture.sample} of ${row.prompt}`;
    find("picture-facts").replaceChildren(...facts.flatMap(([name, value]) => [make("dt", { text: name }), make("dd", { text: value, dir: "auto" })]));
    find("picture-command").textContent = `${row.command} --index ${picture.sample}`;
    find("copy").textContent = "Copy the command";
    if (!find("picture").open) find("picture").showModal();
  }

  function stepPicture(step) {
    const count = shownNow.row.pictures.length;
    openPicture(shownNow.row, (shownNow.place + step + count) % count);
  }

  async function copyCommand() {
    const text = find("picture-command").textContent;
    try {
      await navigator.clipboard.writeText(text);
      find("copy").textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(find("picture-command"));
      find("copy").textContent = "Selected: press Ctrl-C";
    }
  }

  // The crossed pictures of a model: rows are path noises, or those of the decoder, columns execution noises.
  function crossedTable(one) {
    const head = make("tr", {}, make("td"), ...one.cells[0].map((_, at) => make("th", { scope: "col", text: `execution ${at}` })));
    const body = one.cells.map((row, at) => make(
      "tr", {}, make("th", { scope: "row", text: `${one.rows} ${at}` }),
      ...row.map((image, execution) => make("td", {}, known(image) ? make("img", {
        loading: "lazy", decoding: "async", src: data.images[image],
        alt: `${one.model}, ${one.rows} ${at}, execution ${execution}`,
      }) : null)),
    ));
    return make(
      "table", { class: "cross" }, make("caption", {}, make("bdi", { text: `${one.model}: ${one.wording}` })),
      make("thead", {}, head), make("tbody", {}, ...body),
    );
  }

  // How pictures came about. The slider says how much of the steps is done: models have different numbers of steps.
  const bits = (value) => (known(value) ? value.toFixed(1) : "n/a");

  function frameAt(one, done) {
    const at = one.frames.findIndex((frame) => 100 * frame.step >= done * one.steps);
    return at < 0 ? one.frames.length - 1 : at;
  }

  function replayFigure(one, done) {
    const at = frameAt(one, done), frame = one.frames[at];
    const [rows, columns] = one.grid;
    const boxes = frame.fixed.map((place) => make("i", {})).map((box, i) => {
      const place = frame.fixed[i];
      Object.assign(box.style, {
        left: `${100 * (place % columns) / columns}%`, top: `${100 * Math.floor(place / columns) / rows}%`,
        width: `${100 / columns}%`, height: `${100 / rows}%`,
      });
      return box;
    });
    const sum = (part) => (known(frame[part]) ? one.frames.slice(0, at + 1).reduce((all, each) => all + each[part], 0) : null);
    const lines = [
      `step ${frame.step} of ${one.steps}, ${frame.held} of ${rows * columns} tokens`,
      `bits: path ${bits(frame.path)}, execution ${bits(frame.execution)}`,
      `so far: path ${bits(sum("path"))}, execution ${bits(sum("execution"))}`,
      one.equal ? "the tokens are those of the run" : "the tokens are not those of the run",
    ];
    const image = make("img", { src: data.images[frame.image], alt: `${one.model} after step ${frame.step}` });
    return make(
      "figure", { class: "replay" }, make("figcaption", {}, make("code", {}, make("bdi", { text: one.model }))),
      make("div", { class: "canvas" }, image, ...boxes),
      ...lines.map((text) => make("span", { class: "beside quiet", text })).flatMap((line) => [line, make("br")]),
    );
  }

  function showReplays() {
    const done = Number(find("replay-at").value), sample = Number(find("replay-sample").value);
    const chosen = data.replays.filter((one) => one.sample === sample);
    find("replays").replaceChildren(...chosen.map((one) => replayFigure(one, done)));
    const chart = views.get("replay");
    if (chart) chart.view.signal("at", done).runAsync();
  }

  let playing = null;
  function play() {
    const slider = find("replay-at");
    const stop = () => { clearInterval(playing); playing = null; find("replay-play").textContent = "Play"; };
    if (playing !== null) return stop();
    if (Number(slider.value) >= 100) slider.value = "0";
    find("replay-play").textContent = "Pause";
    playing = setInterval(() => {
      slider.value = String(Number(slider.value) + 2);
      showReplays();
      if (Number(slider.value) >= 100) stop();
    }, 120);
  }

  // One prompt before and after.
  function showPair(prompt) {
    const row = rowsOf("prompts").find((one) => one.prompt === prompt);
    const pair = [row.before, row.row].filter(known).map((place) => data.rows[place]);
    const said = `LPIPS ${plain(row.baseline)} → ${plain(row.diversity)}, change ${signed(row.change)}${within(row.change_low, row.change_high, signed)}`;
    const shown = pair.length ? grid(pair, false) : make("p", { class: "quiet", text: "Its pictures are not in this report." });
    find("pair").replaceChildren(make("h3", {}, make("bdi", { text: prompt })), make("p", { class: "quiet", text: said }), shown);
    find("pair").scrollIntoView({ block: "nearest" });
  }

  function promptTable() {
    const rows = [...rowsOf("prompts")].sort((a, b) => (b.change ?? -Infinity) - (a.change ?? -Infinity));
    const head = ["prompt", "before", "after", "change", "fidelity", "openness", ""];
    const body = rows.map((row) => make(
      "tr", {}, make("th", { scope: "row" }, make("bdi", { text: row.prompt })),
      make("td", { text: plain(row.baseline) + within(row.baseline_low, row.baseline_high, plain) }),
      make("td", { text: plain(row.diversity) + within(row.diversity_low, row.diversity_high, plain) }),
      make("td", { text: signed(row.change) + within(row.change_low, row.change_high, signed) }),
      make("td", { text: `${percent(row.baseline_fidelity)} → ${percent(row.fidelity)}` }),
      make("td", { text: `${percent(row.baseline_openness)} → ${percent(row.openness)}` }),
      make("td", {}, make("button", { type: "button", text: "Pictures", on: { click: () => showPair(row.prompt) } })),
    ));
    find("prompts-table").replaceChildren(
      make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col", text })))), make("tbody", {}, ...body),
    );
  }

  function choosePrompts() {
    find("pair").replaceChildren();
    promptTable();
    return draw(document.querySelector("[data-chart=prompts]"));
  }

  function options(select, texts) {
    select.replaceChildren(...texts.map((text) => make("option", { value: text, text })));
  }

  // Begin.
  applyTheme(false);
  find("theme").addEventListener("click", () => {
    chosen = theme() === "dark" ? "light" : "dark";
    applyTheme(true);
  });
  system.addEventListener("change", () => { if (!chosen) applyTheme(true); });

  if (find("prompts")) {
    const rows = data.figures.prompts.rows;
    options(find("prompts-model"), [...new Set(rows.map((row) => row.model))]);
    options(find("prompts-condition"), [...new Set(rows.map((row) => row.condition))]);
    for (const id of ["prompts-model", "prompts-condition"]) find(id).addEventListener("change", choosePrompts);
    promptTable();
  }
  if (find("gallery")) {
    const typical = prompts.indexOf(data.typical);
    find("filter-prompt").value = String(Math.max(typical, 0));
    find("filters").addEventListener("change", showGallery);
    find("filters").addEventListener("submit", (event) => event.preventDefault());
    find("before").addEventListener("click", () => stepPrompt(-1));
    find("after").addEventListener("click", () => stepPrompt(1));
    showGallery();
  }
  if (find("replay")) {
    const samples = [...new Set(data.replays.map((one) => one.sample))];
    options(find("replay-sample"), samples.map(String));
    for (const id of ["replay-at", "replay-sample"]) find(id).addEventListener("input", showReplays);
    find("replay-play").addEventListener("click", play);
    showReplays();
  }
  if (find("crossed")) {
    find("crossed").replaceChildren(make("div", { class: "crosses" }, ...data.crossed.map((one) => make("div", { class: "scroll" }, crossedTable(one)))));
  }
  for (const place of document.querySelectorAll("[data-strip]")) {
    const model = place.closest("[data-model]").dataset.model;
    const rows = data.rows.filter((row) => row.model === model && row.prompt === place.dataset.strip && data.first.includes(row.condition));
    place.querySelector(".rows").replaceChildren(grid(rows, true, 6));
  }
  for (const button of document.querySelectorAll("[data-save]")) {
    button.addEventListener("click", () => save(button.closest("[data-chart]").dataset.chart, button.dataset.save));
  }
  find("close").addEventListener("click", () => find("picture").close());
  find("copy").addEventListener("click", copyCommand);
  find("picture-before").addEventListener("click", () => stepPicture(-1));
  find("picture-after").addEventListener("click", () => stepPicture(1));
  find("picture").addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") stepPicture(1);
    if (event.key === "ArrowLeft") stepPicture(-1);
  });
  find("picture").addEventListener("click", (event) => { if (event.target === find("picture")) find("picture").close(); });
  drawAll();

  // A page that a server gives asks it whether more was drawn.
  async function follow() {
    const now = await fetch("/state").then((answer) => answer.json()).catch(() => null);
    if (now && JSON.stringify(now) !== JSON.stringify(data.follow)) find("news").hidden = false;
  }
  if (data.follow) {
    find("reload").addEventListener("click", () => location.reload());
    setInterval(follow, 5000);
  }
})();

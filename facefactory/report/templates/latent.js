"use strict";
(() => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const byId = (id) => document.getElementById(id);
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  // -- claims: sorted and filtered -------------------------------------------------------------

  const table = byId("claims-table");
  let rows = table ? [...table.tBodies[0].rows] : [];
  let sorted = {key: "", descending: false};

  const number = (row, key) => {
    const text = row.dataset[key];
    return text === undefined || text === "" ? null : Number(text);
  };

  // what is not known comes last, whichever way
  function sort(key, descending) {
    sorted = {key, descending};
    const sign = descending ? -1 : 1;
    rows.sort((a, b) => {
      const [one, other] = [number(a, key), number(b, key)];
      const missing = (one === null) - (other === null);
      const order = one === null ? 0 : sign * (one - other);
      return missing || order || number(a, "place") - number(b, "place");
    });
    table.tBodies[0].append(...rows);
    for (const head of table.querySelectorAll("th[data-key]")) {
      const order = head.dataset.key === key ? (descending ? "descending" : "ascending") : "none";
      head.setAttribute("aria-sort", order);
    }
    const choice = `${key} ${descending ? "down" : "up"}`;
    byId("order").value = [...byId("order").options].some((o) => o.value === choice) ? choice : "";
  }

  function filter() {
    const [verdict, space, label] =
      ["verdict", "space", "label"].map((name) => byId(`${name}-filter`).value);
    const words = byId("text-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.dataset.text;
      const labels = row.dataset.labels.split("\n");
      const fits = (!verdict || row.dataset.verdict === verdict) &&
        (!space || row.dataset.space === space) &&
        (!label || labels.includes(label)) && words.every((word) => text.includes(word));
      row.hidden = !fits;
      shown += fits;
    }
    byId("shown").textContent = `${shown} of ${rows.length}`;
  }

  if (table) {
    for (const head of table.querySelectorAll("th[data-key]")) {
      head.querySelector("button").addEventListener("click", () => {
        const again = sorted.key === head.dataset.key;
        sort(head.dataset.key, again ? !sorted.descending : head.dataset.first === "down");
      });
    }
    byId("order").addEventListener("change", (event) => {
      const [key, way] = event.target.value.split(" ");
      if (key) sort(key, way === "down");
    });
    for (const id of ["verdict-filter", "space-filter", "label-filter"]) byId(id).addEventListener("change", filter);
    byId("text-filter").addEventListener("input", filter);
    table.tBodies[0].addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (row && row.dataset.view) show(Number(row.dataset.view));
    });
    filter();
  }

  // -- one dimension: faces that walk, what changes, who is lowest and highest -------------------

  const viewer = byId("viewer");
  const loaded = new Map();
  let current = 0;

  function picture(source) {
    if (!loaded.has(source)) {
      const image = new Image();
      image.src = source;
      loaded.set(source, image.decode().then(() => image));
    }
    return loaded.get(source);
  }

  // a part of a sprite, enlarged by a whole number
  async function draw(canvas, sprite, column, line) {
    const {width, height} = sprite;
    const fit = Math.max(1, Math.floor(canvas.dataset.fit / width));
    const image = await picture(sprite.src);
    canvas.width = width * fit;
    canvas.height = height * fit;
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = false;
    pen.drawImage(image, column * width, line * height, width, height,
      0, 0, canvas.width, canvas.height);
  }

  function canvases(holder, count, fit) {
    while (holder.children.length > count) holder.lastChild.remove();
    while (holder.children.length < count) holder.append(document.createElement("canvas"));
    for (const canvas of holder.children) canvas.dataset.fit = fit;
    return [...holder.children];
  }

  async function step() {
    const dimension = facts.dimensions[current];
    const place = Number(byId("step").value);
    byId("amount").textContent = dimension.steps[place] ?? "";
    byId("step").setAttribute("aria-valuetext", byId("amount").textContent);
    const faces = canvases(byId("walk"), dimension.walk ? dimension.walk.lines : 0, 132);
    const drawn = faces.map((canvas, line) => draw(canvas, dimension.walk, place, line));
    await Promise.all(drawn);
    viewer.dataset.drawn = `${current} ${place}`;
  }

  async function show(place) {
    if (!viewer) return;
    current = clamp(place, 0, facts.dimensions.length - 1);
    const dimension = facts.dimensions[current];
    byId("dimension").value = String(current);
    byId("sentence").textContent = dimension.sentence;
    const slider = byId("step");
    slider.max = Math.max(0, dimension.steps.length - 1);
    if (!viewer.dataset.drawn) slider.value = Math.floor(slider.max / 2);
    byId("no-walk").hidden = Boolean(dimension.walk);
    byId("walking").hidden = !dimension.walk;
    const curves = byId("curves");
    curves.replaceChildren();
    const template = byId(`curves-${current}`);
    if (template) curves.append(template.content.cloneNode(true));
    for (const row of rows) row.classList.toggle("current", row.dataset.view === String(current));

    // pictures that do not move
    const stills = byId("stills");
    stills.replaceChildren();
    for (const still of dimension.stills) {
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      const holder = document.createElement("div");
      caption.textContent = still.title;
      holder.className = "faces";
      figure.append(caption, holder);
      stills.append(figure);
      const across = still.columns.length;
      canvases(holder, still.lines * across, 66).forEach((canvas, number) => {
        canvas.title = still.columns[number % across];
        draw(canvas, still, number % across, Math.floor(number / across));
      });
    }
    await step();
  }

  if (viewer) {
    const slider = byId("step");
    slider.addEventListener("input", step);
    byId("dimension").addEventListener("change", (event) => show(Number(event.target.value)));
    byId("before").addEventListener("click", () => show(current - 1));
    byId("after").addEventListener("click", () => show(current + 1));

    // arrows: left and right walk, up and down change the dimension
    viewer.addEventListener("keydown", (event) => {
      if (event.target.tagName === "SELECT") return;
      const walks = {ArrowLeft: -1, ArrowRight: 1}[event.key];
      const turns = {ArrowUp: -1, ArrowDown: 1}[event.key];
      if (!walks && !turns) return;
      event.preventDefault();
      if (turns) {
        show(current + turns);
      } else {
        slider.value = Number(slider.value) + walks;
        step();
      }
    });

    // a finger or a pressed mouse on the faces walks too
    const faces = byId("walk");
    let held = null;
    faces.addEventListener("pointerdown", (event) => {
      held = {x: event.clientX, value: Number(slider.value)};
      faces.setPointerCapture(event.pointerId);
    });
    faces.addEventListener("pointermove", (event) => {
      if (!held) return;
      slider.value = held.value + Math.round((event.clientX - held.x) / 24);
      step();
    });
    for (const end of ["pointerup", "pointercancel"]) {
      faces.addEventListener(end, () => { held = null; });
    }
    show(Math.max(0, facts.dimensions.findIndex((dimension) => dimension.walk)));
  }

  // -- heat maps ---------------------------------------------------------------------------------

  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const INK = dark ? "#dbe3ea" : "#22303c";
  const NOTHING = dark ? "#2b343d" : "#eceff2";
  const [ABOVE, BELOW] = dark ? ["110, 165, 220", "226, 110, 100"] : ["47, 93, 138", "178, 58, 58"];

  function heatmap(holder, map) {
    const canvas = holder.querySelector("canvas");
    const told = holder.querySelector("output");
    const pen = canvas.getContext("2d");
    const font = "11px system-ui, sans-serif";
    pen.font = font;
    const widest = (words) => Math.max(0, ...words.map((word) => pen.measureText(word).width));
    const cell = {width: 17, height: map.rows.length > 80 ? 11 : 15};
    const tree = {width: map.row_tree.length ? 46 : 0, height: map.column_tree.length ? 46 : 0};
    const left = tree.width + widest(map.rows) + 8;
    const top = tree.height + widest(map.columns) + 8;
    const width = left + cell.width * map.columns.length + 2;
    const height = top + cell.height * map.rows.length + 2;

    // sharp on every screen
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    canvas.width = Math.ceil(width * ratio);
    canvas.height = Math.ceil(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    pen.scale(ratio, ratio);
    pen.font = font;
    pen.fillStyle = INK;
    pen.textBaseline = "middle";

    map.rows.forEach((name, row) => {
      pen.textAlign = "right";
      pen.fillText(name, left - 4, top + (row + 0.5) * cell.height);
    });
    map.columns.forEach((name, column) => {
      pen.save();
      pen.translate(left + (column + 0.5) * cell.width, top - 4);
      pen.rotate(-Math.PI / 2);
      pen.textAlign = "left";
      pen.fillText(name, 0, 0);
      pen.restore();
    });
    map.values.forEach((values, row) => values.forEach((value, column) => {
      const color = value < 0 ? BELOW : ABOVE;
      pen.fillStyle = value === null ? NOTHING : `rgba(${color}, ${Math.abs(value)})`;
      pen.fillRect(left + column * cell.width, top + row * cell.height, cell.width - 1, cell.height - 1);
    }));

    // the trees: joints as scipy's dendrogram has them, heights in 0…1
    pen.strokeStyle = "#9aa5af";
    const branch = (points) => {
      pen.beginPath();
      points.forEach(([x, y], index) => index ? pen.lineTo(x, y) : pen.moveTo(x, y));
      pen.stroke();
    };
    for (const [places, heights] of map.row_tree) {
      branch(places.map((place, index) =>
        [tree.width * (1 - heights[index]), top + (place + 0.5) * cell.height]));
    }
    for (const [places, heights] of map.column_tree) {
      branch(places.map((place, index) =>
        [left + (place + 0.5) * cell.width, tree.height * (1 - heights[index])]));
    }

    // what is under the pointer
    const words = ([row, column]) => {
      const value = map.values[row][column];
      const shown = map.measures[column] === "AUROC" ? (value + 1) / 2 : value;
      const told = value === null ? "not known" : `${map.measures[column]} ${shown.toFixed(3)}`;
      return `${map.rows[row]}, ${map.columns[column]}: ${told}`;
    };
    const under = (event) => {
      const box = canvas.getBoundingClientRect();
      const column = Math.floor((event.clientX - box.left - left) / cell.width);
      const row = Math.floor((event.clientY - box.top - top) / cell.height);
      const inside = row >= 0 && row < map.rows.length && column >= 0 && column < map.columns.length;
      return inside ? [row, column] : null;
    };
    canvas.addEventListener("pointermove", (event) => {
      const place = under(event);
      told.textContent = place ? words(place) : "";
    });
    canvas.addEventListener("click", (event) => {
      const place = under(event);
      if (!place) return;
      told.textContent = words(place);
      const view = map.views[place[0]];
      if (view !== null && view !== undefined) show(view);
    });
    holder.dataset.layout = JSON.stringify({left, top, cell});
  }

  for (const holder of document.querySelectorAll(".heatmap")) {
    heatmap(holder, facts.heatmaps[holder.dataset.name]);
  }
})();

"use strict";

// What sections share: their data, figures that are drawn when they come into sight, one filter over all of them.
const report = (() => {
  const PALETTES = {
    light: {ink: "#22303c", soft: "#566370", line: "#dde3e8", best: "#c8702a"},
    dark: {ink: "#dbe3ea", soft: "#9aa8b5", line: "#323c46", best: "#f0a060"},
  };
  const INK = ["#4a7fb5", "#c8702a", "#4a9a5f", "#a5659a", "#b8a13a", "#7d8a96"];
  const STATES = {
    finished: "#4a7fb5", stopped: "#93a1ad", failed: "#d0574d", interrupted: "#c8902a",
    infeasible: "#a5659a", running: "#4a9a5f",
  };
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  const figures = new Map(); // id -> how it is made
  const drawn = new Set();
  const listeners = [];
  let printing = false;
  let loading = null;
  let names = null; // of what the filter lets through; null: all

  function json(id) {
    const holder = document.getElementById(id);
    return holder ? JSON.parse(holder.textContent) : null;
  }

  function rounded(value) {
    if (value === null || value === undefined) return "–";
    if (typeof value !== "number") {
      return typeof value === "object" ? JSON.stringify(value) : String(value);
    }
    if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
    if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
    return String(Number(value.toPrecision(3)));
  }

  const palette = () => PALETTES[scheme.matches && !printing ? "dark" : "light"];

  // the library, unpacked once
  function library() {
    if (loading) return loading;
    loading = (async () => {
      const text = document.getElementById("plotly").textContent;
      const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      const script = document.createElement("script");
      script.textContent = await new Response(stream).text();
      document.head.append(script);
      return window.Plotly;
    })();
    return loading;
  }

  function themed(layout, height) {
    const {ink, line, soft} = palette();
    const own = structuredClone(layout);
    own.paper_bgcolor = "rgba(0,0,0,0)";
    own.plot_bgcolor = "rgba(0,0,0,0)";
    own.colorway = INK;
    own.font = {family: "system-ui, sans-serif", size: 12, ...own.font, color: ink};
    own.height ??= height;
    own.hoverlabel = {align: "left", namelength: -1};
    const axes = Object.keys(own).filter((name) => /^[xy]axis\d*$/.test(name));
    for (const axis of [...axes, "xaxis", "yaxis"]) {
      own[axis] = {zeroline: false, exponentformat: "power", ...own[axis], gridcolor: line, linecolor: soft, tickcolor: soft};
    }
    for (const note of own.annotations ?? []) {
      note.font = {color: note.showarrow === false ? ink : soft, ...note.font};
      note.arrowcolor ??= soft;
    }
    for (const shape of own.shapes ?? []) shape.line = {...shape.line, color: soft};
    return own;
  }

  async function draw(id) {
    drawn.add(id);
    const holder = document.getElementById(id);
    try {
      const plotly = await library();
      const {data, layout} = figures.get(id)(palette());
      const config = {displayModeBar: false, responsive: true};
      await plotly.react(holder, data, themed(layout, holder.clientHeight), config);
      holder.dataset.drawn = "yes";
    } catch (error) {
      holder.textContent = `Not drawn: ${error.message}`;
      console.warn(error);
    }
  }

  const seen = new IntersectionObserver((entries) => {
    for (const {isIntersecting, target} of entries) {
      if (isIntersecting && !drawn.has(target.id)) draw(target.id);
    }
  }, {rootMargin: "500px"});

  function figure(id, make) {
    const holder = document.getElementById(id);
    if (!holder) return;
    figures.set(id, make);
    seen.observe(holder);
  }

  function again() {
    for (const id of drawn) draw(id);
  }

  for (const holder of document.querySelectorAll("[data-figure]")) {
    figure(holder.id, () => {
      const {data, layout} = json(holder.dataset.figure);
      return {data, layout};
    });
  }
  scheme.addEventListener("change", again);
  addEventListener("beforeprint", () => { printing = true; again(); });
  addEventListener("afterprint", () => { printing = false; again(); });

  return {
    json, rounded, figure, STATES,
    redraw: (id) => { if (drawn.has(id)) draw(id); },
    fits: (name) => names === null || names.has(name),
    filter(wanted) {
      names = wanted;
      for (const listen of listeners) listen();
    },
    filtered: (listen) => listeners.push(listen),
  };
})();

// The leaderboard: sorted, filtered, with the columns that are wanted, as CSV and as LaTeX.
(() => {
  const byId = (id) => document.getElementById(id);
  const {columns, rows, drawn, caption} = report.json("data-leaderboard");
  const at = Object.fromEntries(columns.map((name, place) => [name, place]));
  const texts = rows.map((row) => row.map(report.rounded).join(" ").toLowerCase());
  const shown = new Set(columns);
  const table = byId("board");
  const heads = [...table.tHead.rows[0].cells];
  let order = rows.map((_, place) => place);
  let sorted = {column: "", descending: false};
  let most = drawn;

  const wanted = () => {
    const words = byId("board-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const kind = byId("board-kind").value;
    const state = byId("board-state").value;
    return order.filter((place) => {
      const row = rows[place];
      return (!kind || row[at.kind] === kind) && (!state || row[at.state] === state) &&
        words.every((word) => texts[place].includes(word));
    });
  };

  function render(places) {
    const body = document.createElement("tbody");
    for (const place of places.slice(0, most)) {
      const row = body.insertRow();
      row.className = `${rows[place][at.kind]} ${rows[place][at.state]}`;
      columns.forEach((name, number) => {
        const cell = row.insertCell();
        cell.textContent = report.rounded(rows[place][number]);
        cell.hidden = !shown.has(name);
      });
    }
    table.tBodies[0].replaceWith(body);
    heads.forEach((head) => { head.hidden = !shown.has(head.dataset.column); });
    byId("board-more").hidden = places.length <= most;
    byId("board-shown").textContent = `${places.length} of ${rows.length}`;
  }

  function filter() {
    const places = wanted();
    render(places);
    const all = places.length === rows.length;
    report.filter(all ? null : new Set(places.map((place) => rows[place][at.name])));
  }

  // what is not there comes last, whichever way
  function sort(column, descending) {
    sorted = {column, descending};
    const number = at[column];
    const sign = descending ? -1 : 1;
    order.sort((one, other) => {
      const [a, b] = [rows[one][number] ?? null, rows[other][number] ?? null];
      if (a === null || b === null) return (a === null) - (b === null) || one - other;
      const numbers = typeof a === "number" && typeof b === "number";
      const way = numbers ? a - b : (String(a) < String(b) ? -1 : Number(String(a) > String(b)));
      return sign * way || one - other;
    });
    for (const head of heads) {
      const way = descending ? "descending" : "ascending";
      head.setAttribute("aria-sort", head.dataset.column === column ? way : "none");
    }
    render(wanted());
  }

  for (const head of heads) {
    const {column} = head.dataset;
    head.title = column;
    head.querySelector("button").addEventListener("click", () => {
      sort(column, sorted.column === column && !sorted.descending);
    });
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), {type: "checkbox", checked: true});
    box.addEventListener("change", () => {
      if (box.checked) shown.add(column); else shown.delete(column);
      render(wanted());
    });
    label.append(box, ` ${column}`);
    byId("board-columns").append(label);
  }
  byId("board-filter").addEventListener("input", filter);
  for (const id of ["board-kind", "board-state"]) byId(id).addEventListener("change", filter);
  byId("board-more").addEventListener("click", () => { most = Infinity; render(wanted()); });

  // -- out of the page -----------------------------------------------------------------------------

  const chosen = () => columns.filter((name) => shown.has(name));

  function csv() {
    const quoted = (value) => {
      const text = value === null || value === undefined ? "" :
        typeof value === "object" ? JSON.stringify(value) : String(value);
      return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    const lines = [chosen().map(quoted).join(",")];
    for (const place of wanted()) {
      lines.push(chosen().map((name) => quoted(rows[place][at[name]])).join(","));
    }
    return `${lines.join("\n")}\n`;
  }

  const SPECIAL = new Map([["\\", "\\textbackslash{}"], ["~", "\\textasciitilde{}"], ["^", "\\textasciicircum{}"], ["–", "--"]]);
  const escaped = (text) => String(text).replace(/[\\~^–]|[&%$#_{}]/g, (letter) => SPECIAL.get(letter) ?? `\\${letter}`);

  function latex() {
    const names = chosen();
    const numeric = (name) => rows.every((row) => ["number", "object", "undefined"].includes(typeof row[at[name]]));
    const cells = (values) => `  ${values.map(escaped).join(" & ")} \\\\`;
    const lines = [
      "% needs \\usepackage{booktabs}",
      "\\begin{table}", "\\centering", `\\caption{${escaped(caption)}}`,
      `\\begin{tabular}{${names.map((name) => numeric(name) ? "r" : "l").join("")}}`,
      "  \\toprule", cells(names.map((name) => name.split(".").slice(-2).join("."))), "  \\midrule",
    ];
    for (const place of wanted()) {
      lines.push(cells(names.map((name) => report.rounded(rows[place][at[name]]))));
    }
    return [...lines, "  \\bottomrule", "\\end{tabular}", "\\end{table}", ""].join("\n");
  }

  byId("board-csv").addEventListener("click", () => {
    const url = URL.createObjectURL(new Blob([csv()], {type: "text/csv"}));
    const link = Object.assign(document.createElement("a"), {href: url, download: `${document.title}.csv`});
    link.click();
    URL.revokeObjectURL(url);
  });
  byId("board-latex").addEventListener("click", () => {
    const area = byId("board-text");
    area.hidden = !area.hidden;
    area.value = latex();
    if (!area.hidden) area.select();
  });
  table.exported = {csv, latex};
})();

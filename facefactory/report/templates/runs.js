"use strict";
(() => {
  const table = document.getElementById("table");
  const rows = [...table.tBodies[0].rows];
  const heads = [...table.tHead.rows[0].cells];

  // what is not there comes last, whichever way
  function sort(column, descending) {
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim().toLowerCase();
    const sign = descending ? -1 : 1;
    rows.sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      if (!a || !b) return Number(!a) - Number(!b);
      const difference = Number(a) - Number(b);
      return sign * (Number.isNaN(difference) ? (a < b ? -1 : Number(a > b)) : difference);
    });
    table.tBodies[0].append(...rows);
    heads.forEach((head, place) => {
      head.ariaSort = place === column ? (descending ? "descending" : "ascending") : "none";
    });
  }

  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => sort(column, head.ariaSort === "ascending"));
  });
  document.getElementById("runs-filter").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    document.getElementById("runs-shown").textContent = `${shown} of ${rows.length}`;
  });
})();

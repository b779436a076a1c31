// Clicking on a heading sorts its table by that column: numbers from the largest, words from A; again, the other way;
// a third time, as it was. Without scripts the tables are as they were written.
(() => {
  const UNITS = { h: 3600, min: 60, s: 1 };

  // "1,443 [1,397, 1,489]" is 1443, "3 min 20 s" is 200, "–" is no number.
  const number = (text) => {
    const times = [...text.matchAll(/(\d+) (h|min|s)(?= |$)/g)];
    if (times.length) return times.reduce((sum, [, count, unit]) => sum + count * UNITS[unit], 0);
    const found = text.replace(/,(?=\d{3})/g, "").match(/^\[?([+-]?\d+(\.\d+)?(e[+-]?\d+)?)/i);
    return found ? Number(found[1]) : NaN;
  };

  const order = (rows, column, state) => {
    const texts = new Map(rows.map((row) => [row, row.cells[column]?.textContent.trim() ?? ""]));
    const given = [...texts.values()].filter((text) => !["", "–"].includes(text));
    const numeric = given.length > 0 && given.every((text) => !Number.isNaN(number(text)));
    const sign = (state === "first") === numeric ? -1 : 1;
    const compare = (a, b) => {
      const [x, y] = [texts.get(a), texts.get(b)];
      if (!numeric) return sign * x.localeCompare(y, "en", { numeric: true });
      const [m, n] = [number(x), number(y)];
      return Number.isNaN(m) || Number.isNaN(n) ? Number.isNaN(m) - Number.isNaN(n) : sign * (m - n);
    };
    return { rows: [...rows].sort(compare), direction: sign < 0 ? "descending" : "ascending" };
  };

  const makeSortable = (table) => {
    const body = table.tBodies[0];
    if (!table.tHead || !body || body.rows.length < 2) return;
    const written = [...body.rows];
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.title = "Sort by this column";
      button.append(...heading.childNodes);
      heading.append(button);
      let state = "none";
      button.addEventListener("click", () => {
        const sorted = heading.hasAttribute("aria-sort");
        state = !sorted ? "first" : state === "first" ? "second" : "none";
        headings.forEach((each) => each.removeAttribute("aria-sort"));
        if (state === "none") return body.append(...written);
        const found = order(written, column, state);
        heading.setAttribute("aria-sort", found.direction);
        body.append(...found.rows);
      });
    });
  };

  const start = () => document.querySelectorAll("table").forEach(makeSortable);
  document.readyState === "loading" ? document.addEventListener("DOMContentLoaded", start) : start();
})();

/* The table, the theme, the copy button. Nothing here makes HTML out of strings. */
"use strict";

(() => {
  const table = document.getElementById("summary-table");
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  const collator = new Intl.Collator(undefined, { numeric: true });

  const compare = (a, b) => {
    if (a.dataset.value === undefined) return collator.compare(a.textContent, b.textContent);
    return Number(a.dataset.value) - Number(b.dataset.value);
  };
  const sort = (column) => {
    const heading = headings[column];
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of headings) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...body.rows].sort((one, other) => {
      const [a, b] = [one.cells[column], other.cells[column]];
      const [noneA, noneB] = [a.dataset.value === "", b.dataset.value === ""];
      if (noneA || noneB) return noneA - noneB; // without a number: last, either way
      return down ? compare(b, a) : compare(a, b);
    });
    body.append(...rows);
  };
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => sort(column));
  });

  const more = document.getElementById("more");
  if (more) {
    const label = more.textContent;
    const fold = (folded) => {
      table.classList.toggle("folded", folded);
      more.textContent = folded ? label : "Show the main numbers";
    };
    more.addEventListener("click", () => fold(!table.classList.contains("folded")));
    fold(true);
  }
})();

(() => {
  const themes = ["auto", "dark", "light"];
  const button = document.getElementById("theme");
  const recall = () => {
    try { return localStorage.getItem("fpmtools-theme"); } catch { return null; } // some browsers forbid it to files
  };
  const keep = (theme) => {
    try { localStorage.setItem("fpmtools-theme", theme); } catch { /* then it lasts until the page is closed */ }
  };
  let theme = themes.includes(recall()) ? recall() : "auto";
  const show = () => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
  };
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    keep(theme);
    show();
  });
  show();
})();

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
    } catch { // no permission: leave it selected for Ctrl+C
      getSelection().selectAllChildren(source);
    }
  });
}

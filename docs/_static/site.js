/* A formula that is wider than the page can be scrolled, by keyboard too. */
const reach = () => {
  for (const formula of document.querySelectorAll("mjx-container[display]")) {
    if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
    else formula.removeAttribute("tabindex");
  }
};
addEventListener("load", () => window.MathJax?.startup?.promise?.then(reach));
addEventListener("resize", reach);

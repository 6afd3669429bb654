/* What is wider than the page scrolls by itself; who has no mouse must be able to reach it with the Tab key. On paper,
   folded proofs stand open. */
(function () {
  "use strict";
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details.proof:not([open])")];
    closed.forEach((proof) => (proof.open = true));
  });
  window.addEventListener("afterprint", () => closed.forEach((proof) => (proof.open = false)));
  const reach = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const scrolls = target.scrollWidth > target.clientWidth || target.scrollHeight > target.clientHeight + 1;
      if (scrolls) target.setAttribute("tabindex", "0");
      else target.removeAttribute("tabindex");
    }
  });
  document.addEventListener("DOMContentLoaded", () => {
    document
      .querySelectorAll("pre, .table-wrapper, div.math, mjx-container[display=true], .cell_output, .sidebar-scroll, .toc-scroll")
      .forEach((element) => reach.observe(element));
  });
})();

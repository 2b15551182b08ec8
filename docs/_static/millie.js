// What scrolls sideways must be reachable with the keyboard, and each landmark have a name of its own.
document.addEventListener("DOMContentLoaded", () => {
  document.querySelector(".announcement-content")?.setAttribute("aria-label", "Intended use");
  const boxes = "pre, .table-wrapper, .cell_output, .announcement";
  for (const box of document.querySelectorAll(boxes)) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
});

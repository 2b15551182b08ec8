// What scrolls sideways must be reachable with the keyboard, and each landmark have a name of its own.
const names = {
  ".announcement-content": "Intended use",
  ".sidebar-drawer": "Pages",
  ".toc-drawer": "On this page",
};

document.addEventListener("DOMContentLoaded", () => {
  for (const [landmark, name] of Object.entries(names)) {
    document.querySelector(landmark)?.setAttribute("aria-label", name);
  }
  const boxes = "pre, .table-wrapper, .cell_output, .announcement";
  for (const box of document.querySelectorAll(boxes)) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
});

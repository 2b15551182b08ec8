// The field viewer: tiles by OpenSeadragon on a canvas of its own, boxes of cells on another above.
import { Decisions, fetchCells, readKinds } from "./decisions.js";
import { tellerOf } from "./words.js";

const place = document.getElementById("viewer");
const status = document.getElementById("status");
const about = document.getElementById("about");
const help = document.getElementById("help");
const scene = JSON.parse(document.getElementById("scene").textContent);
const kinds = readKinds(document.getElementById("kinds"));
const at = place.dataset;
const CELL_SHARE = 6; // a cell that is gone to takes this part of the viewer's width
const BARS_UM = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];

let cells, decisions, tell;
let order = [];
let now = -1; // place in order
let boxes = true;
const undo = [];

// OpenSeadragon adds a style element unless it finds one of its own, and our policy forbids inline
// styles: an element of that name which is no HTML keeps it from trying.
const mark = document.createElementNS("urn:millie", "style");
mark.setAttribute("data-openseadragon-mobile-css", "");
document.head.append(mark);

const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
const viewer = OpenSeadragon({
  element: place,
  drawer: "canvas",
  showNavigationControl: false,
  animationTime: still ? 0 : 0.5,
  immediateRender: true,
  maxZoomPixelRatio: 6,
  minZoomImageRatio: 0.8,
  visibilityRatio: 0.3,
  gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
  keyboardNavEnabled: false,
  tileSources: {
    width: scene.width_px, height: scene.height_px, tileSize: scene.tile_px, tileOverlap: 0,
    minLevel: scene.lowest, maxLevel: scene.top,
    getTileUrl: (level, x, y) => `${scene.tiles}${level}/${x}_${y}.jpg`,
  },
});
const canvas = document.createElement("canvas");
canvas.className = "boxes";
canvas.setAttribute("aria-hidden", "true");

const shows = (cell) => cell.suggestion !== null;
const words = (cell) =>
  tell.words(cell, { shown: shows(cell), waiting: decisions.waiting(cell.index) });

function rectangle(cell) {
  return viewer.viewport.imageToViewportRectangle(cell.left, cell.top, cell.width, cell.height);
}

function draw() {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [place.clientWidth, place.clientHeight];
  if (canvas.width !== width * ratio || canvas.height !== height * ratio) {
    canvas.width = width * ratio;
    canvas.height = height * ratio;
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  if (!cells || !viewer.world.getItemCount()) return;
  if (boxes) order.forEach((index, i) => { if (i !== now) box(pen, cells.get(index), false); });
  if (now >= 0) box(pen, cells.get(order[now]), true);
  scaleBar();
}

function box(pen, cell, isNow) {
  const r = viewer.viewport.viewportToViewerElementRectangle(rectangle(cell));
  if (r.x + r.width < 0 || r.y + r.height < 0 || r.x > place.clientWidth || r.y > place.clientHeight) return;
  const line = (width, colour, dash, out) => {
    pen.lineWidth = width;
    pen.strokeStyle = colour;
    pen.setLineDash(dash);
    pen.strokeRect(r.x - out, r.y - out, r.width + 2 * out, r.height + 2 * out);
  };
  const done = Boolean(cell.decision);
  line(5, "#ffffff", [], 1);
  line(3, done ? "#00634a" : "#16202c", done ? [] : [3, 4], 1);
  if (isNow) { line(2, "#b35c00", [], 6); line(2, "#b35c00", [], 10); }
  const label = done ? `✓ ${tell.titleOf(cell.decision)}` : (shows(cell) && cell.mark) || "";
  if (label && r.width > 14) {
    pen.font = "600 13px Arial, 'Liberation Sans', sans-serif";
    const wide = pen.measureText(label).width + 8;
    pen.fillStyle = "#ffffff";
    pen.fillRect(r.x - 3, r.y - 22, wide, 18);
    pen.fillStyle = "#1c2430";
    pen.fillText(label, r.x + 1, r.y - 8);
  }
}

function scaleBar() {
  const bar = document.getElementById("bar");
  if (!bar || !scene.um_px) return;
  const zoom = viewer.viewport.viewportToImageZoom(viewer.viewport.getZoom(true));
  const px = (um) => (um / scene.um_px) * zoom;
  const um = BARS_UM.findLast((length) => px(length) <= 160) ?? BARS_UM[0];
  bar.style.width = `${px(um)}px`;
  document.getElementById("bar-text").textContent = um >= 1000 ? `${um / 1000} mm` : `${um} µm`;
}

function go(position, move = true) {
  if (!order.length) return say("No cell was found in this image.", "");
  now = (position + order.length) % order.length;
  const cell = cells.get(order[now]);
  if (move) {
    const box = rectangle(cell);
    const centre = box.getCenter();
    const width = Math.min(1, box.width * CELL_SHARE);
    const height = width * (place.clientHeight / place.clientWidth);
    viewer.viewport.fitBounds(
      new OpenSeadragon.Rect(centre.x - width / 2, centre.y - height / 2, width, height), still);
  }
  describe();
  draw();
}

function describe() {
  const cell = cells.get(order[now]);
  const picture = document.createElement("img");
  picture.src = `${at.crops}${cell.index}.jpg`;
  picture.alt = `Cell ${cell.index + 1}`;
  const text = document.createElement("p");
  text.textContent = `${words(cell)}.`;
  const link = document.createElement("a");
  link.href = `${at.gallery}?cell=${cell.index}`;
  link.textContent = "Show in the gallery";
  about.replaceChildren(picture, text, link);
  say(`${now + 1} of ${order.length}: ${words(cell)}`, "");
}

function decide(code, begun) {
  if (now < 0) return say("Press n for the first cell.", "");
  if (!at.mayDecide) return say("Your roles allow you to look, not to decide.", "bad");
  const cell = cells.get(order[now]);
  if (cell.decision === code) return;
  undo.push({ cell: cell.index, code: cell.decision });
  save(cell, code, begun);
}

function save(cell, code, begun) {
  decisions.add([{ cell: cell.index, code }], begun);
  cell.decision = code;
  describe();
  draw();
}

function takeBack(begun) {
  const last = undo.pop();
  if (!last) return say("Nothing to undo.", "");
  now = order.indexOf(last.cell);
  save(cells.get(last.cell), last.code, begun);
}

function confirmSuggestion(begun) {
  const cell = cells.get(order[now]);
  if (cell && shows(cell) && kinds.byCode.has(cell.suggestion)) decide(cell.suggestion, begun);
  else say("The suggestion is not a kind of cell: choose one by its key.", "bad");
}

function say(text, kind) {
  status.textContent = text;
  status.className = kind;
}

async function leave(address) {
  await decisions.settled();
  location.href = address;
}

const pan = (x, y) => {
  viewer.viewport.panBy(viewer.viewport.deltaPointsFromPixels(new OpenSeadragon.Point(x, y)), still);
};
const zoom = (by) => { viewer.viewport.zoomBy(by, null, still); viewer.viewport.applyConstraints(); };
const ACTS = {
  n: () => (now + 1 >= order.length && at.next ? leave(at.next) : go(now + 1)),
  p: () => (now <= 0 && at.previous ? leave(at.previous) : go(now < 0 ? -1 : now - 1)),
  "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: () => viewer.viewport.goHome(still),
  arrowleft: () => pan(-90, 0), arrowright: () => pan(90, 0), arrowup: () => pan(0, -90), arrowdown: () => pan(0, 90),
  h: () => { boxes = !boxes; draw(); say(boxes ? "Boxes shown." : "Boxes hidden.", ""); },
  g: () => leave(now < 0 ? at.gallery : `${at.gallery}?cell=${order[now]}`),
  z: takeBack, " ": confirmSuggestion, "?": () => help.showModal(),
};

place.addEventListener("keydown", (event) => {
  const begun = performance.now();
  if (event.ctrlKey || event.metaKey || event.altKey || !cells) return;
  const key = event.key.toLowerCase();
  if (ACTS[key]) ACTS[key](begun);
  else if (kinds.byKey.has(key)) decide(kinds.byKey.get(key).code, begun);
  else return;
  event.preventDefault();
  event.stopPropagation();
}, { capture: true });

viewer.addHandler("canvas-click", (event) => {
  if (!event.quick || !cells) return;
  const point = viewer.viewport.viewerElementToImageCoordinates(event.position);
  const hit = order.findIndex((index) => {
    const c = cells.get(index);
    return point.x >= c.left && point.x <= c.left + c.width && point.y >= c.top && point.y <= c.top + c.height;
  });
  if (hit >= 0) go(hit, false);
  place.focus({ preventScroll: true });
});
document.querySelector(".kinds")?.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if ("undo" in button.dataset) takeBack(performance.now());
  else decide(button.dataset.code, performance.now());
  place.focus({ preventScroll: true });
});
document.getElementById("help-open").addEventListener("click", () => help.showModal());
for (const name of ["update-viewport", "open", "resize"]) viewer.addHandler(name, draw);

async function start() {
  const answer = await fetchCells(at.cells);
  ({ cells } = answer);
  tell = tellerOf(kinds, answer.most);
  decisions = new Decisions(place, cells, {
    onSaved: (done) => { if (done.length) { describe(); say("Saved.", "good"); } draw(); },
    onStatus: say,
    onGivenUp: async () => {
      const fresh = await fetchCells(at.cells);
      for (const [index, cell] of fresh.cells) Object.assign(cells.get(index), cell);
      draw();
    },
  });
  for (const { act } of decisions.takeUp()) {
    for (const { cell, code } of act) if (cells.has(cell)) cells.get(cell).decision = code;
  }
  order = [...cells.values()].sort((a, b) => a.top - b.top || a.left - b.left).map((cell) => cell.index);
  say(`${order.length} cells in this image. Press n for the next cell, ? for the keys.`, "");
  const query = new URLSearchParams(location.search);
  const ends = { first: 0, last: order.length - 1 };
  const wanted = ends[query.get("at")] ?? order.indexOf(Number(query.get("cell") ?? -1));
  const show = () => {
    place.append(canvas);
    draw();
    if (wanted >= 0) go(wanted);
    performance.mark("field-usable");
    const image = viewer.world.getItemAt(0);
    const shown = () => performance.mark("field-shown");
    if (image.getFullyLoaded()) shown();
    else image.addOnceHandler("fully-loaded-change", shown);
  };
  if (viewer.isOpen()) show();
  else viewer.addOnceHandler("open", show);
  place.focus({ preventScroll: true });
}
start().catch((error) => say(error.message, "bad"));

// The gallery: thousands of cells of which only those on the screen are in the page; every key is
// saved at once. Keys work while the gallery has the focus, so they never get in the way elsewhere.
import { Decisions, fetchCells, readKinds } from "./decisions.js";
import { counted, NO_CLASS, tellerOf } from "./words.js";

const HEADING_PX = 40, CAPTION_PX = 38, GAP_PX = 8, MARGIN_LINES = 2, SETTLED_MS = 70;
const MOST_UNDO = 500;

const gallery = document.getElementById("gallery");
const status = document.getElementById("status");
const about = document.getElementById("about");
const count = document.getElementById("count");
const help = document.getElementById("help");
const tools = Object.fromEntries(
  ["show", "group", "sort", "size", "advance"].map((id) => [id, document.getElementById(id)]));
const kinds = readKinds(document.getElementById("kinds"));
const at = gallery.dataset;

let cells, decisions, tell;
let order = []; // indices of cells as they are shown
let groups = [], lines = [], lineOf = new Int32Array(0);
let columns = 1, tilePx = 0, linePx = 0;
let cursor = 0, anchor = 0;
let chosen = new Set();
let hidden = false;
const undo = [];
const tiles = new Map(); // index -> element
const frames = new Map(); // group -> element

const shows = (cell) => !hidden && cell.suggestion !== null;
const words = (cell) =>
  tell.words(cell, { shown: shows(cell), waiting: decisions.waiting(cell.index) });

// --- order and places --------------------------------------------------------------------------

const GROUPS = {
  suggestion: (cell) => (shows(cell) ? tell.group(cell) : "Suggestion hidden"),
  label: (cell) => (shows(cell) ? tell.classOf(cell) : "Suggestion hidden"),
  decision: (cell) => (cell.decision ? `Confirmed: ${tell.titleOf(cell.decision)}` : "Not decided"),
  image: (cell) => `Image ${cell.image}`,
  none: () => "All cells",
};
const SHOWN = {
  all: () => true,
  open: (cell) => !cell.decision,
  flagged: (cell) => cell.flagged,
};

function arrange() {
  const keep = order[cursor];
  const key = tools.sort.value;
  const down = key === "index" ? 1 : -1;
  const found = new Map();
  for (const cell of cells.values()) {
    if (!SHOWN[tools.show.value](cell)) continue;
    const name = GROUPS[tools.group.value](cell);
    if (!found.has(name)) found.set(name, []);
    found.get(name).push(cell);
  }
  order = [];
  const last = ([title]) => title === NO_CLASS;
  groups = [...found].sort((a, b) => last(a) - last(b)).map(([title, own]) => {
    own.sort((a, b) => down * ((hidden ? a.index - b.index : a[key] - b[key]) || 0) || a.index - b.index);
    const start = order.length;
    for (const cell of own) order.push(cell.index);
    return { title, start, end: order.length };
  });
  cursor = Math.max(0, order.indexOf(keep));
  anchor = cursor;
  place();
}

function place() {
  tilePx = Number(tools.size.value);
  linePx = tilePx + CAPTION_PX + GAP_PX;
  columns = Math.max(1, Math.floor((gallery.clientWidth - 4 + GAP_PX) / (tilePx + GAP_PX)));
  lines = [];
  lineOf = new Int32Array(order.length);
  let top = 0;
  for (const group of groups) {
    group.top = top;
    let own = HEADING_PX;
    for (let start = group.start; start < group.end; start += columns) {
      const end = Math.min(start + columns, group.end);
      lineOf.fill(lines.length, start, end);
      lines.push({ group, top: top + own, start, end });
      own += linePx;
    }
    group.height = own;
    top += own;
  }
  gallery.style.height = `${Math.max(top, 60)}px`;
  gallery.style.setProperty("--tile", `${tilePx}px`);
  const bar = document.getElementById("bar");
  if (bar && at.cropUm) bar.style.width = `${(tilePx * Number(at.barUm)) / Number(at.cropUm)}px`;
  for (const frame of frames.values()) frame.remove();
  frames.clear();
  tiles.clear();
  draw();
}

// --- drawing -----------------------------------------------------------------------------------

let settled = 0;
function draw(quick = false) {
  const top = -gallery.getBoundingClientRect().top;
  const margin = MARGIN_LINES * linePx;
  const from = top - margin, to = top + window.innerHeight + margin;
  const wanted = new Set();
  lines.forEach((line, number) => {
    if (line.top + linePx >= from && line.top <= to) wanted.add(number);
  });
  if (order.length) wanted.add(lineOf[cursor]); // what aria-activedescendant names must be there
  const keep = new Set();
  const open = new Set();
  for (const number of wanted) {
    const line = lines[number];
    open.add(line.group);
    const frame = frames.get(line.group) ?? newFrame(line.group);
    for (let i = line.start; i < line.end; i++) {
      keep.add(order[i]);
      if (!tiles.has(order[i])) {
        const left = (i - line.start) * (tilePx + GAP_PX);
        frame.append(newTile(order[i], i, left, line.top - line.group.top));
      }
    }
  }
  for (const [index, tile] of tiles) {
    if (!keep.has(index)) { tile.remove(); tiles.delete(index); }
  }
  for (const [group, frame] of frames) {
    if (!open.has(group)) { frame.remove(); frames.delete(group); }
  }
  clearTimeout(settled);
  if (quick) settled = setTimeout(load, SETTLED_MS);
  else load();
}

// Pictures are fetched only where scrolling has come to rest.
function load() {
  for (const [index, tile] of tiles) {
    const picture = tile.firstChild;
    if (!picture.getAttribute("src")) picture.src = `${at.crops}${index}.jpg`;
  }
}

function newFrame(group) {
  const frame = document.createElement("div");
  frame.className = "group";
  frame.setAttribute("role", "group");
  const n = group.end - group.start;
  frame.setAttribute("aria-label", `${group.title}, ${counted(n)}`);
  frame.style.top = `${group.top}px`;
  frame.style.height = `${group.height}px`;
  const heading = document.createElement("div");
  heading.className = "group-title";
  heading.setAttribute("aria-hidden", "true");
  heading.textContent = `${group.title} (${n.toLocaleString("en-GB")})`;
  frame.append(heading);
  gallery.append(frame);
  frames.set(group, frame);
  return frame;
}

function newTile(index, position, left, top) {
  const tile = document.createElement("div");
  tile.id = `cell-${index}`;
  tile.dataset.cell = index;
  tile.setAttribute("role", "option");
  tile.setAttribute("aria-setsize", order.length);
  tile.setAttribute("aria-posinset", position + 1);
  tile.style.transform = `translate(${left}px, ${top}px)`;
  const picture = document.createElement("img");
  picture.alt = "";
  picture.decoding = "async";
  picture.draggable = false;
  picture.width = picture.height = tilePx;
  const corner = document.createElement("span");
  corner.className = "corner";
  const caption = document.createElement("span");
  caption.className = "caption";
  tile.append(picture, corner, caption);
  tiles.set(index, tile);
  dress(index);
  return tile;
}

function dress(index) {
  const tile = tiles.get(index);
  if (!tile) return;
  const cell = cells.get(index);
  const waiting = decisions.waiting(index);
  const look = cell.decision ? "confirmed" : shows(cell) ? "suggested" : "plain";
  const now = order[cursor] === index;
  tile.className = `cell ${look}${now ? " now" : ""}`;
  tile.setAttribute("aria-selected", String(chosen.size ? chosen.has(index) : now));
  tile.setAttribute("aria-label", words(cell));
  tile.children[1].textContent = shows(cell) ? `${cell.flagged ? "⚑" : ""}${cell.mark || ""}` : "";
  const caption = tile.lastChild;
  if (cell.decision) caption.textContent = `${waiting ? "…" : "✓"} ${tell.titleOf(cell.decision)}`;
  else if (waiting) caption.textContent = "… taken back";
  else if (shows(cell) && tell.isKind(cell)) caption.textContent = `${tell.titleOf(cell.suggestion)}? ${tell.evidence(cell)}`;
  else if (shows(cell)) caption.textContent = tell.evidence(cell);
  else caption.textContent = "not decided";
}

const dressAll = () => { for (const index of tiles.keys()) dress(index); };

// --- moving and choosing -----------------------------------------------------------------------

function go(position, { extend = false, keep = false } = {}) {
  if (!order.length) return;
  cursor = Math.min(Math.max(position, 0), order.length - 1);
  if (extend) {
    const [from, to] = [Math.min(anchor, cursor), Math.max(anchor, cursor)];
    chosen = new Set(order.slice(from, to + 1));
  } else {
    anchor = cursor;
    if (!keep) chosen.clear();
  }
  const top = gallery.getBoundingClientRect().top + lines[lineOf[cursor]].top;
  const room = document.querySelector(".tools").getBoundingClientRect();
  const least = getComputedStyle(document.querySelector(".tools")).position === "sticky" ? room.height : 0;
  if (top < least) window.scrollBy(0, top - least - 10);
  else if (top + linePx > window.innerHeight) window.scrollBy(0, top + linePx - window.innerHeight + 10);
  draw();
  gallery.setAttribute("aria-activedescendant", `cell-${order[cursor]}`);
  dressAll();
  describe();
}

function step(by) { // a line up or down, in the same column
  const own = lineOf[cursor];
  const line = lines[Math.min(Math.max(own + by, 0), lines.length - 1)];
  return Math.min(line.start + (cursor - lines[own].start), line.end - 1);
}

function describe() {
  const cell = cells.get(order[cursor]);
  if (!cell) return;
  const picture = document.createElement("img");
  picture.src = `${at.crops}${cell.index}.jpg`;
  picture.alt = `Cell ${cell.index + 1}`;
  const lists = document.createElement("p");
  lists.textContent = chosen.size > 1 ? `${chosen.size} cells chosen.` : `${words(cell)}.`;
  const link = document.createElement("a");
  link.href = `${at.fields}${cell.image}?cell=${cell.index}`;
  link.textContent = "Show in its field";
  about.replaceChildren(picture, lists, link);
}

// --- deciding ----------------------------------------------------------------------------------

function decide(code, begun) {
  if (!at.mayDecide) return say("Your roles allow you to look, not to decide.", "bad");
  const targets = chosen.size ? [...chosen] : [order[cursor]];
  const changed = targets.filter((index) => cells.get(index).decision !== code);
  if (!changed.length) return next();
  keep(changed.map((index) => ({ cell: index, code })), begun);
  next();
}

function keep(entries, begun, remember = true) {
  if (remember) {
    undo.push(entries.map(({ cell }) => ({ cell, code: cells.get(cell).decision })));
    if (undo.length > MOST_UNDO) undo.shift();
  }
  decisions.add(entries, begun); // reads the versions before the cells change
  for (const { cell, code } of entries) {
    cells.get(cell).decision = code;
    dress(cell);
  }
}

function next() {
  if (tools.advance.checked && !chosen.size) go(cursor + 1);
  else describe();
}

function confirmSuggestion(begun) {
  const targets = chosen.size ? [...chosen] : [order[cursor]];
  const entries = targets
    .map((index) => cells.get(index))
    .filter((cell) => shows(cell) && tell.isKind(cell))
    .map((cell) => ({ cell: cell.index, code: cell.suggestion }));
  if (!entries.length) {
    return say("The suggestion is not a kind of cell: choose one by its key.", "bad");
  }
  if (!at.mayDecide) return say("Your roles allow you to look, not to decide.", "bad");
  keep(entries, begun);
  next();
}

function takeBack(begun) {
  const last = undo.pop();
  if (!last) return say("Nothing to undo.", "");
  keep(last, begun, false);
  const position = order.indexOf(last[0].cell);
  if (position >= 0) go(position);
}

function say(text, kind) {
  status.textContent = text;
  status.className = kind;
}

// --- keys, mouse, tools ------------------------------------------------------------------------

const MOVES = {
  ArrowRight: () => cursor + 1, ArrowLeft: () => cursor - 1,
  ArrowDown: () => step(1), ArrowUp: () => step(-1),
  Home: () => 0, End: () => order.length - 1,
};
const ACTS = {
  " ": confirmSuggestion,
  z: takeBack,
  f: async () => {
    await decisions.settled();
    location.href = `${at.fields}${cells.get(order[cursor]).image}?cell=${order[cursor]}`;
  },
  h: () => { hidden = !hidden; dressAll(); describe(); say(hidden ? "Suggestions hidden." : "Suggestions shown.", ""); },
  Escape: () => go(cursor),
  "?": () => help.showModal(),
};

gallery.addEventListener("keydown", (event) => {
  const begun = performance.now();
  if (!order.length || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const withCtrl = event.ctrlKey || event.metaKey;
  if (withCtrl && key === "a") {
    const { group } = lines[lineOf[cursor]];
    chosen = new Set(order.slice(group.start, group.end));
    dressAll();
    describe();
  } else if (withCtrl) return;
  else if (MOVES[key]) go(MOVES[key](), { extend: event.shiftKey });
  else if (ACTS[key]) ACTS[key](begun);
  else if (kinds.byKey.has(key)) decide(kinds.byKey.get(key).code, begun);
  else return;
  event.preventDefault();
});

gallery.addEventListener("click", (event) => {
  const tile = event.target.closest("[data-cell]");
  if (!tile) return;
  const index = Number(tile.dataset.cell);
  const position = order.indexOf(index);
  if (event.ctrlKey || event.metaKey) {
    if (!chosen.size) chosen.add(order[cursor]);
    if (chosen.has(index)) chosen.delete(index); else chosen.add(index);
    go(position, { keep: true });
  } else go(position, { extend: event.shiftKey });
});
gallery.addEventListener("dblclick", () => ACTS.f());

document.querySelector(".kinds")?.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || !order.length) return;
  if ("undo" in button.dataset) takeBack(performance.now());
  else decide(button.dataset.code, performance.now());
  gallery.focus({ preventScroll: true });
});
for (const id of ["show", "group", "sort"]) tools[id].addEventListener("change", () => { chosen.clear(); arrange(); });
tools.size.addEventListener("input", place);
document.getElementById("help-open").addEventListener("click", () => help.showModal());
window.addEventListener("scroll", () => requestAnimationFrame(() => draw(true)), { passive: true });
let width = 0;
new ResizeObserver(() => {
  if (gallery.clientWidth !== width && cells) { width = gallery.clientWidth; place(); }
}).observe(gallery);

// --- start -------------------------------------------------------------------------------------

let counting = 0;
function saved(done) {
  const decided = [...cells.values()].filter((cell) => cell.decision).length;
  for (const { cell } of done) dress(cell);
  if (done.some(({ cell }) => cell === order[cursor])) describe();
  say(`Saved. ${decided.toLocaleString("en-GB")} of ${cells.size.toLocaleString("en-GB")} cells decided.`, "good");
  clearTimeout(counting);
  counting = setTimeout(async () => {
    const answer = await fetch(count.dataset.url, { redirect: "manual" }).catch(() => null);
    if (answer?.ok) count.innerHTML = await answer.text(); // our own template, escaped there
  }, 600);
}

async function start() {
  const wanted = new URLSearchParams(location.search);
  const answer = await fetchCells(at.cells);
  ({ cells } = answer);
  tell = tellerOf(kinds, answer.most);
  decisions = new Decisions(gallery, cells, {
    onSaved: saved,
    onStatus: say,
    onGivenUp: async (entries) => {
      const fresh = await fetchCells(at.cells);
      for (const { cell } of entries) { Object.assign(cells.get(cell), fresh.cells.get(cell)); dress(cell); }
    },
  });
  for (const { act } of decisions.takeUp()) for (const { cell, code } of act) cells.get(cell).decision = code;
  if (answer.blind) tools.sort.value = "index";
  if (wanted.get("show") in SHOWN) tools.show.value = wanted.get("show");
  width = gallery.clientWidth;
  arrange();
  const first = order.indexOf(Number(wanted.get("cell") ?? -1));
  say(`${counted(order.length)}. Press ? for the keys.`, "");
  gallery.focus({ preventScroll: true });
  if (order.length) go(Math.max(first, 0));
  performance.mark("gallery-usable");
}
start().catch((error) => say(error.message, "bad"));

// Saves decisions one after another, and loses none: what could not be sent stays in the page and
// in the tab's storage until it is saved or the person gives it up.

const RETRY_MS = 4000;

export class Decisions {
  // place: element with data-analysis, data-save, data-session, data-user, data-csrf, data-sample.
  // onSaved(cells), onStatus(text, kind), onGivenUp(entries)
  constructor(place, cells, { onSaved, onStatus, onGivenUp }) {
    this.at = place.dataset;
    this.cells = cells; // Map: index -> cell
    this.onSaved = onSaved;
    this.onStatus = onStatus;
    this.onGivenUp = onGivenUp;
    this.key = `millie-${this.at.user}-${this.at.sample}-${this.at.analysis}`;
    this.queue = [];
    this.busy = false;
    this.asking = false;
    window.addEventListener("beforeunload", (event) => {
      if (this.queue.length) event.preventDefault();
    });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.queue.length) this.send();
    });
  }

  // What an earlier page of this tab could not send; call once the cells are there.
  takeUp() {
    const kept = JSON.parse(sessionStorage.getItem(this.key) || "[]");
    this.queue.push(...kept);
    if (kept.length) this.send();
    return kept;
  }

  // entries: [{cell, code}]; how each cell looks is the caller's business.
  add(entries, begun = performance.now()) {
    const act = entries.map(({ cell, code }) => ({ cell, code, seen: this.#expected(cell) }));
    this.queue.push({ act, begun });
    this.#keep();
    this.send();
  }

  waiting(cell) {
    return this.queue.some(({ act }) => act.some((entry) => entry.cell === cell));
  }

  // Of another image, where an earlier page of this tab left an act behind: known by number only.
  #cell(index) {
    return this.cells.get(index) ?? { version: 0 };
  }

  // When all is saved, or after the time given: a page is left only then.
  async settled(most_ms = 2000) {
    const end = performance.now() + most_ms;
    while (this.queue.length && performance.now() < end) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  // The version that a cell will have once all acts before are saved.
  #expected(cell) {
    const before = this.queue.filter(({ act }) => act.some((entry) => entry.cell === cell));
    return this.#cell(cell).version + before.length;
  }

  #keep() {
    if (this.queue.length) sessionStorage.setItem(this.key, JSON.stringify(this.queue));
    else sessionStorage.removeItem(this.key);
  }

  async send() {
    if (this.busy || this.asking) return;
    this.busy = true;
    try {
      while (this.queue.length && (await this.#sendOne(this.queue[0])));
    } finally {
      this.busy = false;
    }
  }

  // true: go on with the next
  async #sendOne({ act, begun }) {
    let answer;
    try {
      answer = await fetch(this.at.save, {
        method: "POST",
        redirect: "manual",
        headers: { "Content-Type": "application/json", "X-CSRFToken": this.at.csrf },
        body: JSON.stringify({ analysis: Number(this.at.analysis), decisions: act }),
      });
    } catch {
      return this.#later("The server cannot be reached.");
    }
    if (answer.ok) {
      this.#done();
      const { cells } = await answer.json();
      for (const { cell, version, code, ...shown } of cells) {
        const own = this.waiting(cell) ? {} : { decision: code };
        Object.assign(this.#cell(cell), { version }, own, shown);
      }
      performance.measure("decision-saved", { start: begun });
      this.onSaved(cells);
      return true;
    }
    if (answer.status === 409) return this.#conflict(await answer.json());
    if (answer.type === "opaqueredirect" || answer.status === 403) return this.#session();
    if (answer.status === 400) {
      const { error } = await answer.json();
      this.#giveUp(1, `Not saved: ${error}`);
      return true;
    }
    return this.#later(`The server could not save (error ${answer.status}).`);
  }

  #done() {
    this.queue.shift();
    this.#keep();
  }

  #later(why) {
    this.onStatus(`Not saved: ${this.#count()}. ${why} Kept here and sent again.`, "bad");
    setTimeout(() => this.send(), RETRY_MS);
    return false;
  }

  #count() {
    const n = this.queue.reduce((sum, { act }) => sum + act.length, 0);
    return n === 1 ? "1 decision" : `${n} decisions`;
  }

  #giveUp(n, text) {
    const lost = this.queue.splice(0, n);
    this.#keep();
    this.onGivenUp(lost.flatMap(({ act }) => act));
    this.onStatus(text, "bad");
  }

  // Logged out, or logged in again in another tab: then there is a new token.
  async #session() {
    const answer = await fetch(this.at.session, { redirect: "manual" }).catch(() => null);
    if (answer?.ok) {
      const { user, csrf } = await answer.json();
      if (user === this.at.user && csrf !== this.at.csrf) {
        this.at.csrf = csrf;
        return true;
      }
      const who = user === this.at.user ? "Your roles do not allow you to decide." :
        `You are now logged in as ${user}; these decisions are ${this.at.user}'s.`;
      const again = await this.#ask("Not saved", `${who} ${this.#count()} kept here.`, [
        ["again", "Try again"], ["drop", "Give them up"]]);
      if (again === "drop") this.#giveUp(this.queue.length, "Given up: nothing was saved.");
      return true;
    }
    this.onStatus(`Not saved: ${this.#count()}. You are logged out.`, "bad");
    const choice = await this.#ask("You are logged out",
      `${this.#count()} not saved yet, and kept here. Log in in another tab as ${this.at.user}, ` +
      "come back, and try again.",
      [["login", "Log in in another tab"], ["again", "Try again"]]);
    if (choice === "login") {
      window.open(this.at.login, "_blank");
      setTimeout(() => this.send(), RETRY_MS);
      return false;
    }
    return true;
  }

  async #conflict(answer) {
    if (answer.replaced) {
      this.#giveUp(this.queue.length, "Not saved: the sample has been analysed again. Reload this page.");
      return true;
    }
    const said = answer.conflicts.slice(0, 5).map(
      (c) => `Cell ${c.cell + 1}: ${c.user} decided “${c.title}” at ${c.at}.`);
    if (answer.conflicts.length > 5) said.push(`And ${answer.conflicts.length - 5} more.`);
    const choice = await this.#ask("Another person has decided in the meantime",
      `${said.join(" ")} Nothing of yours was saved yet.`,
      [["theirs", "Keep theirs"], ["mine", "Replace with mine"]]);
    for (const { cell, version, code } of answer.conflicts) {
      Object.assign(this.#cell(cell), { version, decision: code });
    }
    const theirs = new Set(answer.conflicts.map((c) => c.cell));
    if (choice !== "mine") {
      for (const one of this.queue) one.act = one.act.filter((entry) => !theirs.has(entry.cell));
      this.queue = this.queue.filter(({ act }) => act.length);
      this.onGivenUp([...theirs].map((cell) => ({ cell })));
    }
    const next = new Map();
    for (const entry of this.queue.flatMap(({ act }) => act)) {
      entry.seen = next.get(entry.cell) ?? this.#cell(entry.cell).version;
      next.set(entry.cell, entry.seen + 1);
    }
    this.#keep();
    this.onSaved([]);
    return true;
  }

  // A dialog with a heading, a text and buttons; gives the value of the one that was pressed.
  #ask(title, text, choices) {
    this.asking = true;
    const dialog = document.createElement("dialog");
    dialog.setAttribute("aria-labelledby", "ask-title");
    const heading = document.createElement("h2");
    heading.id = "ask-title";
    heading.textContent = title;
    const words = document.createElement("p");
    words.textContent = text;
    const row = document.createElement("p");
    row.className = "row end";
    dialog.append(heading, words, row);
    document.body.append(dialog);
    return new Promise((resolve) => {
      for (const [value, label] of choices) {
        const button = document.createElement("button");
        button.textContent = label;
        button.dataset.choice = value;
        button.addEventListener("click", () => dialog.close(value));
        row.append(button);
      }
      dialog.addEventListener("cancel", (event) => event.preventDefault());
      dialog.addEventListener("close", () => {
        dialog.remove();
        this.asking = false;
        resolve(dialog.returnValue);
      });
      dialog.showModal();
    });
  }
}

// {columns, rows} from the server -> Map: index -> cell
export async function fetchCells(url) {
  const answer = await fetch(url, { redirect: "manual" });
  if (!answer.ok) throw new Error("the cells could not be loaded: reload the page");
  const { columns, rows, ...rest } = await answer.json();
  const cells = new Map();
  for (const row of rows) {
    const cell = {};
    for (let i = 0; i < columns.length; i++) cell[columns[i]] = row[i];
    cells.set(cell.index, cell);
  }
  return { cells, ...rest };
}

// The kinds that the page lists, by code and by key.
export function readKinds(element) {
  const kinds = JSON.parse(element.textContent);
  return {
    byCode: new Map(kinds.map((kind) => [kind.code, kind])),
    byKey: new Map(kinds.map((kind) => [kind.key, kind])),
  };
}

// Whether a key press belongs to a field that takes text or to an open dialog.
export function elsewhere(event) {
  const inField = event.target.closest?.("input:not([type=checkbox], [type=range]), select, textarea");
  return Boolean(inField || document.querySelector("dialog[open]"));
}

// Drag and drop, folders, limits before anything is sent, and how much of it was sent.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const form = byId("submit-form"), drop = byId("drop"), chosen = byId("chosen");
  const bar = byId("sent"), button = byId("send"), answer = byId("answer");
  const maxBytes = Number(form.dataset.maxBytes), maxFiles = Number(form.dataset.maxFiles);
  let files = []; // {file, path}

  byId("folder-field").hidden = byId("drop-hint").hidden = false;

  const size = (n) => (n < 1e6 ? `${(n / 1e3).toFixed(0)} kB` : `${(n / 1e6).toFixed(1)} MB`);

  function choose(found) {
    files = found;
    const bytes = files.reduce((sum, one) => sum + one.file.size, 0);
    const count = files.length === 1 ? "1 file" : `${files.length} files`;
    let why = "";
    if (bytes > maxBytes) {
      why = ` This is more than ${maxBytes / 1e9} GB, the limit of one upload: send fewer images, or use the watched folder.`;
    } else if (files.length > maxFiles) {
      why = ` These are more than ${maxFiles}, the limit of one sample.`;
    }
    chosen.textContent = files.length ? `${count}, ${size(bytes)}.${why}` : "";
    button.disabled = Boolean(why);
  }

  const listed = (input) => Array.from(input.files, (file) => ({ file, path: file.webkitRelativePath || file.name }));

  for (const [id, other] of [["files", "folder"], ["folder", "files"]]) {
    byId(id).addEventListener("change", (event) => {
      byId(other).value = "";
      choose(listed(event.target));
    });
  }

  const inFolder = (reader) => new Promise((done, failed) => reader.readEntries(done, failed));
  const asFile = (entry) => new Promise((done, failed) => entry.file(done, failed));

  async function below(entry) {
    if (entry.isFile) {
      return [{ file: await asFile(entry), path: entry.fullPath.replace(/^\//, "") }];
    }
    const reader = entry.createReader();
    const found = [];
    for (let some = await inFolder(reader); some.length; some = await inFolder(reader)) {
      for (const one of some) found.push(...(await below(one)));
    }
    return found;
  }

  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", async (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    // Both must be asked for before anything is awaited: the list is empty afterwards.
    const found = Array.from(event.dataTransfer.items, (item) => [item.webkitGetAsEntry(), item.getAsFile()]);
    byId("files").value = byId("folder").value = "";
    const parts = found.map(([entry, file]) => (entry ? below(entry) : file ? [{ file, path: file.name }] : []));
    choose((await Promise.all(parts)).flat());
  });

  function tell(kind, text, lines = []) {
    answer.className = `message ${kind}`;
    answer.replaceChildren(document.createElement("p"));
    answer.firstChild.textContent = text;
    if (!lines.length) return;
    const list = document.createElement("ul");
    for (const line of lines) {
      const item = document.createElement("li");
      item.textContent = line;
      list.append(item);
    }
    answer.append(list);
  }

  function told(request) {
    let body = null;
    try {
      body = JSON.parse(request.responseText);
    } catch {
      body = null;
    }
    if (request.status === 200 && body && body.id) {
      tell("success", body.text, body.notes);
      form.reset();
      choose([]);
      document.body.dispatchEvent(new Event("submitted"));
    } else if (body && body.detail) {
      tell("error", body.detail, (body.files || []).map((one) => one.reason));
    } else if (request.status === 200 || request.status === 403) {
      tell("error", "Your session has ended, and nothing was sent. Reload this page, log in, and choose the files again.");
    } else {
      tell("error", `The server answered ${request.status} ${request.statusText}. Nothing was kept; try again.`);
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!files.length) {
      tell("error", "Choose the images first.");
      byId("files").focus();
      return;
    }
    const data = new FormData(form);
    data.delete("files");
    for (const one of files) {
      data.append("files", one.file);
      data.append("paths", one.path);
    }
    const request = new XMLHttpRequest();
    const end = (say) => () => {
      bar.hidden = true;
      button.disabled = false;
      say();
    };
    request.open("POST", form.action);
    request.setRequestHeader("Accept", "application/json");
    request.upload.addEventListener("progress", (sent) => {
      if (sent.lengthComputable) bar.value = sent.loaded / sent.total;
    });
    request.addEventListener("load", end(() => told(request)));
    request.addEventListener("error", end(() => tell("error", "The server cannot be reached, or it refused the upload. Nothing was kept; try again.")));
    button.disabled = true;
    bar.hidden = false;
    bar.value = 0;
    answer.className = "";
    answer.replaceChildren();
    request.send(data);
  });
})();

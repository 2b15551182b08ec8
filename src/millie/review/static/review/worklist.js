// Keys of the worklist, and the ages that grow while it is open. Keys work while the focus is in
// the list, so that they never get in the way elsewhere.

const links = () => [...document.querySelectorAll("#worklist tbody th a")];
const help = document.getElementById("help");

function age(since) {
  const minutes = Math.max(0, Math.floor((Date.now() - since) / 60000));
  const hours = Math.floor(minutes / 60), days = Math.floor(hours / 24);
  if (days) return `${days} d ${hours % 24} h`;
  return hours ? `${hours} h ${minutes % 60} min` : `${minutes} min`;
}

function grow() {
  for (const time of document.querySelectorAll("time[data-age]")) {
    time.textContent = age(Date.parse(time.dateTime));
  }
}

document.addEventListener("keydown", (event) => {
  if (!event.target.closest("#worklist") || event.ctrlKey || event.metaKey || event.altKey) return;
  const all = links();
  const at = all.indexOf(document.activeElement);
  const key = event.key.toLowerCase();
  if (key === "j" || key === "arrowdown") all[Math.min(at + 1, all.length - 1)]?.focus();
  else if (key === "k" || key === "arrowup") all[Math.max(at - 1, 0)]?.focus();
  else if (key === "/") document.getElementById("search").focus();
  else if (key === "?") help.showModal();
  else return;
  event.preventDefault();
});
document.getElementById("help-open").addEventListener("click", () => help.showModal());
document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.status === 403) location.reload();
});
setInterval(grow, 20000);
links()[0]?.focus({ preventScroll: true });

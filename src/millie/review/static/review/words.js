// How cells are told in words: the same in the gallery and in the field viewer.

export const counted = (n) => (n === 1 ? "1 cell" : `${n.toLocaleString("en-GB")} cells`);

export const NO_CLASS = "No class";

export function tellerOf(kinds, most) {
  const titleOf = (code) => kinds.byCode.get(code)?.title ?? code;
  const isKind = (cell) => kinds.byCode.has(cell.suggestion);
  // What a cell is grouped by: the kind that it looks like, or else its likeliest class.
  const group = (cell) => (isKind(cell) ? titleOf(cell.suggestion) : classOf(cell));
  const classOf = (cell) => (cell.label ? `Class ${cell.label}` : NO_CLASS);
  const evidence = (cell) =>
    cell.label ? `${cell.label} ${probability(cell.certainty)}` : "no class";

  // Never surer than the number of training patients supports.
  function probability(value) {
    const high = Math.floor(100 * most + 1e-9) / 100;
    if (value > high) return `>${high.toFixed(2)}`;
    return value < 1 - high ? `<${(1 - high).toFixed(2)}` : value.toFixed(2);
  }

  function words(cell, { shown, waiting }) {
    const said = [`Cell ${cell.index + 1}`];
    if (cell.decision) said.push(`confirmed: ${titleOf(cell.decision)}`);
    if (shown && isKind(cell)) said.push(`suggested: ${titleOf(cell.suggestion)}`);
    if (shown) said.push(`alone it speaks for ${evidence(cell)}`);
    if (shown && cell.flagged) said.push("must be seen");
    if (shown && cell.mark) said.push(`evidence ${cell.mark}`);
    if (cell.remarks) said.push(cell.remarks);
    if (waiting) said.push("not saved yet");
    return said.join(", ");
  }
  return { titleOf, isKind, group, classOf, evidence, words };
}

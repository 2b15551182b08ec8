// How cells are told in words: the same in the gallery and in the field viewer.

export function tellerOf(kinds, most) {
  const titleOf = (code) => kinds.byCode.get(code)?.title ?? code;
  const looksLike = (code) => (kinds.byCode.has(code) ? titleOf(code) : `looks like ${code}`);

  // Never surer than the number of training patients supports.
  function probability(value) {
    const high = Math.floor(100 * most + 1e-9) / 100;
    if (value > high) return `>${high.toFixed(2)}`;
    return value < 1 - high ? `<${(1 - high).toFixed(2)}` : value.toFixed(2);
  }

  function words(cell, { shown, waiting }) {
    const said = [`Cell ${cell.index + 1}`];
    if (cell.decision) said.push(`confirmed: ${titleOf(cell.decision)}`);
    if (shown) said.push(`suggested: ${looksLike(cell.suggestion)}, ${probability(cell.certainty)}`);
    if (shown && cell.flagged) said.push("must be seen");
    if (shown && cell.mark) said.push(`evidence ${cell.mark}`);
    if (cell.remarks) said.push(cell.remarks);
    if (waiting) said.push("not saved yet");
    return said.join(", ");
  }
  return { titleOf, looksLike, probability, words };
}

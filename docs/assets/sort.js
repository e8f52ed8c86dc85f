// Tables are sorted by a click on a column's head: numbers as numbers, other text by its letters.
const numberOf = (text) => parseFloat(text.replace(/^[^\d.+-]+/, "").replace(/,/g, ""));

function compare(left, right) {
  const [a, b] = [numberOf(left), numberOf(right)];
  const bothNumbers = !Number.isNaN(a) && !Number.isNaN(b) && /^[\s*]*[-+.\d]/.test(left + right);
  return bothNumbers ? a - b : left.localeCompare(right);
}

function sortBy(head) {
  const body = head.closest("table").tBodies[0];
  const sign = head.ariaSort === "ascending" ? -1 : 1;
  const words = (row) => row.cells[head.cellIndex]?.textContent ?? "";
  const rows = [...body.rows].sort((a, b) => sign * compare(words(a), words(b)));
  for (const other of head.parentNode.cells) other.ariaSort = "none";
  head.ariaSort = sign === 1 ? "ascending" : "descending";
  body.append(...rows);
}

for (const head of document.querySelectorAll("article table:not([class]) thead th")) {
  head.ariaSort = "none";
  head.addEventListener("click", () => sortBy(head));
}

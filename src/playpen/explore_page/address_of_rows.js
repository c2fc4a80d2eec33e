// What is shown, as the address tells it: everything after # can be copied, kept and gone back to.

const EMPTY = { row: null, source: "", fault: "", low: null, high: null, feature: null, first: "", second: "", part: "", by: null };
const PARTS = ["both", "first", "second", "neither"];
const NUMBERS = ["low", "high", "feature", "by"];

/** The state that the address holds; what the data do not know is left out. */
function readState() {
  const found = new URLSearchParams(location.hash.slice(1));
  const one = (key, known, otherwise) => (known.includes(found.get(key)) ? found.get(key) : otherwise);
  const numbered = NUMBERS.map((key) => [key, found.has(key) && found.get(key) !== "" ? Number(found.get(key)) : null]);
  const names = selectionNames();
  return {
    ...EMPTY,
    ...Object.fromEntries(numbered.filter(([, value]) => value === null || Number.isFinite(value))),
    row: one("row", rows.row_id, null),
    source: one("source", meta.sources.map(([name]) => name), ""),
    fault: one("fault", (meta.faults ?? []).map(([name]) => name), ""),
    first: one("first", names, names[0] ?? ""),
    second: one("second", names, names[1] ?? ""),
    part: one("part", PARTS, ""),
  };
}

function hashOf(wanted) {
  const parts = new URLSearchParams();
  for (const [key, value] of Object.entries(wanted)) if (value !== EMPTY[key] && value !== "") parts.set(key, value);
  return `#${parts}`;
}

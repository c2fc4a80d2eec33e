// What the keys of the page do.

const KEYS = [
  [["j", "ArrowDown"], "next row of those listed and laid out", () => stepRow(1)],
  [["k", "ArrowUp"], "the one before", () => stepRow(-1)],
  [["o"], "overview of the selections", () => change({ row: null, by: null })],
  [["1", "2", "3", "4"], "rows kept by both, by the first alone, by the second alone, by neither; again: all", (key) => togglePart(PARTS[key - 1])],
  [["x"], "swap the two selections", () => change({ first: state.second || state.first, second: state.first })],
  [["c"], "clear all filters", () => change({ ...EMPTY, first: state.first, second: state.second, row: state.row })],
  [["d"], "dark or light", () => toggleTheme()],
  [["?"], "this help", () => byId("keys").showModal()],
];
const HINTS = [
  "In the plot, a click opens a row and a drag keeps a range of predictions.",
  "On a chat that has the focus, \u2190 and \u2192 read it token by token.",
  "The address holds everything you see: copy it to share.",
].join(" ");

const togglePart = (part) => change({ part: state.part === part ? "" : part });

/** Go to the next listed row that is laid out, in order of prediction; to the first when none of them is shown. */
function stepRow(by) {
  const shown = listed.filter((row) => rows.shown[row]);
  if (!shown.length) return;
  const at = shown.indexOf(rows.row_id.indexOf(state.row));
  const next = at < 0 ? 0 : Math.max(0, Math.min(shown.length - 1, at + by));
  change({ row: rows.row_id[shown[next]], by: null }, "step");
}

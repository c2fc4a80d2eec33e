// What the keys of a dashboard do.

const KEYS = [
  [["j", "ArrowDown"], "next feature of the list", () => step(1)],
  [["k", "ArrowUp"], "the one before", () => step(-1)],
  [["/"], "search", () => byId("search").select()],
  [["c"], "compare two, and back", () => toggleCompare()],
  [["x"], "swap the two", () => state.view === "compare" && state.b !== null && change({ f: state.b, b: state.f })],
  [["m"], "map, and back", () => toggleView("map")],
  [["t"], "paste a text, and back", () => toggleView("paste")],
  [["o"], "overview of the dictionary", () => change({ view: "", f: null, b: null })],
  [["1", "2", "3", "4", "5"], "kinds of examples", (key) => change({ tab: TABS[key - 1] }, "replace")],
  [["w"], "whole windows or one line each", () => change({ whole: !state.whole }, "replace")],
  [["e"], "colour by strength or by effect", () => change({ by: state.by === "effect" ? "strength" : "effect" }, "replace")],
  [["d"], "dark or light", () => toggleTheme()],
  [["?"], "this help", () => byId("keys").showModal()],
];
const HINTS = [
  "On an example that has the focus, \u2190 and \u2192 read it token by token.",
  "The search takes #123, a token (in quotes: exactly that one), any text of an example, or a condition such as density > 0.1%.",
  "The address holds everything you see: copy it to share.",
].join(" ");

const toggleView = (wanted) => change({ view: state.view === wanted ? (state.f === null ? "" : "feature") : wanted });

function toggleCompare() {
  if (state.view === "compare") change({ view: "feature", b: null });
  else if (state.f !== null) change({ view: "compare", b: null });
}

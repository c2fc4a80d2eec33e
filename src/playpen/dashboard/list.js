// The list: thousands of features, of which only the rows in sight are elements.

const ROW = 30; // pixels; the style sheet has the same number
const SPARE = 6; // rows made above and below what is in sight
const [FIRST, WISHED, NUMBERS, NAMES, GAP] = [176, 250, 62, 84, 8]; // pixels: id and tokens at the least, and as wished; others
const TOGETHER = { category_auroc: "category", lift: "source" }; // a number that needs its name beside it
const inSight = new Map(); // index in the list -> its row
let listed = { places: [], met: new Uint8Array(0), problem: "" };
let columns = [];

/** The columns that were asked for, or those that say most about this corpus. */
function chosenColumns() {
  if (state.cols) return state.cols.filter(columnOf);
  const wanted = has("auroc") ? ["density", "log_odds", "auroc", "max"] : ["density", "documents", "max", "token_share"];
  return wanted.filter(columnOf);
}

/** The columns to show: those chosen, as many as fit when nobody chose, and always the one sorted by. */
function shownColumns() {
  const key = state.sort.replace("-", "");
  const room = Math.max(1, Math.floor((byId("list").clientWidth - WISHED) / (NUMBERS + GAP)));
  const needed = [TOGETHER[key], key].filter((wanted) => columnOf(wanted));
  const others = chosenColumns().filter((other) => !needed.includes(other));
  const kept = state.cols ? others : others.slice(0, Math.max(0, room - needed.length));
  const order = meta.columns.map((column) => column.key);
  return [...kept, ...needed].sort((a, b) => order.indexOf(a) - order.indexOf(b));
}

function showList() {
  listed = runQuery(state);
  byId("query-problem").textContent = listed.problem || (listed.places.length ? "" : whyNothing(state.q));
  byId("space").style.height = `${listed.places.length * ROW}px`;
  byId("list").setAttribute("aria-rowcount", listed.places.length + 1);
  byId("list").scrollTop = 0;
  showCount();
  showHeads();
}

function showCount() {
  const [n, all] = [listed.places.length, number(table.size)];
  const reading = needsTexts(state.q) && !searchTexts ? " \u00b7 reading texts\u2026" : null;
  const clear = button("clear the search and all filters", () => change({ q: "", filter: [] }));
  put(
    byId("count"),
    n === table.size ? `${all} features` : `${number(n)} of ${all} features`,
    reading,
    n ? null : [" \u00b7 ", clear],
  );
}

function showHeads() {
  columns = shownColumns();
  const widths = columns.map(columnWidth);
  byId("list").style.setProperty("--columns", widths.map((width) => `${width}px`).join(" ") || "0");
  byId("list").style.setProperty("--width", `${widths.reduce((a, b) => a + b + GAP, FIRST)}px`);
  const label = el("div", { role: "columnheader" }, state.q ? "match" : "commonest tokens");
  put(byId("heads"), head({ key: "id", label: "id", help: "Its number in the SAE" }), label, columns.map(columnOf).map(head));
  forgetRows();
  showRows();
}

/** Pixels of a column: its head fits, with the arrow of a sort. */
function columnWidth(key) {
  return TEXTUAL.has(key) ? NAMES : Math.max(NUMBERS, Math.min(112, 7 * columnOf(key).label.length + 14));
}

function head({ key, label, help }) {
  const sorted = state.sort.replace("-", "") === key;
  const down = state.sort.startsWith("-");
  const other = down ? key : `-${key}`;
  const first = key === "id" || TEXTUAL.has(key) ? key : `-${key}`;
  const named = button(label, () => change({ sort: sorted ? other : first }), { title: `${help}. Click to sort.` });
  const direction = sorted ? (down ? "descending" : "ascending") : null;
  return el("div", { role: "columnheader", class: TEXTUAL.has(key) ? null : "num", "aria-sort": direction }, named);
}

/** Make the rows that came into sight, drop those that left it, and mark the chosen ones. */
function showRows() {
  const list = byId("list");
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
  const last = Math.min(listed.places.length, first + Math.ceil(list.clientHeight / ROW) + 2 * SPARE);
  for (const [index, row] of inSight) {
    if (index >= first && index < last) continue;
    row.remove();
    inSight.delete(index);
  }
  let before = null;
  for (let index = first; index < last; index++) {
    const row = inSight.get(index) ?? listRow(index, listed.places[index]);
    if (!row.isConnected) before ? before.after(row) : byId("window").prepend(row);
    inSight.set(index, row);
    before = row;
  }
  inSight.forEach(markChosen);
}

function forgetRows() {
  inSight.clear();
  put(byId("window"));
}

function listRow(index, place) {
  const id = table.columns.id[place];
  const cell = (name, ...content) => el("span", { role: "gridcell", class: name }, content);
  const cells = columns.map((key) => cell(TEXTUAL.has(key) ? "cut" : "num", cellText(key, place)));
  const row = div(hasFlag(place, "dead") ? "row dead" : "row", cell("num id", String(id)), labelOf(place, cell), cells);
  fill(row, { role: "row", id: `row-${place}`, "aria-rowindex": index + 2, onclick: () => pick(id) }, []);
  row.style.top = `${index * ROW}px`;
  row.feature = id;
  return row;
}

/** Say on a row whether its feature is shown: alone, or as one of two. */
function markChosen(row) {
  const two = state.view === "compare";
  const chosen = row.feature === state.f ? (two ? "A" : "on") : two && row.feature === state.b ? "B" : null;
  row.setAttribute("aria-selected", String(chosen !== null));
  chosen === null ? row.removeAttribute("data-chosen") : row.setAttribute("data-chosen", chosen);
  if (row.feature === targetId()) byId("list").setAttribute("aria-activedescendant", row.id);
}

function labelOf(place, cell) {
  if (listed.met[place] === 3) {
    const [before, match, after] = snippet(state.q, place);
    return cell("label snippet", `\u2026${before}`, el("mark", {}, match), after);
  }
  const promoted = () => [span("faint", "promotes\u00a0"), chips(table.columns.up[place])];
  return cell("label", flagsOf(place, "1 token"), listed.met[place] === 2 ? promoted() : nameOf(place));
}

/** The flags of a feature as labels; `single` is what a feature of a single token is called. */
function flagsOf(place, single) {
  const names = { dead: "dead", dense: "dense", single };
  return Object.keys(FLAGS)
    .filter((flag) => hasFlag(place, flag))
    .map((flag) => span(`flag ${flag}`, names[flag]));
}

/** The feature that the list moves: the second one where two are compared. */
const targetId = () => (state.view === "compare" ? (state.b ?? state.f) : state.f);

function pick(id, how = "push") {
  if (state.view === "compare" && state.f !== null) change({ b: id }, how);
  else change({ f: id, view: how === "step" && state.view === "map" ? "map" : "feature" }, how);
}

/** Go to the next feature of the list, or the one before; to the first one when none of the list is shown. */
function step(by) {
  const n = listed.places.length;
  if (!n) return;
  const at = listed.places.indexOf(table.placeOf.get(targetId()) ?? -1);
  const next = at < 0 ? 0 : Math.max(0, Math.min(n - 1, at + by));
  pick(table.columns.id[listed.places[next]], "step");
}

/** Scroll the list so that the shown feature can be seen in it, if it is there. */
function reveal() {
  const list = byId("list");
  const index = listed.places.indexOf(table.placeOf.get(targetId()) ?? -1);
  const [above, room] = [index * ROW, list.clientHeight - 2 * ROW];
  const beyond = Math.max(list.scrollTop - above, above - list.scrollTop - room);
  if (index < 0 || beyond <= 0) return;
  if (beyond > 2 * ROW) list.scrollTop = above - room / 2;
  else list.scrollTop += above < list.scrollTop ? -beyond : beyond;
}

function startList() {
  byId("list").addEventListener("scroll", onFrame(showRows), { passive: true });
  new ResizeObserver(onFrame(showHeads)).observe(byId("list"));
}

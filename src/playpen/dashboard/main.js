// Start, and show what the state says.

const VIEW_NAMES = {
  "": [span("wide-only", "overview"), span("narrow-only", "list")],
  map: "map",
  compare: "compare",
  paste: "paste a text",
};

function show(wanted) {
  const before = state;
  state = wanted;
  render(before);
}

/** Bring the page in line with the state; `before` is the state that it shows now, or null for anything at all. */
function render(before) {
  const changed = (...keys) => before === null || keys.some((key) => String(before[key]) !== String(state[key]));
  document.body.dataset.view = state.view;
  if (changed("q", "filter", "sort")) showList();
  else if (changed("cols")) showHeads();
  if (changed("q", "filter", "sort", "cols")) keepOpen(showFilters);
  if (document.activeElement !== byId("search")) byId("search").value = state.q;
  if (changed("view", "f", "b")) moveTo();
  if (changed("view", "f", "b") || (state.view === "map" && changed("q", "filter", "colour"))) showDetail();
  else if (changed("tab", "whole", "by")) keepFocus(redrawExamples);
  readTexts();
}

/** Show in the list and in the bar where one is. */
function moveTo() {
  reveal();
  showRows();
  showViews();
  byId("detail").scrollTop = 0;
  hideTip();
}

function showDetail() {
  if (state.view === "map") return showMap();
  if (state.view === "paste") return showPaste();
  if (state.f === null) return showOverview();
  return state.view === "compare" ? showCompare(state.f, state.b) : showFeature(state.f);
}

const redrawExamples = () => document.querySelectorAll(".examples").forEach((box) => box.redraw());

/** Redraw without losing the focus. */
function keepFocus(act) {
  const { id } = document.activeElement;
  act();
  if (id) byId(id)?.focus({ preventScroll: true });
}

/** Redraw the menus without closing the one for columns, where one chooses several. */
function keepOpen(act) {
  const open = document.querySelector("details.menu:last-child")?.open;
  act();
  document.querySelector("details.menu:last-child").open = open ?? false;
}

function showViews() {
  const link = ([view, name]) => {
    const changes = view === "" ? { view, f: null, b: null } : { view };
    return stateLink(changes, { "aria-current": state.view === view ? "page" : null }, name);
  };
  const shown = Object.entries(VIEW_NAMES).filter(([view]) => view !== "compare" || state.f !== null);
  put(byId("views"), shown.map(link));
}

function goHome(event) {
  event.preventDefault();
  change(EMPTY);
}

async function start() {
  startTheme();
  try {
    await loadList();
  } catch (error) {
    put(byId("detail"), problem(error.message));
    return;
  }
  const about = [meta.sae.hook, `${number(table.size)} features`, `${number(meta.corpus.tokens)} tokens`];
  byId("about").textContent = about.join(" \u00b7 ");
  byId("home").onclick = goHome;
  makePresets();
  [startList, startTips, startKeys, startSearch].forEach((begin) => begin());
  state = readState();
  render(null);
  document.body.dataset.ready = "";
  await findServer();
  if (server && state.view === "paste") showPaste();
}

start();

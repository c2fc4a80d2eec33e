// Start, and show what the state says.

let listed = []; // the rows that the filters leave, the highest prediction first

function show(wanted) {
  const before = state;
  state = wanted;
  hideTip();
  render(before);
}

/** Bring the page in line with the state. */
function render(before = null) {
  document.body.dataset.view = state.row === null ? "" : "row";
  listed = findRows(state);
  keepFocus(() => {
    showControls();
    showCount(listed);
    showPlot(listed);
    if (state.row === null) showOverview();
    else if (before?.row !== state.row || before.by !== state.by) showRow(state.row);
  });
  if (before?.row !== state.row) byId("detail").scrollTop = 0;
}

/** Redraw without losing the focus. */
function keepFocus(act) {
  const { id } = document.activeElement;
  act();
  if (id) byId(id)?.focus({ preventScroll: true });
}

async function start() {
  startTheme();
  try {
    await loadAll();
  } catch (error) {
    put(byId("detail"), problem(error.message));
    return;
  }
  byId("about").textContent = `${number(meta.rows)} rows \u00b7 ${meta.explained.model} \u00b7 ${number(features.id.length)} ${meta.explained.of}`;
  byId("home").onclick = (event) => {
    event.preventDefault();
    change({ ...EMPTY, first: selectionNames()[0] ?? "", second: selectionNames()[1] ?? "" });
  };
  [startPlot, startTips, startKeys].forEach((begin) => begin());
  state = readState();
  render();
  document.body.dataset.ready = "";
}

start();

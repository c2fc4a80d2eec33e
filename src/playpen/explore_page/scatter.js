// Predicted against true score: a point a row, coloured by source. A click opens a row, a drag keeps a range of predictions.

const PALETTE = ["--accent", "--warm", "--green", "--violet", "--rose", "--gold", "--teal", "--brown"];
const REACH = 14; // pixels from a point within which it is meant
const EDGE = { left: 46, right: 12, top: 12, bottom: 34 }; // room for the axes
let plot = null; // {canvas, listed, hovered, drag} of the plot that is shown

const sourceColour = (name) => colour(PALETTE[Math.max(0, meta.sources.findIndex(([other]) => other === name)) % PALETTE.length]);

/** What stands upwards: the true score or, where there is none, the length. */
const upward = () => (rows.true ? { label: `true score (${meta.true})`, values: rows.true } : { label: "tokens, log scale", values: logLengths() });
const logLengths = () => (rows.logLength ??= rows.num_tokens.map((n) => Math.log10(Math.max(1, n))));
const upText = (value) => (rows.true ? plain(value) : Number.isInteger(value) ? number(10 ** value) : "");

function startPlot() {
  const label = "Predicted log-odds against the true score; click a point to open its row, drag to keep a range of predictions";
  const canvas = el("canvas", { role: "img", "aria-label": label });
  plot = { canvas, listed: [], hovered: -1, drag: null };
  put(byId("plot"), canvas);
  listenToPlot(canvas);
  new ResizeObserver(onFrame(drawPlot)).observe(byId("plot"));
  document.addEventListener("repaint", drawPlot);
}

function showPlot(listed) {
  plot.listed = listed;
  drawPlot();
  showLegend();
}

/** The ends of the values, with a little room. */
function reachOf(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
  const room = (high - low || 1) * 0.03;
  return [low - room, high + room];
}

/** The scales of the plot as it is now. */
function plotScales() {
  const { clientWidth: width, clientHeight: height } = byId("plot");
  const [inside, tall] = [width - EDGE.left - EDGE.right, height - EDGE.top - EDGE.bottom];
  plot.ends ??= { x: reachOf(rows.predicted), y: reachOf(upward().values) };
  const { x: [x0, x1], y: [y0, y1] } = plot.ends;
  return {
    width,
    height,
    x: (value) => EDGE.left + ((value - x0) / (x1 - x0)) * inside,
    y: (value) => EDGE.top + tall - ((value - y0) / (y1 - y0)) * tall,
    back: (pixel) => x0 + ((pixel - EDGE.left) / inside) * (x1 - x0),
    xMarks: ticks(x0, x1, 7),
    yMarks: ticks(y0, y1, 6),
  };
}

function drawPlot() {
  if (!plot || !byId("plot").clientWidth || !rows) return;
  const at = plotScales();
  const ratio = devicePixelRatio || 1;
  plot.canvas.width = at.width * ratio;
  plot.canvas.height = at.height * ratio;
  const pen = plot.canvas.getContext("2d");
  pen.scale(ratio, ratio);
  drawAxes(pen, at);
  const lit = new Set(plot.listed);
  const faint = rows.row_id.map((_, row) => row).filter((row) => !lit.has(row));
  drawPoints(pen, at, faint, 0.1);
  drawPoints(pen, at, plot.listed, 0.8);
  for (const row of new Set([rows.row_id.indexOf(state.row), plot.hovered])) if (row >= 0) ringAround(pen, at, row);
  if (plot.drag?.moved) drawRange(pen, at);
}

function drawAxes(pen, at) {
  const [hair, muted] = [colour("--hair"), colour("--muted")];
  const base = at.height - EDGE.bottom;
  pen.font = `10.5px ${getComputedStyle(document.body).fontFamily}`;
  pen.strokeStyle = hair;
  pen.fillStyle = muted;
  pen.beginPath();
  for (const value of at.xMarks) {
    pen.moveTo(at.x(value), EDGE.top);
    pen.lineTo(at.x(value), base);
  }
  for (const value of at.yMarks) {
    pen.moveTo(EDGE.left, at.y(value));
    pen.lineTo(at.width - EDGE.right, at.y(value));
  }
  pen.stroke();
  pen.textAlign = "center";
  for (const value of at.xMarks) pen.fillText(plain(value), at.x(value), base + 14);
  pen.fillText("predicted log-odds", (EDGE.left + at.width) / 2, at.height - 6);
  pen.textAlign = "right";
  for (const value of at.yMarks) pen.fillText(upText(value), EDGE.left - 5, at.y(value) + 3.5);
  pen.textAlign = "left";
  pen.fillText(upward().label, EDGE.left + 4, EDGE.top + 8);
}

/** Draw rows by source; those that the first selection keeps are larger. */
function drawPoints(pen, at, some, alpha) {
  const { values } = upward();
  pen.globalAlpha = alpha;
  for (const [name] of meta.sources) {
    pen.fillStyle = sourceColour(name);
    pen.beginPath();
    for (const row of some) {
      if (rows.source[row] !== name) continue;
      const size = keptBy(state.first, row) ? 3.4 : 1.9;
      const [x, y] = [at.x(rows.predicted[row]), at.y(values[row])];
      pen.moveTo(x + size, y);
      pen.arc(x, y, size, 0, 2 * Math.PI);
    }
    pen.fill();
  }
  pen.globalAlpha = 1;
}

function ringAround(pen, at, row) {
  pen.strokeStyle = colour("--ink");
  pen.lineWidth = 2;
  pen.beginPath();
  pen.arc(at.x(rows.predicted[row]), at.y(upward().values[row]), 6.5, 0, 2 * Math.PI);
  pen.stroke();
}

function drawRange(pen, at) {
  const [from, to] = [plot.drag.x, plot.drag.to].sort((a, b) => a - b);
  pen.fillStyle = colour("--accent");
  pen.globalAlpha = 0.14;
  pen.fillRect(from, EDGE.top, to - from, at.height - EDGE.top - EDGE.bottom);
  pen.globalAlpha = 1;
}

/** The listed row nearest to a spot, or -1 when none is within reach; of equals, one that is laid out. */
function nearestRow(x, y) {
  const at = plotScales();
  const { values } = upward();
  let [found, least] = [-1, REACH ** 2];
  for (const row of plot.listed) {
    const distance = (at.x(rows.predicted[row]) - x) ** 2 + (at.y(values[row]) - y) ** 2 + (rows.shown[row] ? 0 : 9);
    if (distance < least) [found, least] = [row, distance];
  }
  return found;
}

function listenToPlot(canvas) {
  const on = (name, act) => canvas.addEventListener(name, act);
  on("pointerdown", (event) => {
    plot.drag = { x: event.offsetX, to: event.offsetX, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  on("pointermove", (event) => (plot.drag ? dragTo(event.offsetX) : hoverAt(event)));
  on("pointerup", endDrag);
  on("pointerleave", () => {
    plot.hovered = -1;
    hideTip();
    drawPlot();
  });
}

function dragTo(x) {
  plot.drag.to = x;
  plot.drag.moved ||= Math.abs(x - plot.drag.x) > 5;
  drawPlot();
}

function endDrag({ offsetX, offsetY }) {
  const { drag } = plot;
  plot.drag = null;
  if (!drag) return;
  if (!drag.moved) {
    const row = nearestRow(offsetX, offsetY);
    if (row >= 0) change({ row: rows.row_id[row], by: null });
    return;
  }
  const [low, high] = [drag.x, offsetX].sort((a, b) => a - b).map((pixel) => Number(plotScales().back(pixel).toFixed(3)));
  change({ low, high });
}

const redrawPlot = onFrame(drawPlot);

function hoverAt({ offsetX, offsetY }) {
  const row = nearestRow(offsetX, offsetY);
  if (row !== plot.hovered) {
    plot.hovered = row;
    redrawPlot();
  }
  if (row < 0) return hideTip();
  const at = plotScales();
  const box = plot.canvas.getBoundingClientRect();
  const [left, top] = [box.left + at.x(rows.predicted[row]) + 10, box.top + at.y(upward().values[row])];
  return showTip(rowTip(row), { left, top: top - 8, bottom: top + 8 });
}

function rowTip(row) {
  const kept = selectionNames().filter((name) => keptBy(name, row));
  const facts = [
    ["predicted", `${chance(rows.predicted[row])}, log-odds ${number(rows.predicted[row], 2, true)}`],
    rows.true ? ["true score", short(rows.true[row])] : null,
    ["tokens", number(rows.num_tokens[row])],
    rows.fault ? ["fault", rows.fault[row]] : null,
    ["kept by", kept.join(", ") || "none"],
    rows.shown[row] ? null : ["", "not laid out token by token"],
  ];
  return [p("tip-head", el("b", {}, rows.source[row])), pairs("", facts.filter(Boolean))];
}

/** The sources with their colours; a click keeps one alone. */
function showLegend() {
  const part = ([name, n]) => {
    const on = state.source === name;
    const dot = el("i", { class: "dot", "--dot": `var(${PALETTE[meta.sources.findIndex(([other]) => other === name) % PALETTE.length]})` });
    return button([dot, `${name} ${number(n)}`], () => change({ source: on ? "" : name }), { "aria-pressed": String(on), class: on ? "here" : null });
  };
  const large = state.first ? span("faint", `large: kept by ${state.first}`) : null;
  put(byId("legend"), meta.sources.map(part), large);
}

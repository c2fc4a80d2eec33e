// The map of decoder directions: a point a feature, coloured by a statistic; what the list leaves out is faint.

const camera = { x: 0.5, y: 0.5, zoom: 1 };
const REACH = 14; // pixels from a point within which it is meant
let map = null; // {canvas, points, box, groups, ink, hovered, listed} of the map that is shown

const onMap = (place) => place !== undefined && table.columns.x[place] !== null; // a dead feature may have no place

function showMap() {
  turn += 1;
  const known = mapColours();
  const chosen = known.includes(state.colour) ? state.colour : known[0];
  const canvas = el("canvas", { tabindex: 0, role: "img", "aria-label": MAP_HELP });
  const box = div("map", canvas, zoomButtons());
  const groups = groupsOf(chosen);
  map = {
    canvas,
    box,
    groups,
    points: document.createElement("canvas"),
    ink: colour("--ink"),
    hovered: -1,
    listed: new Set(listed.places),
  };
  const head = viewHead(el("h2", {}, "Map of decoder directions"), el("label", {}, "colour ", colourSelect(known, chosen)));
  put(byId("detail"), head, legend(groups), box, p("note", mapNote()));
  listen(canvas);
  new ResizeObserver(redraw).observe(box);
}

const MAP_HELP = "Map of decoder directions: drag to move, wheel or + and - to zoom, click to open a feature";

function colourSelect(known, chosen) {
  const option = (key) => el("option", { value: key, selected: key === chosen }, columnOf(key)?.label ?? key);
  const choose = (event) => change({ colour: event.target.value }, "replace");
  return el("select", { "aria-label": "Colour", onchange: choose }, known.map(option));
}

function zoomButtons() {
  const zoom = (text, factor, label) => button(text, () => zoomBy(factor), { "aria-label": label });
  return div("zoom", zoom("+", 1.6, "Zoom in"), zoom(MINUS, 1 / 1.6, "Zoom out"), button("all", resetMap, { title: "Show all" }));
}

function mapNote() {
  const missing = table.columns.x.filter((x) => x === null).length;
  const without = missing ? ` ${number(missing)} have no place.` : "";
  return `Near each other: decoder directions that point alike. Faint: features that the list leaves out.${without}`;
}

/** The square that the map is drawn in: the size of the canvas, and the side of the square after zooming. */
function frame() {
  const { clientWidth: width, clientHeight: height } = map.box;
  return { width, height, side: Math.min(width, height) * 0.94 * camera.zoom };
}

function spot(place, { width, height, side }) {
  const { x, y } = table.columns;
  return [width / 2 + (x[place] - camera.x) * side, height / 2 + (y[place] - camera.y) * side];
}

const pointSize = () => Math.max(1.2, Math.min(7, 46 / Math.sqrt(table.size) + 1.2)) * Math.min(camera.zoom, 9) ** 0.4;

/** A canvas made as large as the map, and its pen in pixels of the window. */
function freshPen(canvas, { width, height }) {
  const ratio = devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  return pen;
}

/** Draw all points, out of sight: they are the same until the camera moves. */
function drawPoints() {
  const at = frame();
  const pen = freshPen(map.points, at);
  const all = map.listed.size === table.size;
  for (const lit of all ? [true] : [false, true]) {
    pen.globalAlpha = lit ? 0.85 : 0.2;
    for (const group of map.groups.parts) drawGroup(pen, group, at, (place) => map.listed.has(place) === lit);
  }
}

function drawGroup(pen, group, at, wanted) {
  const size = pointSize();
  pen.fillStyle = group.colour;
  pen.beginPath();
  for (const place of group.places) {
    if (!wanted(place)) continue;
    const [x, y] = spot(place, at);
    if (x < -size || y < -size || x > at.width + size || y > at.height + size) continue;
    pen.moveTo(x + size, y);
    pen.arc(x, y, size, 0, 2 * Math.PI);
  }
  pen.fill();
}

/** Put the points on the map, and rings around those that are chosen or pointed at. */
function drawMap() {
  if (!map?.canvas.isConnected || !map.points.width) return;
  const at = frame();
  const pen = freshPen(map.canvas, at);
  pen.drawImage(map.points, 0, 0, at.width, at.height);
  const chosen = [state.f, state.b].map((id) => table.placeOf.get(id)).filter(onMap);
  for (const place of chosen) ring(pen, spot(place, at), pointSize() + 4, 2);
  if (map.hovered >= 0) ring(pen, spot(map.hovered, at), pointSize() + 3, 1.5);
}

function ring(pen, [x, y], size, width) {
  pen.strokeStyle = map.ink;
  pen.lineWidth = width;
  pen.beginPath();
  pen.arc(x, y, size, 0, 2 * Math.PI);
  pen.stroke();
}

const redrawRings = onFrame(drawMap);
const redraw = onFrame(() => {
  if (!map.canvas.isConnected || !map.box.clientWidth) return;
  drawPoints();
  drawMap();
});

/** The place of the feature nearest to a spot of the canvas, or -1 when none is within reach; listed ones come first. */
function nearest(x, y) {
  const at = frame();
  let [found, least] = [-1, REACH ** 2];
  for (let place = 0; place < table.size; place++) {
    if (!onMap(place)) continue;
    const [px, py] = spot(place, at);
    const distance = (px - x) ** 2 + (py - y) ** 2 + (map.listed.has(place) ? 0 : 40);
    if (distance < least) [found, least] = [place, distance];
  }
  return found;
}

function zoomBy(factor, x = map.box.clientWidth / 2, y = map.box.clientHeight / 2) {
  const { width, height, side } = frame();
  const zoom = Math.max(1, Math.min(60, camera.zoom * factor));
  // What is under the pointer stays there.
  camera.x += ((x - width / 2) / side) * (1 - camera.zoom / zoom);
  camera.y += ((y - height / 2) / side) * (1 - camera.zoom / zoom);
  camera.zoom = zoom;
  redraw();
}

function resetMap() {
  Object.assign(camera, { x: 0.5, y: 0.5, zoom: 1 });
  redraw();
}

function listen(canvas) {
  let drag = null;
  const on = (name, act, options) => canvas.addEventListener(name, act, options);
  on("pointerdown", (event) => {
    drag = { x: event.clientX, y: event.clientY, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  on("pointermove", (event) => (drag ? pan(drag, event) : hover(event)));
  on("pointerup", (event) => {
    if (drag && !drag.moved) openNearest(event);
    drag = null;
  });
  on("pointerleave", () => leaveMap());
  on("wheel", onWheel, { passive: false });
  on("keydown", ({ key }) =>
    ({ "+": () => zoomBy(1.6), "=": () => zoomBy(1.6), "-": () => zoomBy(1 / 1.6), 0: resetMap })[key]?.(),
  );
}

function onWheel(event) {
  event.preventDefault();
  zoomBy(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
}

function openNearest({ offsetX, offsetY }) {
  const place = nearest(offsetX, offsetY);
  if (place >= 0) change({ f: table.columns.id[place], view: "feature" });
}

function leaveMap() {
  map.hovered = -1;
  hideTip();
  redrawRings();
}

function pan(drag, { clientX, clientY }) {
  const { side } = frame();
  const [dx, dy] = [clientX - drag.x, clientY - drag.y];
  if (!drag.moved && Math.hypot(dx, dy) < 4) return;
  camera.x -= dx / side;
  camera.y -= dy / side;
  Object.assign(drag, { x: clientX, y: clientY, moved: true });
  redraw();
}

function hover({ offsetX, offsetY }) {
  const place = nearest(offsetX, offsetY);
  map.hovered = place;
  map.canvas.style.cursor = place < 0 ? "grab" : "pointer";
  redrawRings();
  if (place < 0) return hideTip();
  const [x, y] = spot(place, frame());
  const box = map.canvas.getBoundingClientRect();
  const [left, top] = [box.left + x + 10, box.top + y];
  return showTip(pointTip(place), { left, top: top - 8, bottom: top + 8 });
}

function pointTip(place) {
  const keys = [...new Set([map.groups.key, "density", "auroc"])].filter((key) => columnOf(key) && has(key));
  const rows = keys.map((key) => [columnOf(key).label, cellText(key, place)]);
  return [p("tip-head", el("b", {}, `#${table.columns.id[place]} `), nameOf(place)), pairs("", rows)];
}

document.addEventListener("repaint", () => map && state.view === "map" && showMap());

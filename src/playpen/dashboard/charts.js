// Small pictures as inline SVG: bars over bins, with axes that read.

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BASE] = [216, 104, 32, 208, 8, 84]; // of the picture, and of the plot inside it

/** Round numbers, about `count` of them, that lie in low to high. */
function ticks(low, high, count) {
  const raw = (high - low || 1) / count;
  const size = 10 ** Math.floor(Math.log10(raw));
  const unit = size * [1, 2, 5, 10].find((each) => size * each >= raw);
  const first = Math.ceil(low / unit - 1e-9);
  const last = Math.floor(high / unit + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * unit);
}

/** Powers of ten in low to high (both are logarithms), five at the most. */
function powers(low, high) {
  const all = ticks(low, high, high - low || 1).filter(Number.isInteger);
  return all.filter((_, i) => i % Math.ceil(all.length / 5) === 0).map((power) => 10 ** power);
}

/** A scale from values to pixels; the least value of a logarithmic one is a little above its start, so that it is seen. */
function upScale(heights, log, top) {
  const least = Math.min(...heights.filter((height) => height > 0));
  const most = top ?? Math.max(...heights);
  const on = (value) => (log ? Math.log10(value) : value);
  const low = log ? on(least) - 0.3 : 0;
  const high = log ? Math.max(low + 1, on(most)) : most;
  const y = (value) => (value > 0 ? Math.min(BASE, BASE - (BASE - TOP) * ((on(value) - low) / (high - low))) : BASE);
  return { y, marks: log ? powers(low, high) : ticks(0, high, 3) };
}

/** A scale along the bins; `spaced` gives each the same width, whatever its edges. */
function alongScale(edges, spaced, domain) {
  const [low, high] = domain ?? [edges[0], edges.at(-1)];
  const at = (share) => LEFT + (RIGHT - LEFT) * share;
  if (!spaced) {
    const x = (value) => at((value - low) / (high - low || 1));
    return { x, edge: (i) => x(edges[i]), marks: ticks(low, high, 4).map((value) => [value, x(value)]) };
  }
  const edge = (i) => at(i / (edges.length - 1));
  const every = Math.ceil(edges.length / 9);
  return { x: null, edge, marks: edges.map((value, i) => [value, edge(i)]).filter((_, i) => i % every === 0) };
}

/**
 * Bars of `heights` between `edges`. `tip(i)` is what is said of a bar; `log` draws the heights by logarithm; `spaced` gives
 * each bin the same width; `mark` is a value to mark along the bins; `top` and `domain` widen the scales to share them.
 */
function bars({ edges, heights: given, title, tip, log, spaced, xText = plain, yText = plain, mark = null, top, domain }) {
  const heights = given.map((height) => height ?? 0); // null: nothing was counted in that bin
  if (!heights.some((height) => height > 0)) return p("none", "Nothing to draw: it is never active here.");
  const up = upScale(heights, log, top);
  const along = alongScale(edges, spaced, domain);
  return svg(
    "svg",
    { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title },
    up.marks.map((value) => acrossLine(up.y(value), yText(value))),
    heights.map((height, i) => bar(along.edge(i), along.edge(i + 1), up.y(height), tip(i))),
    mark === null ? null : svg("path", { class: "mark", d: `M${along.x(mark)} ${TOP - 4}V${BASE}` }),
    svg("path", { class: "axis", d: `M${LEFT} ${BASE}H${RIGHT}` }),
    along.marks.map(([value, x]) => svg("text", { class: "tick", x, y: HEIGHT - 6, "text-anchor": "middle" }, xText(value))),
  );
}

function acrossLine(y, text) {
  const label = svg("text", { class: "tick", x: LEFT - 5, y: y + 3, "text-anchor": "end" }, text);
  return [svg("path", { class: "hair", d: `M${LEFT} ${y}H${RIGHT}` }), label];
}

/** A bar, and over its whole height what catches the pointer. */
function bar(left, right, y, tip) {
  const height = y < BASE ? Math.max(1.2, BASE - y) : 0;
  const width = Math.max(0.5, right - left - 0.7);
  return [
    svg("rect", { class: "bar", x: left, y: BASE - height, width, height }),
    svg("rect", { class: "catch", x: left, y: TOP, width: right - left, height: BASE - TOP, "data-tip": tip }),
  ];
}

/** Count values in `bins` equal bins from low to high: {edges, heights}. */
function binned(values, bins, low, high) {
  const heights = new Array(bins).fill(0);
  const width = (high - low) / bins || 1;
  for (const value of values) {
    if (value >= low && value <= high) heights[Math.min(bins - 1, Math.floor((value - low) / width))]++;
  }
  return { edges: Array.from({ length: bins + 1 }, (_, i) => low + i * width), heights };
}

/** A thin bar below a number, for its share of the greatest one. */
function meter(share, kind = "") {
  return fill(span(`meter ${kind}`), { "--share": shareOf(Math.abs(share), 1).toFixed(3) }, []);
}

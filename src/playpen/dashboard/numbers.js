// The statistics of a feature: each with where it stands among all features, and one sentence that says what they mean.

const BINS = 32;
const shapes = new Map(); // key -> how the values of all features are spread

/** How a statistic is spread over the features that are not dead: sorted values, bins, and whether by logarithm. */
function shapeOf(key) {
  if (shapes.has(key)) return shapes.get(key);
  const alive = table.columns[key].filter((value, place) => value !== null && !hasFlag(place, "dead"));
  const sorted = Float64Array.from(alive).sort();
  const least = sorted.find((value) => value > 0);
  const log = sorted[0] >= 0 && sorted.at(-1) / least > 60;
  const on = (value) => (log ? Math.log10(Math.max(value, least)) : value);
  const [low, high] = sorted.length ? [on(sorted[0]), on(sorted.at(-1))] : [0, 1];
  const shape = { sorted, log, on, low, high, ...binned(Array.from(sorted, on), BINS, low, high) };
  shapes.set(key, shape);
  return shape;
}

/** The share of features that have a lower value. */
function rankOf(key, value) {
  const { sorted } = shapeOf(key);
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return sorted.length ? low / sorted.length : 0;
}

/** A strip that shows how all features are spread, and where one or two of them stand. */
function strip(key, values) {
  const { heights, on, low, high } = shapeOf(key);
  const most = Math.max(...heights, 1);
  const width = 100 / BINS;
  // The root makes the rare ends of a spread visible beside its bulk.
  const bump = (n, i) => `M${i * width} 16v${(-15 * Math.sqrt(n / most)).toFixed(2)}h${width * 0.86}V16z`;
  const at = (value) => Math.max(0, Math.min(98.6, (100 * (on(value) - low)) / (high - low || 1) - 0.7));
  const mark = (value, i) =>
    value !== null && svg("rect", { class: `here ${"AB"[i]}`, x: at(value), y: 0, width: 1.4, height: 17 });
  const set = { class: "strip", viewBox: "0 0 100 17", preserveAspectRatio: "none", "aria-hidden": "true" };
  return svg("svg", set, svg("path", { d: heights.map(bump).join("") }), values.map(mark));
}

/** Tiles of every statistic of a feature, or of two; a click sorts the list by it. */
function tiles(...places) {
  const shown = meta.columns.filter(({ key }) => has(key) && !TEXTUAL.has(key));
  return div(
    places.length > 1 ? "tiles two" : "tiles",
    shown.map((column) => tile(column, places)),
  );
}

function tile({ key, label, help, format: kind }, places) {
  const values = places.map((place) => table.columns[key][place]);
  const alone = values.length === 1 && values[0] !== null;
  const rank = alone ? ` Higher than ${percent(rankOf(key, values[0]))} of the features that are not dead.` : "";
  const texts = values.map((value, i) => span(`num ${"AB"[i]}`, format(kind, value)));
  const sort = () => change({ sort: `-${key}`, q: "", filter: [] });
  const title = `${help}.${rank} Click to sort all features by it.`;
  return button([span("what", label), texts, strip(key, values)], sort, { class: "tile", title });
}

/** What the numbers of a feature say, as a sentence. */
function sentence(place) {
  const get = (key) => table.columns[key]?.[place] ?? null;
  if (hasFlag(place, "dead")) {
    const seen = `Never active on the ${number(meta.corpus.tokens)} tokens that were seen`;
    return p("sentence", `${seen}: what is left are its decoder direction and what came nearest.`);
  }
  const where = `Active on ${oneIn(get("density"))} tokens and in ${roughly(get("documents"))} of documents`;
  return p("sentence", where, mostlyOn(get), contrast(get), bestCategory(get));
}

function mostlyOn(get) {
  const share = get("token_share");
  const first = get("tokens")[0];
  if (first === undefined) return ". ";
  return [share >= 0.5 ? ", mostly on " : ", most often on ", chip(first), ` (${roughly(share)}). `];
}

function contrast(get) {
  const [odds, auroc] = [get("log_odds"), get("auroc")];
  if (odds === null) return null;
  const times = short(Math.exp(Math.abs(odds)));
  const never = get("control") === 0 ? "control" : get("prompts") === 0 ? "prompts" : null;
  const compared =
    Math.abs(odds) < 0.1
      ? "Prompts and control switch it on alike"
      : `Its odds are ${times} times ${odds > 0 ? "higher" : "lower"} in prompts than in control`;
  const told = auroc === null ? "" : `; its maximum in a document tells the two apart with AUROC ${number(auroc, 2)}`;
  return `${never ? `It is never active on ${never}` : compared}${told}. `;
}

function bestCategory(get) {
  const [category, auroc] = [get("category"), get("category_auroc")];
  if (category === null || auroc === null || auroc < 0.6) return null; // near 0.5 it tells none
  return `Of the categories it tells \u201c${partName("category", category)}\u201d best (AUROC ${number(auroc, 2)}).`;
}

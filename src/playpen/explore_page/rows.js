// The rows and the features that moved them, as the data files hold them.

let meta = null;
let rows = null; // {row_id: [...], source: [...], ...}: a column an array; the rows laid out token by token come first
const features = { places: new Map() }; // the columns of features.js, and id -> its place in them

receive("meta", () => "meta.js");
receive("list", () => "list.js");
receive("features", () => "features.js");
receive("shard", shardFile);

async function loadAll() {
  meta = await load("meta.js");
  if (meta.format !== 1) throw new Error(`the data is of format ${meta.format}, but this page reads format 1; make it again`);
  [rows] = await Promise.all([loadPacked("list.js"), loadFeatures()]);
}

async function loadFeatures() {
  Object.assign(features, await loadPacked("features.js"));
  features.id.forEach((id, place) => features.places.set(id, place));
}

/** Promise the chat of a row that was laid out. */
async function loadChat(row) {
  const shard = await loadShard(Math.floor(row / meta.shard_rows));
  return shard[row % meta.shard_rows];
}

const selectionNames = () => Object.keys(meta.selections);
const probability = (odds) => 1 / (1 + Math.exp(-odds));

/** A probability as a percentage; what is not certain is never shown as certain. */
function chance(odds) {
  const share = probability(odds);
  return share > 0.999 ? "over 99.9%" : percent(share);
}

const keptBy = (name, row) => Boolean(rows.kept[name]?.[row]);

/** Which of two selections keep a row: both, first, second or neither. */
function partOf(row, first, second) {
  const [a, b] = [keptBy(first, row), keptBy(second, row)];
  return a && b ? "both" : a ? "first" : b ? "second" : "neither";
}

/** The rows that a state lists, the highest prediction first. */
function findRows(wanted) {
  const moved = wanted.feature === null ? null : new Set(features.rows[features.places.get(wanted.feature)] ?? []);
  const fits = (row) =>
    (!wanted.source || rows.source[row] === wanted.source) &&
    (!wanted.fault || rows.fault?.[row] === wanted.fault) &&
    (wanted.low === null || rows.predicted[row] >= wanted.low) &&
    (wanted.high === null || rows.predicted[row] <= wanted.high) &&
    (!moved || moved.has(row)) &&
    (!wanted.part || partOf(row, wanted.first, wanted.second) === wanted.part);
  const found = rows.row_id.map((_, row) => row).filter(fits);
  return found.sort((a, b) => rows.predicted[b] - rows.predicted[a] || a - b);
}

/** What a feature is called: its tokens. */
function featureName(place) {
  const tokens = features.tokens[place];
  return tokens.length ? chips(tokens) : [span("faint", "no token shown")];
}

/** A feature's id as the SAE has it; of prompt and answer apart, with its part. */
function featureId(place) {
  if (features.sae[place] < 0) return "statistic";
  const parts = new Set(features.part);
  return `#${features.sae[place]}${parts.size > 1 ? ` ${features.part[place]}` : ""}`;
}

function featureLinks(place) {
  const out = (href, text) => href && el("a", { class: "quiet out", href, target: "_blank", rel: "noopener" }, text);
  return [out(features.dashboard[place], "dashboard"), out(features.neuronpedia[place], "Neuronpedia")];
}

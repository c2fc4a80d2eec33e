// What is shown before a feature is chosen: the dictionary as a whole.

const SPREADS = ["density", "auroc", "log_odds", "max", "token_share", "lift"]; // the first four that are there are drawn

function showOverview() {
  turn += 1;
  const spreads = SPREADS.filter((key) => has(key) && columnOf(key)).slice(0, 4);
  put(
    byId("detail"),
    viewHead(el("h2", {}, meta.title)),
    p("sentence", overviewSentence()),
    div("pictures", spreads.map(spreadPanel)),
    div("columns even", sourcesPanel(), categoriesPanel()),
    panel("What was looked at", null, factsList(lookedAt())),
    panel("The SAE's own numbers", null, metricsList(meta.sae.metrics ?? {})),
  );
}

function lookedAt() {
  const { sae, corpus } = meta;
  return [
    ["hook", el("code", {}, sae.hook)],
    ["SAE", `${sae.architecture}, ${number(sae.d_in)} to ${number(sae.d_sae)}`],
    ["model", meta.model],
    ["tokens", number(corpus.tokens)],
    ["documents", number(corpus.documents)],
    ["fingerprint", el("code", {}, sae.fingerprint)],
  ];
}

function overviewSentence() {
  const some = (flag, words, sort) => {
    const n = table.columns.flags.filter((flags) => flags & FLAGS[flag]).length;
    return n ? stateLink({ filter: [flag], sort, q: "" }, {}, `${number(n)} ${words}`) : `none ${words}`;
  };
  const flags = [
    some("dead", "dead", "id"),
    ", ",
    some("dense", "dense", "-density"),
    ", ",
    some("single", "on a single token", "-density"),
  ];
  return [`${number(table.size)} features: `, flags, ". ", has("auroc") ? tellingSentence() : null];
}

function tellingSentence() {
  const n = table.columns.auroc.filter((value) => value > 0.9).length;
  const link = stateLink({ sort: "-auroc", filter: ["auroc > 0.9"], q: "" }, {}, n === 1 ? "1 tells" : `${number(n)} tell`);
  return [link, " prompts from control with an AUROC above 0.9. ", lengthSentence()];
}

/** A maximum grows with the tokens that it is taken over: what length alone reaches is what an AUROC has to beat. */
function lengthSentence() {
  const auroc = meta.length_auroc;
  if (auroc === null) return null;
  const told = `The length of a document alone tells them apart with AUROC ${number(auroc, 2)}`;
  return `${told}, and a longer one has more chances of a high maximum: that is the figure to beat.`;
}

function factsList(rows) {
  const row = ([name, value]) => div("", el("dt", {}, name), el("dd", {}, value));
  return el("dl", { class: "facts-list" }, rows.map(row));
}

function metricsList(metrics) {
  const rows = Object.entries(metrics).filter(([, value]) => typeof value === "number");
  const text = (value) => (Number.isInteger(value) ? number(value) : short(value));
  if (!rows.length) return p("none", "It brought none.");
  return factsList(rows.map(([name, value]) => [name.replaceAll("_", " "), text(value)]));
}

/** How a statistic is spread over all features. */
function spreadPanel(key) {
  const { label, format: kind } = columnOf(key);
  const { heights, edges, log } = shapeOf(key);
  const text = (value) => format(kind, log ? 10 ** value : value);
  const tip = (i) => `${label} ${text(edges[i])} to ${text(edges[i + 1])}: ${number(heights[i])} features`;
  const linear = (value) => (kind === "percent" ? `${plain(100 * value)}%` : plain(value));
  const xText = (value) => (log ? (Number.isInteger(value) ? linear(10 ** value) : "") : linear(value));
  return panel(label, "features", bars({ edges, heights, title: `${label} of all features`, tip, xText }));
}

/** A link to the features that are most a source's or a category's own. */
function ownLink(kind, { name, side }) {
  const changes = { filter: ["!dead", `${kind} = ${name}`], sort: kind === "source" ? "-lift" : "-category_auroc", q: "" };
  return stateLink(changes, { class: `part ${side || "neutral"}` }, name);
}

const OWN = "click for the features that are most its own";
const LENGTH = "#AUROC of length";

function lengthCell({ length_auroc: auroc }) {
  return auroc === null ? DASH : number(auroc, 3);
}

function sourcesPanel() {
  const row = (part) => [ownLink("source", part), part.side, number(part.documents), number(part.tokens), lengthCell(part)];
  if (!meta.sources.length) return null;
  return panel("Sources", OWN, grid(["source", "side", "#documents", "#tokens", LENGTH], meta.sources.map(row), "Sources"));
}

function categoriesPanel() {
  const row = (part) => [ownLink("category", part), number(part.documents), number(part.tokens), lengthCell(part)];
  if (!meta.categories.length) return null;
  return panel("Categories", OWN, grid(["category", "#documents", "#tokens", LENGTH], meta.categories.map(row), "Categories"));
}

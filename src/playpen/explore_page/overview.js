// What is shown before a row is chosen: what two selections pick, and which features part kept rows from rejected ones.

function showOverview() {
  turn += 1;
  const { first, second } = state;
  const both = first && second && first !== second ? pairOf(first, second) : null;
  put(byId("detail"), viewHead(el("h2", {}, meta.title)), p("sentence", overviewSentence()), both && pairPanels(both), keptPanel());
}

function overviewSentence() {
  const { kept, kept_auroc: auroc, kept_log_odds: high, rejected_log_odds: low } = meta.explained;
  const told = auroc >= 0.999 ? "cut by these predictions" : auroc > 0.7 ? "largely told by these predictions" : auroc > 0.55 ? "told a little by these predictions" : "not told by these predictions: something else made it";
  return `${number(kept)} of ${number(meta.rows)} rows were kept. The selection explained is ${told} (AUROC ${number(auroc, 3)}); the mean log-odds are ${number(high, 2, true)} where kept and ${number(low, 2, true)} where not.`;
}

/** Two selections as the data have them, in the order asked for. */
function pairOf(first, second) {
  const straight = meta.pairs.find((pair) => pair.first === first && pair.second === second);
  if (straight) return straight;
  const turned = meta.pairs.find((pair) => pair.first === second && pair.second === first);
  const { both, neither, first: a, second: b } = turned.parts;
  return { first, second, parts: { both, neither, first: b, second: a }, features: turned.features.map(([id, x, y]) => [id, y, x]) };
}

function pairPanels(pair) {
  const shared = pair.parts.both.rows;
  const either = shared + pair.parts.first.rows + pair.parts.second.rows;
  const note = `${percent(either ? shared / either : 0)} of what either keeps`;
  return [panel(`${pair.first} against ${pair.second}`, note, partsTable(pair)), panel("Sources", "rows of each part", sourcesTable(pair)), differPanel(pair)];
}

const partLabel = (pair, part) => ({ both: "both", first: `${pair.first} alone`, second: `${pair.second} alone`, neither: "neither" })[part];

function partsTable(pair) {
  const some = (value, digits) => (value === null ? DASH : number(value, digits, true));
  const line = (part) => {
    const { rows: n, tokens, log_odds: odds, true: score } = pair.parts[part];
    const link = stateLink({ part: state.part === part ? "" : part }, { "aria-pressed": String(state.part === part), class: "here" }, partLabel(pair, part));
    return [link, number(n), number(tokens), some(odds, 2), ...(meta.true ? [score === null ? DASH : short(score)] : [])];
  };
  const heads = ["kept by", "#rows", "#tokens", "#mean log-odds", ...(meta.true ? ["#mean true score"] : [])];
  return grid(heads, PARTS.map(line), "What the two selections keep");
}

function sourcesTable(pair) {
  const line = ([name]) => {
    const counts = PARTS.slice(0, 3).map((part) => pair.parts[part].sources[name] ?? 0);
    const dot = el("i", { class: "dot", "--dot": `var(${PALETTE[meta.sources.findIndex(([other]) => other === name) % PALETTE.length]})` });
    return [stateLink({ source: state.source === name ? "" : name }, {}, dot, name), ...counts.map((n) => number(n)), number(meta.sources.find(([other]) => other === name)[1])];
  };
  const heads = ["source", ...PARTS.slice(0, 3).map((part) => `#${partLabel(pair, part)}`), "#all rows"];
  return grid(heads, meta.sources.map(line), "Sources");
}

/** The features by which the rows that one selection alone keeps differ from those of the other. */
function differPanel(pair) {
  if (!pair.features.length) return null;
  const full = Math.max(...pair.features.map(([, a, b]) => Math.abs(a - b)));
  const line = ([id, a, b]) => {
    const place = features.places.get(id);
    return [featureFilterLink(id, place), span("label", featureName(place)), number(a, 3, true), number(b, 3, true), number(a - b, 3, true), signedBar((a - b) / full)];
  };
  const heads = ["feature", "tokens", `#${pair.first} alone`, `#${pair.second} alone`, "#difference", ""];
  return panel("Where they differ most", "mean contribution to a row, log-odds", grid(heads, pair.features.map(line), "Where they differ most"));
}

const featureFilterLink = (id, place) => stateLink({ feature: state.feature === id ? null : id }, { class: "id", title: "Keep the rows that it moved" }, featureId(place));

/** The features that part the rows kept from those rejected, in the selection that was explained. */
function keptPanel() {
  const line = (place) => {
    const [odds, low, high, within] = ["log_odds", "log_odds_low", "log_odds_high", "log_odds_within"].map((key) => features[key][place]);
    const range = odds === null ? DASH : span("", number(odds, 2, true), span("faint", ` ${number(low, 1, true)} to ${number(high, 1, true)}`));
    return [
      featureFilterLink(features.id[place], place),
      span("label", featureName(place)),
      percent(features.kept_share[place]),
      percent(features.offered_share[place]),
      range,
      within === null ? DASH : number(within, 2, true),
      number(features.gap[place], 3, true),
      span("", featureLinks(place)),
    ];
  };
  const heads = ["feature", "tokens", "#of kept", "#of all", "#log-odds", "#within", "#gap", ""];
  const places = features.id.map((_, place) => place);
  const make = (some) => grid(heads, some.map(line), "What parts kept rows from rejected ones");
  return panel("What parts kept rows from rejected ones", "log-odds of having it; within source and length; gap in mean contribution", fewOf(places, 15, make));
}

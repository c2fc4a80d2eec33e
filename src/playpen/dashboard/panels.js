// The parts of a feature's view beside its examples: pictures, tables and relatives.

function strengthPanel({ histogram: { edges, counts } }, shared) {
  const tip = (i) => `strength ${short(edges[i])} to ${short(edges[i + 1])}: ${number(counts[i])} tokens`;
  const drawn = { edges, heights: counts, title: "Histogram of strengths", log: true, tip };
  return panel("Strengths", "tokens, log scale", bars({ ...drawn, domain: shared && [0, shared.strength] }));
}

function densityPanel(place) {
  const { sorted } = shapeOf("density");
  const value = table.columns.density[place];
  const logs = Array.from(
    sorted.filter((one) => one > 0),
    Math.log10,
  );
  const low = Math.floor(logs[0] ?? -6);
  const { edges, heights } = binned(logs, 40, low, Math.max(low + 1, Math.ceil(logs.at(-1) ?? 0)));
  const tip = (i) => `density ${percent(10 ** edges[i])} to ${percent(10 ** edges[i + 1])}: ${number(heights[i])} features`;
  const drawn = { edges, heights, title: "Density of all features", tip, xText: powerOfShare };
  return panel("Density", "of all features", bars({ ...drawn, mark: value > 0 ? Math.log10(value) : null }));
}

const powerOfShare = (power) => (Number.isInteger(power) ? `${plain(100 * 10 ** power)}%` : "");

function positionPanel({ positions: { edges, density } }, shared) {
  const bin = (low, high) => (low === high ? number(low) : `${number(low)} to ${number(high)}`);
  const tip = (i) => `position ${bin(edges[i], edges[i + 1] - 1)}: active on ${format("percent", density[i])} of tokens`;
  const drawn = { edges, heights: density, title: "Density by position", spaced: true, tip, top: shared?.position };
  return panel("Positions", "density", bars({ ...drawn, yText: (value) => `${plain(100 * value)}%` }));
}

function logitPanel({ logits }) {
  if (!logits) return null;
  const { edges, counts } = logits.histogram;
  const tip = (i) => `effect ${short(edges[i])} to ${short(edges[i + 1])}: ${number(counts[i])} tokens`;
  const drawn = { edges, heights: counts, title: "Histogram of the logit lens", log: true, tip };
  return panel("Effects on logits", "tokens, log scale", bars(drawn));
}

/** The tokens that the feature promotes and those that it holds down. */
function lensPanel({ logits, strings }, shared) {
  if (!logits) return panel("Logit lens", null, p("none", `There is none: ${meta.lens ?? "it was not computed"}.`));
  const most = shared?.lens ?? lensReach(logits);
  const row = ([token, value]) => {
    const kind = value > 0 ? "up" : "down";
    return el("li", {}, chip(strings[token]), span("num", number(value, 2, true)), meter(value / most, kind));
  };
  const side = (rows, label) => fill(ul("lens", rows.map(row)), { "aria-label": label }, []);
  const both = div("pair", side(logits.up, "promoted"), side(logits.down, "held down"));
  return panel("Promotes and holds down", "by the logit lens", both);
}

const lensReach = ({ up, down }) => Math.max(...[...up, ...down].map(([, value]) => Math.abs(value)), 1e-9);

function tokenPanel({ tokens, strings }) {
  if (!tokens.length) return null;
  const cells = ([token, active, mean, share]) => [
    chip(strings[token]),
    number(active),
    short(mean),
    [percent(share), meter(share)],
  ];
  const heads = ["token", "#times", "#mean strength", "#share of the token"];
  const make = (some) => grid(heads, some.map(cells), "Tokens it is active on");
  return panel("Tokens it is active on", null, fewFirst(tokens, make));
}

function nextPanel({ next, strings }) {
  if (!next.length) return null;
  const most = Math.max(...next.map(([, count]) => count));
  const row = ([token, count]) => el("li", {}, chip(strings[token]), span("num", number(count)), meter(count / most));
  return panel(
    "Tokens that follow",
    null,
    fewFirst(next, (some) => ul("follow", some.map(row))),
  );
}

function relativesPanel(title, note, relatives) {
  if (!relatives.length) return null;
  const row = ([id, value]) => [number(value, 2, value < 0), meter(value), compareLink(id)];
  return panel(
    title,
    note,
    ul(
      "relatives",
      relatives.map(([id, value]) => relative(id, ...row([id, value]))),
    ),
  );
}

/** A feature in a list of others: its id, its name, a number, a bar, and something to do. */
function relative(id, value, bar, act) {
  const place = table.placeOf.get(id);
  return el("li", {}, featureLink(id), span("label", place === undefined ? null : nameOf(place)), span("num", value), bar, act);
}

function compareLink(id) {
  const set = { class: "quiet", title: "Compare side by side", "aria-label": `Compare with ${id}` };
  return table.placeOf.has(id) ? stateLink({ view: "compare", b: id }, set, "\u2194") : null;
}

/** Density, lift, log-odds and AUROC by source and by category. */
function partsPanel({ sources, categories, place }) {
  if (hasFlag(place, "dead")) return null;
  const all = [...sources.map((row, i) => [meta.sources[i], row]), ...categories.map((row, i) => [meta.categories[i], row])];
  const note = categories.length ? "against the others; categories among the prompts" : "against the others";
  const most = Math.max(...all.map(([, [, density]]) => density ?? 0), 1e-12);
  const heads = [categories.length ? "source, category" : "source", "#times", "#density", "#lift", "#log-odds", "#AUROC"];
  const cells = ([{ name, side }, [active, density, lift, odds, auroc]]) => [
    span(`part ${side || "neutral"}`, name),
    number(active),
    [format("percent", density), meter((density ?? 0) / most)],
    lift === null ? DASH : short(lift),
    span(odds > 0 ? "more" : "less", format("signed", odds)),
    auroc === null ? DASH : number(auroc, 3),
  ];
  return panel("Where it is active", note, grid(heads, all.map(cells), "By source and category"));
}

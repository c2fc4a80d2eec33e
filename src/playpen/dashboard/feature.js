// One feature: what it is called, its numbers, its examples and all that is known of it.

let turn = 0; // the newest view that was asked for: what arrives late for an older one is dropped

function featureHead(id, place, ...acts) {
  const name = div("name", el("h2", {}, `#${id}`), flagsOf(place, "single token"), span("label", nameOf(place)));
  const outside = { class: "quiet", href: meta.neuronpedia?.replace("{id}", id), rel: "noopener", target: "_blank" };
  return viewHead(name, acts, meta.neuronpedia ? el("a", outside, "Neuronpedia") : null);
}

const quietLink = (changes, text, title, name = "quiet") => stateLink(changes, { class: name, title }, text);
const reading = () => div("body", p("reading", "reading\u2026"));

/** Show a feature: what the list knows at once, the rest when its data file is there. */
async function showFeature(id) {
  const mine = ++turn;
  const place = table.placeOf.get(id);
  if (place === undefined) return put(byId("detail"), noSuch(id));
  const body = reading();
  put(byId("detail"), featureHead(id, place, featureActs()), sentence(place), tiles(place), body);
  try {
    const feature = await loadFeature(id);
    if (mine === turn) put(body, featureBody(feature));
  } catch (error) {
    if (mine === turn)
      put(
        body,
        problem(error.message, () => render(null)),
      );
  }
  return null;
}

function featureActs() {
  const stepper = (by, text, title) => button(text, () => step(by), { class: "quiet step", title, "aria-label": title });
  return [
    quietLink({ f: null, view: "" }, "\u2190 list", "Back to the list", "quiet back"),
    stepper(-1, "\u2039", "The one before in the list (k)"),
    stepper(1, "\u203a", "The next of the list (j)"),
    quietLink({ view: "compare", b: null }, "compare", "Side by side with another (c)"),
    button("copy link", (event) => copyText(location.href, event.currentTarget), { class: "quiet" }),
  ];
}

const noSuch = (id) => problem(`There is no feature ${id} here: this dashboard holds ${number(table.size)} features.`);

function featureBody(feature) {
  const { place, neighbours, correlated } = feature;
  const pictures = [strengthPanel(feature), densityPanel(place), positionPanel(feature), logitPanel(feature)];
  const main = div("main", examplesPanel(feature), partsPanel(feature), div("pictures", pictures));
  const near = relativesPanel("Nearest decoder directions", "cosine", neighbours);
  const together = relativesPanel("Active together", "Pearson, all tokens", correlated);
  return div("columns", main, div("beside", lensPanel(feature), tokenPanel(feature), nextPanel(feature), near, together));
}

// Two features side by side, on the same scales.

async function showCompare(a, b) {
  const mine = ++turn;
  const [placeA, placeB] = [a, b].map((id) => table.placeOf.get(id));
  if (placeA === undefined) return put(byId("detail"), noSuch(a));
  const line = fill(p("sentence"), { id: "between" }, []);
  const other = b === null ? pickOther() : placeB === undefined ? noSuch(b) : halfOf(b, "B");
  const halves = div("halves", halfOf(a, "A"), other);
  put(byId("detail"), compareHead(a, b), line, placeB === undefined ? null : tiles(placeA, placeB), halves);
  if (placeB === undefined) return null;
  try {
    const features = await Promise.all([a, b].map(loadFeature));
    if (mine === turn) showBoth(line, halves, features);
  } catch (error) {
    if (mine === turn)
      put(
        line,
        problem(error.message, () => render(null)),
      );
  }
  return null;
}

function compareHead(a, b) {
  const swap = b === null ? null : quietLink({ f: b, b: a }, "swap", "Swap the sides (x)");
  return viewHead(
    el("h2", {}, "Side by side"),
    swap,
    quietLink({ view: "feature", b: null }, "close", "Back to one feature (c)"),
  );
}

function pickOther() {
  const keys = ["j", "k"].map((key) => el("kbd", {}, key));
  return div("half empty", p("", "Pick the other one from the list: click it, or go through it with ", keys, "."));
}

function halfOf(id, letter) {
  const place = table.placeOf.get(id);
  const head = featureHead(id, place, quietLink({ f: id, b: null, view: "feature" }, "alone", "This feature alone"));
  head.querySelector("h2").prepend(span(`letter ${letter}`, letter));
  return div("half", head, sentence(place), reading());
}

function showBoth(line, halves, features) {
  const shared = sharedScales(features);
  const bodies = halves.querySelectorAll(".body");
  put(line, between(...features));
  features.forEach((feature, i) => {
    const pictures = div("pictures", strengthPanel(feature, shared), positionPanel(feature, shared));
    const tables = [tokenPanel(feature), nextPanel(feature), partsPanel(feature)];
    put(bodies[i], examplesPanel(feature), lensPanel(feature, shared), pictures, tables);
  });
}

/** The greatest value on either side, for each scale that both share. */
function sharedScales(features) {
  const most = (of) => Math.max(...features.flatMap(of), 0) || 1;
  return {
    strength: most(({ histogram }) => histogram.edges.at(-1) ?? 0),
    position: most(({ positions }) => positions.density),
    lens: most(({ logits }) => (logits ? lensReach(logits) : 0)),
  };
}

/** What is known of the two together; the data files list only the nearest of each. */
function between(a, b) {
  const find = (kind) => (a[kind].find(([id]) => id === b.id) ?? b[kind].find(([id]) => id === a.id))?.[1];
  const [cosine, pearson] = [find("neighbours"), find("correlated")];
  const common = table.columns.tokens[a.place].filter((token) => table.columns.tokens[b.place].includes(token));
  return [
    cosine === undefined
      ? "Their decoder directions are not among each other's nearest"
      : `The cosine of their decoder directions is ${number(cosine, 2)}`,
    pearson === undefined
      ? "; they are not among those most active together."
      : `; the correlation of their strengths over all tokens is ${number(pearson, 2)}.`,
    common.length ? [" Both are often active on ", chips(common), "."] : null,
  ];
}

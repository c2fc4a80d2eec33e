// What is shown, as the address tells it: everything after # can be copied, kept and gone back to.

const EMPTY = {
  view: "",
  f: null,
  b: null,
  q: "",
  filter: [],
  sort: "id",
  cols: null,
  tab: "top",
  whole: false,
  by: "strength",
  colour: "",
};
const VIEWS = ["feature", "compare", "map", "paste"];
const TABS = ["top", "quantiles", "intervals", "random", "near"];

function readState() {
  const found = new URLSearchParams(location.hash.slice(1));
  const id = (key) => (/^\d+$/.test(found.get(key) ?? "") ? Number(found.get(key)) : null);
  const one = (key, known, otherwise) => (known.includes(found.get(key)) ? found.get(key) : otherwise);
  const f = id("f");
  return {
    view: one("view", VIEWS, f === null ? "" : "feature"),
    f,
    b: id("b"),
    q: found.get("q") ?? "",
    filter: found.getAll("filter"),
    sort: found.get("sort") ?? EMPTY.sort,
    cols: found.has("cols") ? found.get("cols").split(",").filter(Boolean) : null,
    tab: one("tab", TABS, EMPTY.tab),
    whole: found.get("whole") === "1",
    by: one("by", ["strength", "effect"], EMPTY.by),
    colour: found.get("colour") ?? "",
  };
}

function hashOf(wanted) {
  const parts = new URLSearchParams();
  for (const [key, value] of Object.entries(wanted)) {
    if (key === "view" && value === (wanted.f === null ? "" : "feature")) continue;
    if (key === "filter") value.forEach((condition) => parts.append("filter", condition));
    else if (key === "cols") value && parts.set("cols", value.join(","));
    else if (value !== EMPTY[key]) parts.set(key, value === true ? "1" : value);
  }
  return `#${parts}`;
}

/** A link to a feature by its id, or its id alone when this dashboard was not made for it. */
function featureLink(id) {
  if (!table.placeOf.has(id)) return el("span", { class: "faint", title: "not in this dashboard" }, `#${id}`);
  return stateLink({ f: id, view: "feature" }, { class: "id" }, `#${id}`);
}

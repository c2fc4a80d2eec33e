// The filters above the plot, and how many rows they leave.

function showControls() {
  const names = selectionNames();
  const several = names.length > 1;
  put(
    byId("controls"),
    choice("source", "source", [["", "all"], ...meta.sources.map(([name, n]) => [name, `${name} (${number(n)})`])]),
    meta.faults && choice("fault", "fault", [["", "all"], ...meta.faults.map(([name, n]) => [name, `${name} (${number(n)})`])]),
    span("range", bound("low", "predicted from"), bound("high", "to")),
    names.length ? choice("first", "selection", names.map((name) => [name, name])) : null,
    several ? choice("second", "against", names.map((name) => [name, name])) : null,
    names.length ? choice("part", "kept by", [["", "any or none"], ...partNames()]) : null,
    state.feature === null ? null : featureFilter(),
  );
}

function partNames() {
  const { first, second } = state;
  if (first === second || !second) return [["both", first], ["neither", `not ${first}`]];
  return [["both", "both"], ["first", `${first} alone`], ["second", `${second} alone`], ["neither", "neither"]];
}

function choice(key, text, options) {
  const option = ([value, name]) => el("option", { value, selected: state[key] === value }, name);
  const choose = (event) => change({ [key]: event.target.value });
  return el("label", {}, text, el("select", { id: `choose-${key}`, onchange: choose }, options.map(option)));
}

/** One end of the range of predictions; empty is no end. */
function bound(key, text) {
  const choose = (event) => change({ [key]: event.target.value.trim() === "" ? null : Number(event.target.value) });
  const set = { id: `choose-${key}`, type: "number", step: "any", placeholder: "any", value: state[key] === null ? "" : state[key] };
  return el("label", {}, text, el("input", { ...set, onchange: choose }));
}

function featureFilter() {
  const place = features.places.get(state.feature);
  const name = place === undefined ? `#${state.feature}` : featureId(place);
  const remove = button("\u00d7", () => change({ feature: null }), { "aria-label": `Remove the filter of feature ${name}` });
  return span("condition", `moved by ${name}`, remove);
}

function showCount(listed) {
  const shown = listed.filter((row) => rows.shown[row]).length;
  const drawn = meta.points < meta.rows ? ` drawn, of ${number(meta.rows)}` : "";
  const all = listed.length === meta.points;
  const clear = button("all rows", () => change({ ...EMPTY, first: state.first, second: state.second, row: state.row }), { class: "quiet" });
  const text = all ? `${number(meta.points)} rows${drawn}` : `${number(listed.length)} of ${number(meta.points)} rows${drawn}`;
  put(byId("count"), `${text} \u00b7 ${number(shown)} laid out token by token `, all ? null : clear);
}

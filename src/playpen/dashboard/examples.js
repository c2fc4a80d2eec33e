// The examples of a feature under their tabs; the tab, the length of the lines and the colouring are part of the state.

const KINDS = {
  top: ["strongest", "The strongest examples, one a document"],
  quantiles: ["tenths", "Ten groups of equal counts of its active tokens, strongest first"],
  intervals: ["equal widths", "Ten groups of equal width from 0 to its maximum"],
  random: ["random", "Drawn uniformly from the tokens on which it is active"],
  near: ["near misses", "Tokens on which it stayed off, by the highest pre-activation"],
};

function examplesPanel(feature) {
  const there = TABS.filter((kind) => feature[kind].length || (kind === "near" && meta.near));
  if (!there.length) return panel("Examples", null, p("none", "It has none: it is never active here."));
  const chosen = there.includes(state.tab) ? state.tab : there[0];
  const id = (name) => `${name}-${feature.id}`; // two features may be shown at once
  const toggles = div("toggles", effectToggle(feature), wholeToggle(feature), scaleKey(feature));
  const lines = el(
    "div",
    { id: id("examples"), role: "tabpanel", "aria-labelledby": id(chosen) },
    exampleGroups(feature, chosen),
  );
  const under = div("under", p("note cut", KINDS[chosen][1]), toggles);
  const box = el("section", { class: "panel examples" }, tabList(there, chosen, id), under, lines);
  box.redraw = () => box.replaceWith(examplesPanel(feature));
  return box;
}

function tabList(there, chosen, id) {
  const tab = (kind) => {
    const on = kind === chosen;
    const set = {
      role: "tab",
      id: id(kind),
      "aria-controls": id("examples"),
      "aria-selected": String(on),
      tabindex: on ? 0 : -1,
    };
    return button(KINDS[kind][0], () => change({ tab: kind }, "replace"), { ...set, title: KINDS[kind][1] });
  };
  return fill(div("tabs", there.map(tab)), { role: "tablist", "aria-label": "Examples", onkeydown: moveTab }, []);
}

function moveTab(event) {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by) return;
  const all = [...event.currentTarget.children];
  const next = all[(all.indexOf(document.activeElement) + by + all.length) % all.length];
  next.click();
  byId(next.id)?.focus();
  event.preventDefault();
}

function toggle(id, text, on, changes, title) {
  return button(text, () => change(changes, "replace"), { class: "toggle", id, "aria-pressed": String(on), title });
}

function wholeToggle({ id }) {
  return toggle(`whole-${id}`, "whole", state.whole, { whole: !state.whole }, "Whole windows instead of one line each (w)");
}

function effectToggle({ id, logits }) {
  const on = state.by === "effect";
  const help = "Colour by the effect on the logit of the token that came next, instead of by strength (e)";
  return logits && toggle(`effect-${id}`, "effect", on, { by: on ? "strength" : "effect" }, help);
}

function scaleKey(feature) {
  const { scale, effect } = contextOf(feature);
  if (state.by === "effect") return span("scale both", `${MINUS}${short(effect)}`, el("i"), `+${short(effect)}`);
  return scale ? span("scale", "0", el("i"), short(scale)) : null; // a dead feature has no scale
}

/** What its examples are coloured against: its maximum, and its greatest effect on a logit. */
function contextOf({ strings, place, top, random }) {
  const effects = [...top, ...random].flatMap((example) => example.e ?? []).map((value) => Math.abs(value ?? 0));
  return { strings, scale: table.columns.max[place] ?? 0, effect: effects.reduce((a, b) => Math.max(a, b), 0) };
}

function exampleGroups(feature, kind) {
  const context = { ...contextOf(feature), near: kind === "near" };
  const lines = (examples) => examples.map((example) => exampleLine(example, context));
  if (!feature[kind].length) return p("none", `There are none: ${meta.near}.`);
  if (kind !== "quantiles" && kind !== "intervals") return lines(feature[kind]);
  const tokens = (count) => span("note", `${number(count)} token${count === 1 ? "" : "s"}`);
  const title = ({ low, high, count }) => el("h4", {}, `${short(low)} to ${short(high)}`, tokens(count));
  return feature[kind].map((group) => div("group", title(group), lines(group.examples)));
}

// What stands above the list: ready-made lists, conditions as chips, and the menus that add a condition or choose columns.

/** Each is a sort and conditions; `tells` is what its number counts, where that is not all that it lists. */
const PRESETS = [
  { name: "all", help: "Every feature, by id", sort: "id", filter: [] },
  {
    name: "tells prompts from control",
    help: "Highest AUROC of prompts against control first",
    key: "auroc",
    tells: "auroc > 0.9",
  },
  {
    name: "tells a category",
    help: "Highest AUROC of one category against the other prompts first",
    key: "category_auroc",
    tells: "category_auroc > 0.9",
  },
  {
    name: "at home in a source",
    help: "Highest density in one source over all first, where 10 documents of it are active",
    key: "lift",
    tells: "lift > 2",
  },
  { name: "dense", help: "Active on more than a tenth of the tokens", sort: "-density", filter: ["dense"] },
  { name: "single token", help: "Active on one token, nine times out of ten", sort: "-density", filter: ["single"] },
  { name: "dead", help: "Never active on these tokens", sort: "id", filter: ["dead"] },
];

/** Make the row of ready-made lists once: their numbers do not change. */
function makePresets() {
  put(byId("presets"), PRESETS.filter(({ key }) => !key || has(key)).map(presetButton));
}

function presetButton({ name, help, key, tells, sort = `-${key}`, filter = ["!dead"] }) {
  const counted = tells ? [...filter, tells] : filter;
  const count = findPlaces("", counted).places.length;
  const title = tells ? `${help}; the number counts ${tells}` : help;
  const made = button([name, span("n", number(count))], () => change({ sort, filter, q: "" }), { class: "preset", title });
  made.isOn = () => !state.q && sort === state.sort && filter.join("&") === state.filter.join("&");
  return made;
}

function showFilters() {
  for (const made of byId("presets").children) made.setAttribute("aria-pressed", made.isOn());
  put(byId("filters"), state.filter.map(conditionChip), filterMenu(), columnMenu());
}

function conditionChip(condition, i) {
  const remove = () => change({ filter: state.filter.filter((_, at) => at !== i) });
  return span("condition", condition, button("\u00d7", remove, { "aria-label": `Remove the filter ${condition}` }));
}

/** A menu that opens below its button. */
function menu(name, ...content) {
  const made = el("details", { class: "menu" }, el("summary", {}, name), div("drop", content));
  made.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    made.open = false;
    made.firstElementChild.focus();
    event.stopPropagation();
  });
  return made;
}

document.addEventListener("pointerdown", (event) => {
  for (const open of document.querySelectorAll("details.menu[open]")) if (!open.contains(event.target)) open.open = false;
});

function addCondition(condition) {
  change({ filter: [...state.filter.filter((other) => other !== condition), condition] });
}

function filterMenu() {
  const choice = (text, condition) => button(text, () => addCondition(condition));
  const flags = Object.keys(FLAGS).flatMap((flag) => [choice(flag, flag), choice(`not ${flag}`, `!${flag}`)]);
  const named = [...TEXTUAL].filter(columnOf).map((kind) => {
    const names = partsOf(kind).map(({ name }) => choice(name, `${kind} = ${name}`));
    return p("", el("b", {}, kind), names);
  });
  return menu("+ filter", numberForm(), p("", el("b", {}, "flags"), flags), named);
}

function numberForm() {
  const option = ({ key, label }) => el("option", { value: key }, label);
  const key = el("select", { "aria-label": "Statistic" }, meta.columns.filter((column) => !TEXTUAL.has(column.key)).map(option));
  const signs = [">", ">=", "<", "<=", "="].map((sign) => el("option", {}, sign));
  const sign = el("select", { "aria-label": "Comparison" }, signs);
  const value = el("input", { "aria-label": "Value", required: true, size: 7, placeholder: "0.1%", pattern: NUMBER });
  const submit = (event) => {
    event.preventDefault();
    addCondition(`${key.value} ${sign.value} ${value.value.trim()}`);
  };
  return el("form", { class: "line", onsubmit: submit }, key, sign, value, el("button", {}, "add"));
}

const NUMBER = "\\s*[\\-+]?[0-9.]+(e[\\-+]?[0-9]+)?%?\\s*";

function columnMenu() {
  const shown = chosenColumns();
  const toggled = (key) => (shown.includes(key) ? shown.filter((other) => other !== key) : [...shown, key]);
  const box = ({ key, label, help }) => {
    const choose = () => change({ cols: toggled(key) }, "replace");
    return el("label", { title: help }, el("input", { type: "checkbox", checked: shown.includes(key), onchange: choose }), label);
  };
  const reset = button("as they were", () => change({ cols: null }, "replace"));
  return menu("columns", div("boxes", meta.columns.map(box)), reset);
}

// One row: its chat as a heat map of contributions, and the features that moved its prediction.

const MOST = 12; // features listed before one asks for all
const CHAT_HELP = "Left and right arrows read it token by token.";
let turn = 0; // the newest view that was asked for: what arrives late for an older one is dropped

async function showRow(id) {
  const mine = ++turn;
  const row = rows.row_id.indexOf(id);
  const body = div("body");
  put(byId("detail"), rowHead(row), rowSentence(row), rowFacts(row), body);
  if (!rows.shown[row]) {
    put(body, notLaidOut(row));
    return;
  }
  put(body, p("reading", "reading\u2026"));
  try {
    const chat = await loadChat(row);
    if (mine === turn) put(body, whyPanel(chat), chatPanel(chat), movedPanel(chat));
  } catch (error) {
    if (mine === turn) put(body, problem(error.message, () => render()));
  }
}

function rowHead(row) {
  const step = (by, text, title) => button(text, () => stepRow(by), { class: "quiet step", title, "aria-label": title });
  return viewHead(
    el("h2", {}, keptWords(row)),
    step(-1, "\u2039", "The one before, of those laid out (k)"),
    step(1, "\u203a", "The next of those laid out (j)"),
    stateLink({ row: null, by: null }, { class: "quiet", title: "Back to the selection (o)" }, "overview"),
    button(rows.row_id[row], (event) => copyText(rows.row_id[row], event.currentTarget), { class: "row-id quiet", title: "Copy the row_id" }),
  );
}

function keptWords(row) {
  const names = selectionNames();
  const kept = names.filter((name) => keptBy(name, row));
  if (!names.length) return rows.source[row];
  return kept.length ? `Kept by ${kept.join(", ")}` : names.length > 1 ? "Kept by none" : `Not kept by ${names[0]}`;
}

function rowSentence(row) {
  const odds = rows.predicted[row];
  const { baseline, of } = meta.explained;
  const sum = `${number(odds, 2, true)} = ${number(baseline, 2, true)} of the baseline and ${number(odds - baseline, 2, true)} of its ${of}`;
  const learnt = rows.in_sample[row] ? " The classifier learnt from this row." : "";
  return p("sentence", `Predicted ${chance(odds)}: log-odds ${sum}.${learnt}`);
}

function rowFacts(row) {
  const facts = [
    ["source", rows.source[row]],
    rows.fault ? ["fault", rows.fault[row]] : null,
    rows.true ? ["true score", short(rows.true[row])] : null,
    rows.score[row] === null ? null : ["score in the selection", short(rows.score[row])],
    ["rank", `${number(rows.rank[row])} of ${number(meta.rows)}`],
    ["tokens", `${number(rows.num_tokens[row])}, ${number(rows.num_labels[row])} of the answer`],
  ];
  const line = ([name, value]) => div("", el("dt", {}, name), el("dd", {}, value));
  return el("dl", { class: "facts-list" }, facts.filter(Boolean).map(line));
}

/** What each selection says of the row, in its own words. */
function whyPanel({ why }) {
  return Object.entries(why ?? {}).map(([name, sentence]) => p("note why", `${name}: ${sentence}.`));
}

function notLaidOut(row) {
  const moved = features.id.map((id, place) => [place, features.rows[place].indexOf(row)]).filter(([, at]) => at >= 0);
  const found = moved.map(([place, at]) => [features.id[place], features.values[place][at]]);
  found.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  return [p("note", "Not laid out token by token: give explain a greater --shown."), movedPanel({ f: found })];
}

/** The value of each token: of one feature, when one is chosen. */
function tokenHeat(chat) {
  const chosen = state.by === null ? null : chat.f.find(([id]) => id === state.by);
  if (!chosen) return chat.v;
  const values = new Array(chat.t.length).fill(0);
  for (const [place, value] of chosen[3]) values[place] = value;
  return values;
}

const isMark = (text) => /^<[^<>\s]+>$/.test(text.trim());

function chatPanel(chat) {
  const values = tokenHeat(chat);
  const full = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const token = (text, i) => {
    const made = span(isMark(text) ? "t mark" : "t", visible(text));
    made.dataset.i = i;
    if (values[i]) {
      made.classList.add(values[i] > 0 ? "up" : "down");
      made.style.setProperty("--heat", shareOf(Math.abs(values[i]), full).toFixed(3));
    }
    return [made, text.includes("\n") ? el("br") : null];
  };
  const set = { class: "chat example", tabindex: 0, role: "group", "aria-label": `The chat. ${CHAT_HELP}` };
  const rightToLeft = isRightToLeft(chat.t.join(""));
  const box = el("div", { ...set, dir: rightToLeft ? "rtl" : "ltr" }, chat.t.map(token));
  Object.assign(box, { start: Math.max(0, values.findIndex((value) => value !== 0)), tip: (i) => chatTip(chat, values, i) });
  const scale = full ? span("scale both", `${MINUS}${short(full)}`, el("i"), `+${short(full)}`) : span("scale", "nothing fires on its tokens");
  const note = state.by === null ? "contribution of each token, log-odds" : ["of feature ", featureId(features.places.get(state.by))];
  const all = state.by === null ? null : button("all features", () => change({ by: null }, "replace"), { class: "toggle" });
  return el("section", { class: "panel" }, el("h3", {}, "Chat", span("note", note), scale, all), box);
}

function chatTip(chat, values, i) {
  const here = chat.f.map(([id, , , places]) => [id, places.find(([place]) => place === i)?.[1] ?? 0]).filter(([, value]) => value);
  here.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  const row = ([id, value]) => {
    const place = features.places.get(id);
    return [featureId(place), [number(value, 3, true), " ", chips(features.tokens[place].slice(0, 3))]];
  };
  const rest = here.length > 6 ? p("", `and ${here.length - 6} more`) : null;
  const total = values[i] ? `${number(values[i], 3, true)} log-odds` : "nothing fires here";
  return [p("tip-head", chip(chat.t[i]), total), pairs("", here.slice(0, 6).map(row)), rest];
}

/** The features that moved the prediction, the greatest first; a click colours the chat by one alone. */
function movedPanel({ f }) {
  if (!f.length) return panel("What moved it", null, p("none", "No feature that the classifier uses."));
  const full = Math.max(...f.map(([, value]) => Math.abs(value)));
  const line = ([id, value, strength, places]) => {
    const place = features.places.get(id);
    const on = state.by === id;
    const tone = () => change({ by: on ? null : id }, "replace");
    const name = places?.length ? button(featureId(place), tone, { class: "id", title: "Colour the chat by this feature alone", "aria-pressed": String(on) }) : featureId(place);
    const filter = stateLink({ feature: id }, { class: "quiet out", title: "Keep the rows that it moved" }, `in ${number(features.rows[place].length)} rows`);
    const cells = [
      el("td", {}, name),
      el("td", { class: "wide" }, span("label", featureName(place))),
      el("td", { class: "num" }, strength === undefined ? DASH : short(strength)),
      el("td", { class: "num" }, number(value, 3, true)),
      el("td", {}, signedBar(value / full)),
      el("td", {}, filter, featureLinks(place)),
    ];
    return el("tr", { "aria-selected": String(on) }, cells);
  };
  const heads = ["feature", "tokens", "#strength", "#log-odds", "", ""];
  const head = heads.map((text) => el("th", { scope: "col", class: text.startsWith("#") ? "num" : null }, text.replace("#", "")));
  const make = (some) => div("scroll", el("table", { class: "moved", "aria-label": "What moved it" }, el("thead", {}, el("tr", {}, head)), el("tbody", {}, some.map(line))));
  return panel("What moved it", "contributions to the log-odds, the greatest first", fewOf(f, MOST, make));
}

function fewOf(all, most, make) {
  if (all.length <= most + 2) return make(all);
  const box = div("", make(all.slice(0, most)));
  box.append(button(`all ${number(all.length)}`, () => put(box, make(all)), { class: "quiet all" }));
  return box;
}

/** A bar to the right of the middle for more, to the left for less. */
const signedBar = (share) => el("span", { class: share > 0 ? "signed up" : "signed", "--share": shareOf(Math.abs(share), 1).toFixed(3) }, el("i"));

// Examples as heat maps: each token coloured by the feature's strength on it, or by its effect on the logits.

const NEAR_PEAK = 14; // tokens before the peak in a short line; twice as many after it

/** One example. `context` is {strings, scale, effect, near}: the strength, and the effect on a logit, of full colour. */
function exampleLine(example, context) {
  const tokens = example.t.map((token) => context.strings[token]);
  const parts = (low, high) => tokens.slice(low, high).map((text, i) => heatToken(text, low + i, example, context));
  const value = span("value num", short(example.v));
  value.title = context.near ? "pre-activation: it stayed off" : "strength at the peak";
  const line = state.whole ? wholeLine(value, parts, example) : shortLine(value, parts, example);
  line.classList.toggle("near", context.near);
  const label = `Strength ${short(example.v)}. Left and right arrows read it token by token.`;
  fill(line, { tabindex: 0, role: "group", "aria-label": label, dir: isRightToLeft(tokens.join("")) ? "rtl" : "ltr" }, []);
  return Object.assign(line, { start: example.at, tip: (i) => tokenTip(example, context, i) });
}

/** One line with the peak in the middle, so that the peaks of all lines stand below each other. */
function shortLine(value, parts, example) {
  const { at } = example;
  const before = parts(Math.max(0, at - NEAR_PEAK), at);
  return div(
    "example",
    value,
    span("before", el("bdi", {}, before)),
    span("after", parts(at, at + 2 * NEAR_PEAK)),
    partDot(example),
  );
}

function wholeLine(value, parts, example) {
  return div("example whole", value, div("text", parts(0), exampleFacts(example)));
}

function heatToken(text, i, example, context) {
  const effect = state.by === "effect";
  const value = effect ? (example.e?.[i] ?? 0) : example.a[i];
  const token = span(i === example.at ? "t peak" : "t", visible(text));
  token.dataset.i = i;
  if (value) {
    token.classList.add(value > 0 ? "up" : "down");
    token.style.setProperty("--heat", shareOf(Math.abs(value), effect ? context.effect : context.scale).toFixed(3));
  }
  return [token, state.whole && text.includes("\n") ? el("br") : null];
}

const sideClass = (source) => meta.sources[source]?.side || "neutral";

function partDot({ s, c }) {
  const made = span(`part ${sideClass(s)}`, c >= 0 ? partName("category", c) : s >= 0 ? partName("source", s) : "");
  made.title = [s >= 0 ? partName("source", s) : "", c >= 0 ? partName("category", c) : ""].filter(Boolean).join(" \u00b7 ");
  return made;
}

function exampleFacts({ d, s, c, p: first, n, t }) {
  const source = s >= 0 ? span(`part ${sideClass(s)}`, partName("source", s)) : null;
  const category = c >= 0 ? span("part neutral", partName("category", c)) : null;
  const copy = (event) => copyText(d, event.currentTarget);
  const row = button(d, copy, { class: "row-id", title: "Copy the row_id of its document" });
  const facts = p("facts", source, category, span("", `tokens ${first + 1} to ${first + t.length} of ${number(n)}`), row);
  facts.dir = "ltr";
  return facts;
}

/** What there is to say of one token of an example. */
function tokenTip(example, context, i) {
  const { a, e, t, s, c, d, n, p: first } = example;
  const share = `${short(a[i])} \u00b7 ${percent(shareOf(a[i], context.scale))} of full colour`;
  const missed = context.near && i === example.at;
  const effect = () => [`${number(e[i], 3, true)} on `, chip(context.strings[t[i + 1]])];
  const rows = [
    missed ? ["pre-activation", `${short(example.v)}, stayed off`] : ["strength", a[i] ? share : "off"],
    typeof e?.[i] === "number" ? ["effect on the next", effect()] : null,
    ["token", `${number(first + i + 1)} of ${number(n)}`],
    s >= 0 ? ["source", partName("source", s)] : null,
    c >= 0 ? ["category", partName("category", c)] : null,
    ["row", el("code", {}, d)],
  ];
  return [p("tip-head", chip(context.strings[t[i]])), pairs("", rows.filter(Boolean))];
}

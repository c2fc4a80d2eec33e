// A text of one's own: its tokens with their strongest features. It needs the small server, which holds the model.

const TIP_FEATURES = 8; // features named in the tooltip of a token
let server = null; // what the server says of itself, or null from disk
let pasted = null; // the newest answer
let pastedText = "";
let painted = null; // the feature that colours the text

async function findServer() {
  if (!location.protocol.startsWith("http")) return;
  try {
    const answer = await fetch("api");
    if (answer.ok) server = await answer.json();
  } catch {
    server = null; // served by something else than playpen serve: all but this view works
  }
}

function showPaste() {
  turn += 1;
  const head = viewHead(el("h2", {}, "Paste a text"));
  if (!server) return put(byId("detail"), head, howToServe());
  const box = el("textarea", { rows: 6, "aria-label": "Text", placeholder: "Paste or write a text, then Ctrl + Enter" });
  const out = el("div", { class: "body", id: "pasted" });
  const act = () => encodeText(box.value, out);
  box.value = pastedText;
  box.addEventListener("keydown", (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && act());
  const note = `at most ${number(server.max_tokens)} tokens; ${server.model} runs on this machine`;
  put(byId("detail"), head, box, p("line", button("show its features", act, { class: "main-act" }), span("note", note)), out);
  if (pasted) showPasted(out);
  return box.focus();
}

function howToServe() {
  return div(
    "empty",
    p("", "The page is open from disk, where no model can run. Start the small server and open the address that it prints:"),
    el("pre", {}, el("code", {}, "playpen serve PATH")),
    p("note", "PATH is the directory that holds this page. Nothing leaves this machine."),
  );
}

async function encodeText(text, out) {
  pastedText = text;
  put(out, p("reading", "running the model\u2026"));
  try {
    pasted = await ask(text);
    painted = pasted.by_max[0]?.[0] ?? null;
    showPasted(out);
  } catch (error) {
    // fetch itself throws a TypeError when nobody answers.
    put(out, problem(error instanceof TypeError ? "the server does not answer; is playpen serve still running?" : error.message));
  }
}

async function ask(text) {
  const headers = { "Content-Type": "application/json" };
  const answer = await fetch("api/encode", { method: "POST", headers, body: JSON.stringify({ text }) });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

function showPasted(out) {
  const anywhere = rankingPanel("Strongest anywhere", "greatest strength", pasted.by_max);
  const average = rankingPanel("Strongest on average", "mean over the tokens", pasted.by_mean);
  put(out, pastedTokens(), div("columns even", anywhere, average));
}

function rankingPanel(title, note, ranked) {
  if (!ranked.length) return panel(title, note, p("none", "No feature is active."));
  const row = ([id, value]) => relative(id, short(value), meter(value / ranked[0][1]), paintButton(id));
  return panel(title, note, ul("relatives", ranked.map(row)));
}

function paintButton(id) {
  const act = () => {
    painted = id;
    showPasted(byId("pasted"));
  };
  const set = { class: "quiet paint", "aria-pressed": String(id === painted), title: "Colour the text by it" };
  return button("\u25cf", act, { ...set, "aria-label": `Colour the text by ${id}` });
}

/** The text, coloured by one feature; a token's own strongest features are in its tooltip. */
function pastedTokens() {
  const strengths = new Map(pasted.strengths[painted] ?? []);
  const most = Math.max(...strengths.values(), 0);
  const made = pasted.tokens.map((token, i) => pastedToken(token, shareOf(strengths.get(i) ?? 0, most)));
  const text = fill(div("pasted-text text", made), { dir: "auto" }, []);
  return panel(`${number(pasted.tokens.length)} tokens`, painted === null ? null : ["coloured by ", featureLink(painted)], text);
}

function pastedToken({ text, features }, share) {
  const token = span(share ? "t up" : "t", visible(text));
  if (share) token.style.setProperty("--heat", share.toFixed(3));
  token.onpointerenter = () => tipFor(token, pastedTip(text, features));
  token.onpointerleave = hideTip;
  return [token, text.includes("\n") ? el("br") : null];
}

function pastedTip(text, features) {
  const name = (id) => (table.placeOf.has(id) ? chips(table.columns.tokens[table.placeOf.get(id)].slice(0, 2)) : null);
  const rows = features.slice(0, TIP_FEATURES).map(([id, strength]) => [[`#${id} `, name(id)], short(strength)]);
  return [p("tip-head", chip(text)), rows.length ? pairs("", rows) : p("", "no feature is active")];
}

// Keys, and the dialog that tells them: KEYS are the page's own, and so are HINTS, which stand below them.

const ACTS = new Map(KEYS.flatMap(([keys, , act]) => keys.map((key) => [key, act])));
const NAMES_OF_KEYS = { ArrowDown: "\u2193", ArrowUp: "\u2191" };

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  if (event.target.closest?.("input, textarea, select, details.menu")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  // Arrows scroll what has the focus, unless that is the list.
  if (event.key.startsWith("Arrow") && event.target.closest?.("#detail")) return;
  const act = ACTS.get(event.key);
  if (!act) return;
  event.preventDefault();
  act(event.key);
}

function startKeys() {
  document.addEventListener("keydown", onKey);
  byId("help").onclick = () => byId("keys").showModal();
  const keyNames = (keys) => keys.map((key) => el("kbd", {}, NAMES_OF_KEYS[key] ?? key));
  const rows = KEYS.map(([keys, text]) => [keyNames(keys), text]);
  const close = button("close", () => byId("keys").close(), { class: "main-act" });
  put(byId("keys"), el("h2", {}, "Keys"), pairs("", rows), p("note", HINTS), close);
}

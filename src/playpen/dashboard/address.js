// The state and its address: EMPTY, readState, hashOf and show are the page's own.

let state = EMPTY;
let stepping = false; // whether the newest entry of the history was made by stepping through the list

/** Show something else. `how` is push (one can go back), replace, or step: many in a row are one entry of the history. */
function change(changes, how = "push") {
  const wanted = { ...state, ...changes };
  const hash = hashOf(wanted);
  if (hash !== hashOf(state)) {
    const replace = how === "replace" || (how === "step" && stepping);
    history[replace ? "replaceState" : "pushState"](null, "", hash);
    stepping = how === "step" || (stepping && how === "replace");
  }
  show(wanted);
}

/** A link that changes the state; a click with a key held opens it elsewhere as any link does. */
function stateLink(changes, set, ...children) {
  const act = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    change(changes);
  };
  return el("a", { href: hashOf({ ...state, ...changes }), onclick: act, ...set }, ...children);
}

window.addEventListener("popstate", () => {
  stepping = false;
  show(readState());
});

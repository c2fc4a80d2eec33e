// The search box: what is typed lists features at once, Enter opens the first one or adds a condition.

const PAUSE = 120; // milliseconds after the last letter
let readingTexts = false;

function startSearch() {
  const box = byId("search");
  let timer = 0;
  box.addEventListener("input", () => {
    clearTimeout(timer);
    byId("query-problem").textContent = "";
    timer = setTimeout(() => search(box.value), PAUSE);
  });
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    clearTimeout(timer);
    if (looksLikeCondition(box.value)) acceptCondition(box);
    else openFirst(box.value);
  });
}

function search(text) {
  showCount();
  if (looksLikeCondition(text)) put(byId("count"), "Enter adds this filter");
  else change({ q: text }, state.q && text ? "replace" : "push");
}

function openFirst(text) {
  search(text);
  if (listed.places.length) pick(table.columns.id[listed.places[0]]);
}

/** What a search that lists nothing was perhaps meant to be: a condition with a slip in it, an id that is not here. */
function whyNothing(text) {
  const id = /^\s*#(\d+)\s*$/.exec(text)?.[1];
  const ids = table.columns.id;
  if (id) return `feature ${id} is not here; ids go from ${ids[0]} to ${ids.at(-1)}`;
  try {
    if (CONDITION.test(text)) parseCondition(text);
  } catch (error) {
    return error.message;
  }
  return "";
}

function acceptCondition(box) {
  const condition = box.value.trim();
  try {
    parseCondition(condition);
  } catch (error) {
    byId("query-problem").textContent = error.message;
    return;
  }
  box.value = "";
  change({ q: "", filter: [...state.filter, condition] });
}

/** Read the texts at the first search that needs them, and list again when they are there. */
async function readTexts() {
  if (!needsTexts(state.q) || searchTexts || readingTexts) return;
  readingTexts = true;
  try {
    await loadSearch();
    showList();
  } catch (error) {
    byId("query-problem").textContent = error.message;
  }
  readingTexts = false;
}

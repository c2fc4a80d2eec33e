// The search box: what is typed lists features at once, Enter opens the first one or adds a condition.

const PAUSE = 120; // milliseconds after the last letter
let readingTexts = false;

function startSearch() {
  const box = byId("search");
  let timer = 0;
  box.addEventListener("input", () => {
    clearTimeout(timer);
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

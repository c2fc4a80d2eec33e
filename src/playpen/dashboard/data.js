// What the data files of a dashboard hold.

/** The list, a column an array; filled by loadList. A feature's place in it is not its id when only some features were made. */
const table = { columns: {}, size: 0, placeOf: new Map() };
let meta = null;
let searchTexts = null; // place in the list -> text, once it is there

receive("meta", () => "meta.js");
receive("list", () => "list.js");
receive("search", () => "search.js");
receive("shard", shardFile);

async function loadList() {
  meta = await load("meta.js");
  if (meta.format !== 1) throw new Error(`the data is of format ${meta.format}, but this page reads format 1; make it again`);
  table.columns = await loadPacked("list.js");
  table.size = table.columns.id.length;
  table.columns.id.forEach((id, place) => table.placeOf.set(id, place));
  addNames();
}

/** The names of a feature's best category and source are columns too; its id is always shown. */
function addNames() {
  const names = [
    { key: "category", label: "category", help: "the category that it tells best from all other prompts", format: "name" },
    { key: "source", label: "source", help: "the source on which it is densest", format: "name" },
  ];
  const numbers = meta.columns.filter(({ key }) => key !== "id" && !TEXTUAL.has(key));
  meta.columns = [...numbers, ...names.filter(({ key }) => has(key) && partsOf(key).length)];
}

async function loadSearch() {
  const { id, text } = await loadPacked("search.js");
  searchTexts = new Array(table.size).fill("");
  id.forEach((value, i) => (searchTexts[table.placeOf.get(value)] = text[i]));
}

/** Promise one feature of the dashboard with the strings of its shard. */
async function loadFeature(id) {
  const place = table.placeOf.get(id);
  if (place === undefined) throw new Error(`there is no feature ${id} in this dashboard of ${number(table.size)} features`);
  const shard = await loadShard(Math.floor(place / meta.shard_features));
  const found = shard.features.find((feature) => feature.id === id);
  if (!found) throw new Error(`feature ${id} is missing from its data file; make the dashboard again`);
  return { ...found, strings: shard.strings, place };
}

/** The value of a column for a feature by its place, as text. */
function cellText(key, place) {
  const value = table.columns[key]?.[place];
  if (TEXTUAL.has(key)) return partName(key, value);
  return format(columnOf(key)?.format, value);
}

const partsOf = (key) => (key === "source" ? meta.sources : meta.categories);
const partName = (key, value) => partsOf(key)[value ?? -1]?.name ?? DASH;
const columnOf = (key) => meta.columns.find((column) => column.key === key);
const has = (key) => table.columns[key]?.some((value) => value !== null) ?? false;

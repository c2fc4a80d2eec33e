// The data files: scripts that call one function of `playpen` each, added when something of theirs is shown.

/** The list, a column an array; filled by loadList. A feature's place in it is not its id when only some features were made. */
const table = { columns: {}, size: 0, placeOf: new Map() };
let meta = null;
let searchTexts = null; // place in the list -> text, once it is there

const KEPT_SHARDS = 24;
const arrivals = new Map(); // file -> what to do with its content
const shards = new Map(); // number -> promise of its content, the one used last at the end

window.playpen = {
  meta: (content) => arrivals.get("meta.js")?.(content),
  list: (payload) => arrivals.get("list.js")?.(payload),
  search: (payload) => arrivals.get("search.js")?.(payload),
  shard: (number, payload) => arrivals.get(shardFile(number))?.(payload),
};

const shardFile = (number) => `shard-${String(number).padStart(5, "0")}.js`;

/** Promise what a data file holds, packed as it is. */
function load(file) {
  return new Promise((resolve, reject) => {
    const script = el("script", { src: `data/${file}` });
    const failed = () => reject(new Error(`data/${file} could not be read: keep the data folder beside this page, and unbroken`));
    arrivals.set(file, resolve);
    script.onerror = failed;
    script.onload = () => {
      script.remove();
      failed(); // does nothing when the content has come, which is before
    };
    document.head.append(script);
  });
}

/** Promise what a packed data file holds: base64 of gzip of JSON. */
async function loadPacked(file) {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("this browser cannot unpack gzip; use Chrome 123, Firefox 120, Safari 17.5 or a newer one");
  }
  const payload = await load(file);
  try {
    return await unpack(payload);
  } catch {
    throw new Error(`data/${file} is damaged: copy the data folder again, or make the dashboard again`);
  }
}

function unpack(payload) {
  const text = atob(payload);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

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

function loadShard(wanted) {
  const there = shards.get(wanted) ?? loadPacked(shardFile(wanted));
  shards.delete(wanted);
  shards.set(wanted, there);
  there.catch(() => shards.delete(wanted)); // so that another try reads it again
  if (shards.size > KEPT_SHARDS) shards.delete(shards.keys().next().value);
  return there;
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

// Which features are listed, and in which order: conditions, the search and the sort.

const FLAGS = { dead: 1, dense: 2, single: 4 };
const TEXTUAL = new Set(["source", "category"]); // columns that hold a name
const CONDITION = /^\s*([a-z_]+)\s*(>=|<=|!=|=|>|<)\s*(.*?)\s*$/;
const COMPARE = {
  ">": (a, b) => a > b,
  "<": (a, b) => a < b,
  ">=": (a, b) => a >= b,
  "<=": (a, b) => a <= b,
  "=": (a, b) => a === b,
  "!=": (a, b) => a !== b,
};

/** Turn a condition as text into a test of a feature's place; throws a line that says what is wrong. */
function parseCondition(text) {
  const flag = /^\s*(!?)\s*([a-z]+)\s*$/.exec(text);
  if (flag && flag[2] in FLAGS) return (place) => hasFlag(place, flag[2]) === !flag[1];
  const found = CONDITION.exec(text);
  if (!found) throw new Error(`'${text}' is no condition; write for instance density > 0.1% or !dead`);
  const [, key, sign, value] = found;
  return TEXTUAL.has(key) ? nameTest(key, sign, value) : numberTest(key, sign, value);
}

const hasFlag = (place, flag) => Boolean(table.columns.flags[place] & FLAGS[flag]);

function nameTest(key, sign, name) {
  const names = partsOf(key).map((part) => part.name);
  const wanted = names.indexOf(name);
  if (wanted < 0) throw new Error(`there is no ${key} '${name}'; known: ${names.join(", ") || "none"}`);
  if (sign !== "=" && sign !== "!=") throw new Error(`a ${key} is equal to a name or not: ${key} = ${name}`);
  return (place) => (table.columns[key][place] === wanted) === (sign === "=");
}

function numberTest(key, sign, value) {
  const keys = ["id", ...meta.columns.map((column) => column.key).filter((other) => !TEXTUAL.has(other))];
  if (!keys.includes(key)) throw new Error(`there is no statistic '${key}'; known: ${keys.join(", ")}`);
  const share = value.endsWith("%");
  const limit = Number((share ? value.slice(0, -1) : value).replaceAll(MINUS, "-")) / (share ? 100 : 1);
  if (!value || Number.isNaN(limit)) throw new Error(`${key} is compared with a number, found '${value}'`);
  const column = table.columns[key];
  return (place) => column[place] !== null && COMPARE[sign](column[place], limit);
}

/** Whether a text is, or is going to be, a condition rather than something to look for. */
function looksLikeCondition(text) {
  const key = CONDITION.exec(text)?.[1];
  return key === "id" || TEXTUAL.has(key) || columnOf(key) !== undefined;
}

/** How well a feature's place meets the search: 1 token, 2 promoted token, 3 text of an example, 0 not at all. */
function matcher(query) {
  const wanted = query.trim().toLowerCase();
  if (/^#\d+$/.test(wanted)) return (place) => Number(table.columns.id[place] === Number(wanted.slice(1)));
  const quoted = /^"(.+)"$/.exec(wanted)?.[1].trim();
  const fits = quoted ? (token) => token.trim().toLowerCase() === quoted : (token) => token.toLowerCase().includes(wanted);
  const { tokens, up } = table.columns;
  return (place) => {
    if (tokens[place].some(fits)) return 1;
    if (up[place].some(fits)) return 2;
    return !quoted && searchTexts?.[place].includes(wanted) ? 3 : 0;
  };
}

const needsTexts = (query) => query.trim() !== "" && !/^\s*(#\d*|".*)\s*$/.test(query);

/** The places of the features that a state lists, in its order, and how each met the search: {places, met, problem}. */
function runQuery({ q, filter, sort }) {
  const found = findPlaces(q, filter);
  const compare = comparison(sort);
  found.places.sort((a, b) => found.met[a] - found.met[b] || compare(a, b));
  return found;
}

/** The same in the order of the data. */
function findPlaces(q, filter) {
  const { tests, problem } = parseAll(filter);
  const match = q.trim() ? matcher(q) : () => 1;
  const met = new Uint8Array(table.size);
  const places = [];
  for (let place = 0; place < table.size; place++) {
    if (!tests.every((test) => test(place))) continue;
    met[place] = match(place);
    if (met[place]) places.push(place);
  }
  return { places, met, problem };
}

function parseAll(conditions) {
  const tests = [];
  let problem = "";
  for (const condition of conditions) {
    try {
      tests.push(parseCondition(condition));
    } catch (error) {
      problem = error.message;
    }
  }
  return { tests, problem };
}

/** Compare two places by a sort: a column's key, with - before it for the greatest first. What has no value comes last. */
function comparison(sort) {
  const key = sort.replace("-", "");
  const column = table.columns[key] ?? table.columns.id;
  const sign = sort.startsWith("-") ? -1 : 1;
  const difference = TEXTUAL.has(key) ? (a, b) => partName(key, a).localeCompare(partName(key, b)) : (a, b) => a - b;
  return (a, b) => {
    const [left, right] = [column[a], column[b]];
    if (left === null || right === null) return (left === null) - (right === null) || a - b;
    return sign * difference(left, right) || a - b;
  };
}

/** The part of a feature's text around a match, for its row: [before, match, after]. */
function snippet(query, place) {
  const wanted = query.trim().toLowerCase();
  const text = searchTexts[place];
  const at = text.indexOf(wanted);
  const end = at + wanted.length;
  return [text.slice(Math.max(0, at - 10), at), text.slice(at, end), text.slice(end, end + 40)].map(visible);
}

// Elements and numbers: what every other file uses.

const MINUS = "\u2212";
const DASH = "\u2013";
const byId = (id) => document.getElementById(id);

/** Fill an element: `set` holds attributes, `on...` listeners and `--...` style properties; null or false leaves one out. */
function fill(node, set, children) {
  for (const [key, value] of Object.entries(set)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key.startsWith("--")) node.style.setProperty(key, value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  // Text goes in as text: nothing of the data is ever read as HTML.
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const el = (tag, set = {}, ...children) => fill(document.createElement(tag), set, children);
const svg = (tag, set = {}, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), set, children);

const div = (name, ...children) => el("div", { class: name || null }, children);
const span = (name, ...children) => el("span", { class: name || null }, children);
const p = (name, ...children) => el("p", { class: name || null }, children);
const ul = (name, items) => el("ol", { class: name }, items);
const pairs = (name, rows) =>
  el(
    "dl",
    { class: name || null },
    rows.map(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]),
  );

/** Put children, however nested, in place of what an element holds. */
function put(node, ...children) {
  node.replaceChildren();
  return fill(node, {}, children);
}

function button(text, act, set = {}) {
  return el("button", { type: "button", onclick: act, ...set }, text);
}

// One for each number of digits after the point: making them is what takes time.
const formatters = Array.from({ length: 6 }, (_, digits) => {
  return new Intl.NumberFormat("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
});

/** A number with a real minus, a comma between thousands and 0 to 5 digits after the point. */
function number(value, digits = 0, sign = false) {
  const text = formatters[digits].format(Math.abs(value));
  const zero = !/[1-9]/.test(text);
  return (zero ? "" : value < 0 ? MINUS : sign ? "+" : "") + text;
}

/** A number of unknown size with three digits that count. */
function short(value) {
  if (value === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(value)));
  if (size > 5 || size < -4) return value.toExponential(1).replace("-", MINUS).replace("e+", "e");
  return number(Number(value.toPrecision(3)), Math.max(0, Math.min(5, 2 - size)));
}

/** A share as a percentage; what is there is never shown as 0. */
function percent(share) {
  if (share === 0) return "0%";
  const size = Math.floor(Math.log10(100 * Math.abs(share)) + 1e-9);
  if (size < -4) return (100 * share).toExponential(0).replace("-", MINUS) + "%";
  return number(100 * share, Math.max(0, Math.min(4, 2 - size))) + "%";
}

/** A share with two digits that count, for a sentence. */
const roughly = (share) => (share >= 0.0001 ? `${plain(Number((100 * share).toPrecision(2)))}%` : percent(share));

/** A value in the format that the meta file gives its column. */
function format(kind, value) {
  if (value === null || value === undefined) return DASH;
  if (kind === "name") return String(value);
  if (kind === "int") return number(value);
  if (kind === "percent") return percent(value);
  if (kind === "signed") return number(value, 2, true);
  return value !== 0 && Math.abs(value) < 1 ? number(value, 3) : short(value);
}

/** A number on an axis: no more digits than it has. */
function plain(value) {
  if (value !== 0 && Math.abs(value) < 9e-6) return short(value);
  const digits = (String(Number(value.toPrecision(6))).split(".")[1] ?? "").length;
  return number(value, Math.min(5, digits));
}

/** How much of the whole a value is, in 0 to 1. */
const shareOf = (value, full) => (full > 0 ? Math.max(0, Math.min(1, value / full)) : 0);

/** "1 in 250" for a share. */
const oneIn = (share) => (share > 0.1 ? `${roughly(share)} of` : `1 in ${number(Number((1 / share).toPrecision(2)))}`);

/** The colour that a style property stands for now, for a canvas. */
function colour(name) {
  const probe = el("span", { hidden: true, style: `color: var(${name})` });
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

async function copyText(text, where) {
  try {
    await navigator.clipboard.writeText(text);
    where.dataset.done = "copied";
    setTimeout(() => delete where.dataset.done, 1200);
  } catch {
    window.prompt("Copy:", text); // a page opened from disk may not write to the clipboard everywhere
  }
}

/** Let `act` run at most once a frame. */
function onFrame(act) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      act();
    });
  };
}

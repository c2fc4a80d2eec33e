// What every view is put together from: heads, panels, tables and what went wrong.

const FEW = 10; // rows of a table before one asks for all

function panel(title, note, ...content) {
  return el("section", { class: "panel" }, el("h3", {}, title, note ? span("note", note) : null), content);
}

/** A table; a head that starts with # is over numbers. */
function grid(heads, rows, label) {
  const side = (i) => (heads[i].startsWith("#") ? "num" : null);
  const top = heads.map((head, i) => el("th", { scope: "col", class: side(i) }, head.replace("#", "")));
  const line = (cells) => cells.map((cell, i) => el("td", { class: side(i) }, cell));
  const body = rows.map((cells) => el("tr", {}, line(cells)));
  const made = el("table", { "aria-label": label }, el("thead", {}, el("tr", {}, top)), el("tbody", {}, body));
  return div("scroll", made);
}

/** The first few rows, and a button for all of them. */
function fewFirst(rows, make) {
  if (rows.length <= FEW + 2) return make(rows);
  const box = div("", make(rows.slice(0, FEW)));
  box.append(button(`all ${rows.length}`, () => put(box, make(rows)), { class: "quiet all" }));
  return box;
}

function viewHead(title, ...acts) {
  return el("header", { class: "view-head" }, title, div("acts", acts));
}

function problem(message, again) {
  return fill(p("problem", message, " ", again ? button("try again", again) : null), { role: "alert" }, []);
}

// One tooltip for everything: by pointing, or by the arrows on an example that has the focus.
// An example is an element `.example` of tokens `.t`, with `tip`, which tells what to say of a token, and `start`, the first one.

/** Show the tooltip beside a box of the window, inside the window. */
function showTip(content, box) {
  const tip = put(byId("tip"), content);
  tip.hidden = false;
  const left = Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 8));
  const fits = box.bottom + 6 + tip.offsetHeight < innerHeight;
  const top = fits ? box.bottom + 6 : box.top - 6 - tip.offsetHeight;
  tip.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
}

const tipFor = (element, content) => showTip(content, element.getBoundingClientRect());
const hideTip = () => (byId("tip").hidden = true);

function pointAt(line, i) {
  line.querySelector(".t.pointed")?.classList.remove("pointed");
  const token = line.querySelector(`.t[data-i="${i}"]`);
  token.classList.add("pointed");
  line.pointed = i;
  tipFor(token, line.tip(i));
}

/** Point at the token after the one pointed at, or before it; at the peak first. */
function moveInside(line, by) {
  const shown = [...line.querySelectorAll(".t")].map((token) => Number(token.dataset.i));
  const from = line.pointed ?? line.start - by;
  pointAt(line, Math.max(shown[0], Math.min(shown.at(-1), from + by)));
}

function onPointer(event) {
  const target = event.target.closest?.(".t[data-i], [data-tip]");
  if (!target) return hideTip();
  return tipFor(target, target.dataset.tip ?? target.closest(".example").tip(Number(target.dataset.i)));
}

function onArrow(event) {
  const line = document.activeElement?.closest?.(".example");
  if (!line || (event.key !== "ArrowLeft" && event.key !== "ArrowRight")) return;
  moveInside(line, (event.key === "ArrowRight") === (line.dir === "ltr") ? 1 : -1);
  event.preventDefault();
}

function onLeave(event) {
  event.target.querySelector?.(".t.pointed")?.classList.remove("pointed");
  hideTip();
}

function startTips() {
  document.addEventListener("pointerover", onPointer);
  document.addEventListener("scroll", hideTip, { capture: true, passive: true });
  document.addEventListener("focusout", onLeave);
  document.addEventListener("keydown", onArrow);
}

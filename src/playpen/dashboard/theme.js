// Dark or light: as the system says, until somebody chooses; the choice is remembered where a page may.

const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";

function showTheme() {
  byId("theme").textContent = isDark() ? "\u263c" : "\u263e";
  byId("theme").title = isDark() ? "Light (d)" : "Dark (d)";
  document.dispatchEvent(new Event("repaint")); // a canvas does not follow the style sheet
}

function toggleTheme() {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  try {
    localStorage.setItem("playpen-theme", document.documentElement.dataset.theme);
  } catch {
    // a page opened from disk may have no storage: the choice lasts until it is closed
  }
  showTheme();
}

function startTheme() {
  try {
    const remembered = localStorage.getItem("playpen-theme");
    if (remembered) document.documentElement.dataset.theme = remembered;
  } catch {
    // see above
  }
  system.addEventListener("change", showTheme);
  byId("theme").onclick = toggleTheme;
  showTheme();
}

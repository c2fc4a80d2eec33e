// Tokens as text that can be read, whatever characters they hold.

// Controls, zero-width and direction marks would vanish, or turn the text around them: they are shown by their code.
// Joiners are left inside a token, where they hold an emoji or a word together.
const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]|^[\u200c\u200d\ufe0f]$/g;
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;

const code = (character) => `\u27e8${character.codePointAt(0).toString(16).toUpperCase().padStart(2, "0")}\u27e9`;

/** The text with what cannot be seen made visible, as one line. */
function visible(text) {
  return text.replaceAll("\r\n", "\u21b5").replaceAll("\n", "\u21b5").replaceAll("\t", "\u21e5").replace(UNSEEN, code);
}

const isRightToLeft = (text) => RIGHT_TO_LEFT.test(text);

/** A token on its own: spaces at its ends are dots, long ones are cut by the style and whole in the title. */
function chip(token, set = {}) {
  const shown = visible(token);
  const [, before, word, after] = /^( *)(.*?)( *)$/s.exec(shown);
  const dots = (spaces) => (spaces ? el("i", {}, "\u00b7".repeat(spaces.length)) : null);
  const body = token === "" ? el("i", {}, "empty") : [dots(before), word, dots(after)];
  return el("bdi", { class: "token", title: shown.length > 18 ? shown : null, ...set }, body);
}

const chips = (tokens) => tokens.map((token) => chip(token));

/** What a feature is called: its commonest tokens. */
function nameOf(place) {
  const active = table.columns.tokens[place];
  return active.length ? chips(active) : [span("faint", "never active")];
}

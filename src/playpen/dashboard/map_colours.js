// How the points of the map are coloured: by names, or along a ramp, with their legend.

const LEVELS = 24; // steps of a ramp: points of one step are drawn at once
const PALETTE = ["--accent", "--warm", "--green", "--violet", "--rose", "--gold", "--teal", "--brown"];
const RAMPS = ["log_odds", "density", "auroc", "max", "token_share", "category_auroc", "lift"];
const MIDDLES = { log_odds: 0, auroc: 0.5, category_auroc: 0.5 }; // where neither side prevails

const mapColours = () => [...RAMPS.filter((key) => has(key) && columnOf(key)), "flags", ...[...TEXTUAL].filter(columnOf)];

/** Points by colour: {key, parts: [{name, colour, places}]}, for a ramp with its low and high end. */
function groupsOf(key) {
  const places = Array.from({ length: table.size }, (_, place) => place).filter(onMap);
  if (key === "flags") return groupsByName(key, ["none", ...Object.keys(FLAGS)], places, flagNumber);
  if (!TEXTUAL.has(key)) return groupsByRamp(key, places);
  const names = partsOf(key).map((part) => part.name);
  return groupsByName(key, names, places, (place) => table.columns[key][place] ?? -1);
}

/** The place of a feature's first flag after "none". */
const flagNumber = (place) => 1 + Object.keys(FLAGS).findIndex((flag) => hasFlag(place, flag));

function groupsByName(key, names, places, numberOf) {
  const parts = names.map((name, i) => ({ name, colour: colour(PALETTE[i % PALETTE.length]), places: [] }));
  const none = { name: "none", colour: colour("--line"), places: [] };
  for (const place of places) (parts[numberOf(place)] ?? none).places.push(place);
  return { key, parts: [none, ...parts] };
}

function groupsByRamp(key, places) {
  const { on } = shapeOf(key);
  const { low, high } = rampEnds(key);
  const level = (value) => Math.max(0, Math.min(LEVELS - 1, Math.floor(((on(value) - low) / (high - low || 1)) * LEVELS)));
  const mix = rampMixer(key in MIDDLES);
  const parts = Array.from({ length: LEVELS }, (_, i) => ({ colour: mix((i + 0.5) / LEVELS), places: [] }));
  const none = { colour: colour("--line"), places: [] };
  for (const place of places) {
    const value = table.columns[key][place];
    (value === null || hasFlag(place, "dead") ? none : parts[level(value)]).places.push(place);
  }
  return { key, parts: [none, ...parts], low, high };
}

/** The ends of a ramp: the outer hundredths are left out, which would make everything else one colour. */
function rampEnds(key) {
  const { on, sorted } = shapeOf(key);
  const [low, high] = [0.01, 0.99].map((share) => on(sorted[Math.round(share * (sorted.length - 1))] ?? 0));
  const middle = MIDDLES[key];
  if (middle === undefined) return { low, high };
  const reach = Math.max(Math.abs(low - middle), Math.abs(high - middle)) || 1;
  return { low: middle - reach, high: middle + reach };
}

function rampMixer(diverging) {
  const [accent, warm, faint] = ["--accent", "--warm", "--ramp"].map(colour);
  const mix = (strong, share) => `color-mix(in oklab, ${strong} ${(100 * share).toFixed(1)}%, ${faint})`;
  if (!diverging) return (share) => mix(warm, share);
  return (share) => (share < 0.5 ? mix(accent, 1 - 2 * share) : mix(warm, 2 * share - 1));
}

function legend({ key, parts, low, high }) {
  const dot = (part) => span("", fill(el("i"), { "--dot": part.colour }, []), `${part.name} ${number(part.places.length)}`);
  if (low === undefined) return p("legend", parts.filter((part) => part.places.length).map(dot));
  const text = (value) => format(columnOf(key).format, shapeOf(key).log ? 10 ** value : value);
  const stops = parts
    .slice(1)
    .map((part) => part.colour)
    .join(", ");
  const ramp = el("i", { class: "ramp", "--stops": `linear-gradient(to right, ${stops})` });
  return p("legend", text(low), ramp, text(high));
}

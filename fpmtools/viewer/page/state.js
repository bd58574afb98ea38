/* What is looked at, and how: one object, which the part of the address after # holds too. */

export const VIEWS = {
  truecolour: { label: "True colour", kind: "field", layer: "truecolour", key: "t" },
  amplitude: { label: "Amplitude", kind: "field", layer: "amplitude", key: "a" },
  phase: { label: "Phase", kind: "field", layer: "phase", key: "p" },
  unwrapped: { label: "Unwrapped", kind: "field", layer: "unwrapped", key: "u" },
  colour: { label: "Colour", kind: "field", layer: "colour", key: "c" },
  spectrum: { label: "Spectrum", kind: "field", layer: "spectrum", key: "s" },
  raw: { label: "Raw", kind: "images", layer: "raw", key: "r" },
  rawspectrum: { label: "Raw spectrum", kind: "images", layer: "spectrum", key: "s" },
};
export const domainOf = (view) => (VIEWS[view].layer === "spectrum" ? "frequency" : "space");

export const state = {
  view: "amplitude",
  view2: "same", // of the second pane: "same", or one of VIEWS
  source: 0,
  source2: null, // null: one pane
  z: 0,
  led: 0,
  ranges: {}, // view → {low, high, colours}, where the user has chosen
  line: null, // {domain, ends: [x0, y0, x1, y1]}
  circles: true,
  places: {}, // domain → {x, y, width}: the middle and the width of what is seen
};

/* ---- the server ---- */
export class Refused extends Error {}
export const address = (what, words) => `/${what}?${new URLSearchParams(words)}`;
export const ask = async (what, words = {}) => {
  const answer = await fetch(address(what, words));
  const kind = answer.headers.get("Content-Type") ?? "";
  const found = kind.startsWith("application/json") ? await answer.json() : { error: (await answer.text()).trim() };
  if (!answer.ok) throw new Refused(found.error || `the server answered ${answer.status}`);
  return found;
};

/* ---- numbers as people read them ---- */
export const minus = (text) => String(text).replace("-", "−");
export const short = (value, digits = 4) => {
  if (!Number.isFinite(value)) return "–";
  const text = String(+value.toPrecision(digits));
  return minus(text === "-0" ? "0" : text);
};
export const length = (um) => (Math.abs(um) >= 1e3 ? `${short(um / 1e3)} mm` : Math.abs(um) < 0.5 && um !== 0 ? `${short(um * 1e3, 3)} nm` : `${short(um)}\u00a0µm`);
export const nice = (room) => {
  const decade = 10 ** Math.floor(Math.log10(room));
  return [5, 2, 1].find((step) => step * decade <= room * (1 + 1e-9)) * decade;
};

/* ---- the address ---- */
const numbers = (text, count) => {
  const found = String(text).split(",").map(Number);
  return found.length === count && found.every(Number.isFinite) ? found : null;
};
export const toHash = () => {
  const words = new URLSearchParams({ view: state.view, of: state.source });
  if (state.source2 !== null) words.set("beside", `${state.source2},${state.view2}`);
  words.set("z", +state.z.toPrecision(7));
  words.set("led", state.led);
  for (const [domain, place] of Object.entries(state.places)) {
    if (!place) continue;
    const { x, y, width } = place;
    words.set(domain === "space" ? "at" : "at.f", [x, y, width].map((v) => +v.toPrecision(6)).join(","));
  }
  for (const [view, { low, high, colours }] of Object.entries(state.ranges)) {
    words.set(`range.${view}`, `${+low.toPrecision(6)},${+high.toPrecision(6)},${colours}`);
  }
  if (state.line) words.set("line", [state.line.domain, ...state.line.ends.map((v) => +v.toPrecision(6))].join(","));
  if (!state.circles) words.set("circles", "0");
  return `#${words}`;
};
/* Takes what makes sense, and leaves the rest as it is: the text may be anybody's. */
export const fromHash = (text, scene) => {
  const words = new URLSearchParams(text.replace(/^#/, ""));
  const offered = (view) => Object.hasOwn(VIEWS, view) && scene.views.includes(view);
  const field = (value) => (scene.fields.includes(value) ? value : null);
  if (offered(words.get("view"))) state.view = words.get("view");
  state.source = field(Number(words.get("of") ?? NaN)) ?? state.source;
  const [source2, view2] = (words.get("beside") ?? "").split(",");
  if (words.has("view")) state.source2 = source2 ? field(Number(source2)) ?? (scene.fields.length ? null : 0) : null;
  if (view2 === "same" || offered(view2)) state.view2 = view2;
  const z = numbers(words.get("z") ?? "", 1);
  if (words.has("z") && z) state.z = Math.min(Math.max(z[0], scene.z[0]), scene.z[1]);
  const led = numbers(words.get("led") ?? "", 1);
  if (words.has("led") && led && scene.count) state.led = Math.min(Math.max(Math.round(led[0]), 0), scene.count - 1);
  for (const [name, domain] of [["at", "space"], ["at.f", "frequency"]]) {
    const place = words.has(name) && numbers(words.get(name), 3);
    if (place && place[2] > 0) state.places[domain] = { x: place[0], y: place[1], width: place[2] };
  }
  for (const view of Object.keys(VIEWS)) {
    const [low, high, colours] = (words.get(`range.${view}`) ?? "").split(",");
    const ends = numbers(`${low},${high}`, 2);
    if (words.has(`range.${view}`) && ends && ends[0] < ends[1] && Object.hasOwn(scene.palettes, colours)) {
      state.ranges[view] = { low: ends[0], high: ends[1], colours };
    }
  }
  const [domain, ...ends] = (words.get("line") ?? "").split(",");
  const line = numbers(ends.join(","), 4);
  if (line && (domain === "space" || domain === "frequency")) state.line = { domain, ends: line };
  if (words.has("circles")) state.circles = words.get("circles") !== "0";
};

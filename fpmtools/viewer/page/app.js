/* Puts the pieces together: what the user does changes the state, and the state is shown. */
import { Pane } from "./pane.js";
import { $, csv, drawFacts, drawLeds, drawProfile, drawRange, listenToRange, readout } from "./panels.js";
import { Refused, VIEWS, ask, domainOf, fromHash, length, state, toHash } from "./state.js";

history.replaceState(null, "", location.pathname + location.hash); // the cookie is enough from here on
let scene;
let panes = [];
let curves = [];
const scales = new Map(); // what the server says of a range, by source, view and, of images, LED

/* ---- what the scene offers ---- */
const prepare = (found) => {
  const kinds = (kind) => found.sources.flatMap((source, k) => (source.kind === kind ? [k] : []));
  const fields = kinds("field"), images = kinds("images");
  const ranges = found.sources.map((source) => source.z_range).filter(Boolean);
  const z = ranges.length ? [Math.min(...ranges.map((r) => r[0])), Math.max(...ranges.map((r) => r[1]))] : [0, 0];
  const has = (source, { kind, layer }) => source.kind === kind && layer in source.layers;
  const views = Object.keys(VIEWS).filter((view) => found.sources.some((source) => has(source, VIEWS[view])));
  return { ...found, fields, images, z, views, count: images.length ? found.sources[images[0]].count : 0 };
};
const viewOf = (k) => (k && state.view2 !== "same" ? state.view2 : state.view);
/* The fields that have a view: a picture in colours has no phase, and no field by itself is in colours. */
const having = (view) => scene.fields.filter((n) => VIEWS[view].kind === "images" || VIEWS[view].layer in scene.sources[n].layers);
const fieldOf = (k) => {
  const field = (k ? state.source2 : state.source) ?? scene.fields[0], able = having(viewOf(k));
  return able.includes(field) ? field : able[0];
};
/* Raw images are those of the field beside which they stand, or the first ones. */
const sourceOf = (k) => {
  const field = fieldOf(k);
  return VIEWS[viewOf(k)].kind === "images" ? scene.sources[field]?.raw ?? scene.images[0] : field;
};
const atOf = (source) => {
  const of = scene.sources[source];
  if (of.kind === "images") return Math.min(state.led, of.count - 1);
  return of.z_range ? Math.min(Math.max(state.z, of.z_range[0]), of.z_range[1]) : 0;
};
/* From where to where in z the slider goes: as far as what is shown does. */
const reach = () => {
  const ranges = panes.map((_, k) => scene.sources[sourceOf(k)].z_range).filter(Boolean);
  return ranges.length ? [Math.min(...ranges.map((r) => r[0])), Math.max(...ranges.map((r) => r[1]))] : scene.z;
};

/* ---- showing it ---- */
const scaleOf = async (view, source, afresh = false) => {
  const at = atOf(source);
  const key = `${source}/${view}/${scene.sources[source].kind === "images" ? at : ""}`;
  if (afresh || !scales.has(key)) scales.set(key, await ask("scale", { source, layer: VIEWS[view].layer, at }));
  return scales.get(key);
};
let round = 0;
const show = async () => {
  const mine = ++round;
  try {
    const chosen = {};
    for (let k = 0; k < panes.length; k++) { // what shows the same has one range: that of the first pane
      const view = viewOf(k);
      chosen[view] ??= { ...(await scaleOf(view, sourceOf(k))), ...state.ranges[view] };
      if (mine !== round) return;
    }
    panes.forEach((pane, k) => {
      const [view, source] = [viewOf(k), sourceOf(k)];
      const { low, high, colours } = chosen[view];
      pane.show({ view, source, at: atOf(source), low, high, colours });
    });
    const lonely = panes.length > 1 && panes[0].apart(panes[1]);
    const range = chosen[state.view];
    drawRange(range, await scaleOf(state.view, sourceOf(0)), scene.palettes, state.view);
    say(lonely ? "The two lie apart in the camera's field, and do not move together." : "", "hint");
  } catch (error) {
    complain(error);
  }
  controls();
  remember();
};
const controls = () => {
  for (const button of $("views").children) {
    const chosen = button.dataset.view === state.view;
    button.setAttribute("aria-pressed", String(chosen));
    if (chosen) $("views").scrollLeft = button.offsetLeft - $("views").offsetLeft - 40; // where not all of them fit
  }
  const [low, high] = [$("z").min, $("z").max] = reach();
  const deep = panes.some((_, k) => scene.sources[sourceOf(k)].z_range);
  $("depth").hidden = low === high || !deep;
  $("one-z").hidden = low !== high || !deep;
  $("one-z").textContent = `z = ${length(low)}`;
  $("z").value = state.z;
  $("z").setAttribute("aria-valuetext", `${state.z.toFixed(2)} µm`);
  if (document.activeElement !== $("z-number")) $("z-number").value = +state.z.toFixed(3);
  $("compare").setAttribute("aria-pressed", String(panes.length > 1));
  const shown = panes.map((_, k) => scene.sources[sourceOf(k)]);
  const lit = shown.find((source) => source.lights) ?? scene.sources.find((source) => source.lights);
  drawLeds(lit?.lights, scene.count, state.view);
  drawFacts([...new Set(shown)], notes(shown));
  panes.forEach((pane, k) => {
    heads(pane, k);
    pane.draw();
  });
};
const notes = (shown) => {
  const [a, b] = shown.map((source) => source.layers[Object.keys(source.layers)[0]]);
  const size = ({ shape, pixel }) => shape.map((n, k) => n * pixel[k]);
  const differ = b && size(a).some((v, k) => Math.abs(v / size(b)[k] - 1) > 0.01);
  return [...scene.notes, ...(differ ? ["The two fields of view differ in size."] : [])];
};
/* ---- the names over a picture, and what can be chosen there ---- */
const choice = (label, options, value, changed) => {
  const select = document.createElement("select");
  select.setAttribute("aria-label", label);
  for (const [key, text] of options) select.add(new Option(text, key, false, String(key) === String(value)));
  select.addEventListener("change", () => changed(select.value));
  return select;
};
const heads = (pane, k) => {
  const view = viewOf(k), source = scene.sources[sourceOf(k)];
  const key = JSON.stringify([k, view, state.view2, sourceOf(k), atOf(sourceOf(k)), state.z]);
  if (pane.heads.dataset.key === key || pane.heads.contains(document.activeElement) && pane.heads.dataset.key?.startsWith(`[${k},"${view}"`)) return;
  pane.heads.dataset.key = key;
  const parts = [];
  const tag = (text) => {
    const span = document.createElement("span");
    span.className = "tag";
    span.textContent = text;
    span.title = text;
    parts.push(span);
  };
  const fields = having(view).map((n) => [n, scene.sources[n].name]);
  if (VIEWS[view].kind === "field" && fields.length > 1) {
    parts.push(choice(k ? "Right: what of" : "What of", fields, sourceOf(k), (value) => {
      state[k ? "source2" : "source"] = Number(value);
      again();
    }));
  } else tag(source.kind === "images" ? `${source.name}, ${atOf(sourceOf(k))}` : source.name);
  if (k) {
    const views = [["same", "same view"], ...scene.views.map((name) => [name, VIEWS[name].label])];
    parts.push(choice("Right: view", views, state.view2, (value) => { state.view2 = value; again(); }));
  }
  if (source.z_range && Math.abs(atOf(sourceOf(k)) - state.z) > 1e-6) tag(`z = ${atOf(sourceOf(k))} µm, the nearest it has`);
  pane.heads.replaceChildren(...parts);
};
const again = () => {
  show();
  profile();
};

/* ---- panes ---- */
const told = {
  moved(pane) {
    if (told.following || pane.resizing || !pane.wanted || !pane.placed) return;
    state.places[pane.domain] = pane.home ? undefined : pane.view;
    told.following = true;
    for (const other of panes) if (other !== pane && other.wanted && other.placed && other.domain === pane.domain && !other.apart(pane)) {
      other.home = pane.home;
      other.follow(pane.view);
    }
    told.following = false;
    remember();
  },
  pointed(pane, point) {
    told.point = point && pane.wanted && { pane, point };
    if (!told.asking) value();
  },
  line(pane, ends, done) {
    state.line = { domain: pane.domain, ends };
    panes.forEach((one) => one.draw());
    if (done) profile();
  },
  failed: (text) => complain(new Refused(text)),
  shown: () => remember(),
};
const value = async () => {
  told.asking = true;
  while (told.point) {
    const { pane, point } = told.point;
    told.point = null;
    const pixel = pane.pixelAt(point);
    const { source, view, at } = pane.wanted;
    let values = null;
    try {
      if (pixel) values = await ask("at", { source, layer: VIEWS[view].layer, at, x: pixel[0], y: pixel[1] });
    } catch (error) {
      complain(error);
    }
    $("readout").textContent = readout(pane, point, values, scene.sources[source].lights?.wavelength_um);
  }
  told.asking = false;
};
const arrange = () => { // as many panes as the state says
  const count = state.source2 === null ? 1 : 2;
  while (panes.length > count) {
    panes.pop().destroy();
  }
  $("stage").classList.toggle("two", count > 1);
  while (panes.length < count) panes.push(new Pane($("stage"), scene, told));
  panes.forEach((pane) => pane.resized());
};
const compare = () => {
  if (state.source2 !== null) state.source2 = null;
  else {
    const others = having(state.view).filter((n) => n !== fieldOf(0));
    state.source2 = others[0] ?? state.source;
    if (!others.length && state.view === "truecolour") state.view2 = "amplitude";
    else if (!others.length) state.view2 = scene.count ? "raw" : state.view === "phase" ? "amplitude" : "phase";
    else state.view2 = "same";
  }
  arrange();
  again();
};

/* ---- lines ---- */
let asked = 0;
const profile = async () => {
  const mine = ++asked;
  const { line } = state;
  if (!line) {
    drawProfile(null);
    panes.forEach((pane) => pane.draw());
    return remember();
  }
  try {
    const found = [];
    for (let k = 0; k < panes.length; k++) {
      const view = viewOf(k), source = sourceOf(k), of = scene.sources[source];
      if (domainOf(view) !== line.domain) continue;
      const { pixel: [tall, wide], origin: [x, y] } = of.layers[VIEWS[view].layer];
      const [x0, y0, x1, y1] = line.ends.map((v, i) => (i % 2 ? (v - y) / tall : (v - x) / wide));
      const curve = await ask("profile", { source, layer: VIEWS[view].layer, at: atOf(source), x0, y0, x1, y1 });
      found.push({ ...curve, name: `${of.name}: ${VIEWS[view].label.toLowerCase()}` });
    }
    if (mine !== asked) return;
    curves = found;
    drawProfile(line, curves);
  } catch (error) {
    complain(error);
  }
  panes.forEach((pane) => pane.draw());
  remember();
};

/* ---- telling ---- */
const say = (text, kind = "") => {
  $("message").textContent = text;
  $("message").className = kind;
  $("message").hidden = !text;
};
const complain = (error) => say(error instanceof Refused ? error.message : `The server cannot be reached (${error.message}); has 'fpmtools view' ended?`);
let written = null;
const remember = () => {
  clearTimeout(written);
  written = setTimeout(() => history.replaceState(null, "", location.pathname + toHash()), 100);
};

/* ---- what the user does ---- */
const look = (view) => {
  if (!scene.views.includes(view)) return;
  state.view = view;
  again();
};
const depth = (z) => {
  if (!Number.isFinite(z)) return;
  const [low, high] = reach();
  state.z = Math.min(Math.max(z, low), high);
  again();
};
const deeper = (way) => {
  const { planes } = scene.sources[sourceOf(0)];
  const [low, high] = reach(), step = (high - low) / 40;
  const slack = 1e-6 * Math.max(1, Math.abs(state.z));
  const next = way > 0 ? planes.find((z) => z > state.z + slack) : planes.findLast((z) => z < state.z - slack);
  depth(next ?? state.z + way * step);
};
const light = (led) => {
  const count = scene.count || scene.sources.find((source) => source.lights)?.lights.na.length;
  if (!count || !Number.isFinite(led)) return;
  state.led = (Math.round(led) + count) % count;
  show();
  if (VIEWS[state.view].kind === "images" || panes.length > 1) profile();
};
const setRange = (end, to) => {
  const [view, source] = [state.view, sourceOf(0)];
  const { low, high, colours } = { ...scales.get(`${source}/${view}/${scene.sources[source].kind === "images" ? atOf(source) : ""}`), ...state.ranges[view] };
  const next = { low, high, colours, [end]: to };
  if (end !== "colours" && !(next.low < next.high)) return;
  state.ranges[view] = next;
  show();
};
const auto = async () => {
  delete state.ranges[state.view];
  try {
    await scaleOf(state.view, sourceOf(0), true);
  } catch (error) {
    return complain(error);
  }
  show();
};
const fit = () => panes.forEach((pane) => pane.place(null, false));
const drawing = (on = !$("stage").classList.contains("drawing")) => {
  $("stage").classList.toggle("drawing", on);
  $("line").setAttribute("aria-pressed", String(on));
};
const swap = () => {
  if (state.source2 === null) return;
  [state.source, state.source2] = [state.source2, state.source];
  again();
};
const clear = () => {
  state.line = null;
  drawing(false);
  profile();
};
const copy = async () => {
  try {
    await navigator.clipboard.writeText(`${location.origin}/${toHash()}`);
  } catch {
    return say("The browser does not let the page copy; the address above holds the view.");
  }
  $("link").textContent = "Copied";
  setTimeout(() => { $("link").textContent = "Copy link"; }, 1500);
};
const save = () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv(curves, state.line.domain === "space" ? "distance (µm)" : "distance (cycles/µm)")], { type: "text/csv" }));
  link.download = "line.csv";
  link.click();
  URL.revokeObjectURL(link.href);
};
const KEYS = {
  "[": () => deeper(-1), PageDown: () => deeper(-1), "]": () => deeper(1), PageUp: () => deeper(1),
  ",": () => light(state.led - 1), ".": () => light(state.led + 1),
  t: () => look("truecolour"), a: () => look("amplitude"), p: () => look("phase"), u: () => look("unwrapped"), c: () => look("colour"),
  r: () => look("raw"), s: () => look(VIEWS[state.view].kind === "images" ? "rawspectrum" : "spectrum"),
  d: compare, x: swap, l: () => drawing(), Escape: clear, e: auto, 0: fit, "?": () => $("keys").showModal(),
  "+": () => zoom(1.3), "=": () => zoom(1.3), "-": () => zoom(1 / 1.3),
  ArrowLeft: () => pan(-1, 0), ArrowRight: () => pan(1, 0), ArrowUp: () => pan(0, -1), ArrowDown: () => pan(0, 1),
};
const zoom = (factor) => {
  panes[0].home = false;
  panes[0].viewer.viewport.zoomBy(factor).applyConstraints();
};
const pan = (dx, dy) => {
  panes[0].home = false;
  const { viewport } = panes[0].viewer;
  const step = 0.12 * viewport.getBounds().width;
  viewport.panBy(new OpenSeadragon.Point(dx * step, dy * step)).applyConstraints();
};
const typed = (event) => {
  const { target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
  const own = target.matches("input, select, textarea") && !(target.type === "checkbox");
  if (own && !["[", "]", "?", "Escape"].includes(event.key)) return;
  if (!Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  if (event.key === "Escape" && own) target.blur();
  else KEYS[event.key]();
};

const listen = () => {
  for (const view of scene.views) {
    const { label, key } = VIEWS[view];
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.dataset.view = view;
    button.title = `${label} (${key})`;
    button.addEventListener("click", () => look(view));
    $("views").append(button);
  }
  for (const name of Object.keys(scene.palettes).filter((name) => name !== "hue")) $("colours").add(new Option(name, name));
  $("z").addEventListener("input", () => depth($("z").valueAsNumber));
  $("z-number").addEventListener("change", () => depth($("z-number").valueAsNumber));
  $("led").addEventListener("change", () => light($("led").valueAsNumber));
  $("led-map").addEventListener("click", ({ target }) => {
    if (!target.dataset.led) return;
    light(Number(target.dataset.led));
    if (scene.count && panes.every((_, k) => domainOf(viewOf(k)) === "space" && VIEWS[viewOf(k)].kind === "field")) look("raw");
  });
  $("circles").addEventListener("change", () => { state.circles = $("circles").checked; controls(); remember(); });
  $("colours").addEventListener("change", () => setRange("colours", $("colours").value));
  listenToRange(setRange);
  for (const [k, id] of ["x0", "y0", "x1", "y1"].entries()) {
    $(id).addEventListener("change", () => {
      if (!Number.isFinite($(id).valueAsNumber)) return;
      state.line.ends[k] = $(id).valueAsNumber;
      profile();
    });
  }
  const clicks = {
    compare, link: copy, auto, fit, "z-down": () => deeper(-1), "z-up": () => deeper(1), "clear-line": clear, line: () => drawing(),
    "led-before": () => light(state.led - 1), "led-after": () => light(state.led + 1), "save-line": save, help: () => $("keys").showModal(),
  };
  for (const [id, act] of Object.entries(clicks)) $(id).addEventListener("click", () => act());
  document.addEventListener("keydown", typed);
  addEventListener("hashchange", () => { // an address that somebody has put in
    Object.assign(state, { ranges: {}, places: {}, line: null });
    fromHash(location.hash, scene);
    $("circles").checked = state.circles;
    arrange();
    panes.forEach((pane) => pane.placed && pane.place(pane.sees(state.places[pane.domain])));
    again();
  });
};

const start = async () => {
  try {
    scene = prepare(await ask("scene"));
  } catch (error) {
    return complain(error);
  }
  $("title").textContent = $("title").title = scene.title;
  document.title = `${scene.title} · fpmtools`;
  state.view = scene.fields.some((n) => scene.sources[n].z_range) || !scene.images.length ? scene.views[0] : "raw";
  const results = having(state.view).filter((n) => scene.sources[n].z_range);
  state.source = scene.fields[0] ?? 0;
  if (results.length > 1) state.source2 = results[1];
  state.z = Math.min(Math.max(0, scene.z[0]), scene.z[1]);
  const na = scene.sources.find((source) => source.lights)?.lights.na;
  if (na) state.led = na.reduce((best, [x, y], k) => (Math.hypot(x, y) < Math.hypot(...na[best]) ? k : best), 0); // the middle one
  fromHash(location.hash, scene);
  $("circles").checked = state.circles;
  listen();
  arrange();
  again();
};
start();

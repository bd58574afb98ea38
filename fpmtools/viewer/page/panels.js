/* What stands beside the pictures: range and histogram, LEDs, values along a line, facts. Text is only ever text. */
import { svg } from "./pane.js";
import { domainOf, length, minus, nice, short, state } from "./state.js";

export const $ = (id) => document.getElementById(id);
const tell = (name, text, kind) => {
  const element = document.createElement(name);
  element.textContent = text;
  if (kind) element.className = kind;
  return element;
};

/* ---- range ---- */
const WIDE = 240, HIGH = 56;
let found = null; // what the histogram shows: {from, to, counts}
export const drawRange = ({ low, high, colours }, scale, palettes, view) => {
  const grey = document.activeElement;
  if (grey !== $("low")) $("low").value = +low.toPrecision(5);
  if (grey !== $("high")) $("high").value = +high.toPrecision(5);
  $("unit").textContent = scale.unit;
  found = scale;
  const most = Math.log1p(Math.max(...scale.counts, 1));
  const wide = WIDE / scale.counts.length;
  const path = scale.counts.map((n, k) => {
    const tall = (Math.log1p(n) / most) * HIGH;
    return n ? `M${k * wide} ${HIGH}v${-tall}h${wide}v${tall}z` : "";
  });
  const at = (value) => Math.min(Math.max(((value - scale.from) / (scale.to - scale.from)) * WIDE, 0), WIDE);
  const [a, b] = [at(low), at(high)];
  $("histogram").replaceChildren(
    svg("path", { class: "counts", d: path.join("") }),
    svg("rect", { class: "outside", x: 0, y: 0, width: a, height: HIGH }),
    svg("rect", { class: "outside", x: b, y: 0, width: WIDE - b, height: HIGH }),
    ...[a, b].map((x) => svg("rect", { class: "handle", x: x - 1.5, y: 0, width: 3, height: HIGH })),
  );
  const coloured = view === "colour" || view === "truecolour"; // these have colours of their own
  $("bar").style.background = `linear-gradient(to right, ${(coloured ? ["#000", "#fff"] : palettes[colours]).join(",")})`;
  $("colours").disabled = coloured;
  if (!coloured) $("colours").value = colours;
  $("wheel-row").hidden = view !== "colour";
  if (view === "colour") $("wheel").style.background = `conic-gradient(from -90deg, ${[...palettes.hue, palettes.hue[0]].join(",")})`;
};
/* Dragging in the histogram moves the nearer end. */
export const listenToRange = (changed) => {
  let end = null;
  const valueAt = (event) => {
    const box = $("histogram").getBoundingClientRect();
    return found.from + ((event.clientX - box.left) / box.width) * (found.to - found.from);
  };
  const move = (event) => changed(end, Math.min(Math.max(valueAt(event), found.from), found.to));
  $("histogram").addEventListener("pointerdown", (event) => {
    if (!found) return;
    const value = valueAt(event);
    end = Math.abs(value - $("low").value) < Math.abs(value - $("high").value) ? "low" : "high";
    $("histogram").setPointerCapture(event.pointerId);
    move(event);
  });
  $("histogram").addEventListener("pointermove", (event) => end && move(event));
  for (const over of ["pointerup", "pointercancel"]) $("histogram").addEventListener(over, () => { end = null; });
  for (const id of ["low", "high"]) {
    $(id).addEventListener("change", () => Number.isFinite($(id).valueAsNumber) && changed(id, $(id).valueAsNumber));
  }
};

/* ---- LEDs ---- */
const MOST_LAMPS = 4000;
let drawnFor = null;
export const drawLeds = (lights, count, view) => {
  $("leds").hidden = !lights || !(count || domainOf(view) === "frequency");
  if ($("leds").hidden) return;
  const reach = 1.1 * Math.max(...lights.na.flat().map(Math.abs), lights.objective_na ?? 0, 1e-6);
  if (drawnFor !== lights) {
    drawnFor = lights;
    const r = Math.min(Math.max(0.62 / Math.sqrt(lights.na.length), 0.012), 0.055);
    const lamps = lights.na.slice(0, MOST_LAMPS).map(([x, y], k) => {
      const kind = !lights.used[k] ? "out" : lights.objective_na && Math.hypot(x, y) > lights.objective_na ? "dark" : "";
      return svg("circle", { class: `lamp ${kind}`, cx: x / reach, cy: y / reach, r, "data-led": k });
    });
    const ring = lights.objective_na ? [svg("circle", { class: "aperture", cx: 0, cy: 0, r: lights.objective_na / reach })] : [];
    $("led-map").replaceChildren(...ring, ...lamps);
    $("led").max = lights.na.length - 1;
  }
  for (const lamp of $("led-map").querySelectorAll(".lamp")) lamp.classList.toggle("chosen", lamp.dataset.led === String(state.led));
  if (document.activeElement !== $("led")) $("led").value = state.led;
  const [x, y] = lights.na[state.led] ?? [NaN, NaN];
  const size = Math.hypot(x, y);
  const field = lights.objective_na ? (size > lights.objective_na ? ", dark field" : ", bright field") : "";
  const out = lights.used[state.led] === false ? ", left out" : "";
  $("led-about").textContent = `NA (${short(x, 3)}, ${short(y, 3)}), |NA| ${short(size, 3)}${field}${out}`;
  $("circles-row").hidden = view !== "spectrum";
};

/* ---- values along a line ---- */
const ROOM = { left: 44, right: 8, top: 8, bottom: 30, width: 260, height: 160 };
const ticks = (low, high, count) => {
  const step = nice((high - low) / count || 1) || 1;
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.max(0, Math.floor(high / step + 1e-9) - first + 1) }, (_, k) => (first + k) * step);
};
export const drawProfile = (line, curves) => {
  $("profile").hidden = !line;
  if (!line) return;
  const [x0, y0, x1, y1] = line.ends;
  const space = line.domain === "space";
  const unit = (v) => (space ? length(v) : `${short(v)} /µm`);
  const angle = (Math.atan2(y0 - y1, x1 - x0) * 180) / Math.PI;
  $("measured").textContent = `${unit(Math.hypot(x1 - x0, y1 - y0))}, ${short(angle, 3)}°; Δx ${unit(x1 - x0)}, Δy ${unit(y1 - y0)}`;
  ["x0", "y0", "x1", "y1"].forEach((id, k) => {
    if (document.activeElement !== $(id)) $(id).value = +line.ends[k].toPrecision(6);
  });
  const all = curves.flatMap((curve) => curve.values).filter(Number.isFinite);
  const far = Math.max(...curves.map((curve) => curve.distance.at(-1) ?? 0), 1e-9);
  let [low, high] = all.length ? [Math.min(...all), Math.max(...all)] : [0, 1];
  if (high - low < 1e-9 * Math.max(1, Math.abs(high))) [low, high] = [low - 0.5, high + 0.5];
  const { left, right, top, bottom, width, height } = ROOM;
  const px = (d) => left + (d / far) * (width - left - right);
  const py = (v) => top + ((high - v) / (high - low)) * (height - top - bottom);
  const marks = [];
  for (const v of ticks(low, high, 4)) {
    marks.push(svg("line", { class: "grid", x1: left, x2: width - right, y1: py(v), y2: py(v) }));
    marks.push(svg("text", { x: left - 5, y: py(v) + 3.5, "text-anchor": "end" }, short(v, 3)));
  }
  for (const d of ticks(0, far, 5)) {
    marks.push(svg("line", { class: "grid", x1: px(d), x2: px(d), y1: top, y2: height - bottom }));
    marks.push(svg("text", { x: px(d), y: height - bottom + 13, "text-anchor": "middle" }, short(d, 3)));
  }
  marks.push(svg("text", { x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle" }, space ? "µm along the line" : "cycles/µm along the line"));
  curves.forEach(({ distance, values }, k) => {
    const d = values.map((v, i) => (Number.isFinite(v) ? `${i && Number.isFinite(values[i - 1]) ? "L" : "M"}${px(distance[i]).toFixed(2)} ${py(v).toFixed(2)}` : ""));
    marks.push(svg("path", { class: k ? "curve-b" : "curve-a", d: d.join("") }));
  });
  $("chart").replaceChildren(...marks);
  $("curves").replaceChildren(...curves.map((curve, k) => tell("li", `${curve.name}${curve.unit ? ` (${curve.unit})` : ""}`, k ? "b" : "a")));
};
/* Names go in as text: quoted, and never as a formula of a spreadsheet. */
export const csv = (curves, distance) => {
  const quoted = (text) => `"${text.replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`;
  const rows = [[distance, ...curves.map((c) => `${c.name}${c.unit ? ` (${c.unit})` : ""}`)].map(quoted)];
  curves[0]?.distance.forEach((d, i) => rows.push([d, ...curves.map((c) => c.values[i] ?? "")]));
  return rows.map((row) => row.join(",")).join("\r\n");
};

/* ---- facts ---- */
export const drawFacts = (sources, notes) => {
  $("facts").replaceChildren(...sources.flatMap(({ name, facts }) => {
    const list = document.createElement("dl");
    for (const [label, value] of Object.entries(facts)) list.append(tell("dt", label), tell("dd", value));
    return [tell("h3", name), list];
  }));
  $("notes").replaceChildren(...notes.map((note) => tell("li", note)));
};
export const readout = (pane, point, values, wavelength) => {
  if (!point) return "";
  const place = pane.domain === "space"
    ? `x ${minus(point.x.toFixed(2))}, y ${minus(point.y.toFixed(2))} µm`
    : `${short(point.x, 3)}, ${short(point.y, 3)} /µm${wavelength ? ` (NA ${short(Math.hypot(point.x, point.y) * wavelength, 3)})` : ""}`;
  const told = Object.entries(values ?? {}).map(([name, { value, unit }]) => `${name} ${short(value)}${unit ? ` ${unit}` : ""}`);
  return [place, ...told].join(" · ");
};

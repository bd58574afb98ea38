/* One picture: OpenSeadragon with tiles in µm (a spectrum's in cycles/µm), and what is drawn over it. */
import { VIEWS, address, domainOf, length, nice, short, state } from "./state.js";

const SVG = "http://www.w3.org/2000/svg";
const PATIENCE_MS = 8000; // for tiles of a hidden page, which is not drawn
const CRISP = 5; // from so many screen pixels on, a pixel is shown as a square
export const svg = (name, attributes = {}, text = null) => {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  return element;
};

export class Pane {
  constructor(parent, scene, told) {
    this.scene = scene;
    this.told = told; // {moved(pane), pointed(pane, point), line(ends, done), failed(text), shown(pane)}
    this.element = document.createElement("div");
    this.element.className = "pane";
    this.picture = document.createElement("div");
    this.picture.className = "picture";
    this.overlay = svg("svg", { class: "overlay", "aria-hidden": "true" });
    this.heads = document.createElement("div");
    this.heads.className = "heads";
    this.element.append(this.picture, this.overlay, this.heads);
    parent.append(this.element);
    this.shown = this.wanted = null;
    this.viewer = OpenSeadragon({
      element: this.picture,
      drawer: "canvas",
      autoResize: false, // resized() keeps what is seen in place
      prefixUrl: "",
      showNavigationControl: false,
      keyboardNavEnabled: false,
      animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.25,
      springStiffness: 9,
      blendTime: 0,
      immediateRender: true,
      imageLoaderLimit: 6,
      minZoomImageRatio: 0.4,
      maxZoomPixelRatio: 48,
      smoothTileEdgesMinZoom: Infinity,
      visibilityRatio: 0.25,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { pinchRotate: false },
    });
    this.viewer.canvas.setAttribute("aria-label", "Picture; arrow keys pan, + and − zoom");
    this.viewer.canvas.setAttribute("role", "img");
    this.viewer.addHandler("update-viewport", () => { this.element.dataset.drawn = 1 + Number(this.element.dataset.drawn ?? 0); });
    this.viewer.addHandler("viewport-change", () => {
      this.draw();
      this.told.moved(this);
    });
    for (const by of ["drag", "scroll", "pinch", "double-click"]) this.viewer.addHandler(`canvas-${by}`, () => { this.home = false; });
    this.viewer.addHandler("tile-load-failed", ({ message }) => this.told.failed(`a tile could not be loaded: ${message}`));
    this.element.addEventListener("pointermove", (event) => this.told.pointed(this, this.pointAt(event)));
    this.element.addEventListener("pointerleave", () => this.told.pointed(this, null));
    this.observer = new ResizeObserver(() => this.resized());
    this.observer.observe(this.element);
    this.listenForLines();
  }
  /* What is still on its way when a pane goes is dropped. */
  destroy() {
    this.gone = true;
    this.observer.disconnect();
    this.viewer.destroy();
    this.element.remove();
  }
  resized() {
    const [w, h] = [this.element.clientWidth, this.element.clientHeight];
    if (!this.viewer.viewport || !w || !h) return;
    const seen = this.home ? null : this.placed && this.view;
    this.resizing = true;
    this.viewer.viewport.resize(new OpenSeadragon.Point(w, h), true);
    this.resizing = false;
    if (this.placed) this.place(seen);
    this.viewer.forceRedraw();
  }

  /* ---- which picture ---- */
  get about() {
    return this.scene.sources[this.wanted.source].layers[VIEWS[this.wanted.view].layer];
  }
  get domain() {
    return domainOf(this.wanted.view);
  }
  /* Shows what is wanted as soon as what is on its way is there; only the newest wish counts. */
  async show(wanted) {
    const before = this.wanted && this.domain;
    this.wanted = wanted;
    if (before && before !== this.domain) this.placed = false;
    if (this.working) return;
    this.working = true;
    this.element.classList.add("busy");
    while (this.shown !== this.wanted) {
      const next = this.wanted;
      await this.load(next);
      if (this.gone) return;
      this.shown = next;
    }
    this.working = false;
    this.element.classList.remove("busy");
    const { source, view, at, low, high } = this.shown;
    this.element.dataset.shown = [source, view, at, low, high].join("/"); // what a script can ask for
    this.told.shown(this);
  }
  load({ source, view, at, low, high, colours }) {
    const { layer } = VIEWS[view];
    const about = this.scene.sources[source].layers[layer];
    const { shape: [height, width], levels, pixel: [, step], origin: [x, y] } = about;
    const [tall] = about.pixel;
    const words = { source, layer, at, low, high, colours };
    const tileSource = {
      width, height, tileSize: this.scene.tile, tileOverlap: this.scene.overlap, minLevel: 0, maxLevel: levels - 1,
      getTileUrl: (level, column, row) => address("tile", { ...words, level: levels - 1 - level, x: column, y: row }),
    };
    return new Promise((done) => {
      const old = [];
      for (let k = 0; k < this.viewer.world.getItemCount(); k++) old.push(this.viewer.world.getItemAt(k));
      let ended = false;
      const end = () => {
        if (ended) return;
        ended = true;
        if (!this.gone) old.forEach((item) => this.viewer.world.removeItem(item));
        done();
      };
      this.viewer.addTiledImage({
        tileSource, x: x - step / 2, y: y - tall / 2, width: width * step,
        success: ({ item }) => {
          if (this.gone) return done();
          const moved = !this.placed || (this.home && !this.placedFor.equals(this.whole)); // another picture, all of it
          if (moved && domainOf(view) === this.domain) this.place(this.sees(state.places[this.domain]));
          this.draw();
          setTimeout(end, PATIENCE_MS);
          if (item.getFullyLoaded()) requestAnimationFrame(end);
          else item.addHandler("fully-loaded-change", ({ fullyLoaded }) => fullyLoaded && requestAnimationFrame(end));
        },
        error: ({ message }) => {
          if (!this.gone) this.told.failed(message);
          done();
        },
      });
    });
  }

  /* ---- which part of it ---- */
  get view() {
    const { x, y, width, height } = this.viewer.viewport.getBounds(true);
    return { x: x + width / 2, y: y + height / 2, width };
  }
  /* Without a place all of it is shown, of a spectrum what the LEDs reach; that stays so when the window changes. */
  place(place, at_once = true) {
    const [w, h] = [this.element.clientWidth, this.element.clientHeight];
    if (!w || !h) return;
    this.placed = true;
    this.home = !place;
    this.placedFor = this.whole;
    if (!place) return void this.viewer.viewport.fitBounds(grown(this.whole, 1.04), at_once);
    const high = (place.width * h) / w;
    const rect = new OpenSeadragon.Rect(place.x - place.width / 2, place.y - high / 2, place.width, high);
    this.viewer.viewport.fitBounds(rect, at_once);
  }
  get whole() {
    const { shape: [height, width], pixel: [tall, wide], origin: [x, y] } = this.about;
    const { lights, kind } = this.scene.sources[this.wanted.source];
    const objective = lights?.objective_na ?? 0;
    const farthest = kind === "images" ? objective : Math.max(...(lights?.na ?? []).map((na) => Math.hypot(...na)));
    const known = this.domain === "frequency" && lights?.wavelength_um && objective;
    const reach = known ? (1.15 * (farthest + objective)) / lights.wavelength_um : Infinity;
    const [half, high] = [Math.min((width * wide) / 2, reach), Math.min((height * tall) / 2, reach)];
    const [cx, cy] = [x - wide / 2 + (width * wide) / 2, y - tall / 2 + (height * tall) / 2];
    return new OpenSeadragon.Rect(cx - half, cy - high, 2 * half, 2 * high);
  }
  /* The place, where something of the picture is there. */
  sees(place) {
    if (!place) return undefined;
    const { x, y, width, height } = this.whole;
    const half = { x: place.width / 2, y: (place.width * this.element.clientHeight) / this.element.clientWidth / 2 };
    const inside = Math.abs(place.x - x - width / 2) < half.x + width / 2 && Math.abs(place.y - y - height / 2) < half.y + height / 2;
    return inside ? place : undefined;
  }
  /* Whether two pictures have nothing in common, such as two regions of one field. */
  apart(other) {
    if (this.domain !== other.domain) return false;
    const [a, b] = [this.whole, other.whole];
    return a.x >= b.x + b.width || b.x >= a.x + a.width || a.y >= b.y + b.height || b.y >= a.y + a.height;
  }
  follow({ x, y, width }) {
    const now = this.view;
    if (Math.abs(now.x - x) + Math.abs(now.y - y) < 1e-9 * width && Math.abs(now.width / width - 1) < 1e-9) return;
    this.viewer.viewport.zoomTo(1 / width, null, true);
    this.viewer.viewport.panTo(new OpenSeadragon.Point(x, y), true);
  }
  toScreen(x, y) {
    const point = this.viewer.viewport.viewportToViewerElementCoordinates(new OpenSeadragon.Point(x, y));
    return [point.x, point.y];
  }
  pointAt(event) {
    if (!this.viewer.world.getItemCount()) return null;
    const box = this.element.getBoundingClientRect();
    const on = new OpenSeadragon.Point(event.clientX - box.left, event.clientY - box.top);
    const { x, y } = this.viewer.viewport.viewerElementToViewportCoordinates(on);
    return { x, y };
  }
  pixelAt({ x, y }) {
    const { shape: [height, width], pixel: [tall, wide], origin } = this.about;
    const [column, row] = [Math.round((x - origin[0]) / wide), Math.round((y - origin[1]) / tall)];
    return column >= 0 && row >= 0 && column < width && row < height ? [column, row] : null;
  }

  /* ---- what is drawn over it ---- */
  draw() {
    if (!this.wanted || !this.viewer.world.getItemCount()) return;
    const [w, h] = [this.element.clientWidth, this.element.clientHeight];
    const perUnit = w / this.viewer.viewport.getBounds(true).width;
    this.viewer.drawer.setImageSmoothingEnabled(perUnit * this.about.pixel[1] < CRISP);
    const marks = this.domain === "frequency" ? this.circles(perUnit) : [];
    if (state.line?.domain === this.domain) marks.push(...this.rule(state.line.ends));
    this.overlay.replaceChildren(...marks, ...this.scaleBar(w, h, perUnit));
  }
  scaleBar(w, h, perUnit) {
    const wavelength = this.scene.sources[this.wanted.source].lights?.wavelength_um;
    const unit = this.domain === "space" ? 1 : wavelength ?? 1; // what a unit of the picture is on the label
    const size = nice((Math.min(0.28 * w, 220) / perUnit) * unit);
    const long = (size / unit) * perUnit;
    const label = this.domain === "space" ? length(size) : wavelength ? `NA ${short(size)}` : `${short(size)} /µm`;
    const [right, low] = [w - 16, h - 16];
    return [
      svg("rect", { class: "bar-back", x: right - long - 8, y: low - 26, width: long + 16, height: 34, rx: 4 }),
      svg("rect", { class: "bar-line", x: right - long, y: low - 4, width: long, height: 4 }),
      svg("text", { x: right - long / 2, y: low - 9, "text-anchor": "middle", class: "bar-label" }, label),
    ];
  }
  rule([x0, y0, x1, y1]) {
    const [a, b] = [this.toScreen(x0, y0), this.toScreen(x1, y1)];
    const ends = { x1: a[0], y1: a[1], x2: b[0], y2: b[1] };
    const distance = Math.hypot(x1 - x0, y1 - y0);
    const label = this.domain === "space" ? length(distance) : `${short(distance)} /µm`;
    const at = { x: (a[0] + b[0]) / 2, y: (a[1] + b[1]) / 2 - 9, "text-anchor": "middle", class: "rule-label" };
    const dot = ([cx, cy]) => svg("circle", { class: "end", cx, cy, r: 4 });
    return [svg("line", { class: "rule-back", ...ends }), svg("line", { class: "rule", ...ends }), dot(a), dot(b),
      svg("text", at, label)];
  }
  circles(perUnit) {
    const source = this.scene.sources[this.wanted.source];
    const { lights } = source;
    if (!lights?.wavelength_um) return [];
    const radius = ((lights.objective_na ?? 0) / lights.wavelength_um) * perUnit;
    const circle = ([x, y], kind, r = radius) => {
      const [cx, cy] = this.toScreen(x / lights.wavelength_um, y / lights.wavelength_um);
      return svg("circle", { class: `circle ${kind}`, cx, cy, r: Math.max(r, 3) });
    };
    const chosen = lights.na[state.led];
    if (source.kind === "images") { // an intensity reaches to 2 NA; direct light makes two pupils of it
      const reach = [circle([0, 0], "out", 2 * radius)];
      if (!chosen || Math.hypot(...chosen) > (lights.objective_na ?? 0)) return reach;
      return [...reach, circle(chosen, "chosen"), circle(chosen.map((v) => -v), "chosen")];
    }
    const kind = lights.na.length > 40 ? "many" : "";
    const all = state.circles ? lights.na.map((na, k) => circle(na, lights.used[k] ? kind : "out")) : [];
    return chosen ? [...all, circle(chosen, "chosen")] : all;
  }

  listenForLines() {
    let start = null;
    const ends = (event) => {
      const { x, y } = this.pointAt(event);
      return [start.x, start.y, x, y];
    };
    this.overlay.addEventListener("pointerdown", (event) => {
      if (!event.isPrimary || event.button) return;
      start = this.pointAt(event);
      this.overlay.setPointerCapture(event.pointerId);
    });
    this.overlay.addEventListener("pointermove", (event) => start && this.told.line(this, ends(event), false));
    this.overlay.addEventListener("pointerup", (event) => {
      if (!start) return;
      const [x0, y0, x1, y1] = ends(event);
      start = null;
      const [a, b] = [this.toScreen(x0, y0), this.toScreen(x1, y1)];
      if (Math.hypot(a[0] - b[0], a[1] - b[1]) > 3) this.told.line(this, [x0, y0, x1, y1], true);
    });
    this.overlay.addEventListener("pointercancel", () => { start = null; });
    this.overlay.addEventListener("wheel", (event) => { // zooms while a line is drawn too
      event.preventDefault();
      const at = this.pointAt(event);
      this.viewer.viewport.zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2, new OpenSeadragon.Point(at.x, at.y));
      this.viewer.viewport.applyConstraints();
    }, { passive: false });
  }
}

const grown = (rect, factor) => {
  const [dx, dy] = [rect.width * (factor - 1), rect.height * (factor - 1)];
  return new OpenSeadragon.Rect(rect.x - dx / 2, rect.y - dy / 2, rect.width + dx, rect.height + dy);
};

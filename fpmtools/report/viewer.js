/* The image viewer: two pictures that share one view, on the two sides of a divider or in two panels. */
"use strict";

(() => {
  const root = document.getElementById("viewer");
  if (!root) return;
  const { galleries, palettes } = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const canvas = $("canvas");
  const context = canvas.getContext("2d");
  const probe = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const state = { quantity: "amplitude", z: 0, focus: false, layout: "divider", split: 0.5, zoom: 1, x: 0.5, y: 0.5 };
  let gallery, size, drawn;

  /* ---- pictures ---- */
  const images = new Map();
  const load = (uri) => {
    if (!images.has(uri)) {
      const image = new Image();
      image.src = uri;
      images.set(uri, image.decode().then(() => image, () => null));
    }
    return images.get(uri);
  };
  const source = (side) => gallery.sources[$(side).value];
  const uriOf = (one) => {
    const focused = state.focus || state.quantity === "error" || one.colour < 0; // the truth has no planes
    return (focused ? one.focus : one.planes[state.z])?.[state.quantity] ?? null;
  };

  /* ---- drawing ---- */
  const panes = () => {
    const [w, h] = size;
    if (state.layout === "pair") return [[0, 0, w / 2 - 1, h], [w / 2 + 1, 0, w / 2 - 1, h]];
    return [[0, 0, w, h], [0, 0, w, h]];
  };
  const place = ([left, top, width, height]) => {
    const [tall, wide] = gallery.extent_um;
    const scale = Math.min(width / wide, height / tall) * state.zoom; // CSS pixels per µm
    return { scale, x: left + width / 2 - state.x * wide * scale, y: top + height / 2 - state.y * tall * scale,
      width: wide * scale, height: tall * scale };
  };
  const fit = () => {
    const [tall, wide] = gallery.extent_um;
    const aspect = (tall / wide) / (state.layout === "pair" ? 2 : 1);
    const most = Math.max(260, 0.78 * innerHeight);
    root.firstElementChild.style.maxWidth = `${Math.round(Math.max(most / aspect, 320))}px`;
    const width = canvas.clientWidth;
    const height = Math.max(120, Math.min(width * aspect, most));
    canvas.style.height = `${height}px`;
    size = [width, height];
    canvas.width = Math.round(width * devicePixelRatio);
    canvas.height = Math.round(height * devicePixelRatio);
    draw();
  };
  const nice = (room) => {
    const decade = 10 ** Math.floor(Math.log10(room));
    return [5, 2, 1].find((step) => step * decade <= room * (1 + 1e-9)) * decade;
  };
  const scaleBar = (pane, scale) => {
    const length = nice(0.25 * pane[2] / scale);
    const [right, low] = [pane[0] + pane[2] - 14, pane[1] + pane[3] - 14];
    context.fillStyle = "#0009";
    context.fillRect(right - length * scale - 8, low - 24, length * scale + 16, 32);
    context.fillStyle = "#fff";
    context.fillRect(right - length * scale, low - 3, length * scale, 4);
    context.font = "13px system-ui, sans-serif";
    context.textAlign = "center";
    const label = length >= 1 ? `${+length.toPrecision(3)} µm` : `${+(length * 1e3).toPrecision(3)} nm`;
    context.fillText(label, right - length * scale / 2, low - 8);
  };
  const paint = (pictures) => {
    const [w, h] = size;
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, w, h);
    const cut = state.split * w;
    panes().forEach((pane, side) => {
      const to = place(pane);
      context.save();
      context.beginPath();
      if (state.layout === "pair") context.rect(...pane);
      else context.rect(side ? cut : 0, 0, side ? w - cut : cut, h);
      context.clip();
      const picture = pictures[side];
      if (picture) {
        context.imageSmoothingEnabled = to.width / picture.width < 6; // beyond, the pixels themselves are shown
        context.drawImage(picture, to.x, to.y, to.width, to.height);
      }
      context.restore();
      if (side || state.layout === "pair") scaleBar(pane, to.scale);
    });
  };
  let request = 0;
  const draw = async () => {
    const mine = ++request;
    const sides = ["left", "right"].map(source);
    const pictures = await Promise.all(sides.map((one) => uriOf(one) && load(uriOf(one))));
    if (mine !== request) return; // something newer is on its way
    drawn = pictures;
    paint(pictures);
    ["left-tag", "right-tag"].forEach((id, side) => {
      const depth = state.focus || state.quantity === "error" || sides[side].colour >= 0 ? "" : " (at its true depth)";
      $(id).textContent = sides[side].name + (pictures[side] ? depth : ` (no ${state.quantity} here)`);
    });
    canvas.dataset.shows = sides.map((one) => one.name).join(" | "); // what a script can ask for
    canvas.dataset.painted = mine;
  };

  /* ---- controls ---- */
  const micrometres = (value) => `${value.toFixed(2).replace("-", "−")} µm`;
  const update = () => {
    const focused = state.focus || state.quantity === "error";
    $("z").disabled = $("play").disabled = state.quantity === "error";
    $("focus").checked = state.focus;
    $("z-value").textContent = focused ? "each pixel at its own" : micrometres(gallery.z_um[state.z]);
    $("z").setAttribute("aria-valuetext", micrometres(gallery.z_um[state.z]));
    $("divider").hidden = state.layout === "pair";
    $("divider").style.left = `${100 * state.split}%`;
    $("divider").setAttribute("aria-valuenow", Math.round(100 * state.split));
    $("zoom-value").textContent = `${state.zoom.toFixed(state.zoom < 10 ? 1 : 0)} ×`;
    canvas.style.touchAction = state.zoom > 1 ? "none" : "pan-y";
    const grey = state.quantity === "amplitude";
    const ends = { amplitude: gallery.window, error: [0, gallery.error_max] }[state.quantity];
    [$("bar-low").textContent, $("bar-high").textContent] = ends ? ends.map((end) => end.toFixed(2)) : ["−π", "π"];
    const colours = grey ? ["#000", "#fff"] : palettes[state.quantity].filter((_, k) => k % 9 === 0);
    $("bar-colours").style.background = `linear-gradient(to right, ${colours.join(",")})`;
    $("bar-label").textContent = { amplitude: "amplitude", phase: "phase (rad)", error: "|error|" }[state.quantity];
    draw();
  };
  const choose = (index) => {
    gallery = galleries[index];
    for (const side of ["left", "right"]) {
      $(side).replaceChildren(...gallery.sources.map((one, k) => new Option(one.name, k)));
    }
    const truth = gallery.error_max !== null; // then it is the last source
    $("right").value = truth ? gallery.sources.length - 1 : Math.min(1, gallery.sources.length - 1);
    $("error-choice").hidden = !truth;
    $("focus-row").hidden = !truth || gallery.z_um.length < 2;
    state.focus = truth; // beside the truth, which has no planes, that is the fair view
    if (!truth && state.quantity === "error") root.querySelector("[value=amplitude]").click();
    $("z").max = gallery.z_um.length - 1;
    state.z = Math.floor(gallery.z_um.length / 2);
    $("z").value = state.z;
    $("z-row").hidden = gallery.z_um.length < 2;
    Object.assign(state, { zoom: 1, x: 0.5, y: 0.5 });
    update();
    fit();
  };
  const setZ = (z) => { // who asks for a plane gets one
    $("z").value = state.z = z;
    state.focus = false;
    update();
  };
  let playing = 0;
  const play = (on) => {
    clearInterval(playing);
    playing = on ? setInterval(() => setZ((state.z + 1) % gallery.z_um.length), 160) : 0;
    $("play").textContent = on ? "Stop" : "Play";
    $("play").setAttribute("aria-pressed", on);
  };
  galleries.forEach((one, k) => $("data-set").append(new Option(one.data, k)));
  $("data-row").hidden = galleries.length < 2;
  $("data-set").addEventListener("change", (event) => choose(event.target.value));
  for (const side of ["left", "right"]) $(side).addEventListener("change", update);
  $("z").addEventListener("input", (event) => { play(false); setZ(Number(event.target.value)); });
  $("play").addEventListener("click", () => play(!playing));
  $("focus").addEventListener("change", (event) => { play(false); state.focus = event.target.checked; update(); });
  for (const radio of root.querySelectorAll("[name=quantity]")) {
    radio.addEventListener("change", () => { state.quantity = radio.value; if (radio.value === "error") play(false); update(); });
  }
  for (const radio of root.querySelectorAll("[name=layout]")) {
    radio.addEventListener("change", () => { state.layout = radio.value; update(); fit(); });
  }

  /* ---- divider ---- */
  const divider = $("divider");
  const split = (share) => { state.split = Math.min(Math.max(share, 0), 1); update(); };
  divider.addEventListener("pointerdown", (event) => divider.setPointerCapture(event.pointerId));
  divider.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    if (divider.hasPointerCapture(event.pointerId)) split((event.clientX - box.left) / box.width);
  });
  divider.addEventListener("keydown", (event) => {
    const by = event.shiftKey ? 0.1 : 0.02;
    const to = { ArrowLeft: state.split - by, ArrowRight: state.split + by, Home: 0, End: 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    split(to);
  });

  /* ---- zoom and pan ---- */
  const paneAt = (x) => panes()[state.layout === "pair" && x > size[0] / 2 ? 1 : 0];
  const share = (x, y) => { // where in the field of view (0 … 1) a point of the canvas is
    const to = place(paneAt(x));
    return [(x - to.x) / to.width, (y - to.y) / to.height];
  };
  const move = (dx, dy) => {
    state.x = Math.min(Math.max(state.x + dx, 0), 1);
    state.y = Math.min(Math.max(state.y + dy, 0), 1);
  };
  const zoomTo = (zoom, x, y) => { // the point (x, y) of the canvas stays where it is
    const before = share(x, y);
    state.zoom = Math.min(Math.max(zoom, 1), 64);
    const after = share(x, y);
    move(before[0] - after[0], before[1] - after[1]);
    if (state.zoom === 1) state.x = state.y = 0.5;
    update();
  };
  const zoomBy = (factor) => zoomTo(state.zoom * factor, size[0] / (state.layout === "pair" ? 4 : 2), size[1] / 2);
  $("zoom-in").addEventListener("click", () => zoomBy(1.5));
  $("zoom-out").addEventListener("click", () => zoomBy(1 / 1.5));
  $("zoom-all").addEventListener("click", () => zoomBy(0));
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== canvas) return; // the page scrolls
    event.preventDefault();
    zoomTo(state.zoom * Math.exp(-0.002 * event.deltaY * (event.deltaMode ? 20 : 1)), event.offsetX, event.offsetY);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const step = 0.1 / state.zoom;
    const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    if (by) { move(...by); update(); }
    else if (event.key === "+" || event.key === "=") zoomBy(1.5);
    else if (event.key === "-") zoomBy(1 / 1.5);
    else if (event.key === "0") zoomBy(0);
    else return;
    event.preventDefault();
  });
  const fingers = new Map();
  const drop = (event) => fingers.delete(event.pointerId);
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
  });
  canvas.addEventListener("pointerup", drop);
  canvas.addEventListener("pointercancel", drop);
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = [event.offsetX, event.offsetY];
    if (!fingers.has(event.pointerId)) return readout(x, y);
    const [oldX, oldY] = fingers.get(event.pointerId);
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    fingers.set(event.pointerId, [x, y]);
    if (other) {
      const [before, now] = [[oldX, oldY], [x, y]].map((at) => Math.hypot(at[0] - other[0], at[1] - other[1]));
      zoomTo(state.zoom * now / Math.max(before, 1), ...other);
    } else {
      const to = place(paneAt(x));
      move((oldX - x) / to.width, (oldY - y) / to.height);
      update();
    }
  });

  /* ---- what is under the pointer ---- */
  const levels = Object.fromEntries(
    Object.entries(palettes).map(([name, colours]) => [name, new Map(colours.map((colour, k) => [colour, k]))]));
  const value = (picture, fx, fy) => {
    if (!picture) return null;
    const [px, py] = [Math.floor(fx * picture.width), Math.floor(fy * picture.height)];
    probe.drawImage(picture, px, py, 1, 1, 0, 0, 1, 1);
    const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
    const [low, high] = gallery.window;
    if (state.quantity === "amplitude") return (low + (r / 255) * (high - low)).toFixed(2);
    const colour = "#" + [r, g, b].map((part) => part.toString(16).padStart(2, "0")).join("");
    const level = levels[state.quantity].get(colour);
    if (level === undefined) return null; // a browser that blurs what pages read back
    const turn = (level + 0.5) / levels[state.quantity].size;
    if (state.quantity === "error") return (turn * gallery.error_max).toFixed(3);
    return `${((turn - 0.5) * 2 * Math.PI).toFixed(2).replace("-", "−")} rad`;
  };
  const readout = (x, y) => {
    const [fx, fy] = share(x, y);
    if (!drawn || fx < 0 || fy < 0 || fx >= 1 || fy >= 1) { $("readout").textContent = ""; return; }
    const [tall, wide] = gallery.extent_um;
    const values = drawn.map((picture, side) => [side ? "right" : "left", value(picture, fx, fy)]);
    const said = values.filter(([, what]) => what !== null).map(([side, what]) => `${side} ${what}`);
    $("readout").textContent = [`x ${micrometres(fx * wide)}, y ${micrometres(fy * tall)}`, ...said].join(" · ");
  };
  canvas.addEventListener("pointerleave", () => { $("readout").textContent = ""; });

  choose(0);
  new ResizeObserver(() => { if (size && canvas.clientWidth !== size[0]) fit(); }).observe(canvas);
})();

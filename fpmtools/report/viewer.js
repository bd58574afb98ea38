/* The image viewer: two pictures that share one view, on the two sides of a divider or in two panels; a profile. */
"use strict";

(() => {
  const root = document.getElementById("viewer");
  if (!root) return;
  const { galleries, palettes } = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const canvas = $("canvas");
  const context = canvas.getContext("2d");
  const state = { quantity: "amplitude", z: 0, focus: false, layout: "divider", split: 0.5, zoom: 1, x: 0.5, y: 0.5, row: 0 };
  let gallery, size, drawn, windows;

  /* ---- pictures: levels of grey, which get contrast and colours here ---- */
  const scratch = (width, height) => new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  const readable = (() => { // some browsers blur what pages read back: then the grey levels are shown as they are
    const probe = scratch(1, 1);
    probe.fillStyle = "#3c7dbe";
    probe.fillRect(0, 0, 1, 1);
    return probe.getImageData(0, 0, 1, 1).data.join() === "60,125,190,255";
  })();
  const images = new Map(); // uri → { image, levels }
  const load = (uri) => {
    if (!images.has(uri)) {
      const image = new Image();
      image.src = uri;
      images.set(uri, image.decode().then(() => {
        const [width, height] = [image.naturalWidth, image.naturalHeight];
        if (!readable) return { image, width, height, levels: null };
        const context = scratch(width, height);
        context.drawImage(image, 0, 0);
        const data = context.getImageData(0, 0, width, height).data;
        return { image, width, height, levels: Uint8Array.from({ length: width * height }, (_, k) => data[4 * k]) };
      }, () => null));
    }
    return images.get(uri);
  };
  const scale = () => gallery.scales[state.quantity];
  const valueOf = (level) => {
    const [low, high] = scale().range;
    return low + (level / 255) * (high - low);
  };
  const colourOf = (share) => { // 0 … 1 along the colours: [r, g, b]
    if (scale().colours === "gray") return Array(3).fill(Math.round(255 * share));
    const colours = palettes[scale().colours];
    const hex = colours[Math.min(Math.floor(share * colours.length), colours.length - 1)];
    return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  };
  const coloured = (picture) => {
    if (!picture?.levels) return picture?.image ?? null;
    const [low, high] = windows[state.quantity];
    const key = [state.quantity, low, high].join();
    if (picture.key !== key) {
      const table = Uint32Array.from({ length: 256 }, (_, level) => {
        const share = Math.min(Math.max((valueOf(level) - low) / (high - low), 0), 1);
        const [r, g, b] = colourOf(share);
        return (255 << 24) | (b << 16) | (g << 8) | r;
      });
      const context = scratch(picture.width, picture.height);
      const pixels = context.createImageData(picture.width, picture.height);
      const out = new Uint32Array(pixels.data.buffer);
      for (let k = 0; k < out.length; k++) out[k] = table[picture.levels[k]];
      context.putImageData(pixels, 0, 0);
      Object.assign(picture, { key, canvas: context.canvas });
    }
    return picture.canvas;
  };
  const source = (side) => gallery.sources[$(side).value];
  const uriOf = (one) => {
    const focused = state.focus || state.quantity === "error" || one.kind !== "result"; // the others have no planes
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
      const picture = coloured(pictures[side] ?? pictures[1 - side]); // where one has nothing to show, the other has all
      if (picture) {
        context.imageSmoothingEnabled = to.width / picture.width < 6; // beyond, the pixels themselves are shown
        context.drawImage(picture, to.x, to.y, to.width, to.height);
      }
      const at = to.y + ((state.row + 0.5) / gallery.shape[0]) * to.height; // where the profile is
      context.setLineDash([6, 4]);
      for (const [colour, shift] of [["#000", 1], ["#fff", 0]]) {
        context.strokeStyle = colour;
        context.beginPath();
        context.moveTo(pane[0], Math.round(at) + 0.5 + shift);
        context.lineTo(pane[0] + pane[2], Math.round(at) + 0.5 + shift);
        context.stroke();
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
    profile(sides, pictures);
    $("divider").hidden = state.layout === "pair" || pictures.includes(null);
    ["left-tag", "right-tag"].forEach((id, side) => {
      const depth = state.focus || state.quantity === "error" || sides[side].kind !== "truth" ? "" : " (at its true depth)";
      $(id).textContent = sides[side].name + (pictures[side] ? depth : ` (no ${state.quantity} here)`);
    });
    canvas.dataset.shows = sides.map((one) => one.name).join(" | "); // what a script can ask for
    canvas.dataset.painted = mine;
  };

  /* ---- the profile along a row ---- */
  const svg = (name, attributes, text) => {
    const one = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
    if (text !== undefined) one.textContent = text;
    return one;
  };
  const profile = (sides, pictures) => {
    const [left, right, top, bottom, wide, tall] = [46, 8, 8, 20, Math.max($("profile").clientWidth, 200), 150];
    const curves = pictures.map((picture) => {
      if (!picture?.levels) return null;
      const row = Math.min(Math.floor(((state.row + 0.5) / gallery.shape[0]) * picture.height), picture.height - 1);
      return Array.from(picture.levels.subarray(row * picture.width, (row + 1) * picture.width), valueOf);
    });
    const all = curves.flatMap((curve) => curve ?? []);
    const widest = Math.max(0.05 * (scale().window[1] - scale().window[0]), 1e-9);
    let [low, high] = all.length ? [Math.min(...all), Math.max(...all)] : scale().window;
    [low, high] = [low - 0.05 * (high - low) - widest / 2, high + 0.05 * (high - low) + widest / 2];
    const toX = (share) => left + share * (wide - left - right);
    const toY = (value) => top + (1 - (value - low) / (high - low)) * (tall - top - bottom);
    const parts = [svg("path", { class: "frame", d: `M${left},${top}V${tall - bottom}H${wide - right}` })];
    for (const value of [low + 0.1 * (high - low), (low + high) / 2, high - 0.1 * (high - low)]) {
      parts.push(svg("path", { class: "grid", d: `M${left},${toY(value)}H${wide - right}` }));
      parts.push(svg("text", { x: left - 5, y: toY(value) + 4, "text-anchor": "end" }, value.toFixed(2).replace("-", "−")));
    }
    const width = gallery.extent_um[1];
    const step = nice(width / 3);
    for (let at = 0; toX(at / width) < wide - right - 36; at += step) {
      parts.push(svg("text", { x: toX(at / width), y: tall - 5, "text-anchor": "middle" }, `${+at.toPrecision(3)}`));
    }
    parts.push(svg("text", { x: wide - right, y: tall - 5, "text-anchor": "end" }, "µm"));
    curves.forEach((curve, side) => {
      if (!curve) return;
      const points = curve.map((value, k) => `${toX((k + 0.5) / curve.length).toFixed(1)},${toY(value).toFixed(1)}`);
      parts.push(svg("polyline", { class: side ? "right" : "left", points: points.join(" ") }));
    });
    $("profile").setAttribute("viewBox", `0 0 ${wide} ${tall}`);
    $("profile").replaceChildren(...parts);
    const names = { amplitude: "amplitude", phase: "phase (rad)", error: "|error|" };
    $("profile-title").textContent = `${names[state.quantity]} along y = ${micrometres((state.row / gallery.shape[0]) * gallery.extent_um[0])}`;
    ["left-name", "right-name"].forEach((id, side) => {
      $(id).textContent = sides[side].name;
      $(id).parentElement.hidden = !curves[side] || (side === 1 && sides[0] === sides[1]);
    });
  };
  const setRow = (row) => {
    state.row = Math.min(Math.max(Math.round(row), 0), gallery.shape[0] - 1);
    $("row").value = state.row;
    $("row").setAttribute("aria-valuetext", micrometres((state.row / gallery.shape[0]) * gallery.extent_um[0]));
    draw();
  };
  $("row").addEventListener("input", (event) => setRow(Number(event.target.value)));

  /* ---- contrast ---- */
  const contrast = (which, level) => {
    const two = windows[state.quantity];
    two[which] = valueOf(level);
    const [low, high] = scale().range;
    const least = (high - low) / 128; // the ends never meet
    if (two[1] - two[0] < least) two[1 - which] = which ? two[1] - least : two[0] + least;
    update();
  };
  $("darkest").addEventListener("input", (event) => contrast(0, Number(event.target.value)));
  $("brightest").addEventListener("input", (event) => contrast(1, Number(event.target.value)));
  $("contrast-reset").addEventListener("click", () => { windows[state.quantity] = [...scale().window]; update(); });

  /* ---- controls ---- */
  const micrometres = (value) => `${value.toFixed(2).replace("-", "−")} µm`;
  const update = () => {
    const focused = state.focus || state.quantity === "error";
    $("z").disabled = $("play").disabled = state.quantity === "error";
    $("focus").checked = state.focus;
    $("z-value").textContent = focused ? "each pixel at its own" : micrometres(gallery.z_um[state.z]);
    $("z").setAttribute("aria-valuetext", micrometres(gallery.z_um[state.z]));
    $("divider").style.left = `${100 * state.split}%`;
    $("divider").setAttribute("aria-valuenow", Math.round(100 * state.split));
    $("zoom-value").textContent = `${state.zoom.toFixed(state.zoom < 10 ? 1 : 0)} ×`;
    canvas.style.touchAction = state.zoom > 1 ? "none" : "pan-y";
    const ends = windows[state.quantity];
    const [low, high] = scale().range;
    $("contrast").hidden = scale().cyclic || !readable;
    ["darkest", "brightest"].forEach((id, k) => {
      $(id).value = Math.round(255 * (ends[k] - low) / (high - low));
      $(id).setAttribute("aria-valuetext", ends[k].toFixed(2));
    });
    [$("bar-low").textContent, $("bar-high").textContent] = scale().cyclic ? ["−π", "π"]
      : ends.map((end) => end.toFixed(2).replace("-", "−"));
    const colours = Array.from({ length: 16 }, (_, k) => `rgb(${colourOf(k / 15).join(",")})`);
    $("bar-colours").style.background = `linear-gradient(to right, ${colours.join(",")})`;
    $("bar-label").textContent = { amplitude: "amplitude", phase: "phase (rad)", error: "|error|" }[state.quantity];
    draw();
  };
  const choose = (index) => {
    gallery = galleries[index];
    for (const side of ["left", "right"]) {
      $(side).replaceChildren(...gallery.sources.map((one, k) => new Option(one.name, k)));
    }
    const truth = gallery.error_max !== null;
    const beside = gallery.sources.findIndex((one) => one.kind !== "result"); // the truth, else the raw image
    $("right").value = beside < 0 ? Math.min(1, gallery.sources.length - 1) : beside;
    windows = Object.fromEntries(Object.entries(gallery.scales).map(([name, one]) => [name, [...one.window]]));
    state.row = Math.floor(gallery.shape[0] / 2);
    $("row").max = gallery.shape[0] - 1;
    $("row").value = state.row;
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
  let pressed = null; // where, for as long as it may be a click
  const drop = (event) => fingers.delete(event.pointerId);
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
    pressed = fingers.size === 1 ? [event.offsetX, event.offsetY] : null;
  });
  canvas.addEventListener("pointerup", (event) => {
    drop(event);
    if (pressed && Math.hypot(event.offsetX - pressed[0], event.offsetY - pressed[1]) < 4) {
      setRow(share(...pressed)[1] * gallery.shape[0] - 0.5);
    }
    pressed = null;
  });
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
  const value = (picture, fx, fy) => {
    if (!picture?.levels) return null;
    const [px, py] = [Math.floor(fx * picture.width), Math.floor(fy * picture.height)];
    const found = valueOf(picture.levels[py * picture.width + px]);
    return `${found.toFixed(state.quantity === "error" ? 3 : 2).replace("-", "−")}${state.quantity === "phase" ? " rad" : ""}`;
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

// The map of the report that can be moved; viewer_raster.js stands before it in the page. It asks no host for anything:
// all it shows is in the page.
// Positions on the ground are metres east and south of the map's upper left corner.
(() => {
  const find = (id) => document.getElementById(id);
  const root = find("viewer");
  if (!root || typeof DecompressionStream === "undefined") return; // the still picture stays
  const data = JSON.parse(find("viewer-data").textContent);
  const stage = find("viewer-stage");
  const canvas = find("viewer-canvas");
  const pen = canvas.getContext("2d", { alpha: false });
  const ground = data.ground;
  const PAPER = "#eef1ef";
  const BAR_PX = 110; // the scale bar at most
  const MOST_PX = 40; // sides of one pixel of the map on the screen at most
  const DRAG_PX = 4; // less is a click

  // ------------------------------------------------------------------ layers
  const layers = []; // from the bottom to the top
  const backgrounds = new Map();
  const shown = new Set(data.classes.map((row) => row.code));

  const makeLayers = async () => {
    const codes = await Raster.inflate(data.raster.codes);
    const table = Raster.classTable(data.classes, shown);
    layers.push({ id: "classes", on: true, opacity: 1, table, levels: Raster.levelsOf(data.raster, codes, true) });
    for (const row of data.measures) {
      const levels = Raster.levelsOf(row, await Raster.inflate(row.codes), false);
      layers.push({ ...row, on: false, opacity: 1, table: Raster.measureTable(row, data.ramp), levels });
    }
    for (const row of data.backgrounds) {
      const image = new Image();
      image.src = row.source;
      await image.decode();
      backgrounds.set(row.id, image);
    }
  };

  // ------------------------------------------------------------------ view
  // x, y: what is in the middle; scale: CSS pixels per metre.
  const view = { x: ground.width / 2, y: ground.height / 2, scale: 1, fits: true };
  let background = null;
  let chosen = null;
  let waiting = false;

  const size = () => [stage.clientWidth, stage.clientHeight];
  const fitting = () => Math.min(size()[0] / ground.width, size()[1] / ground.height);
  const largest = () => Math.max(MOST_PX / data.map_pixel_m, fitting());
  const between = (value, low, high) => Math.min(Math.max(value, low), high);
  const groundAt = (px, py) => {
    const [width, height] = size();
    return [view.x + (px - width / 2) / view.scale, view.y + (py - height / 2) / view.scale];
  };

  const redraw = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  };

  const moved = () => {
    view.x = between(view.x, 0, ground.width);
    view.y = between(view.y, 0, ground.height);
    const home = Math.abs(view.x - ground.width / 2) + Math.abs(view.y - ground.height / 2);
    view.fits = view.scale <= fitting() * 1.0001 && home * view.scale < 1;
    stage.style.touchAction = view.fits ? "pan-y" : "none"; // a whole map does not stop a finger that scrolls the page
    find("viewer-out").disabled = view.scale <= fitting() * 1.0001;
    find("viewer-in").disabled = view.scale >= largest() * 0.9999;
    redraw();
  };

  const showAll = () => {
    Object.assign(view, { x: ground.width / 2, y: ground.height / 2, scale: fitting() });
    moved();
  };

  const panBy = (dx, dy) => {
    view.x -= dx / view.scale;
    view.y -= dy / view.scale;
    moved();
  };

  const zoomBy = (factor, px = size()[0] / 2, py = size()[1] / 2) => {
    const before = view.scale;
    const [x, y] = groundAt(px, py);
    view.scale = between(before * factor, fitting(), largest());
    const [nowX, nowY] = groundAt(px, py);
    view.x += x - nowX;
    view.y += y - nowY;
    moved();
    return view.scale !== before;
  };

  // ------------------------------------------------------------------ drawing
  const draw = () => {
    const [width, height] = size();
    const sharp = window.devicePixelRatio || 1;
    const [across, down] = [Math.round(width * sharp), Math.round(height * sharp)];
    if (canvas.width !== across || canvas.height !== down) Object.assign(canvas, { width: across, height: down });
    pen.globalAlpha = 1;
    pen.fillStyle = PAPER;
    pen.fillRect(0, 0, across, down);
    const scale = view.scale * sharp;
    const place = [across / 2 - view.x * scale, down / 2 - view.y * scale, ground.width * scale, ground.height * scale];
    pen.imageSmoothingQuality = "high";
    if (backgrounds.has(background)) {
      pen.imageSmoothingEnabled = true;
      pen.drawImage(backgrounds.get(background), ...place);
    }
    for (const layer of layers) if (layer.on) drawLayer(layer, place);
    drawScale();
    drawMarker(width, height);
  };

  const drawLayer = (layer, place) => {
    const fine = layer.levels.find((level) => place[2] >= level.width * 0.75) || layer.levels.at(-1);
    pen.globalAlpha = layer.opacity;
    pen.imageSmoothingEnabled = layer.id !== "classes" && place[2] < fine.width; // a mean of classes is no class
    pen.drawImage(Raster.painted(fine, layer.table), ...place);
  };

  const drawScale = () => {
    const most = BAR_PX / view.scale;
    const power = 10 ** Math.floor(Math.log10(most));
    const metres = power * [5, 2, 1].find((step) => step * power <= most);
    find("viewer-bar").style.width = `${metres * view.scale}px`;
    find("viewer-bar-text").textContent = metres >= 1000 ? `${metres / 1000} km` : `${+metres.toPrecision(1)} m`;
  };

  const drawMarker = (width, height) => {
    const marker = find("viewer-marker");
    marker.hidden = chosen === null;
    if (chosen === null) return;
    const [x, y] = [(chosen[0] - view.x) * view.scale + width / 2, (chosen[1] - view.y) * view.scale + height / 2];
    marker.style.transform = `translate(${x}px, ${y}px)`;
  };

  // ------------------------------------------------------------------ what is at a place
  const grouped = (value) => Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f").replace("-", "\u2212");

  const geographic = (x, y) => {
    const { rows, cols, lon, lat } = data.lattice;
    const u = between(x / ground.width, 0, 1) * (cols - 1);
    const v = between(y / ground.height, 0, 1) * (rows - 1);
    const [col, row] = [Math.min(Math.floor(u), cols - 2), Math.min(Math.floor(v), rows - 2)];
    const [s, t] = [u - col, v - row];
    const mix = (of) => {
      const at = row * cols + col;
      return (of[at] * (1 - s) + of[at + 1] * s) * (1 - t) + (of[at + cols] * (1 - s) + of[at + cols + 1] * s) * t;
    };
    const east = ((mix(lon) + 540) % 360) - 180;
    const north = mix(lat);
    const word = (value, plus, minus) => `${Math.abs(value).toFixed(5)}° ${value < 0 ? minus : plus}`;
    return `${word(north, "N", "S")}, ${word(east, "E", "W")}`;
  };

  const element = (tag, text, kind) => {
    const made = document.createElement(tag);
    if (kind) made.className = kind;
    made.textContent = text;
    return made;
  };

  const classLine = (code) => {
    const row = data.classes.find((item) => item.code === code);
    const line = element("p", "", "viewer-what");
    if (row) {
      const swatch = element("span", "", "swatch");
      swatch.style.background = row.colour;
      line.append(swatch);
    }
    line.append(element("span", row ? row.name : "No class here"));
    return line;
  };

  const read = (x, y) => {
    const reading = find("viewer-reading");
    const code = Raster.codeAt(layers[0], x / ground.width, y / ground.height);
    if (code === undefined) {
      chosen = null;
      reading.replaceChildren(element("p", "Outside the map.", "viewer-hint"));
      redraw();
      return;
    }
    chosen = [x, y];
    const facts = element("dl", "");
    const add = (name, value) => {
      const pair = element("div", "");
      pair.append(element("dt", name), element("dd", value));
      facts.append(pair);
    };
    for (const layer of layers.slice(1)) {
      const value = Raster.codeAt(layer, x / ground.width, y / ground.height);
      if (value === undefined || value === Raster.NOTHING) continue;
      const most = value === Raster.NOTHING - 1 && layer.clipped ? " or more" : "";
      add(layer.title, `${+(layer.offset + value * layer.step).toFixed(layer.decimals)}${layer.unit}${most}`);
    }
    const where = element("p", "", "viewer-where");
    where.append(element("span", `x ${grouped(ground.left + x)} m, y ${grouped(ground.top - y)} m (${data.crs})`));
    if (data.lattice) where.append(element("span", geographic(x, y)));
    reading.replaceChildren(classLine(code), facts, where);
    redraw();
  };

  // ------------------------------------------------------------------ mouse, touch, keyboard
  const fingers = new Map();
  let travelled = 0;
  let armed = false; // a page that is scrolled under a resting mouse is scrolled on, and the map stays as it is

  const placeOf = (event) => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left - stage.clientLeft, event.clientY - box.top - stage.clientTop];
  };

  const pinch = () => {
    const [one, other] = [...fingers.values()];
    return [(one[0] + other[0]) / 2, (one[1] + other[1]) / 2, Math.hypot(one[0] - other[0], one[1] - other[1])];
  };

  const onMove = (event) => {
    if (event.movementX || event.movementY) armed = true;
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = placeOf(event);
    travelled += Math.hypot(now[0] - before[0], now[1] - before[1]);
    if (fingers.size === 1) {
      fingers.set(event.pointerId, now);
      if (travelled > DRAG_PX) panBy(now[0] - before[0], now[1] - before[1]);
    } else if (fingers.size === 2) {
      const [wasX, wasY, was] = pinch();
      fingers.set(event.pointerId, now);
      const [x, y, apart] = pinch();
      travelled += 2 * DRAG_PX; // two fingers never click
      panBy(x - wasX, y - wasY);
      if (was > 0 && apart > 0) zoomBy(apart / was, x, y);
    }
  };

  const listenToPointers = () => {
    stage.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      if (fingers.size === 0) travelled = 0;
      fingers.set(event.pointerId, placeOf(event));
      stage.setPointerCapture(event.pointerId);
    });
    stage.addEventListener("pointermove", onMove);
    stage.addEventListener("pointerup", (event) => {
      const known = fingers.delete(event.pointerId);
      if (known && fingers.size === 0 && travelled <= DRAG_PX) read(...groundAt(...placeOf(event)));
    });
    stage.addEventListener("pointercancel", (event) => fingers.delete(event.pointerId));
    stage.addEventListener("dblclick", (event) => zoomBy(2, ...placeOf(event)));
    window.addEventListener("scroll", () => (armed = false), { passive: true });
    const onWheel = (event) => {
      if (!armed && !event.ctrlKey) return;
      const lines = event.deltaMode === 0 ? 1 : 16;
      const factor = Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.002));
      if (zoomBy(between(factor, 0.4, 2.5), ...placeOf(event)) || event.ctrlKey) event.preventDefault();
    };
    stage.addEventListener("wheel", onWheel, { passive: false });
  };

  const onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? 200 : 50;
    const acts = {
      ArrowLeft: () => panBy(step, 0),
      ArrowRight: () => panBy(-step, 0),
      ArrowUp: () => panBy(0, step),
      ArrowDown: () => panBy(0, -step),
      "+": () => zoomBy(1.5),
      "=": () => zoomBy(1.5),
      "-": () => zoomBy(1 / 1.5),
      _: () => zoomBy(1 / 1.5),
      0: showAll,
      Home: showAll,
      Enter: () => read(view.x, view.y),
      " ": () => read(view.x, view.y),
    };
    if (!(event.key in acts)) return;
    event.preventDefault();
    acts[event.key]();
  };

  // ------------------------------------------------------------------ controls
  const onToggle = (layer, on) => {
    layer.on = on;
    const more = find(`viewer-more-${layer.id}`);
    if (more) more.hidden = !on;
    redraw();
  };

  const listenToLayers = () => {
    for (const layer of layers) {
      const box = find(`viewer-on-${layer.id}`);
      box.addEventListener("change", () => onToggle(layer, box.checked));
      const slider = find(`viewer-opacity-${layer.id}`);
      const set = () => {
        layer.opacity = slider.value / 100;
        find(`viewer-percent-${layer.id}`).textContent = `${slider.value} %`;
        redraw();
      };
      slider.addEventListener("input", set);
      set();
      onToggle(layer, box.checked);
    }
    for (const button of root.querySelectorAll("input[name=viewer-background]")) {
      const set = () => {
        if (button.checked) background = button.value;
        redraw();
      };
      button.addEventListener("change", set);
      set();
    }
  };

  const showClasses = () => {
    shown.clear();
    for (const box of root.querySelectorAll("input[data-code]")) if (box.checked) shown.add(Number(box.dataset.code));
    layers[0].table = Raster.classTable(data.classes, shown);
    for (const level of layers[0].levels) level.canvas = null;
    redraw();
  };

  const listenToClasses = () => {
    const boxes = [...root.querySelectorAll("input[data-code]")];
    for (const box of boxes) box.addEventListener("change", showClasses);
    const all = (on) => () => {
      for (const box of boxes) box.checked = on;
      showClasses();
    };
    find("viewer-all").addEventListener("click", all(true));
    find("viewer-none").addEventListener("click", all(false));
    showClasses();
  };

  const listenToButtons = () => {
    find("viewer-in").addEventListener("click", () => zoomBy(1.5));
    find("viewer-out").addEventListener("click", () => zoomBy(1 / 1.5));
    find("viewer-fit").addEventListener("click", showAll);
    const full = find("viewer-full");
    full.hidden = !document.fullscreenEnabled;
    full.addEventListener("click", () => {
      if (document.fullscreenElement) document.exitFullscreen();
      else root.requestFullscreen();
    });
  };

  const start = async () => {
    await makeLayers();
    document.documentElement.classList.add("viewer-on"); // now the still picture gives way
    listenToPointers();
    stage.addEventListener("keydown", onKey);
    listenToLayers();
    listenToClasses();
    listenToButtons();
    new ResizeObserver(() => (view.fits ? showAll() : zoomBy(1))).observe(stage);
    showAll();
  };

  start().catch((error) => {
    document.documentElement.classList.remove("viewer-on");
    console.error(`The map cannot be moved in this browser: ${error}`);
  });
})();

// Rasters of the report's map: from the bytes in the page to pictures. What viewer.js is built on.
"use strict";
const Raster = (() => {
  const NOTHING = 255; // of a measure

  const inflate = async (text) => {
    const letters = atob(text);
    const packed = new Uint8Array(letters.length);
    for (let i = 0; i < letters.length; i += 1) packed[i] = letters.charCodeAt(i);
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };

  const rgba = (colour) => {
    const value = parseInt(colour.slice(1), 16); // #rrggbb; pixels are stored alpha, blue, green, red
    return ((255 << 24) | ((value & 255) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
  };

  const classTable = (classes, shown) => {
    const table = new Uint32Array(256);
    for (const row of classes) if (shown.has(row.code)) table[row.code] = rgba(row.colour);
    return table;
  };

  const measureTable = (layer, ramp) => {
    const table = new Uint32Array(256);
    const stops = ramp.map((colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));
    for (let code = 0; code < NOTHING; code += 1) {
      const share = (layer.offset + code * layer.step - layer.low) / (layer.high - layer.low);
      const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
      const left = Math.min(Math.floor(at), stops.length - 2);
      const between = (one, other) => Math.round(one + (at - left) * (other - one));
      const mix = [0, 1, 2].map((channel) => between(stops[left][channel], stops[left + 1][channel]));
      table[code] = ((255 << 24) | (mix[2] << 16) | (mix[1] << 8) | mix[0]) >>> 0;
    }
    return table;
  };

  // A level of half the size: of four pixels the commonest class, so that far away no colour is seen that is no class.
  const halve = (level) => {
    const width = Math.ceil(level.width / 2);
    const height = Math.ceil(level.height / 2);
    const codes = new Uint8Array(width * height);
    for (let row = 0; row < height; row += 1) {
      const upper = 2 * row * level.width;
      const lower = Math.min(2 * row + 1, level.height - 1) * level.width;
      for (let col = 0; col < width; col += 1) {
        const left = 2 * col;
        const right = Math.min(left + 1, level.width - 1);
        const [a, b] = [level.codes[upper + left], level.codes[upper + right]];
        const [c, d] = [level.codes[lower + left], level.codes[lower + right]];
        let chosen = a || b || c || d;
        if (a && (a === b || a === c || a === d)) chosen = a;
        else if (b && (b === c || b === d)) chosen = b;
        else if (c && c === d) chosen = c;
        codes[row * width + col] = chosen;
      }
    }
    return { width, height, codes, canvas: null };
  };

  const levelsOf = (raster, codes, isClasses) => {
    const levels = [{ width: raster.width, height: raster.height, codes, canvas: null }];
    while (isClasses && Math.max(levels.at(-1).width, levels.at(-1).height) > 256) levels.push(halve(levels.at(-1)));
    return levels;
  };

  const painted = (level, table) => {
    if (level.canvas) return level.canvas;
    const made = document.createElement("canvas");
    made.width = level.width;
    made.height = level.height;
    const image = new ImageData(level.width, level.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < pixels.length; i += 1) pixels[i] = table[level.codes[i]];
    made.getContext("2d").putImageData(image, 0, 0);
    level.canvas = made;
    return made;
  };

  // The code at a place, given as shares of the map's width and height.
  const codeAt = (layer, across, down) => {
    const { width, height, codes } = layer.levels[0];
    const col = Math.floor(across * width);
    const row = Math.floor(down * height);
    return col < 0 || row < 0 || col >= width || row >= height ? undefined : codes[row * width + col];
  };

  return { NOTHING, inflate, classTable, measureTable, levelsOf, painted, codeAt };
})();

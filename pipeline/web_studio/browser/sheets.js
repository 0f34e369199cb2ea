// Clips as the pages play them: all frames in one image, from top to bottom, column after column.

const MOST_SIDE = 16_000;
const GAP = 2;

// A clip has `pixels` [T, H, W, C], `frames` and `size` (or `width` and `height`); C is 1, 3 or 4.
export function rgba({ pixels, frames, size, width = size, height = size }, frame) {
  const count = width * height;
  const channels = pixels.length / (frames * count);
  const found = new Uint8ClampedArray(4 * count);
  for (let at = 0; at < count; at++) {
    const from = (frame * count + at) * channels;
    for (let channel = 0; channel < 3; channel++) found[4 * at + channel] = pixels[from + (channels === 1 ? 0 : channel)];
    found[4 * at + 3] = channels === 4 ? pixels[from + 3] : 255;
  }
  return found;
}

export function sheetOf(clip, fps, alt) {
  const { frames, size, width = size, height = size } = clip;
  const rows = Math.min(frames, Math.floor(MOST_SIDE / height));
  const canvas = document.createElement("canvas");
  canvas.width = width * Math.ceil(frames / rows);
  canvas.height = height * rows;
  const context = canvas.getContext("2d");
  for (let frame = 0; frame < frames; frame++) {
    context.putImageData(new ImageData(rgba(clip, frame), width, height), width * Math.floor(frame / rows), height * (frame % rows));
  }
  return { uri: canvas.toDataURL("image/png"), width, height, frames, rows, fps, alt };
}

// Return pixels that are repeated, or cut, to a length.
export function repeated(pixels, length, frames) {
  const one = pixels.length / frames;
  const found = new Uint8Array(length * one);
  for (let frame = 0; frame < length; frame++) found.set(pixels.subarray((frame % frames) * one, (frame % frames + 1) * one), frame * one);
  return found;
}

// Return a table of pixels (or null) as one clip with transparent gaps, wider after the first row and column.
export function mosaic(table, frames, size, channels) {
  const at = (index) => index * (size + GAP) + (index ? 3 * GAP : 0);
  const width = at(table[0].length - 1) + size;
  const height = at(table.length - 1) + size;
  const pixels = new Uint8Array(frames * width * height * 4);
  table.forEach((row, y) => row.forEach((cell, x) => {
    if (!cell) return;
    for (let frame = 0; frame < frames; frame++) {
      const part = rgba({ pixels: cell, frames, size, channels }, frame);
      for (let line = 0; line < size; line++) pixels.set(part.subarray(4 * size * line, 4 * size * (line + 1)), 4 * ((frame * height + at(y) + line) * width + at(x)));
    }
  }));
  return { pixels, frames, width, height };
}

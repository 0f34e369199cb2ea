// Clips as animated GIF: one palette for all frames, enlarged pixels.

import { rgba } from "./sheets.js";

const SCALE = 4;
const COLOURS = 255; // and one for transparent pixels
const CLEAR = 255;
const SHIFT = 3; // colours differ in the first 5 bits of each channel

export function encodeGif(clip, fps) {
  const { frames, size, width = size, height = size } = clip;
  const images = Array.from({ length: frames }, (_, frame) => rgba(clip, frame));
  const { palette, indexOf } = paletteOf(images);
  const [wide, high] = [width * SCALE, height * SCALE];
  const short = (value) => [value & 255, value >> 8];
  const bytes = [..."GIF89a"].map((letter) => letter.charCodeAt(0));
  bytes.push(...short(wide), ...short(high), 0xf7, 0, 0, ...palette);
  bytes.push(0x21, 0xff, 11, ...[..."NETSCAPE2.0"].map((letter) => letter.charCodeAt(0)), 3, 1, 0, 0, 0);
  const parts = [Uint8Array.from(bytes)];
  const delay = Math.max(2, Math.round(100 / fps));
  for (const image of images) {
    const indices = new Uint8Array(wide * high);
    for (let y = 0; y < high; y++) {
      for (let x = 0; x < wide; x++) indices[y * wide + x] = indexOf(image, Math.floor(y / SCALE) * width + Math.floor(x / SCALE));
    }
    parts.push(Uint8Array.from([0x21, 0xf9, 4, 0x09, ...short(delay), CLEAR, 0, 0x2c, 0, 0, 0, 0, ...short(wide), ...short(high), 0, 8]));
    parts.push(compressed(indices), Uint8Array.of(0));
  }
  parts.push(Uint8Array.of(0x3b));
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}

// Return a palette by median cut, and a function that returns the index of a pixel.
function paletteOf(images) {
  const counts = new Map();
  const keyOf = (image, at) => ((image[4 * at] >> SHIFT) << 10) | ((image[4 * at + 1] >> SHIFT) << 5) | (image[4 * at + 2] >> SHIFT);
  for (const image of images) {
    for (let at = 0; at < image.length / 4; at++) {
      if (!image[4 * at + 3]) continue;
      const key = keyOf(image, at);
      const sum = counts.get(key) ?? counts.set(key, [0, 0, 0, 0]).get(key);
      for (let channel = 0; channel < 3; channel++) sum[channel] += image[4 * at + channel];
      sum[3]++;
    }
  }
  const all = [...counts].map(([key, sum]) => ({ key, count: sum[3], mean: sum.slice(0, 3).map((value) => value / sum[3]) }));
  const spread = (box) => Math.max(...[0, 1, 2].map((channel) => range(box, channel)));
  const boxes = [all];
  while (boxes.length < COLOURS) {
    const widest = boxes.reduce((best, box, index) => (spread(box) > spread(boxes[best]) ? index : best), 0);
    const box = boxes[widest];
    if (!(spread(box) > 0)) break;
    const channel = [0, 1, 2].reduce((best, one) => (range(box, one) > range(box, best) ? one : best), 0);
    box.sort((one, two) => one.mean[channel] - two.mean[channel]);
    boxes.splice(widest, 1, box.slice(0, box.length >> 1), box.slice(box.length >> 1));
  }
  const palette = new Uint8Array(3 * 256);
  const indices = new Map();
  boxes.forEach((box, index) => {
    const count = box.reduce((sum, one) => sum + one.count, 0) || 1;
    for (let channel = 0; channel < 3; channel++) palette[3 * index + channel] = box.reduce((sum, one) => sum + one.count * one.mean[channel], 0) / count;
    for (const one of box) indices.set(one.key, index);
  });
  return { palette, indexOf: (image, at) => (image[4 * at + 3] ? indices.get(keyOf(image, at)) : CLEAR) };
}

function range(box, channel) {
  let [low, high] = [Infinity, -Infinity];
  for (const { mean } of box) [low, high] = [Math.min(low, mean[channel]), Math.max(high, mean[channel])];
  return box.length > 1 ? high - low : 0;
}

// LZW with 8-bit symbols, in blocks of at most 255 bytes.
function compressed(indices) {
  const [clear, end] = [256, 257];
  const bytes = [];
  let [held, bits, size, table] = [0, 0, 9, new Map()];
  const write = (code) => {
    held |= code << bits;
    for (bits += size; bits >= 8; bits -= 8, held >>>= 8) bytes.push(held & 255);
  };
  write(clear);
  let current = indices[0];
  for (let at = 1; at < indices.length; at++) {
    const key = (current << 8) | indices[at];
    const known = table.get(key);
    if (known !== undefined) {
      current = known;
      continue;
    }
    write(current);
    const code = 258 + table.size;
    if (code === 4096) {
      write(clear);
      [size, table] = [9, new Map()];
    } else {
      if (code === 1 << size) size++;
      table.set(key, code);
    }
    current = indices[at];
  }
  write(current);
  write(end);
  if (bits) bytes.push(held & 255);
  const blocks = new Uint8Array(bytes.length + Math.ceil(bytes.length / 255));
  for (let from = 0, to = 0; from < bytes.length; from += 255, to += 256) {
    const block = bytes.slice(from, from + 255);
    blocks[to] = block.length;
    blocks.set(block, to + 1);
  }
  return blocks;
}

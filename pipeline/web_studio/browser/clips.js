// The clips that come with the edition: one PNG each, with all frames.

export function find(facts, kind, key) {
  return facts.clips[kind]?.find((entry) => entry.key === key);
}

// Return one page of a list, as /api/clips does.
export function page(facts, { kind, label = [], offset = 0, limit = 24 }) {
  const filters = {};
  for (const one of [label].flat()) {
    const [name, ...value] = one.split(":");
    (filters[name] ??= []).push(value.join(":"));
  }
  const found = (facts.clips[kind] ?? []).filter((entry) =>
    Object.entries(filters).every(([name, values]) => values.includes(name === "identity" ? entry.identity : entry.labels[name])));
  return { total: found.length, offset, clips: found.slice(offset, offset + limit) };
}

// Return the pixels of a sheet: bytes [T, H, W, C].
export async function pixels(sheet) {
  const image = new Image();
  image.src = sheet.uri;
  await image.decode();
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { width, height, frames, rows, channels } = sheet;
  const bytes = new Uint8Array(frames * width * height * channels);
  for (let frame = 0; frame < frames; frame++) {
    const { data } = context.getImageData(width * Math.floor(frame / rows), height * (frame % rows), width, height);
    for (let at = 0; at < width * height; at++) {
      for (let channel = 0; channel < channels; channel++) bytes[(frame * width * height + at) * channels + channel] = data[4 * at + channel];
    }
  }
  return bytes;
}

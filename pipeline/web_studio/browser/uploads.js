// Uploaded clips, decoded by the browser itself, and resized as the server resizes them.

const STEP_S = 10; // time that one step of decoding may take
const EPSILON_S = 0.001; // past the start of a frame

// Return the pixels of a clip of the model's size: bytes [T, H, W, C]; an error's message says what is wrong with it.
export async function readUpload(file, model, { still }) {
  if (!file.size) throw new Error("the file is empty");
  const { clip_frames: count, fps, frame_size: size, channels, limits } = model;
  const shrink = (source, width, height) => {
    if (width * height > limits.frame_pixels) throw new Error(`it is too large (${width}x${height}, at most ${limits.frame_pixels} pixels a frame)`);
    return resized(source, width, height, size, channels);
  };
  const frames = (await animated(file, count, fps, shrink)) ?? (await picture(file, shrink)) ?? (await video(file, count, fps, limits, shrink));
  if (frames.length === 1) {
    if (!still) throw new Error("is a still picture, which shows no action; give a video");
    while (frames.length < count) frames.push(frames[0]);
  }
  if (frames.length < count) throw new Error(`too short: ${frames.length} frames at ${fps} per second, ${count} are needed`);
  const pixels = new Uint8Array(count * frames[0].length);
  frames.slice(0, count).forEach((frame, number) => pixels.set(frame, number * frame.length));
  return pixels;
}

async function animated(file, count, fps, shrink) {
  if (!("ImageDecoder" in globalThis) || !file.type || !(await ImageDecoder.isTypeSupported(file.type))) return null;
  const decoder = new ImageDecoder({ type: file.type, data: await file.arrayBuffer() });
  try {
    await decoder.tracks.ready;
    await decoder.completed;
    const total = decoder.tracks.selectedTrack.frameCount;
    if (total < 2) return null;
    const found = [];
    let end = 0;
    for (let number = 0; number < total && found.length < count; number++) {
      const { image } = await decoder.decode({ frameIndex: number });
      end += image.duration / 1e6 || 0.1;
      const frame = shrink(image, image.displayWidth, image.displayHeight);
      image.close();
      while (found.length < count && found.length / fps < end) found.push(frame);
    }
    return found;
  } catch (error) {
    if (error instanceof DOMException) throw new Error("not a picture that this browser can decode");
    throw error;
  } finally {
    decoder.close();
  }
}

async function picture(file, shrink) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return null;
  const frame = shrink(bitmap, bitmap.width, bitmap.height);
  bitmap.close();
  return [frame];
}

async function video(file, count, fps, limits, shrink) {
  const player = document.createElement("video");
  const url = URL.createObjectURL(file);
  Object.assign(player, { muted: true, preload: "auto", src: url });
  try {
    await event(player, "loadeddata");
    if (player.duration > limits.video_seconds) throw new Error(`it is too long (${Math.round(player.duration)} s, at most ${limits.video_seconds})`);
    const found = [];
    while (found.length < count && found.length / fps <= player.duration) {
      player.currentTime = found.length / fps + EPSILON_S;
      await event(player, "seeked");
      found.push(shrink(player, player.videoWidth, player.videoHeight));
    }
    return found;
  } finally {
    player.removeAttribute("src");
    player.load();
    URL.revokeObjectURL(url);
  }
}

function event(player, name) {
  return new Promise((done, failed) => {
    const refuse = () => failed(new Error("not a video or picture that this browser can decode; give MP4, WebM, GIF, PNG or JPEG"));
    const late = setTimeout(refuse, 1000 * STEP_S);
    player.addEventListener(name, () => (clearTimeout(late), done()), { once: true });
    player.addEventListener("error", () => (clearTimeout(late), refuse()), { once: true });
  });
}

// Return the centre square of an image over black, as bytes [size, size, C].
function resized(source, width, height, size, channels) {
  const side = Math.min(width, height);
  const near = Math.min(side, 4 * size); // the browser reduces larger ones first
  const canvas = new OffscreenCanvas(near, near);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.fillRect(0, 0, near, near);
  context.drawImage(source, (width - side) / 2, (height - side) / 2, side, side, 0, 0, near, near);
  const { data } = context.getImageData(0, 0, near, near);
  const taps = cubicTaps(near, size);
  const lines = new Float32Array(near * size * 3);
  for (let y = 0; y < near; y++) {
    taps.forEach(([start, weights], x) => weights.forEach((weight, tap) => {
      for (let channel = 0; channel < 3; channel++) lines[(y * size + x) * 3 + channel] += weight * data[4 * (y * near + start + tap) + channel];
    }));
  }
  const pixels = new Float32Array(size * size * 3);
  taps.forEach(([start, weights], y) => weights.forEach((weight, tap) => {
    for (let at = 0; at < size * 3; at++) pixels[y * size * 3 + at] += weight * lines[(start + tap) * size * 3 + at];
  }));
  const bytes = new Uint8Array(new Uint8ClampedArray(pixels).buffer);
  if (channels === 3) return bytes;
  return Uint8Array.from({ length: size * size }, (_, at) => Math.round(0.299 * bytes[3 * at] + 0.587 * bytes[3 * at + 1] + 0.114 * bytes[3 * at + 2]));
}

// For each result pixel, the first source pixel and the weights from there on: Pillow's bicubic filter.
function cubicTaps(from, to) {
  const scale = from / to;
  const reach = Math.max(1, scale);
  const cubic = (x) => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0);
  return Array.from({ length: to }, (_, index) => {
    const centre = (index + 0.5) * scale;
    const start = Math.max(0, Math.floor(centre - 2 * reach + 0.5));
    const end = Math.min(from, Math.floor(centre + 2 * reach + 0.5));
    const weights = Array.from({ length: end - start }, (_, tap) => cubic(Math.abs((start + tap + 0.5 - centre) / reach)));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return [start, weights.map((weight) => weight / total)];
  });
}

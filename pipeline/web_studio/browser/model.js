// The model in ONNX Runtime: codes of a clip, and clips of codes. Pixels are bytes [T, H, W, C].

export class Model {
  #facts;
  #fetched;
  #sessions = {};
  #runtime = null;
  #last = Promise.resolve();

  // `fetched(name)` returns the bytes of a file of the model.
  constructor(facts, fetched) {
    this.#facts = facts;
    this.#fetched = fetched;
  }

  async #start() {
    const runtime = await import("./ort.js");
    // One thread: more of them need headers that a plain host does not send.
    runtime.env.wasm.numThreads = 1;
    const answer = await fetch(new URL("./ort.wasm", import.meta.url));
    if (!answer.ok) throw new Error("the file page/ort.wasm is missing");
    runtime.env.wasm.wasmBinary = await answer.arrayBuffer();
    return runtime;
  }

  // Run a file of the model; one run at a time.
  #run(name, inputs) {
    const work = async () => {
      const { InferenceSession, Tensor } = await (this.#runtime ??= this.#start());
      this.#sessions[name] ??= this.#fetched(`${name}.onnx`).then((bytes) => InferenceSession.create(bytes, { executionProviders: ["wasm"] }));
      const tensors = Object.entries(inputs).map(([key, [data, shape]]) => [key, new Tensor("float32", Float32Array.from(data), shape)]);
      const outputs = await (await this.#sessions[name]).run(Object.fromEntries(tensors));
      return Object.fromEntries(Object.entries(outputs).map(([key, tensor]) => [key, tensor.data]));
    };
    this.#last = this.#last.then(work, work);
    return this.#last;
  }

  // Return codes, reconstruction and likeness to the training data of a clip.
  async encode(pixels) {
    const { clip_frames: frames, frame_size: size, channels } = this.#facts.model;
    const values = toFloats(pixels, frames, size, channels);
    const { latent, static: identity, pose, dynamics } = await this.#run("encode", { frames: [values, [1, frames, channels, size, size]] });
    const decoded = await this.#decoded(pose, identity);
    const found = { pixels, code: { static: identity, dynamics }, reconstruction: toPixels(decoded, frames, size, channels) };
    if (!this.#facts.likelihoods) return found;
    const { density } = await this.#run("density", { latent: [latent, [1, latent.length]] });
    const drawn = (this.#facts.drawn ??= new Float32Array((await this.#fetched("likelihoods.f32")).buffer));
    const share = drawn.filter((one) => one < density[0]).length / drawn.length;
    const error = values.reduce((sum, value, index) => sum + (value - decoded[index]) ** 2, 0) / values.length;
    return { ...found, share, psnr_db: -10 * Math.log10(Math.max(error, 1e-10)) };
  }

  // Return the pixels of a clip of any length.
  async decode(identity, dynamics, length) {
    const { clip_frames: frames, frame_size: size, channels } = this.#facts.model;
    const pixels = new Uint8Array(Math.ceil(length / frames) * frames * size * size * channels);
    let state = new Float32Array(this.#facts.state_size);
    for (let start = 0; start < length; start += frames) {
      const found = await this.#run("poses", {
        dynamics: [dynamics, [1, dynamics.length]], state: [state, [1, state.length]], started: [[start ? 1 : 0], [1, 1]],
      });
      state = found.next;
      pixels.set(toPixels(await this.#decoded(found.pose, identity), frames, size, channels), start * size * size * channels);
    }
    return pixels.subarray(0, length * size * size * channels);
  }

  async #decoded(pose, identity) {
    const frames = this.#facts.model.clip_frames;
    const inputs = { pose: [pose, [1, frames, pose.length / frames]], static: [identity, [1, identity.length]] };
    return (await this.#run("decode", inputs)).frames;
  }
}

// [T, H, W, C] bytes -> [T, C, H, W] in [0, 1].
function toFloats(pixels, frames, size, channels) {
  const plane = size * size;
  const values = new Float32Array(frames * plane * channels);
  for (let frame = 0; frame < frames; frame++) {
    for (let channel = 0; channel < channels; channel++) {
      for (let at = 0; at < plane; at++) values[(frame * channels + channel) * plane + at] = pixels[(frame * plane + at) * channels + channel] / 255;
    }
  }
  return values;
}

function toPixels(values, frames, size, channels) {
  const plane = size * size;
  const pixels = new Uint8ClampedArray(frames * plane * channels); // rounds to the nearest
  for (let frame = 0; frame < frames; frame++) {
    for (let channel = 0; channel < channels; channel++) {
      for (let at = 0; at < plane; at++) pixels[(frame * plane + at) * channels + channel] = 255 * values[(frame * channels + channel) * plane + at];
    }
  }
  return new Uint8Array(pixels.buffer);
}

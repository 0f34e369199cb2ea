// The API without a server: it takes the place of page/api.js, with the same calls and answers.

import * as clips from "./clips.js";
import { applyWalk, blend, fromText, toText } from "./codes.js";
import { encodeGif } from "./gif.js";
import { Model } from "./model.js";
import { mosaic, repeated, sheetOf } from "./sheets.js";
import { readUpload } from "./uploads.js";

export class Refused extends Error {}

const FOLDER = new URL("../model/", import.meta.url);
const encoded = new Map(); // reference of a stored clip -> its codes and reconstruction
let opened = null;

async function fetched(name) {
  const answer = await fetch(new URL(name, FOLDER)).catch(() => null);
  if (!answer?.ok) throw new Refused(`The file model/${name} is missing; copy the complete folder.`);
  return answer;
}

async function floats(name) {
  return new Float32Array(await (await fetched(name)).arrayBuffer());
}

function edition() {
  opened ??= (async () => {
    const facts = await (await fetched("facts.json")).json();
    return { facts, model: new Model(facts, async (name) => new Uint8Array(await (await fetched(name)).arrayBuffer())) };
  })();
  return opened;
}

function stopIfLeft(signal) {
  if (signal?.aborted) throw new DOMException("a newer request replaces it", "AbortError");
}

async function codesOf(reference) {
  const { facts, model } = await edition();
  const [kind, ...rest] = reference.split(":");
  const value = rest.join(":");
  if (kind === "code") {
    const code = fromText(value, facts);
    if (!code) throw new Refused(`the codes in this link are damaged or of another model than ${facts.model.name}`);
    return { code };
  }
  if (kind === "sample") {
    const size = facts.static_size + facts.dynamics_size;
    if (!/^\d+$/.test(value) || Number(value) >= facts.model.limits.samples) {
      throw new Refused(`${reference}: this edition holds the samples 0 to ${facts.model.limits.samples - 1}`);
    }
    const samples = (facts.samples ??= await floats("samples.f32"));
    const numbers = samples.slice(size * Number(value), size * (Number(value) + 1));
    return { code: { static: numbers.slice(0, facts.static_size), dynamics: numbers.slice(facts.static_size) } };
  }
  if (!encoded.has(reference)) {
    const entry = clips.find(facts, kind, value);
    if (!entry) throw new Refused(`${reference}: there is no clip with this key`);
    const found = clips.pixels(entry.clip).then((pixels) => model.encode(pixels));
    found.catch(() => encoded.delete(reference));
    encoded.set(reference, found);
  }
  return encoded.get(reference);
}

// Return what the page calls a reading, as /api/read does.
async function reading(of, file, { still = true } = {}) {
  const { facts, model } = await edition();
  const fps = facts.model.fps;
  let name, found, clip = null;
  if (file) {
    name = file.name || "upload";
    const pixels = await readUpload(file, facts.model, { still }).catch((error) => {
      throw new Refused(`${name}: ${error.message}`);
    });
    found = await model.encode(pixels);
    clip = sheetOf({ pixels, frames: facts.model.clip_frames, size: facts.model.frame_size }, fps, `the clip ${name}`);
  } else {
    const [kind, ...rest] = of.split(":");
    name = { code: "a clip of this link", sample: "a sample" }[kind] ?? of;
    found = await codesOf(of);
    if (found.pixels) clip = { ...clips.find(facts, kind, rest.join(":")).clip, alt: `the clip ${name}` };
  }
  const { code } = found;
  const frames = found.reconstruction ?? (await model.decode(code.static, code.dynamics, facts.model.clip_frames));
  const { share = null, psnr_db = null } = found;
  const warning = share === null || share >= facts.rare ? null : facts.unlike
    .replace("{name}", () => name).replace("{rarer}", (100 * (1 - share)).toFixed(1)).replace("{psnr_db}", psnr_db.toFixed(1));
  const reconstruction = sheetOf({ pixels: frames, frames: facts.model.clip_frames, size: facts.model.frame_size }, fps, `${name}, reconstructed`);
  return { answer: { name, code: `code:${toText(code)}`, clip, reconstruction, share, psnr_db, warning }, code, pixels: found.pixels ?? frames };
}

// Each call returns the clip that it shows as `frames`, and the rest of its answer as `answer(sheet)`.
const calls = {
  async transfer(content, signal) {
    const [who, how] = [await reading(content.get("who"), content.get("who_file")), await reading(content.get("how"), content.get("how_file"), { still: false })];
    stopIfLeft(signal);
    const made = await generated(who.code.static, how.code.dynamics, Number(content.get("frames")));
    const label = `${who.answer.name} doing what ${how.answer.name} does`;
    return { made, label, answer: (result) => ({ identity: who.answer, action: how.answer, result }) };
  },
  async explore({ static: identities, dynamics, walk, frames }, signal) {
    const { facts } = await edition();
    const mixed = async (parts, side) => blend(await Promise.all(parts.map(async ({ of }) => (await codesOf(of)).code[side])), parts.map(({ weight }) => weight));
    let code = await mixed(identities, "static");
    if (walk) {
      const factor = facts.factors.find((one) => one.name === walk.factor);
      if (!factor?.ends[walk.towards]) throw new Refused(`there is no factor ${walk.factor} with a value ${walk.towards}`);
      code = applyWalk(code, factor, walk, facts.static_groups);
    }
    stopIfLeft(signal);
    const made = await generated(code, await mixed(dynamics, "dynamics"), frames);
    return { made, label: "clip of the blended codes", answer: (result) => ({ result }) };
  },
  async grid({ identities, actions, frames }, signal) {
    const { facts } = await edition();
    const [columns, rows] = [[], []];
    for (const of of identities) columns.push(await reading(of));
    for (const of of actions) rows.push(await reading(of));
    const length = frames ?? facts.model.clip_frames;
    const shown = ({ pixels }) => repeated(pixels, length, facts.model.clip_frames);
    const table = [[null, ...columns.map(shown)]];
    for (const how of rows) {
      const row = [shown(how)];
      for (const who of columns) {
        stopIfLeft(signal);
        row.push((await generated(who.code.static, how.code.dynamics, length)).pixels);
      }
      table.push(row);
    }
    const label = `${identities.length} identities in columns, each performing the ${actions.length} actions of the rows`;
    return { made: mosaic(table, length, facts.model.frame_size, facts.model.channels), label, answer: (grid) => ({ grid, codes: {} }) };
  },
};

async function generated(identity, dynamics, frames) {
  const { facts, model } = await edition();
  const length = frames || facts.model.clip_frames;
  return { pixels: await model.decode(identity, dynamics, length), frames: length, size: facts.model.frame_size };
}

async function called(path, content, signal) {
  try {
    return await calls[path](content, signal);
  } catch (error) {
    if (error instanceof Refused || error.name === "AbortError") throw error;
    throw new Refused(`This browser could not compute it: ${error.message ?? error}`);
  }
}

export async function get(path, query = {}) {
  const { facts } = await edition();
  if (path === "model") return facts.model;
  if (path === "factors") return { labelled: facts.labelled, factors: facts.factors.map(({ name, ends }) => ({ name, towards: Object.keys(ends) })) };
  if (path === "clips") return clips.page(facts, query);
  throw new Refused(`This edition of the studio has no ${path}.`);
}

export async function post(path, content, signal = undefined) {
  if (path === "read") return (await reading(content.get("of"), content.get("of_file"))).answer;
  const { facts } = await edition();
  const { made, label, answer } = await called(path, content, signal);
  stopIfLeft(signal);
  return answer(sheetOf(made, facts.model.fps, label));
}

export function form(fields) {
  const content = new FormData();
  for (const [name, value] of Object.entries(fields)) if (value !== undefined && value !== null) content.append(name, value);
  return content;
}

// Have the browser store what a call returns as a file.
export async function download(path, content, name) {
  const { facts } = await edition();
  const { made } = await called(path, content);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([encodeGif(made, facts.model.fps)], { type: "image/gif" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

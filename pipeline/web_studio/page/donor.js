// A slot for one clip: an upload, a stored clip, a sample, or the codes that a link holds.

import { form, post } from "./api.js";
import { animate } from "./player.js";
import { button, el, problem } from "./dom.js";
import { choose } from "./picker.js";

const readings = new Map(); // code of a clip -> what the API said of it, so that an upload is sent once

export function remember(reading) {
  const known = readings.get(reading.code);
  readings.set(reading.code, known && !reading.clip ? { ...reading, clip: known.clip, name: known.name, warning: known.warning } : reading);
  return readings.get(reading.code);
}

export function nameOf(reference) {
  const [kind, ...rest] = reference.split(":");
  if (kind === "code") return readings.get(reference)?.name ?? "clip of this link";
  if (kind === "sample") return `sample ${rest.join(":")}`;
  return rest.join(":");
}

export function known(reference) {
  return readings.get(reference);
}

// Return what the API says of a reference, or of an uploaded file.
export async function readingOf(reference, signal) {
  if (typeof reference === "string" && readings.has(reference)) return readings.get(reference);
  const fields = typeof reference === "string" ? { of: reference } : { of_file: reference };
  const reading = remember(await post("read", form(fields), signal));
  if (typeof reference === "string") readings.set(reference, reading);
  return reading;
}

// Return the three ways to choose a clip; `take` gets a reference, `failed` a message.
export function chooser({ model, title, accept = `${model.accepts},image/*`, take, failed, left }) {
  const upload = async (file) => {
    const most = model.limits.upload_bytes;
    if (file.size > most) {
      failed(`${file.name} has ${Math.ceil(file.size / 1e6)} MB; at most ${most / 1e6} MB are accepted.`);
      return;
    }
    try {
      take((await readingOf(file, left)).code);
    } catch (error) {
      if (!left.aborted) failed(error.message);
    }
  };
  const file = el("input", {
    type: "file", accept, "aria-label": `${title}: upload`,
    onchange: () => {
      if (file.files[0]) upload(file.files[0]);
      file.value = "";
    },
  });
  const stored = async () => {
    const chosen = await choose(model, title);
    if (chosen) take(chosen);
  };
  return el(
    "div", { class: "row" },
    model.collections.length ? button("Choose a clip", stored, { "aria-label": `${title}: choose a clip` }) : null,
    button("Sample", () => take(sample(model)), { "aria-label": `${title}: sample from the prior` }),
    el("label", { class: "button upload" }, "Upload", file),
  );
}

export function sample({ limits }) {
  return `sample:${Math.floor(Math.random() * Math.min(limits.samples, 100_000))}`;
}

export class Slot {
  constructor({ title, hint, accept, model, changed }) {
    this.changed = changed;
    this.model = model;
    this.pictures = el("div", { class: "pictures" });
    this.notes = el("div", {});
    this.name = el("span", { class: "name soft small" });
    const file = el("input", { type: "file", accept, onchange: () => file.files[0] && this.upload(file.files[0]) });
    this.root = el(
      "section", { class: "slot panel", "aria-label": title },
      el("h2", {}, title), el("p", { class: "soft small" }, hint), this.pictures, this.name, this.notes,
      el(
        "div", { class: "row" },
        model.collections.length ? button("Choose a clip", async () => this.take(await choose(model, title))) : null,
        button("Sample", () => this.take(sample(model))),
        el("label", { class: "button upload" }, "Upload", file),
      ),
    );
    this.root.addEventListener("dragover", (event) => event.preventDefault());
    this.root.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files[0]) this.upload(event.dataTransfer.files[0]);
    });
  }

  // The fields of the form of `/api/transfer` for this slot.
  fields(name) {
    return this.file ? { [`${name}_file`]: this.file } : { [name]: this.reference };
  }

  take(reference) {
    if (!reference) return;
    this.file = null;
    this.reference = reference;
    this.changed();
  }

  upload(file) {
    const most = this.model.limits.upload_bytes;
    if (file.size > most) {
      this.notes.replaceChildren(problem(`${file.name} has ${Math.ceil(file.size / 1e6)} MB; at most ${most / 1e6} MB are accepted.`));
      return;
    }
    this.file = file;
    this.changed();
  }

  show(reading) {
    if (this.file) this.reference = reading.code;
    this.file = null;
    const found = remember(reading);
    const picture = (sheet, text) => el("figure", {}, animate(sheet), el("figcaption", {}, text));
    this.pictures.replaceChildren(
      ...(found.clip ? [picture(found.clip, "clip")] : []),
      picture(found.reconstruction, found.psnr_db === null ? "decoded" : `reconstruction, ${found.psnr_db.toFixed(1)} dB`),
    );
    this.name.textContent = nameOf(this.reference.startsWith("code:") ? found.code : this.reference);
    this.notes.replaceChildren(...(found.warning ? [problem(found.warning)] : []));
  }
}
